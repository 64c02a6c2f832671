"""A device that does not stand as it did when its slice opened: held, retired, eligible by what it runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from tests.services.fleet_world import World

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


class TestHeldAndRetired:
    """RULES 7.7: the held get no offer, the retired leave denominators."""

    def test_a_hold_takes_back_what_has_not_started(self, world: World) -> None:
        one, other = world.fleet(2)
        world.apply()
        for device in (one, other):
            world.check_in(device)
        world.report(other, "downloading")
        world.devices.set_status([one, other], DeviceStatus.HELD, "On a bench.")
        assert (world.status(one), world.status(other)) == (UpdateStatus.WITHDRAWN, UpdateStatus.DOWNLOADING)
        assert world.check_in(other, 42) is None
        assert world.status(other) is UpdateStatus.CONFIRMED
        world.devices.set_status([one], DeviceStatus.ACTIVE)
        assert world.check_in(one) is not None

    def test_who_is_retired_keeps_nobody_waiting(self, world: World) -> None:
        """Twenty have the offer; ten confirm, three are at it, seven have not started. These ten are retired: the next
        slice opens, the wave bakes and passes, and none of them is ever silent. One comes back, to its old place."""
        fleet = world.fleet(30)
        world.apply(policy={"bake": {"at_least": "1h", "at_most": "2h"}})
        first = [device for device in fleet if world.check_in(device) is not None]
        assert len(first) == 20
        world.now += MINUTE
        fresh = world.fleet(1)[0]  # in no slice yet
        for device in first[:10]:
            world.check_in(device, 42)
        for device in first[13:16]:
            world.report(device, "installing")
        world.later(HOUR)
        assert len(world.facts().waves[0].slices) == 1
        world.devices.set_status([*first[10:], fresh], DeviceStatus.RETIRED, "sold")
        world.later(MINUTE)
        wave = world.facts().waves[0]
        assert (wave.slices[0].retired, wave.slices[0].reachable, len(wave.slices)) == (10, 10, 2)
        for device in sorted(set(fleet) - set(first)):
            assert world.check_in(device) is not None
            world.check_in(device, 42)
        for _ in range(4):
            world.later(HOUR)
        assert world.row().state.status is RolloutStatus.COMPLETED
        world.later(3 * DAY)
        assert world.facts().waves[0].bad(OutcomeClass.SILENT) == 0
        with world.store.reading() as r:
            assert r.check() == []
        world.devices.set_status([first[10]], DeviceStatus.ACTIVE)
        assert world.check_in(first[10]) is not None
        assert world.facts().waves[0].slices[0].retired == 9

    def test_a_place_whose_device_is_retired_before_its_offer_waits_for_nobody(self, world: World) -> None:
        """Of twenty places five belong to machines that are scrapped and never ask again."""
        fleet = world.fleet(20)
        world.apply(policy={"bake": {"at_least": "1h", "at_most": "2h"}})
        for device in fleet[5:]:
            world.check_in(device)
            world.check_in(device, 42)
        world.later(HOUR)
        assert world.row().state.waves[0].baking_at is None, "75 % have been offered it, not 90 %"
        world.devices.set_status(fleet[:5], DeviceStatus.RETIRED, "scrapped")
        world.later(MINUTE)
        assert world.row().state.waves[0].baking_at == world.now
        world.later(2 * HOUR)
        assert world.row().state.status is RolloutStatus.COMPLETED
        with world.store.reading() as r:
            assert r.check() == []
        assert world.row().state.waves[0].standing.reason.sentence.startswith("15 of 15")


class TestEligibleLater:
    """RULES 3.2: a slice holds whom it counted."""

    @pytest.mark.parametrize("ran", [42, 43])
    def test_who_becomes_eligible_by_what_it_runs_is_in_the_next_slice(self, world: World, ran: int) -> None:
        """It ran the Target, or a newer version, when the slice opened, which gave its rank to nobody; then somebody
        puts the old version on it."""
        fleet = world.fleet(6)
        world.target(43)
        world.check_in(fleet[0], ran)
        world.later(MINUTE)
        world.apply()
        assert world.facts().waves[0].members == 5
        world.now += MINUTE
        assert world.check_in(fleet[0], 41) is None
        for device in fleet[1:]:
            assert world.check_in(device) is not None
            world.check_in(device, 42)
        world.later(2 * HOUR)
        assert world.check_in(fleet[0], 41) is not None
        places = [world.update(device).places[0] for device in fleet]
        assert sorted(places) == [1, 2, 3, 4, 5, 6] and places[0] == 6

    def test_its_own_course_moves_nobody_to_another_slice(self, world: World) -> None:
        """Its update to 42 is under way when 43 supersedes it and opens its slice; it confirms 42 and has its place."""
        device, *_ = world.fleet(3)
        world.target(43)
        world.apply()
        world.check_in(device)
        world.report(device, "downloading")
        world.apply(name="lmp-43", target=43, supersedes="lmp-42")
        world.now += MINUTE
        offer = world.check_in(device, 42)
        assert offer is not None and offer.rollout == "lmp-43"
