"""The clock of a rollout: learnt from earlier rollouts when it starts, and kept as text beside its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from orchestrator.core.evidence.allowance import clock_alpha
from orchestrator.core.evidence.clock import Clock, bind_clock, learn
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import Policy
from orchestrator.services.store import Reading

PAST_ROLLOUTS: Final = 8
"""Completed rollouts that are learnt from, the newest."""

OUTCOMES_OF_EACH: Final = 4_000
"""Their newest outcomes that are read: so a start costs the same after a rollout of a thousand devices and of ten
million."""

_decoder: Final = msgspec.json.Decoder(Clock)


def learn_clock(r: Reading, policy: Policy, devices: int, *, now: datetime) -> Clock | None:
    """The clock of a rollout of so many devices that starts at ``now``; None where there is nothing to learn from, or
    the policy leaves it nothing to say.

    Only devices that began ``silent_after`` ago are learnt from: of them all are known, also those never heard of."""
    silent = policy.tolerate.silence(learnt=True)
    alpha = clock_alpha(false_halt=policy.false_halt, devices=devices)
    if silent.then is Answer.COUNT or not alpha:
        return None
    past = r.past_delays(rollouts=PAST_ROLLOUTS, of_each=OUTCOMES_OF_EACH, until=now - policy.silent_after)
    return bind_clock(
        learn(past),
        tolerance=silent.at_most,
        alpha=alpha,
        answer=silent.then,
        silent_after=policy.silent_after,
    )


def as_text(clock: Clock | None) -> str | None:
    """As it is stored with its rollout."""
    return None if clock is None else msgspec.json.encode(clock, order="sorted").decode()


@lru_cache(maxsize=64)
def from_text(text: str) -> Clock:
    """The inverse of ``as_text``."""
    return _decoder.decode(text)


def dark_of(text: str | None) -> Darkness | None:
    """The darkness that was learnt with it; None without a clock."""
    return None if text is None else from_text(text).dark


def noted(text: str | None) -> dict[str, Any]:
    """What a start's journal entry says of it: from how many devices it was learnt, how dark these were, what is
    tolerated on top of that, and its SHA-256."""
    if text is None:
        return {}
    clock = from_text(text)
    return {
        "clock": {
            "devices": clock.devices,
            "dark": clock.dark._asdict(),
            "tolerance": clock.tolerance,
            "answer": clock.answer.value,
            **({} if clock.halts is None else {"halts": clock.halts}),
            "digest": hashlib.sha256(text.encode()).hexdigest(),
        }
    }


def dark_noted(facts: Mapping[str, Any]) -> Darkness | None:
    """The darkness that a journal entry has ``noted``; None when it has noted no clock. A decision's entry has what
    the clock had seen under the same name."""
    clock = facts.get("clock")
    dark = clock.get("dark") if isinstance(clock, Mapping) else None
    return Darkness(**dark) if isinstance(dark, Mapping) else None
