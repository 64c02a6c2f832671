"""Whatever order reports come in, and however often: the same state (P10, RULES 3.4)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.core.facts import Facts, RolloutState
from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import KINDS_OF_FAILURE, EventKind, UpdateStatus
from orchestrator.services.messages import ReportedEvent
from tests.services.fleet_world import World

DEVICES = 12
RUNS_IT = "runs 42"
"""A check-in of a device that runs the Target."""

CODED = [f"{kind} {code}" for kind in KINDS_OF_FAILURE for code in ("NET-1", "E17", "other")]
"""Failures with a code beside them."""

# All kinds: neither policy tells devices to stop. Where one does, whether a device was told to before it says that it
# has is another story, not another order (see test_stops).
SAID = [str(each) for each in EventKind]
MESSAGES = st.lists(
    st.tuples(st.integers(0, DEVICES - 1), st.sampled_from([*SAID, "failed", RUNS_IT, *CODED])),
    max_size=25,
)

CLASSES = {
    "tolerate": {
        "verify_failed": "1%",
        "codes": {
            "modem": {"match": ["NET-*"], "at_most": "10%", "then": "hold"},
            "disk": {"match": ["E17"], "at_most": "5%"},
        },
    },
    "unhealthy_before": "exclude",
}
"""A policy that tells failures apart, under which every fourth device stands apart."""


def event_of(world: World, what: str) -> ReportedEvent:
    kind, _, code = what.partition(" ")
    return world.event(kind, code=code or None)


def told(world: World, fleet: list[str], messages: list[tuple[int, str]], dice: random.Random | None) -> None:
    """All at one moment, each once and in order; with ``dice`` in any order, some of it several times, some of it
    together in one report."""
    events = [(number, what, event_of(world, what) if what != RUNS_IT else None) for number, what in messages]
    if dice is not None:
        events += dice.choices(events, k=len(events) // 2) if events else []
        dice.shuffle(events)
    waiting: dict[int, list[ReportedEvent]] = {}
    for number, _, event in events:
        if event is None:
            world.check_in(fleet[number], 42)
            continue
        waiting.setdefault(number, []).append(event)
        if dice is None or dice.random() < 0.5:
            world.report(fleet[number], *waiting.pop(number))
    for number, left in waiting.items():
        world.report(fleet[number], *left)
    world.tick()


def state_of(world: World) -> tuple[Facts, RolloutState, dict[str, tuple[UpdateStatus, frozenset[Outcome]]]]:
    row = world.row()
    with world.store.reading() as r:
        updates = {name: (each.update.status, each.update.bad) for name, each in r.list_updates(row.key, limit=100)}
        assert not r.check()
    return world.facts(), row.state, updates


def crossed(facts: Facts) -> list[object]:
    return [replace(monitor, crossed_at=None if monitor.crossed_at is None else (0, 0)) for monitor in facts.monitors]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MESSAGES, st.integers(0, 2**32), st.sampled_from([{}, CLASSES]))
@example([(0, "refused"), (0, RUNS_IT)], 0, {})
@example([(0, "cancelled"), (0, RUNS_IT)], 0, {})
def test_any_order_and_any_repetition_ends_in_the_same_state(
    messages: list[tuple[int, str]], seed: int, policy: dict[str, Any]
) -> None:
    """Tolerance 2 % of small fleets: three failures halt it. Whether the halt comes early or late among the messages,
    what stands at the end is the same: who came to what, every tally, every monitor, the budget, and the halt. Only at
    which place a monitor crossed is kept as it was when it was proved."""
    found = []
    for dice in (None, random.Random(seed)):
        world = World()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.services.rollouts.secrets.token_hex", lambda size: "the same places in both")
            world.fleet(0)
            fleet = world.enroll(DEVICES)
            world.apply(policy=policy)
        try:
            for number, device in enumerate(fleet):
                assert world.check_in(device, healthy=number % 4 != 0)
            told(world, fleet, messages, dice)
            found.append(state_of(world))
        finally:
            world.close()
    (one, plain, updates), (other, shuffled, again) = found
    assert updates == again
    assert crossed(one) == crossed(other) and one.budgets == other.budgets
    assert one.waves == other.waves
    assert plain.status is shuffled.status
    if plain.status is RolloutStatus.RUNNING:
        assert replace(plain, epoch=0) == replace(shuffled, epoch=0)
