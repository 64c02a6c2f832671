"""How fast offers are given, through the real services and store: by label, rate, evidence and amber, and across a
restart. On SQLite in memory and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.update import UpdateStatus
from orchestrator.services.devices import Devices
from tests.services.fleet_world import TAG, World
from tests.services.test_reports import tallies_equal_a_recount

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def offered(world: World, fleet: list[str], *, by: Devices | None = None) -> list[str]:
    """Who gets an offer when all check in once."""
    return [device for device in fleet if world.answer(device, by=by).offer is not None]


def why(world: World, device: str) -> tuple[str, str]:
    (found,) = world.devices.why_not(device)
    return found.kind, found.sentence


def sited(world: World, sites: dict[str, int], alone: int = 0) -> list[str]:
    """Devices of these sites, and some without a site, all seen running 41."""
    found = world.fleet(0)
    for site, many in sites.items():
        found += world.enroll(many, labels={"site": site})
    found += world.enroll(alone)
    for device in found:
        world.check_in(device)
    return found


def begin(world: World, pace: Any, *, waves: Any = None, **policy: Any) -> None:
    world.apply(policy={"pace": pace, "slices": {"first": 500}, **policy}, waves=waves)


PER = {"per": {"label": "site", "at_most": 2}}


def test_whose_download_failed_holds_no_part_of_the_pace_when_a_long_hold_ends(world: World) -> None:
    """Day 0: one of two may be at it, its download fails, and the rollout is paused. Two days it asks and is offered
    nothing. Day 2: resumed; nobody is silent, the other is offered the Target, and then the first one anew."""
    one, other = world.fleet(2)
    begin(world, {"in_flight": 1}, silent_after="24h")
    assert offered(world, [one, other]) == [one]
    world.report(one, "downloading", "download_failed")
    world.rollouts.pause("lmp-42", by="anna")
    for _ in range(48):
        world.later(HOUR)
        assert offered(world, [one, other]) == []
    assert world.update(one).update.status is UpdateStatus.WITHDRAWN
    assert (world.facts().waves[0].in_flight, world.facts().waves[0].resolved) == (0, 0)
    world.rollouts.resume("lmp-42", by="anna")
    world.tick()
    before = world.update(one).places
    assert offered(world, [other, one]) == [other]
    world.answer(other, 42)
    assert offered(world, [one]) == [one]
    assert world.update(one).places == before
    tallies_equal_a_recount(world)


class TestPerLabel:
    def test_two_of_each_site_and_everybody_who_has_none(self, world: World) -> None:
        fleet = sited(world, {"hall": 5, "roof": 1}, alone=4)
        begin(world, PER)
        first = offered(world, fleet)
        assert first == [*fleet[:2], fleet[5], *fleet[6:]]
        assert why(world, fleet[2]) == ("per", "2 devices with site hall are under way; at most 2 may be at once.")
        assert offered(world, fleet[2:5]) == []
        world.answer(fleet[0], 42)
        assert offered(world, fleet[2:5]) == [fleet[2]]
        tallies_equal_a_recount(world)

    def test_the_label_is_as_it_is_now(self, world: World) -> None:
        fleet = sited(world, {"hall": 4})
        (bare,) = world.enroll(1)
        world.check_in(bare)
        begin(world, PER)
        assert offered(world, fleet) == fleet[:2]
        world.devices.set_label([fleet[0]], "site", "roof")
        # The one that moved has its offer still, and is counted where it is now.
        assert offered(world, fleet[1:]) == fleet[1:3]
        world.devices.set_label([fleet[0]], "site", None)
        assert why(world, fleet[3])[0] == "per"
        assert offered(world, [bare]) == [bare], "without the label nobody shares it"
        world.devices.set_label([fleet[3]], "site", None)
        assert why(world, fleet[3])[0] == "slice", "it has moved, and so it waits for the next slice"

    def test_an_offer_that_stands_is_told_again_and_takes_no_second_part(self, world: World) -> None:
        fleet = sited(world, {"hall": 3})
        begin(world, PER)
        assert [offered(world, fleet) for _ in range(2)] == [fleet[:2]] * 2

    def test_a_withdrawn_offer_gives_its_part_back(self, world: World) -> None:
        fleet = sited(world, {"hall": 3})
        begin(world, PER)
        offered(world, fleet)
        world.check_in(fleet[0], tag="beta")  # leaves the tag: its offer is taken back
        assert offered(world, fleet[1:]) == fleet[1:]

    def test_a_waves_own_limit_counts_that_wave_alone_and_the_rollouts_stays(self, world: World) -> None:
        world.fleet(0)
        lab = world.enroll(3, labels={"site": "hall"}, group="lab")
        rest = world.enroll(3, labels={"site": "hall"})
        for device in (*lab, *rest):
            world.check_in(device)
        waves = [
            {"wave": "lab", "devices": {"group": "lab"}},
            {
                "wave": "rest",
                "devices": "all",
                "after": [],
                "policy": {"pace": {"per": {"label": "site", "at_most": 1}}},
            },
        ]
        begin(world, {"per": {"label": "site", "at_most": 3}}, waves=waves)
        assert offered(world, rest) == rest[:1]
        assert why(world, rest[1])[1] == "1 device of wave rest with site hall is under way; at most 1 may be at once."
        assert offered(world, lab) == lab[:2], "three of the site in all"
        assert why(world, lab[2])[1] == "3 devices with site hall are under way; at most 3 may be at once."


class TestRate:
    def test_so_many_in_an_hour_a_tenth_of_them_at_once(self, world: World) -> None:
        fleet = world.fleet(60)
        begin(world, {"rate": "20/h"})
        assert offered(world, fleet) == fleet[:2]
        kind, sentence = why(world, fleet[2])
        assert kind == "rate"
        assert sentence == "At most 20 in any hour are offered it; the next at 2026-11-02 09:03:10 UTC."
        given = [world.now, world.now]
        while world.now < fleet_began(world) + 2 * HOUR:
            world.now += MINUTE
            given += [world.now for _ in offered(world, fleet[len(given) :])]
        assert max(sum(at <= other < at + HOUR for other in given) for at in given) == 20
        assert 38 <= len(given) <= 40

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_restart_keeps_it_and_so_does_another_gateway(self, world: World, elsewhere: bool) -> None:
        fleet = world.fleet(30)
        begin(world, {"rate": "20/h"})
        assert len(offered(world, fleet)) == 2
        fresh = world.another()
        try:
            fresh.refresh()
            assert offered(world, fleet[2:], by=fresh) == []
            world.now += timedelta(seconds=190)
            assert offered(world, fleet[2:], by=fresh if elsewhere else None) == fleet[2:3]
        finally:
            fresh.close()

    def test_a_waves_own_rate_beside_the_rollouts(self, world: World) -> None:
        world.fleet(0)
        lab, rest = world.enroll(10, group="lab"), world.enroll(40)
        for device in (*lab, *rest):
            world.check_in(device)
        waves = [
            {"wave": "lab", "devices": {"group": "lab"}},
            {"wave": "rest", "devices": "all", "after": [], "policy": {"pace": {"rate": "10/h"}}},
        ]
        begin(world, {"rate": "40/h"}, waves=waves)
        assert offered(world, rest) == rest[:1]
        assert offered(world, lab) == lab[:3], "four at once in all"

    def test_a_clock_that_goes_back_gives_nothing_away(self, world: World) -> None:
        fleet = world.fleet(10)
        begin(world, {"rate": "20/h"})
        offered(world, fleet)
        world.now -= HOUR
        assert offered(world, fleet[2:]) == []

    def test_an_offer_told_again_spends_nothing_and_one_given_anew_does(self, world: World) -> None:
        fleet = world.fleet(5)
        begin(world, {"rate": "20/h"}, tolerate={"ignored": {"at_most": "50%", "then": "count"}})
        offered(world, fleet)
        before = spent(world)
        assert offered(world, fleet[:2]) == fleet[:2]
        assert spent(world) == before
        world.check_in(fleet[0], tag="beta")
        world.now += HOUR
        world.check_in(fleet[0], tag=TAG)  # back: in a later slice of the same place
        assert spent(world)[""] > before[""]


def spent(world: World) -> dict[str, Any]:
    key = world.row().key
    with world.store.reading() as r:
        return dict(r.spent(key))


def fleet_began(world: World) -> Any:
    return world.row().state.waves[0].opened_at


class TestEvidence:
    def test_nothing_is_known_at_first_and_confirmations_open_it_up(self, world: World) -> None:
        fleet = world.fleet(200)
        begin(world, {"stake": 5})
        first = offered(world, fleet)
        assert len(first) == 5
        kind, sentence = why(world, fleet[-1])
        assert kind == "evidence"
        assert sentence == ("5 devices are under way; a stake of 5 bears 5: nothing is known of how many fail yet.")

    def test_every_place_counts_and_only_confirmations_count_for_it(self, world: World) -> None:
        """Slices of 20, 20, 40: what the first two have shown bears 79 in the third, were there so many."""
        fleet = world.fleet(80)
        world.apply(policy={"pace": "evidence"})
        seen: list[int] = []
        for _ in range(3):
            some = offered(world, fleet)
            seen.append(len(some))
            for device in some:
                world.answer(device, 42)
            fleet = [device for device in fleet if device not in some]
            world.later(timedelta(seconds=2))
        assert seen == [20, 20, 40]

    def test_silent_devices_let_nobody_in(self, world: World) -> None:
        fleet = world.fleet(60)
        begin(world, {"stake": 5}, tolerate={"silent": {"at_most": "90%", "then": "count"}}, silent_after="1h")
        assert len(offered(world, fleet)) == 5
        world.later(2 * HOUR)
        assert world.facts().waves[0].in_flight == 0
        assert len(offered(world, fleet[5:])) == 5, "as many as at first, and no more"


class TestAmber:
    LENIENT = {"tolerate": {"ignored": {"at_most": "50%", "then": "count"}}}

    def test_first_failures_slow_offers_to_a_trickle_and_confirmations_release_it(self, world: World) -> None:
        """Of 300 devices in one slice 40 have the offer; two fail at once, as the first who report: amber. One at a
        time from then on, until enough have confirmed. The last of them may come all at once again."""
        fleet = world.fleet(300)
        begin(world, {"in_flight": 40}, **self.LENIENT)
        first = offered(world, fleet)
        assert len(first) == 40
        # Two failed devices with places so late that two of them halt nothing.
        places = {device: world.update(device).places[0] for device in first}
        for device in sorted(first, key=lambda each: -places[each])[:2]:
            world.report(device, "failed")
        assert [m.amber for m in world.facts().monitors if m.bad] == [True]
        waiting = [device for device in fleet if device not in first]
        assert offered(world, waiting) == []
        assert why(world, waiting[0])[0] == "amber"
        well = [device for device in first if world.status(device) == "offered"]
        for device in well[:-1]:
            world.answer(device, 42)
        world.devices.refresh()
        assert [m.amber for m in world.facts().monitors if m.bad] == [False]
        assert len(offered(world, waiting)) == 39
        tallies_equal_a_recount(world)

    def test_the_report_that_makes_it_amber_and_the_check_in_after_it_may_share_a_transaction(
        self, world: World
    ) -> None:
        fleet = world.fleet(300)
        begin(world, {"in_flight": 300}, **self.LENIENT)
        first = offered(world, fleet[:30])
        places = {device: world.update(device).places[0] for device in first}
        last = sorted(first, key=lambda each: -places[each])[:2]
        for device in last:
            world.report(device, "failed")
        assert offered(world, fleet[30:]) == []

    def test_a_slice_under_amber_is_small(self, world: World) -> None:
        fleet = world.fleet(200)
        world.apply(policy={**self.LENIENT, "slice_at_most": "6h"})
        first = offered(world, fleet)
        places = {device: world.update(device).places[0] for device in first}
        bad = sorted(first, key=lambda each: -places[each])[:3]
        for device in first:
            if device in bad:
                world.report(device, "failed")
            else:
                world.answer(device, 42)
        assert any(monitor.amber for monitor in world.facts().monitors)
        world.later(HOUR)
        first_slice, second = world.facts().waves[0].slices
        assert (first_slice.members, second.members) == (20, 8), "two at once bear one failure, and four times as many"
        assert len(offered(world, [device for device in fleet if device not in first])) == 2


def test_the_tightest_rules(world: World) -> None:
    fleet = sited(world, {"hall": 4, "roof": 4, "yard": 4}, alone=30)
    begin(world, {**PER, "in_flight": 9, "stake": 12, "rate": "200/h"})
    first = offered(world, fleet)
    sites = Counter(device for device in fleet[:12] if device in first)
    assert len(sites) == 6 and len(first) == 9
    assert why(world, fleet[-1])[0] == "pace"
