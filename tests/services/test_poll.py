"""A poll that only shows that the device is here, as some protocols have it."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from orchestrator.core.update import UpdateStatus
from orchestrator.services.devices import Heard
from orchestrator.services.records import DeviceRow
from tests.services.fleet_world import World, commit_of

DAY = timedelta(days=1)


def row(world: World, device: str) -> DeviceRow:
    with world.store.reading() as r:
        found = r.device(device)
    assert found is not None
    return found


class TestAPollThatSaysNothing:
    """Some protocols only show that the device is here: what it said before holds."""

    def poll(self, world: World, device: str) -> Heard:
        found = world.devices.check_in(device, world.tokens[device], None)
        return found.result(10) if isinstance(found, Future) else found

    def test_it_is_seen_and_runs_what_it_said(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.check_in(device)
        world.later(8 * DAY)
        self.poll(world, device)
        after = row(world, device).device
        assert (after.commit, after.version, after.last_seen_at) == (commit_of(41), 41, world.now)

    def test_it_is_offered_like_any_other_and_told_its_offer_again(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.delta(41)
        world.apply()
        first = self.poll(world, device)
        assert first.offer is not None and self.poll(world, device).offer == first.offer
        assert [earlier.update.status for earlier, _ in first.had.values()] == [UpdateStatus.OFFERED]

    def test_it_confirms_nothing(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.delta(41)
        world.apply()
        self.poll(world, device)
        world.report(device, "installing", "applied")
        self.poll(world, device)
        assert world.status(device) is UpdateStatus.APPLIED

    def test_what_it_found_unhealthy_before_still_is(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.check_in(device, healthy=False)
        world.later(8 * DAY)
        self.poll(world, device)
        assert row(world, device).device.healthy is False


class TestTelling:
    """Protocols in which a device tells what it is and runs without asking for an update."""

    def tell(self, world: World, device: str, runs: int | None = 41, **more: Any) -> Heard:
        found = world.devices.check_in(device, world.tokens[device], world.said(runs, **more), asks=False)
        return found.result(10) if isinstance(found, Future) else found

    def test_who_only_tells_is_offered_nothing(self, world: World) -> None:
        (device,) = world.fleet(1)
        self.tell(world, device, labels={"site": "a"})
        world.apply()
        assert self.tell(world, device, labels={"site": "a"}).offer is None
        assert world.check_in(device) is not None

    def test_telling_is_not_coming_back_without_a_start(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        assert world.check_in(device) is not None
        for turn in range(10):
            self.tell(world, device, labels={"turn": str(turn)})
        assert (world.status(device), world.update(device).update.check_ins) == (UpdateStatus.OFFERED, 0)

    def test_telling_confirms(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        world.report(device, "installing", "applied")
        self.tell(world, device, 42)
        assert world.status(device) is UpdateStatus.CONFIRMED

    def test_telling_the_same_again_writes_nothing_even_while_an_offer_stands(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        self.tell(world, device, labels={"site": "a"})
        before = world.devices.writer.items
        for _ in range(5):
            self.tell(world, device, labels={"site": "a"})
        assert world.devices.writer.items == before

    def test_asking_without_what_was_told_before_is_nothing_new(self, world: World) -> None:
        (device,) = world.fleet(1)
        self.tell(world, device, labels={"site": "a"})
        before = world.devices.writer.items
        for _ in range(3):
            world.check_in(device, hardware_id=None, tag=None, labels=None)
            self.tell(world, device, labels={"site": "a"})
        assert world.devices.writer.items == before
        assert row(world, device).device.labels == {"site": "a"}
