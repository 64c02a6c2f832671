"""What an order would come to, told before it is given: as it then comes, as far as no device has to be asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from orchestrator.errors import InvalidInput, NotFound, Overlap, WaveError, WrongState
from orchestrator.services.board import flows_in, flows_of
from orchestrator.services.census import Censuses
from orchestrator.services.chronicle import rules_of
from orchestrator.services.foreseeing import Foreseen
from orchestrator.services.store import Reading
from tests.services.fleet_world import World
from tests.services.test_excluding import NAME, POLICY, two_sites


def foreseen(world: World) -> Foreseen:
    return Foreseen(world.store, world.clock)


def test_a_start_is_told_with_the_devices_as_they_were_counted(world: World) -> None:
    world.fleet(7)
    world.check_in("dev-0007", 42)
    world.apply(start=False)
    assert foreseen(world).start(NAME) == (
        f"Rollout {NAME} runs, for the devices of tag promoted, which have not been counted yet."
    )
    assert Censuses(world.store, world.clock).take()
    world.later(timedelta(minutes=3), tick=False)
    assert foreseen(world).start(NAME) == (
        f"Rollout {NAME} runs, for up to 6 devices of tag promoted, as counted 3 min ago."
    )
    said = world.rollouts.start(NAME, by="anna").sentence
    assert said == f"Rollout {NAME} runs, for 6 devices of tag promoted."


def same(world: World, asked: Callable[[], object], done: Callable[[], object], kind: type[WaveError]) -> None:
    """Both are refused in the same words, and what is asked leaves nothing behind."""
    before = journal_of(world)
    with pytest.raises(kind) as would:
        asked()
    assert journal_of(world) == before
    with pytest.raises(kind) as did:
        done()
    assert str(would.value) == str(did.value)


def journal_of(world: World) -> int:
    with world.store.reading() as r:
        return r.feed_head()


def test_a_start_is_refused_as_it_then_is(world: World) -> None:
    world.fleet(5)
    world.apply()
    world.apply(name="second", start=False)
    world.apply(name="third", start=False, supersedes="nobody")
    world.apply(name="fourth", start=False, supersedes=NAME)
    for name, kind in ((NAME, WrongState), ("nobody", NotFound), ("second", Overlap), ("third", NotFound)):
        same(world, partial(foreseen(world).start, name), partial(world.rollouts.start, name, by="anna"), kind)
    assert foreseen(world).start("fourth").startswith("Rollout fourth runs")


def test_a_start_at_a_time_says_when(world: World) -> None:
    world.fleet(5)
    world.apply(start=False, start_at="2026-11-05T10:00:00Z")
    assert foreseen(world).start(NAME).startswith(f"Rollout {NAME} starts at 2026-11-05 10:00 UTC, for")


def test_leaving_a_segment_out_is_told_with_the_places_it_has(world: World) -> None:
    east, west = two_sites(world, 10, 4)
    world.apply(policy=POLICY)
    for device in (*east, *west):
        assert world.check_in(device) is not None
    before = journal_of(world)
    said = foreseen(world).exclude(NAME, "label:site=west", by="bo")
    assert said.startswith(f"Segment label:site=west of rollout {NAME} is excluded: its 4 devices will be offered")
    assert journal_of(world) == before
    said = foreseen(world).exclude(NAME, "label:site=north", by="bo")
    assert "of which none has a place so far" in said


def test_leaving_a_segment_out_is_refused_as_it_then_is(world: World) -> None:
    two_sites(world, 10, 4)
    world.apply(policy=POLICY)
    world.rollouts.exclude(NAME, "label:site=west", by="bo", reason="the mast is down")
    world.apply(name="second", start=False, policy=POLICY)
    for name, segment, kind in (
        (NAME, "colour=red", InvalidInput),
        (NAME, "label:site=west", WrongState),
        ("second", "label:site=east", WrongState),
        ("nobody", "label:site=east", NotFound),
    ):
        asked = partial(foreseen(world).exclude, name, segment, by="bo")
        done = partial(world.rollouts.exclude, name, segment, by="bo", reason="the mast is down")
        same(world, asked, done, kind)


def test_flows_are_the_same_whether_facts_are_at_hand_or_not(world: World) -> None:
    devices = world.fleet(60)
    world.apply(policy={"pace": {"in_flight": 50, "rate": "100/h"}, "tolerate": {"failed": "30%"}})
    for device in devices[:30]:
        world.check_in(device)
    agree(world)
    for device in devices[:6]:
        world.report(device, "installing", "failed")
    agree(world)


def agree(world: World) -> None:
    def compared(r: Reading) -> None:
        row = r.rollout(NAME)
        assert row is not None
        rules = rules_of(row)
        assert flows_in(r.facts(row, now=world.now), row, rules, r) == flows_of(row, rules, r)

    with world.store.reading() as r:
        compared(r)
