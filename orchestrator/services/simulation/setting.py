"""What is played and what came of it: the values that go into a simulation and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol

from orchestrator.core.outcomes import Outcome
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.services.simulation.fleet import Shape
from orchestrator.services.simulation.scenarios import Scenario

START: Final = datetime(2026, 5, 4, 7, 0, tzinfo=UTC)
"""A Monday, nine in the morning in Berlin: a moment at which people start rollouts."""


class Ending(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    HALTED = "halted"
    HELD = "held"
    """It, or one of its waves, waits for a person, and nobody came."""
    UNFINISHED = "unfinished"
    """It was still under way when the time to be played was over."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is played.

    ``offline``: the share of devices without a connection at the start. ``budgets`` False: without the hard stops, as
    the guarantee about false halts is stated. ``insists``: a person lets every wave that is held pass at once, so that
    as many devices as possible are at stake. ``seed``: of all runs together. ``days``: the longest time played.
    ``history``: devices of an earlier release from which the fleet's clock is learnt; 0 for none.
    ``tick``: seconds between two looks while reports come in; every bad outcome is looked at at once in any case.
    """

    policy: Policy
    spec: RolloutFile
    shape: Shape
    scenario: Scenario
    offline: float = 0.0
    budgets: bool = True
    insists: bool = False
    seed: int = 1
    days: int = 60
    tick: int = 60
    history: int = 2_000


@dataclass(frozen=True, slots=True)
class WavePlayed:
    """A wave's course, in hours since the start; None for what never came. ``held``: the kind of reason for which it
    waited for a person. ``devices``: reachable ones that were given a place."""

    wave: str
    devices: int
    opened: float | None = None
    baked: float | None = None
    passed: float | None = None
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A segment that was left out: after so many ``hours``, when ``bad`` of its devices were known to be, the last that
    counted among its first ``places``. ``reported``: its devices with an outcome then, ``in_flight`` those without."""

    segment: str
    hours: float
    bad: int
    places: int
    reported: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Played:
    """One run. ``hours`` from the start to its end: when it was completed, was stopped, or nothing more came.

    ``failed``: devices whose bad outcome, of a class that halts, was known then; ``doomed``: others under way then
    that would have come to one; ``exposed``: devices that had been given the offer. ``cause``: what stopped it, a
    monitor's or a budget's name or the kind of reason; ``sentence`` says it for people. ``bad``: known outcomes by
    class. ``excluded``: segments left out, in that order. ``last_start``: when the last device began to install, in
    hours; ``begun``: how many had begun by the end.
    """

    run: int
    ending: Ending
    hours: float
    failed: int
    doomed: int
    exposed: int
    cause: str = ""
    sentence: str = ""
    bad: Mapping[Outcome, int] = field(default_factory=dict)
    waves: tuple[WavePlayed, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    last_start: float = 0.0
    begun: int = 0


class Watcher(Protocol):
    """Another rule in place of the monitors: told of each outcome in the order of reports, it says when to halt."""

    def outcome(self, wave: str, members: int, bad: bool) -> bool:
        """``members``: devices of the wave; whether the rollout is to be halted now."""
