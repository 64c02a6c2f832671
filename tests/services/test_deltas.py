"""What deltas a wave requires, what is done about them, and what people are told; on the real store in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.errors import ContentUnavailable, InvalidInput, NotFound, Refused, WrongState
from orchestrator.services.builder import Builder
from orchestrator.services.chronicle import rules_of
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.delta_views import DeltaState
from orchestrator.services.records import JobStatus
from tests.services.delta_fleet import DAY, SmallFleet
from tests.services.fake_provider import commit


def pair(before: int, after: int = 9) -> DeltaPair:
    return DeltaPair(commit(before), commit(after))


@pytest.fixture
def fleet(tmp_path: Path) -> SmallFleet:
    fleet = SmallFleet(tmp_path)
    for version in fleet.versions:
        fleet.target(version)
    return fleet


def build_all(fleet: SmallFleet) -> None:
    builder = Builder(fleet.store, fleet.provider, fleet.clock, owner="b")
    while builder.work_once(threading.Event()):
        pass


def queued(fleet: SmallFleet) -> list[DeltaPair]:
    with fleet.store.reading() as r:
        jobs = sorted(r.jobs(statuses={JobStatus.QUEUED}), key=lambda job: -job.weight)
    return [job.pair for job in jobs]


# ---------------------------------------------------------------------------------------------------- ensure


def test_what_the_devices_of_a_wave_need_is_written_down_and_queued_heaviest_first(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.devices(8, 7)
    fleet.devices(3, 9)
    row = fleet.rollout()
    done = fleet.deltas.ensure(row, "all", now=fleet.now)
    assert (done.queued, done.plan.devices, done.plan.covered) == (2, 10, 0)
    assert queued(fleet) == [pair(7), pair(5)]
    with fleet.store.reading() as r:
        facts = r.facts(row, now=fleet.now).waves[0].deltas
    assert facts is not None
    assert (facts.devices, facts.covered, facts.pairs, facts.ready) == (10, 0, 2, 0)


def test_no_delta_is_required_for_devices_whose_protocol_has_none(fleet: SmallFleet) -> None:
    alone, among = fleet.devices(4, 5), fleet.devices(8, 7)
    fleet.speaks(alone, DeviceProtocol.DDI)
    fleet.speaks(among[:3], DeviceProtocol.MENDER)
    row = fleet.rollout()
    done = fleet.deltas.ensure(row, "all", now=fleet.now)
    assert (done.queued, done.plan.devices, queued(fleet)) == (1, 5, [pair(7)])
    with fleet.store.reading() as r:
        facts = r.facts(row, now=fleet.now).waves[0].deltas
        assert row.scope is not None
        counts = {"all": r.look(row.scope, "all", seen_since=fleet.now - DAY)}
    assert facts is not None
    assert (facts.devices, facts.pairs) == (5, 1)
    preview = fleet.deltas.preview(row.scope, counts, rules_of(row), now=fleet.now)
    assert preview.waves["all"].devices == 5


def test_a_wave_of_nothing_but_such_devices_waits_for_no_delta(fleet: SmallFleet) -> None:
    fleet.speaks(fleet.devices(4, 5), DeviceProtocol.DDI)
    row = fleet.rollout(deltas={"otherwise": "hold"})
    assert fleet.deltas.ensure(row, "all", now=fleet.now).queued == 0
    with fleet.store.reading() as r:
        facts = r.facts(row, now=fleet.now).waves[0].deltas
    assert facts is not None
    assert (facts.devices, facts.coverage) == (0, 1.0)


def test_from_a_commit_that_is_not_known_the_policy_decides_of_such_devices_too(fleet: SmallFleet) -> None:
    fleet.speaks(fleet.devices(4, "elsewhere"), DeviceProtocol.DDI)
    done = fleet.deltas.ensure(fleet.rollout(), "all", now=fleet.now)
    assert [(need.devices, need.known) for need in done.plan.unknown] == [(4, False)]


def test_doing_it_again_queues_nothing_again_and_sees_what_has_become_ready(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    row = fleet.rollout()
    assert fleet.deltas.ensure(row, "all", now=fleet.now).queued == 1
    assert fleet.deltas.ensure(row, "all", now=fleet.now).queued == 0
    build_all(fleet)
    again = fleet.deltas.ensure(row, "all", now=fleet.now)
    assert (again.queued, again.plan.covered, again.plan.builds) == (0, 2, ())
    with fleet.store.reading() as r:
        facts = r.facts(row, now=fleet.now).waves[0].deltas
    assert facts is not None
    assert facts.coverage == 1.0


def test_a_preview_says_the_same_and_writes_nothing(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.devices(8, 7)
    fleet.provider.publish(pair(7))
    row = fleet.rollout()
    assert row.scope is not None
    rules = rules_of(row)
    with fleet.store.reading() as r:
        counts = {"all": r.look(row.scope, "all", seen_since=fleet.now - rules.reach)}
    plan = fleet.deltas.preview(row.scope, counts, rules, now=fleet.now, builders=2).waves["all"]
    assert [build.from_commit for build in plan.builds] == [commit(7), commit(5)]
    assert (plan.build_bytes, plan.bytes_without, plan.bytes_with, plan.seconds) == (200, 10_000, 1000, 10.0)
    assert queued(fleet) == []
    with fleet.store.reading() as r:
        assert r.deltas() == []
        assert r.facts(row, now=fleet.now).waves[0].deltas is None


def test_two_targets_with_one_commit_need_no_delta(fleet: SmallFleet) -> None:
    """Version 10 changes applications only: its commit is that of 9."""
    fleet.target(10, of=commit(9))
    fleet.devices(4, 9, version=9)
    fleet.devices(1, 7)
    done = fleet.deltas.ensure(fleet.rollout(10), "all", now=fleet.now)
    assert (done.plan.devices, queued(fleet)) == (1, [pair(7)])


def test_unknown_from_commits_are_listed_and_never_queued(fleet: SmallFleet) -> None:
    fleet.devices(2, "ab")
    fleet.devices(3, None)
    fleet.devices(1, 5)
    row = fleet.rollout()
    done = fleet.deltas.ensure(row, "all", now=fleet.now)
    assert (done.plan.devices, sum(need.devices for need in done.plan.unknown)) == (1, 5)
    assert queued(fleet) == [pair(5)]
    with fleet.store.reading() as r:
        facts = r.facts(row, now=fleet.now).waves[0].deltas
    assert facts is not None
    assert (facts.devices, facts.unknown) == (1, 5)


@pytest.mark.parametrize(("otherwise", "builds"), [("full", [7]), ("hold", [7, 5]), ("skip", [7, 5])])
def test_beyond_the_coverage_only_what_devices_would_wait_for_is_built(
    fleet: SmallFleet, otherwise: str, builds: list[int]
) -> None:
    fleet.devices(1, 5)
    fleet.devices(9, 7)
    fleet.deltas.ensure(fleet.rollout(deltas={"cover": "90%", "otherwise": otherwise}), "all", now=fleet.now)
    assert queued(fleet) == [pair(version) for version in builds]


def test_only_reachable_devices_count(fleet: SmallFleet) -> None:
    fleet.devices(3, 5, seen=8 * DAY)
    fleet.devices(1, 7)
    assert fleet.deltas.ensure(fleet.rollout(), "all", now=fleet.now).plan.devices == 1
    assert queued(fleet) == [pair(7)]


def test_a_published_delta_that_nobody_recorded_is_verified_and_taken_over(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.provider.publish(pair(5))
    done = fleet.deltas.ensure(fleet.rollout(), "all", now=fleet.now)
    assert (done.adopted, done.queued, done.plan.covered) == (1, 0, 2)
    with fleet.store.reading() as r:
        assert r.delta(pair(5)) is not None


def test_a_large_one_is_left_to_a_builder_which_verifies_it(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.provider.publish(pair(5), size=10**9)
    done = fleet.deltas.ensure(fleet.rollout(), "all", now=fleet.now)
    assert (done.adopted, done.queued) == (0, 1)


@pytest.mark.parametrize("harm", ["gone", "broken"])
def test_a_recorded_delta_that_is_not_whole_on_disk_any_more_is_built_again(fleet: SmallFleet, harm: str) -> None:
    fleet.devices(2, 5)
    row = fleet.rollout()
    fleet.deltas.ensure(row, "all", now=fleet.now)
    build_all(fleet)
    if harm == "gone":
        fleet.provider.drop(pair(5))
    else:
        fleet.provider.path(pair(5)).write_text("broken")
    done = fleet.deltas.ensure(row, "all", now=fleet.now + timedelta(hours=2))
    assert (done.lost, done.queued, done.plan.covered) == ((pair(5),), 1, 0)


def test_the_disk_is_not_read_again_at_every_look(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    row = fleet.rollout()
    fleet.deltas.ensure(row, "all", now=fleet.now)
    build_all(fleet)
    fleet.deltas.ensure(row, "all", now=fleet.now)
    asked, estimated = len(fleet.provider.found), len(fleet.provider.estimated)
    for minutes in (15, 30, 45):
        fleet.deltas.ensure(row, "all", now=fleet.now + timedelta(minutes=minutes))
    assert (len(fleet.provider.found), len(fleet.provider.estimated)) == (asked, estimated)


def test_a_missing_target_commit_is_said_and_the_wave_stays_unlooked_at(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    row = fleet.rollout()
    fleet.provider.known.discard(commit(9))
    with pytest.raises(ContentUnavailable, match="version 9 is not in the repository"):
        fleet.deltas.ensure(row, "all", now=fleet.now)
    with fleet.store.reading() as r:
        assert r.facts(row, now=fleet.now).waves[0].deltas is None
    assert queued(fleet) == []


def test_what_failed_is_not_queued_by_itself_but_by_a_person(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    row = fleet.rollout()
    fleet.deltas.ensure(row, "all", now=fleet.now)
    gone = fleet.provider.order("gone")
    build_all(fleet)
    gone.unlink()
    done = fleet.deltas.ensure(row, "all", now=fleet.now)
    assert (done.queued, len(done.plan.failed)) == (0, 1)
    assert fleet.deltas.list()[0].state_text == "failed"
    assert "pruned" in (fleet.deltas.list()[0].error or "")
    assert fleet.deltas.request([pair(5)]) == 1
    build_all(fleet)
    assert fleet.deltas.ensure(row, "all", now=fleet.now).plan.covered == 2


def test_before_the_start_and_for_a_wave_that_is_not_there_it_is_refused(fleet: SmallFleet) -> None:
    fleet.devices(1, 5)
    row = fleet.rollout()
    with pytest.raises(WrongState, match="has not started"):
        fleet.deltas.ensure(replace(row, scope=None), "all", now=fleet.now)
    with pytest.raises(NotFound, match="no wave canary"):
        fleet.deltas.ensure(row, "canary", now=fleet.now)


# ---------------------------------------------------------------------------------------------------- static-deltas


def test_the_seeds_command(fleet: SmallFleet) -> None:
    fleet.devices(2, 7)
    fleet.devices(1, 5)
    plan = fleet.deltas.static_deltas(9, tag="promoted")
    assert plan.lines == ("   5 -> 9", "   7 -> 9")
    assert plan.devices_by_line == {"5": 1, "7": 2}
    assert plan.heading == "Would generate static deltas for Target versions:"
    assert fleet.deltas.queue(plan) == 2
    assert fleet.deltas.queue(plan) == 0
    build_all(fleet)
    later = fleet.deltas.static_deltas(9, tag="promoted")
    assert later.lines == plan.lines
    assert {item.state for item in later.items} == {DeltaState.READY}
    assert fleet.deltas.queue(later) == 0


def test_versions_with_one_commit_are_one_line_and_boards_with_one_version_too(fleet: SmallFleet) -> None:
    fleet.provider.known |= {commit("a"), commit("b")}
    fleet.target(8, of=commit(7))
    fleet.target(7, "imx8", of=commit("a"))
    fleet.target(9, "imx8", of=commit("b"))
    fleet.devices(1, 7, version=7)
    fleet.devices(2, 7, version=8)
    fleet.devices(4, "a", hardware_id="imx8", version=7)
    plan = fleet.deltas.static_deltas(9, tag="promoted")
    assert plan.devices_by_line == {"7": 4, "8": 3}
    assert len(plan.items) == 2
    only = fleet.deltas.static_deltas(9, tag="promoted", hardware_id="imx8")
    assert only.lines == ("   7 -> 9",)
    assert "hardware ID imx8" in only.heading


def test_orphans_get_their_delta_and_unknown_ones_are_listed(fleet: SmallFleet) -> None:
    fleet.provider.known.add(commit("c"))
    fleet.devices(3, "c", version=4)
    fleet.devices(2, "d")
    fleet.devices(1, None)
    fleet.devices(1, None, version=5)
    fleet.devices(5, 9)
    fleet.devices(1, "e", version=12)
    fleet.devices(2, "f", hardware_id="other")
    plan = fleet.deltas.static_deltas(9, tag="promoted")
    assert plan.lines == ("   4 -> 9", "   5 -> 9")
    assert [item.label for item in plan.items if item.orphan] == ["4"]
    assert sum(count.devices for count in plan.unknown) == 3
    assert (plan.there, plan.newer, dict(plan.without_target)) == (5, 1, {"other": 2})


def test_from_versions_can_be_named(fleet: SmallFleet) -> None:
    fleet.devices(2, 7)
    assert fleet.deltas.static_deltas(9, tag=None, from_versions=[5, 6]).devices_by_line == {"5": 0, "6": 0}
    both = fleet.deltas.static_deltas(9, tag="promoted", from_versions=[7, 5])
    assert both.devices_by_line == {"5": 0, "7": 2}
    with pytest.raises(InvalidInput, match="from-version 11 is newer than to-version 9"):
        fleet.deltas.static_deltas(9, tag=None, from_versions=[11])
    with pytest.raises(NotFound, match="no Target of version 3"):
        fleet.deltas.static_deltas(9, tag=None, from_versions=[3])


def test_what_the_command_says_when_there_is_nothing_to_do(fleet: SmallFleet) -> None:
    fleet.devices(2, 9)
    with pytest.raises(NotFound, match=r"No tags named 'nightly' found\. Devices follow promoted"):
        fleet.deltas.static_deltas(9, tag="nightly")
    with pytest.raises(NotFound, match=r"No Targets found to generate deltas for\. All 2 devices run version 9"):
        fleet.deltas.static_deltas(9, tag="promoted")
    with pytest.raises(NotFound, match=r"No Targets found .* Name a tag"):
        fleet.deltas.static_deltas(9, tag=None)
    with pytest.raises(NotFound, match="no Target of version 77"):
        fleet.deltas.static_deltas(77, tag="promoted")


# ---------------------------------------------------------------------------------------------- list, drop, verify


def test_the_list_says_state_size_devices_and_waves(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.devices(4, 7)
    fleet.devices(1, "ab")
    row = fleet.rollout()
    fleet.deltas.ensure(row, "all", now=fleet.now)
    Builder(fleet.store, fleet.provider, fleet.clock, owner="b").work_once(threading.Event())
    shown = {view.from_versions: view for view in fleet.deltas.list()}
    assert shown[(7,)].state_text == "ready"
    assert (shown[(7,)].bytes, shown[(7,)].devices, shown[(7,)].waves) == (10, 4, ("lmp-9/all",))
    assert shown[(5,)].state_text == "queued"
    assert (shown[(5,)].bytes, shown[(5,)].to_versions) == (None, (9,))
    assert shown[()].state is DeltaState.UNKNOWN
    one = fleet.deltas.show(pair(5))
    assert one.estimate is not None
    assert one.estimate.likely_bytes == 100
    with pytest.raises(NotFound, match="Nobody needs a delta"):
        fleet.deltas.show(pair(6))


def test_what_a_live_rollout_needs_is_dropped_only_by_force(fleet: SmallFleet) -> None:
    fleet.devices(2, 5)
    fleet.deltas.ensure(fleet.rollout(), "all", now=fleet.now)
    build_all(fleet)
    with pytest.raises(Refused, match="needed by lmp-9/all"):
        fleet.deltas.drop(pair(5))
    assert fleet.deltas.drop(unused=True) == ()
    assert len(fleet.deltas.drop(pair(5), force=True, dry_run=True)) == 1
    assert fleet.provider.published() == [pair(5)]
    fleet.deltas.drop(pair(5), force=True)
    assert fleet.provider.published() == []
    with pytest.raises(NotFound):
        fleet.deltas.drop(pair(5))


def test_what_no_device_needs_any_more_is_dropped(fleet: SmallFleet) -> None:
    """5 -> 9 is used by a device, 6 -> 9 by one that a person holds, 7 -> 9 by none, and one is not even recorded."""
    fleet.devices(1, 5)
    fleet.devices(1, 6, status=DeviceStatus.HELD)
    fleet.deltas.request([pair(5), pair(6), pair(7)])
    build_all(fleet)
    fleet.provider.publish(pair(5, 6))
    fleet.provider.publish(pair(7, 6))
    would = fleet.deltas.drop(unused=True, dry_run=True)
    assert {item.pair for item in would} == {pair(7), pair(7, 6)}
    assert fleet.deltas.drop(unused=True) == would
    assert set(fleet.provider.published()) == {pair(5), pair(6), pair(5, 6)}
    with fleet.store.reading() as r:
        assert {record.pair for record in r.deltas()} == {pair(5), pair(6)}


def test_drop_wants_one_or_the_unused(fleet: SmallFleet) -> None:
    with pytest.raises(InvalidInput):
        fleet.deltas.drop()
    with pytest.raises(InvalidInput):
        fleet.deltas.drop(pair(5), unused=True)


def test_verify_records_what_holds_and_builds_again_what_does_not(fleet: SmallFleet) -> None:
    fleet.devices(1, 5)
    fleet.deltas.request([pair(5), pair(7)])
    build_all(fleet)
    fleet.provider.publish(pair(6))
    fleet.provider.path(pair(5)).write_text("broken")
    fleet.provider.drop(pair(7))
    answers = {answer.pair: answer for answer in fleet.deltas.verify()}
    assert [answers[pair(version)].holds for version in (5, 6, 7)] == [False, True, False]
    assert answers[pair(5)].queued
    assert "A part is missing. It is built again." in answers[pair(5)].sentence
    with fleet.store.reading() as r:
        assert {record.pair for record in r.deltas()} == {pair(6)}
    assert set(queued(fleet)) == {pair(5), pair(7)}
    with pytest.raises(NotFound):
        fleet.deltas.verify(pair(5, 6))


def test_what_cannot_be_built_again_is_said(fleet: SmallFleet) -> None:
    fleet.deltas.request([pair(5)])
    build_all(fleet)
    fleet.provider.path(pair(5)).write_text("broken")
    fleet.provider.known.discard(commit(5))
    (answer,) = fleet.deltas.verify(pair(5))
    assert (answer.holds, answer.queued) == (False, False)
    assert "has lost" in answer.sentence


# ---------------------------------------------------------------------------------------------- names for commits


def test_people_may_say_version_prefix_name_or_ref(fleet: SmallFleet) -> None:
    for text in ("5", commit(5), commit(5)[:6], commit(5)[:20].upper(), "rpi4-5", f"lmp/{commit(5)[:8]}"):
        assert fleet.deltas.resolve_commit(text) == commit(5)
    assert fleet.deltas.resolve_pair("nothing", "9") == DeltaPair(None, commit(9))


def test_what_may_be_several_commits_is_refused_with_the_candidates(fleet: SmallFleet) -> None:
    fleet.target(5, "imx8", of=commit(6))
    with pytest.raises(Refused, match=r"may be 2 commits: .*\(rpi4-5, rpi4\).*\(imx8-5, imx8\)"):
        fleet.deltas.resolve_commit("5")
    assert fleet.deltas.resolve_commit("5", "imx8") == commit(6)
    fleet.provider.known.add(commit(5)[:10] + commit("a")[:54])
    with pytest.raises(Refused, match="Give more digits"):
        fleet.deltas.resolve_commit(commit(5)[:8])


@pytest.mark.parametrize("text", ["", "00050", "feedface", "99", "rpi4", "../../etc", "5" * 5000, "५"])
def test_what_is_nothing_is_said_to_be_nothing(fleet: SmallFleet, text: str) -> None:
    with pytest.raises(NotFound, match="is no version"):
        fleet.deltas.resolve_commit(text)
