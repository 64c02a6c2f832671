"""What leaving a segment out, or taking it back in, must not free: a stop nobody accepted, a device, a wave's door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlWriting
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.safety import FIRST_BAD
from orchestrator.core.states import ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import Refused
from orchestrator.services.chronicle import rules_of
from orchestrator.services.records import Moved, RolloutRow
from orchestrator.services.replaying import Replayer
from tests.services.fleet_world import TAG, World

NAME = "lmp-42"
EAST, WEST = {"site": "east"}, {"site": "west"}
POLICY: dict[str, Any] = {
    "policy": "test",
    "deltas": {"within": "0s", "otherwise": "full"},
    "bake": {"at_least": "1h", "at_most": "48h"},
    "segments": ["label:site"],
}


def two_sites(world: World, east: int, west: int) -> tuple[list[str], list[str]]:
    for version in (41, 42):
        world.target(version)
    found = world.enroll(east, labels=EAST), world.enroll(west, labels=WEST)
    for device in (*found[0], *found[1]):
        world.check_in(device)
    return found


def holds(world: World) -> None:
    world.tick()
    with world.store.reading() as r:
        assert list(r.check()) == []
    assert Replayer(world.store).replay(NAME).divergences == ()


def test_a_wave_passes_without_its_excluded_devices(world: World) -> None:
    """Ten of twenty are left out: four fifths of the ten that are left must confirm, not of all twenty."""
    east, west = two_sites(world, 10, 10)
    world.apply(policy=POLICY)
    for device in (*east, *west):
        assert world.check_in(device) is not None
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    for device in east:
        world.check_in(device, 42)
    world.later(timedelta(hours=2))
    world.later(timedelta(hours=2))
    assert world.row().state.wave("all").status is WaveStatus.PASSED
    holds(world)


def test_the_first_bad_device_after_an_exclusion_is_a_first_one_again(world: World) -> None:
    """One bad device of a small wave was accepted and then left out with its site. The next one holds as well."""
    east, west = two_sites(world, 3, 4)
    for device in world.enroll(90):
        world.check_in(device)
    waves: list[dict[str, Any]] = [
        {"wave": "east", "devices": {"labels": EAST}},
        {"wave": "west", "devices": {"labels": WEST}, "after": []},
        {"wave": "rest", "devices": "all"},
    ]
    world.apply(policy=POLICY, waves=waves)
    for device in (*east, *west):
        world.check_in(device)
    world.report(west[0], "failed")
    assert world.row().state.status is RolloutStatus.HELD
    world.rollouts.resume(NAME, by="bo", accept=[FIRST_BAD], reason="its card is broken")
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    holds(world)
    assert world.row().state.status is RolloutStatus.RUNNING
    world.report(east[0], "failed")
    assert world.row().state.status is RolloutStatus.HELD
    assert world.row().state.standing.reason.kind is ReasonKind.FIRST_BAD
    holds(world)


def test_an_edit_that_forgets_a_dimension_lets_nobody_excluded_in(world: World) -> None:
    east, west = two_sites(world, 110, 110)
    world.apply(policy=POLICY, waves=[{"wave": "all", "devices": "all"}])
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    spec = RolloutFile.parse(
        {"rollout": NAME, "target": 42, "tag": TAG, "policy": "test", "waves": [{"wave": "all", "devices": "all"}]}
    )
    policy = Policy.parse({**POLICY, "segments": ["hardware_id"]})
    world.rollouts.apply(spec, policy, by="bo", yes=True, allow_wider=["all"], reason="sites are of no interest")
    assert "label:site" not in rules_of(world.row()).dimensions
    assert [device for device in west if world.check_in(device) is not None] == []
    assert any(world.check_in(device) is not None for device in east)
    holds(world)


def test_taking_a_segment_back_in_frees_nothing_that_stopped_the_rollout(world: World) -> None:
    """Halted by its failures. Whoever takes a site back in would begin every monitor anew, also those that halted it:
    refused, until they have been accepted by name."""
    east, _ = two_sites(world, 200, 20)
    world.apply(policy={**POLICY, "budget": {"failed": 200}})
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    offered = [device for device in east if world.check_in(device) is not None]
    for device in offered[:12]:
        world.report(device, "failed")
    assert world.row().state.status is RolloutStatus.HALTED
    with pytest.raises(Refused, match="would un-stop lmp-42: rollout/failed stands against it"):
        world.rollouts.include(NAME, "label:site=west", by="bo", reason="the mast is up")
    with pytest.raises(Refused, match="was stopped by rollout/failed"):
        world.rollouts.resume(NAME, by="bo")
    stopped = [each.monitor for each in world.facts().monitors if each.crossed_at]
    world.rollouts.resume(NAME, by="bo", accept=stopped, reason="seen on the bench")
    world.rollouts.include(NAME, "label:site=west", by="bo", reason="the mast is up")
    assert not world.row().state.excluded
    holds(world)


def test_an_open_wave_of_which_everybody_is_excluded_holds_as_empty(world: World) -> None:
    """Nobody of it is to come: it waits for a person at once, not for a week."""
    _, west = two_sites(world, 30, 8)
    waves: list[dict[str, Any]] = [
        {"wave": "west", "devices": {"labels": WEST}},
        {"wave": "rest", "devices": "all"},
    ]
    world.apply(policy=POLICY, waves=waves)
    for device in west[:5]:
        assert world.check_in(device) is not None
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    world.tick()
    hold = world.row().state.wave("west").hold
    assert hold is not None and hold.reason.kind is ReasonKind.EMPTY
    holds(world)
    world.rollouts.complete(NAME, by="bo", wave="west")
    world.tick()
    assert world.row().state.wave("rest").status is WaveStatus.OPEN


class _Died(Exception):
    """The process, between two steps."""


def test_a_crash_between_two_steps_of_leaving_out_is_made_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps of six updates: the order does the first, the outbox the others. It dies after two of its own; the
    next tick begins anew, and what a device reported in between is counted once."""
    east, west = two_sites(world, 10, 10)
    world.apply(policy=POLICY)
    for device in (*east, *west):
        assert world.check_in(device) is not None
    whole, calls = SqlWriting.leave_out, 0

    def step(w: SqlWriting, row: RolloutRow, *, after: int = 0, limit: int = 6) -> Moved:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise _Died
        return whole(w, row, after=after, limit=limit)

    monkeypatch.setattr(SqlWriting, "leave_out", step)
    said = world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down").sentence
    assert "10 offers not started will be withdrawn" in said
    world.tick()
    assert calls == 4, "it died on the way"
    statuses = [world.status(device) for device in west]
    assert UpdateStatus.WITHDRAWN in statuses and UpdateStatus.OFFERED in statuses
    world.report(west[-1], "installing")
    world.later(timedelta(minutes=1))
    assert {world.status(device) for device in west[:-1]} == {UpdateStatus.WITHDRAWN}
    assert world.status(west[-1]) is UpdateStatus.INSTALLING
    with world.store.reading() as r:
        assert not r.effects()
    holds(world)
