"""What a replay comes to, and what both kinds of it share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.decisions import AskGates, Decision, EnsureDeltas, OpenSlice, StartBake
from orchestrator.core.evidence.recounting import Recount
from orchestrator.services.replay_steps import Steps

MOST_KEPT: Final = 10_000
"""Divergences that are told one by one; of more the number is told."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """One point at which the replay differs from the record. ``entry``: the entry, or the one before; ``evidence``:
    the row of the evidence log that was counted last. ``what``: ``decision``, ``stop`` (between two looks), ``facts``,
    ``record`` or ``journal``. ``why``: under another policy, what it waited for."""

    what: str
    at: datetime
    entry: int
    evidence: int
    recorded: str
    replayed: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """When a rollout was stopped, and why; ``bad``: bad outcomes that had been counted by then."""

    at: datetime
    evidence: int
    bad: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to. ``looks``: those that decided, ``decisions`` in them; ``outcomes``: rows of the evidence
    log. ``policy``: None for what it was bound to; under another one, ``stopped`` and ``would_stop`` are the first
    stops of the record and of that policy. ``differs``: how many divergences there are, of which ``divergences`` has
    the first."""

    rollout: str
    policy: str | None
    entries: int
    looks: int
    decisions: int
    outcomes: int
    differs: int
    divergences: tuple[Divergence, ...]
    stopped: Stop | None = None
    would_stop: Stop | None = None

    @property
    def same(self) -> bool:
        return self.differs == 0


def described(decisions: Sequence[Decision]) -> str:
    """``open canary, open a slice of 20 of canary``; ``nothing``."""
    said = [_described(each) for each in decisions if not isinstance(each, EnsureDeltas | AskGates)]
    return ", ".join(said) or "nothing"


def _described(decision: Decision) -> str:
    match decision:
        case OpenSlice():
            which = "the last slice" if decision.size is None else f"a slice of {decision.size}"
            return f"open {which} of {decision.wave}"
        case StartBake():
            return f"begin the bake of {decision.wave}"
        case _:  # a verb and what it is done to, as the class is named: open canary, exclude hardware_id=rpi4, halt
            verb = re.split("(?=[A-Z])", type(decision).__name__)[1].lower()
            about = getattr(decision, "wave", None) or getattr(decision, "segment", None)
            return verb if about is None else f"{verb} {about}"


def may_stop(recount: Recount, devices_are_few: bool) -> bool:
    """Whether ``safety`` could say anything; most outcomes are not worth asking."""
    return (
        devices_are_few
        or any(monitor.crossed_at is not None for monitor in recount.monitors.values())
        or any(budget.reached for budget in recount.budgets.values())
    )


class Diverging:
    """Divergences as they are found: the first ``MOST_KEPT`` of them, and how many there are."""

    def __init__(self, steps: Steps) -> None:
        self.kept: list[Divergence] = []
        self.many = 0
        self._steps = steps

    def add(self, what: str, at: datetime, entry: int, recorded: str, replayed: str, why: str = "") -> None:
        self.many += 1
        if len(self.kept) < MOST_KEPT:
            self.kept.append(Divergence(what, at, entry, self._steps.evidence, recorded, replayed, why))
