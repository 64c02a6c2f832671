"""Check-ins: who is let in, what is written, who is offered what, and what running something makes of an update."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import InvalidInput, Unauthorized
from orchestrator.services.check_in import usual_gap
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.devices import Heard
from orchestrator.services.messages import OfferedDelta, OfferedTarget
from orchestrator.services.records import DeltaNeed, DeviceRow
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def row(world: World, device: str) -> DeviceRow:
    with world.store.reading() as r:
        found = r.device(device)
    assert found is not None
    return found


class TestWho:
    """Tokens: 256 random bits, kept as digests; strangers and wrong tokens cost no write."""

    def test_a_token_is_long_and_only_its_digest_is_kept(self, world: World) -> None:
        (device,) = world.enroll(1)
        assert len(world.tokens[device]) == 43
        digest = row(world, device).token_digest
        assert digest is not None and len(digest) == 32

    @pytest.mark.parametrize("device", ["dev-0001", "nobody", "", "a/b", "\0", "x" * 5000])
    def test_a_stranger_and_a_wrong_token_are_told_the_same(self, world: World, device: str) -> None:
        world.enroll(1)
        for _ in range(3):
            with pytest.raises(Unauthorized) as told:
                world.devices.check_in(device, "wrong", world.said(41))
            assert str(told.value) == "The device is not known here, or its token is wrong."
        assert (world.devices.counters.unauthorized, world.devices.writer.batches) == (3, 0)

    def test_the_token_of_another_device_is_wrong(self, world: World) -> None:
        one, other = world.enroll(2)
        with pytest.raises(Unauthorized):
            world.devices.check_in(one, world.tokens[other], world.said(41))

    def test_a_device_without_a_token_cannot_come_in_with_none(self, world: World) -> None:
        (device,) = world.enroll(1)
        world.devices.revoke(device)
        with pytest.raises(Unauthorized):
            world.devices.check_in(device, "", world.said(41))

    def test_a_new_token_ends_the_old_one_at_once(self, world: World) -> None:
        (device,) = world.enroll(1)
        world.check_in(device)
        old, world.tokens[device] = world.tokens[device], world.devices.new_token(device)
        world.check_in(device)
        with pytest.raises(Unauthorized):
            world.devices.check_in(device, old, world.said(41))

    def test_a_revocation_in_another_process_is_known_within_a_second(self, world: World) -> None:
        (device,) = world.enroll(1)
        world.check_in(device)
        world.another().revoke(device)
        world.now += timedelta(seconds=1)
        with pytest.raises(Unauthorized):
            world.devices.check_in(device, world.tokens[device], world.said(41))

    def test_a_stranger_that_is_enrolled_comes_in(self, world: World) -> None:
        with pytest.raises(Unauthorized):
            world.devices.check_in("dev-0001", "x", world.said(41))
        (device,) = world.enroll(1)
        world.now += timedelta(seconds=6)
        assert world.check_in(device) is None


class TestWhatIsWritten:
    def test_the_first_check_in_is_saved_with_its_known_version(self, world: World) -> None:
        world.target(41)
        (device,) = world.enroll(1)
        world.answer(device, 41, version=None, labels={"region": "emea"})
        found = row(world, device).device
        assert (found.commit, found.version, found.labels) == (commit_of(41), 41, {"region": "emea"})
        assert found.since_at == found.last_seen_at == world.now

    def test_an_idle_check_in_writes_nothing_but_its_time(self, world: World) -> None:
        (device,) = world.fleet(1)
        batches = world.devices.writer.batches
        world.now += 5 * MINUTE
        assert isinstance(world.devices.check_in(device, world.tokens[device], world.said(41)), Heard)
        assert (world.devices.writer.batches, world.devices.counters.idle) == (batches, 1)
        world.devices.writer.close()
        assert row(world, device).device.last_seen_at == world.now
        assert row(world, device).device.usual_gap == 5 * MINUTE

    @pytest.mark.parametrize("more", [{"tag": "beta"}, {"hardware_id": "imx8"}, {"labels": {"region": "amer"}}])
    def test_a_device_that_moved_is_as_it_is_only_from_now_on(self, world: World, more: dict[str, Any]) -> None:
        (device,) = world.fleet(1)
        world.now += HOUR
        world.answer(device, 41, **more)
        assert row(world, device).device.since_at == world.now

    @pytest.mark.parametrize("more", [{"healthy": False}, {"labels": {}}])
    def test_other_changes_leave_it_where_it_is(self, world: World, more: dict[str, Any]) -> None:
        (device,) = world.fleet(1)
        before = world.now
        world.now += HOUR
        world.answer(device, 41, **more)
        world.answer(device, 40, **more)
        assert row(world, device).device.since_at == before

    def test_a_device_away_for_a_week_is_a_newcomer(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.now += 8 * DAY
        world.check_in(device)
        assert row(world, device).device.since_at == world.now

    def test_a_persons_label_stands_against_the_devices_own_and_does_not_move_it_each_time(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.devices.set_label([device], "region", "emea")
        world.answer(device, 41, labels={"region": "amer", "site": "b7"})
        since = world.now
        for _ in range(3):
            world.now += MINUTE
            world.answer(device, 41, labels={"region": "amer", "site": "b7"})
        found = row(world, device).device
        assert (found.labels, found.since_at) == ({"region": "emea", "site": "b7"}, since)
        assert world.devices.counters.idle == 3

    @pytest.mark.parametrize(
        "more",
        [{"commit": "x"}, {"tag": "no tag"}, {"hardware_id": ""}, {"labels": {"a b": "c"}}, {"labels": {"a": ""}}],
    )
    def test_what_cannot_be_is_refused(self, world: World, more: dict[str, Any]) -> None:
        (device,) = world.fleet(1)
        with pytest.raises(InvalidInput):
            world.answer(device, 41, **more)

    def test_the_usual_gap_follows_habits_and_not_holidays(self) -> None:
        gap = usual_gap(timedelta(0), HOUR)
        assert gap == HOUR
        assert usual_gap(gap, 30 * DAY) < 1.5 * HOUR
        for _ in range(100):
            gap = usual_gap(gap, DAY)
        assert gap > 23 * HOUR

    def test_the_next_check_in_is_spread_by_the_device_and_always_the_same(self, world: World) -> None:
        found = {device: world.answer(device).check_in_after for device in world.fleet(50)}
        assert all(240 <= each <= 360 for each in found.values())
        assert len(set(found.values())) > 40
        assert all(world.answer(device).check_in_after == each for device, each in found.items())


class TestOffers:
    def test_devices_of_the_open_slice_are_offered_by_delta_and_the_others_wait(self, world: World) -> None:
        fleet = world.fleet(30)
        record = world.delta(41)
        world.apply()
        offers = [offer for device in fleet if (offer := world.check_in(device))]
        assert len(offers) == 20
        assert offers[0].target == OfferedTarget(f"{HARDWARE}-42", 42, commit_of(42))
        assert offers[0].delta == OfferedDelta(commit_of(41), record.path, 1024)
        assert offers[0].repository == "http://127.0.0.1:8700/ostree"
        assert world.facts().waves[0].offered == 20

    def test_each_offer_freezes_its_place(self, world: World) -> None:
        fleet = world.fleet(20)
        world.apply()
        for device in fleet:
            world.check_in(device)
        assert sorted(world.update(device).places for device in fleet) == [(n, n) for n in range(1, 21)]

    def test_the_outstanding_offer_is_told_again_and_counted_once(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        assert world.check_in(device) == world.check_in(device) is not None
        assert world.facts().waves[0].offered == 1

    def test_a_device_that_lost_power_half_way_is_told_again(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        world.report(device, "downloading", "installing")
        assert world.check_in(device) is not None
        world.report(device, "applied")
        assert world.check_in(device) is None

    @pytest.mark.parametrize("order", ["pause", "halt", "cancel"])
    def test_it_rests_when_the_rollout_does(self, world: World, order: str) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        getattr(world.rollouts, order)("lmp-42", by="anna")
        assert world.check_in(device) is None
        assert world.update(device).update.check_ins == 0, "the snapshot is old, the transaction is not"

    def test_a_withdrawn_offer_comes_again_with_its_place(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        place = world.update(device).places
        world.rollouts.halt("lmp-42", by="anna")
        world.tick()
        assert world.status(device) is UpdateStatus.WITHDRAWN
        world.rollouts.resume("lmp-42", by="anna", reason="A false alarm.")
        world.tick()
        assert world.check_in(device) is not None
        assert world.update(device).places == place
        assert world.facts().waves[0].slices[0].withdrawn == 0

    def test_a_bad_outcome_is_offered_again_only_after_a_retry(self, world: World) -> None:
        fleet = world.fleet(20)
        world.apply()
        world.check_in(fleet[0])
        world.report(fleet[0], "failed")
        assert world.check_in(fleet[0]) is None
        world.rollouts.retry("lmp-42", by="anna", devices=[fleet[0]])
        world.devices.refresh()
        assert world.check_in(fleet[0]) is not None
        assert world.update(fleet[0]).update.tries == 2

    def test_three_check_ins_without_a_start_are_counted_as_ignoring(self, world: World) -> None:
        device, *_ = world.fleet(20)
        world.apply()
        assert world.check_in(device) is not None
        assert [world.check_in(device) is None for _ in range(4)] == [False, False, True, True]
        assert world.status(device) is UpdateStatus.IGNORED
        assert world.facts().waves[0].bad(OutcomeClass.IGNORED) == 1

    def test_at_most_so_many_are_at_it_at_once(self, world: World) -> None:
        fleet = world.fleet(20)
        world.apply(policy={"pace": {"in_flight": 5}})
        offered = [device for device in fleet if world.check_in(device)]
        assert len(offered) == 5
        world.answer(offered[0], 42)
        world.now += timedelta(seconds=1)
        assert sum(world.check_in(device) is not None for device in fleet if device not in offered) == 1

    def test_freezing_stops_everything_in_the_next_commit(self, world: World) -> None:
        one, other = world.fleet(2)
        world.apply()
        world.check_in(one)
        world.rollouts.freeze(by="anna", reason="The repository is being moved.")
        assert (world.check_in(one), world.check_in(other)) == (None, None)
        world.rollouts.unfreeze(by="anna")
        world.devices.refresh()
        assert world.check_in(other) is not None

    def test_a_held_device_gets_nothing_and_an_active_one_again(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.devices.set_status([device], DeviceStatus.HELD, "On a bench.")
        assert world.check_in(device) is None
        assert [each.kind for each in world.devices.why_not(device)] == ["held"]
        world.devices.set_status([device], DeviceStatus.ACTIVE)
        world.now += MINUTE
        world.check_in(device)  # seen again: it is in the next slice
        world.later(2 * HOUR)
        assert world.check_in(device) is not None

    def test_leaving_the_tag_takes_the_offer_back(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.check_in(device)
        assert world.answer(device, 41, tag="beta").offer is None
        assert world.status(device) is UpdateStatus.WITHDRAWN
        assert world.answer(device, 41, tag=TAG).offer is not None

    def test_moving_to_another_group_changes_nothing_for_who_was_offered(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.devices.set_group([device], "lab")
        world.check_in(device)
        world.apply(waves=[{"wave": "lab", "devices": {"group": "lab"}}], excluded="others")
        assert world.check_in(device) is not None
        world.devices.set_group([device], None)
        assert world.check_in(device) is not None

    def test_an_unhealthy_device_is_offered_and_it_is_remembered(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply()
        world.answer(device, 41, healthy=False)
        assert world.update(device).unhealthy_before

    def test_a_snapshot_that_does_not_know_a_rollout_only_delays(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply(start=False)
        world.check_in(device)
        world.rollouts.start("lmp-42", by="anna")
        world.ticker.changed = lambda: None
        world.ticker.tick(world.now)
        assert world.check_in(device) is None
        world.now += timedelta(seconds=1)
        assert world.check_in(device) is not None


class TestDeltas:
    def wait_policy(self) -> dict[str, object]:
        return {"deltas": {"within": "6h", "otherwise": "skip"}}

    def test_a_device_waits_for_its_delta_which_is_queued(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply(policy=self.wait_policy())
        world.later(7 * HOUR)
        assert world.check_in(device) is None
        with world.store.reading() as r:
            assert [(job.pair.from_commit, job.pair.to_commit) for job in r.jobs()] == [(commit_of(41), commit_of(42))]
        batches = world.devices.writer.batches
        assert world.check_in(device) is None
        assert world.devices.writer.batches == batches, "now the board knows, and answers by itself"
        world.delta(41)
        offer = world.check_in(device)
        assert offer is not None and offer.delta is not None
        assert world.update(device).by_delta is True

    def test_a_source_that_turns_up_later_has_its_own_time_before_it_is_served_whole(self, world: World) -> None:
        """The wave was prepared with deltas from 41. On day 2 a device comes with 40: it waits six hours from then."""
        one, other = world.fleet(2)
        world.target(40)
        world.needs["all"] = [DeltaNeed(DeltaPair(commit_of(41), commit_of(42)), 1)]
        world.apply(policy={"deltas": {"within": "6h", "otherwise": "full"}})
        world.later(2 * DAY)
        found = world.check_in(one, 41)
        assert found is not None and found.delta is None, "its time was over before the wave opened"
        assert world.check_in(other, 40) is None
        world.later(5 * HOUR)
        assert world.check_in(other, 40) is None
        assert [each.kind for each in world.devices.why_not(other)] == ["delta"]
        world.later(HOUR)
        late = world.check_in(other, 40)
        assert late is not None and late.delta is None
        with world.store.reading() as r:
            assert [job.pair.from_commit for job in r.jobs()] == [commit_of(40)]

    def test_a_commit_that_the_repository_does_not_have_is_served_whole(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply(policy=self.wait_policy())
        world.later(7 * HOUR)
        offer = world.answer(device, 7, version=None).offer
        assert offer is not None and offer.delta is None
        assert world.update(device).by_delta is False

    def test_a_need_that_is_known_to_be_missing_is_asked_of_the_repository_again(self, world: World) -> None:
        world.needs["all"] = [DeltaNeed(DeltaPair(commit_of(7), commit_of(42)), 1, known=False)]
        world.fleet(1)
        (device,) = world.enroll(1)
        world.answer(device, 7, version=None)
        world.apply(policy=self.wait_policy())
        world.later(7 * HOUR)
        assert world.answer(device, 7, version=None).offer is not None

    def test_equal_commits_need_none(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.apply(policy=self.wait_policy())
        # version 40 and the same commit as 42: told the Target, and nothing to fetch
        assert world.answer(device, 42, version=40).offer is None, "it runs the Target's commit: it is there"


class TestSeveralRollouts:
    def test_the_live_one_goes_first_and_the_newest_completed_serves_the_rest(self, world: World) -> None:
        fleet = world.fleet(30, version=40)
        world.target(41)
        world.apply(name="lmp-41", target=41)
        world.rollouts.complete("lmp-41", by="anna")
        world.tick()
        world.apply(name="lmp-42", target=42)
        names = [offer.rollout for device in fleet if (offer := world.check_in(device, 40))]
        assert sorted(names) == ["lmp-41"] * 10 + ["lmp-42"] * 20

    def test_a_started_device_is_offered_nothing_else_until_its_outcome(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.target(43)
        world.apply()
        world.check_in(device)
        world.report(device, "downloading", "installing", "applied")
        world.apply(name="lmp-43", target=43, supersedes="lmp-42")
        assert world.check_in(device) is None
        assert [each.kind for each in world.devices.why_not(device)] == ["elsewhere"]
        offer = world.check_in(device, 42)
        assert offer is not None and offer.rollout == "lmp-43"
        assert world.status(device) is UpdateStatus.CONFIRMED

    def test_an_offer_not_started_gives_way_to_the_next_rollout(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.target(43)
        world.apply()
        world.rollouts.complete("lmp-42", by="anna")
        world.tick()
        world.check_in(device)
        world.apply(name="lmp-43", target=43)
        offer = world.check_in(device)
        assert offer is not None and offer.rollout == "lmp-43"
        assert world.status(device, "lmp-42") is UpdateStatus.WITHDRAWN

    def test_going_on_to_the_next_target_leaves_the_one_before_confirmed(self, world: World) -> None:
        (device,) = world.fleet(1)
        world.target(43)
        world.apply()
        world.check_in(device)
        world.check_in(device, 42)
        world.rollouts.complete("lmp-42", by="anna")
        world.tick()
        world.apply(name="lmp-43", target=43)
        world.check_in(device, 42)
        world.check_in(device, 43)
        assert world.status(device, "lmp-42") is UpdateStatus.CONFIRMED
        assert world.status(device, "lmp-43") is UpdateStatus.CONFIRMED

    def test_a_rollback_is_told_to_the_rollout_it_came_from(self, world: World) -> None:
        device, *_ = world.fleet(20)
        world.apply()
        world.check_in(device)
        world.check_in(device, 42)
        assert world.facts().waves[0].confirmed == 1
        assert world.check_in(device, 41) is None
        assert world.status(device) is UpdateStatus.ROLLED_BACK
        assert world.facts().waves[0].confirmed == 0


class TestStops:
    def test_rollbacks_seen_at_check_ins_halt_in_the_same_transaction(self, world: World) -> None:
        fleet = world.fleet(30)
        world.apply()
        offered = [device for device in fleet if world.check_in(device)]
        for device in offered:
            world.check_in(device, 42)
        for device in offered:
            world.check_in(device, 41)
            if world.row().state.status is RolloutStatus.HALTED:
                break
        assert world.row().state.status is RolloutStatus.HALTED
        assert world.pokes


def test_explain_gives_wave_slice_and_place_beside_the_reason(world: World) -> None:
    fleet = world.fleet(30)
    world.apply()
    found = [world.devices.why_not(device)[0] for device in fleet]
    assert {each.kind for each in found} == {"offered", "slice"}
    offered = next(each for each in found if each.kind == "offered")
    assert (offered.wave, offered.slice, offered.sentence) == ("all", 1, "It is offered the Target, whole.")
    assert offered.position is not None and 0 <= offered.position < 1


def test_looks_into_the_store_can_be_made_in_another_thread(world: World) -> None:
    (device,) = world.fleet(1)
    world.apply()
    with ThreadPoolExecutor(2) as pool:
        other = world.another(later=lambda work: (pool.submit(work), None)[1])
        found = other.check_in(device, world.tokens[device], world.said(41))
        assert isinstance(found, Future)
        found.result(10)
        refused = other.check_in("nobody", "x", world.said(41))
        assert isinstance(refused, Future)
        with pytest.raises(Unauthorized):
            refused.result(10)
        other.close()


def test_only_so_many_devices_are_kept(world: World) -> None:
    fleet = world.fleet(10)
    small = world.another(most_kept=3)
    for device in fleet:
        world.answer(device, by=small)
    assert len(small._kept) == 3
    none = world.another(most_kept=0)
    for device in fleet:
        world.answer(device, by=none)
    assert not none._kept
    small.close()
    none.close()
