"""What the console lists of rollouts, deltas and failed devices, where there is something of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters.sql.store import SqlStore, SqlWriting
from orchestrator.core.fleet import Target
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.core.update import Counts, UpdateStatus
from orchestrator.services.console_store import Made, NeededBy, Tallied
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import BadOutcome, DeltaNeed, JobStatus, RolloutRow, WaveCount
from tests.contract.building import (
    HOUR,
    NEW,
    NOW,
    OLD,
    OTHER,
    STANDING,
    WEEK_AGO,
    device,
    enroll,
    monitor,
    offered,
    rollout,
    scope,
    undone,
)

FAILED, SILENT = OutcomeClass.FAILED, OutcomeClass.SILENT
COUNT = WaveCount(100, 99, 7, ())
LIGHT, HEAVY, SCRATCH = DeltaPair(OLD, NEW), DeltaPair(OTHER, NEW), DeltaPair(None, NEW)
BACK = DeltaPair(NEW, OLD)


def stands(name: str, status: RolloutStatus, tag: str = "promoted", *, age: int = 0) -> RolloutRow:
    row = rollout(name, of=scope(tag=tag), waves=("first", "second"), tag=tag, created_at=NOW - age * HOUR)
    return replace(row, state=replace(row.state, status=status))


def names(rows: Sequence[RolloutRow]) -> list[str]:
    return [row.state.rollout for row in rows]


def test_rollouts_come_in_pages_the_newest_first_and_are_counted_by_status(store: SqlStore) -> None:
    with undone(store) as w:
        for age, status in enumerate([RolloutStatus.RUNNING, RolloutStatus.HALTED] * 3 + [RolloutStatus.COMPLETED]):
            w.add_rollout(stands(f"r{age}", status, f"tag-{age}", age=age))
        assert names(w.rollout_page(None, offset=0, limit=3)) == ["r0", "r1", "r2"]
        assert names(w.rollout_page(None, offset=5, limit=3)) == ["r5", "r6"]
        assert names(w.rollout_page({RolloutStatus.HALTED}, offset=1, limit=5)) == ["r3", "r5"]
        assert w.rollout_page({RolloutStatus.DRAFT}, offset=0, limit=5) == []
        (row,) = w.rollout_page({RolloutStatus.COMPLETED}, offset=0, limit=1)
        assert row == w.rollout("r6")
        counts = {RolloutStatus.RUNNING: 3, RolloutStatus.HALTED: 3, RolloutStatus.COMPLETED: 1}
        assert w.rollout_statuses() == counts


def test_many_rollouts_are_tallied_at_once_over_all_their_slices(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, *(device(f"d{n}") for n in range(30)))
        rows = [w.add_rollout(rollout(name)) for name in ("one", "two", "none")]
        for row in rows[:2]:
            for hour, size in enumerate((20, 5)):
                w.open_slice(row, scope(), "all", size=size, seen_since=WEEK_AGO, dimensions=(), now=NOW + hour * HOUR)
        one, two = rows[0].key, rows[1].key
        w.add_counts({(one, "all", 1, False): Counts(offered=9, resolved=4, confirmed=3, bad=(FAILED, SILENT))})
        w.add_counts({(one, "all", 2, False): Counts(offered=2, bad=(FAILED,))})
        w.add_counts({(two, "all", 2, False): Counts(offered=1)})
        found = w.tallied([row.key for row in rows])
        assert found == {one: Tallied(25, 11, 4, 3, 3), two: Tallied(25, 1, 0, 0, 0)}


def test_failed_devices_are_found_with_their_places_in_the_monitors_that_are_open(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        w.add_monitors(row.key, [monitor(), monitor("wave:all"), monitor("rollout", SILENT)], from_places={})
        for place, outcome in ((7, FAILED), (3, FAILED), (9, SILENT)):
            go_bad(w, row, place, outcome)
        enroll(w, device("fine"))
        found = {each.device: each for each in w.stains(row, limit=10)}
        assert {name: each.places for name, each in found.items()} == {
            "at-7": {"rollout/failed": 7, "wave:all/failed": 7},
            "at-3": {"rollout/failed": 3, "wave:all/failed": 3},
            "at-9": {"rollout/silent": 9},
        }
        assert (found["at-9"].outcomes, found["at-9"].wave, found["at-9"].slice) == ((SILENT,), "all", 1)
        assert len(w.stains(row, limit=2)) == 2
        w.close_monitors(row.key, ["wave:all/failed"], now=NOW)
        assert {name for each in w.stains(row, limit=10) for name in each.places} == {
            "rollout/failed",
            "rollout/silent",
        }


def go_bad(w: SqlWriting, row: RolloutRow, place: int, outcome: OutcomeClass) -> None:
    (key,) = enroll(w, device(f"at-{place}"))
    update = offered(row, key, place=place)
    update.update = replace(update.update, bad=frozenset({outcome}), status=UpdateStatus.FAILED, resolved=True)
    w.add_update(update)
    w.add_bad(row.key, [BadOutcome(outcome, "all", place, place)])


def test_a_journal_is_read_from_an_entry_on(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        entries = [Entry(seq, NOW + seq * HOUR, "paused", "ann", f"No {seq}.", wave="all") for seq in range(1, 8)]
        w.append_journal(row, [each.sealed() for each in entries])
        last = w.journal_lines(row.key, after=4, limit=2)
        assert [(each.seq, each.sentence, each.by, each.event) for each in last] == [
            (5, "No 5.", "ann", "paused"),
            (6, "No 6.", "ann", "paused"),
        ]
        assert (last[0].at, last[0].wave) == (NOW + 5 * HOUR, "all")
        assert w.journal_lines(row.key, after=7, limit=2) == []


def test_segments_are_listed_with_their_places_the_most_first(store: SqlStore) -> None:
    with undone(store) as w:
        enroll(w, *(device(f"d{n}", hardware_id="imx8" if n % 3 else "rpi4") for n in range(30)))
        row = w.add_rollout(rollout())
        dimensions = ("hardware_id", "source_version")
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=dimensions, now=NOW)
        assert w.segments_placed(row.key, limit=10) == [
            ("source_version=41", 30),
            ("hardware_id=imx8", 20),
            ("hardware_id=rpi4", 10),
        ]
        assert w.segments_placed(row.key, limit=1) == [("source_version=41", 30)]
        assert w.segments_placed(row.key + 1, limit=1) == []


def test_what_waves_need_is_read_of_one_rollout_and_of_all_that_may_offer(store: SqlStore) -> None:
    with undone(store) as w:
        one, two, over, newest, older = (
            w.add_rollout(stands(name, status, tag))
            for name, status, tag in (
                ("one", RolloutStatus.RUNNING, "a"),
                ("two", RolloutStatus.HALTED, "b"),
                ("over", RolloutStatus.CANCELLED, "c"),
                ("newest", RolloutStatus.COMPLETED, "d"),
                ("older", RolloutStatus.COMPLETED, "d"),
            )
        )
        older = w.save_rollout(since(older, timedelta(days=2)))
        skipped = replace(two.state.waves[1], status=WaveStatus.SKIPPED)
        two = w.save_rollout(replace(two, state=replace(two.state, waves=(two.state.waves[0], skipped))))
        for row in (one, two, over, newest, older):
            w.set_needs(row.key, "first", COUNT, [DeltaNeed(LIGHT, 5)], now=NOW)
        w.set_needs(one.key, "second", COUNT, [DeltaNeed(HEAVY, 3, known=False), DeltaNeed(LIGHT, 9)], now=NOW)
        w.set_needs(two.key, "second", COUNT, [DeltaNeed(SCRATCH, 1)], now=NOW)
        found = w.needs_of(one.key)
        assert found == {wave: w.needs(one.key, wave) for wave in ("first", "second")}
        assert found["second"] == [DeltaNeed(LIGHT, 9), DeltaNeed(HEAVY, 3, known=False)]
        assert w.needed_now() == {
            LIGHT: [
                NeededBy("newest/first", 5, True),
                NeededBy("two/first", 5, True),
                NeededBy("one/first", 5, True),
                NeededBy("one/second", 9, True),
            ],
            HEAVY: [NeededBy("one/second", 3, False)],
        }


def since(row: RolloutRow, earlier: timedelta) -> RolloutRow:
    return replace(row, state=replace(row.state, standing=replace(STANDING, since=NOW - earlier)))


def test_without_needs_nothing_is_needed(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.needed_now() == {}
        row = w.add_rollout(rollout())
        assert w.needs_of(row.key) == {} and w.needed_now() == {}


def test_of_a_commit_the_versions_and_hardware_ids_of_its_targets_are_known(store: SqlStore) -> None:
    with undone(store) as w:
        for number, (version, commit, board) in enumerate(
            [(41, OLD, "rpi4"), (42, NEW, "rpi4"), (43, NEW, "rpi4"), (43, OTHER, "imx8")]
        ):
            w.add_target(Target(f"t{number}", version, commit, (board,), ("main",), "fake"), now=NOW)
        found = w.made_of([OLD, NEW, "f" * 64])
        assert found == {OLD: Made((41,), frozenset({"rpi4"})), NEW: Made((43, 42), frozenset({"rpi4"}))}
        assert w.made_of([]) == {}


def test_deltas_are_found_by_pairs_and_by_pages_the_newest_first(store: SqlStore) -> None:
    with undone(store) as w:
        for hour, pair in enumerate((LIGHT, HEAVY, SCRATCH)):
            w.record_delta(DeltaRecord(pair, f"deltas/{hour}", 1, 10 + hour, 0, 0, 1.5, 1.0), now=NOW + hour * HOUR)
        found = w.deltas_of([LIGHT, SCRATCH, BACK])
        assert found == {pair: w.delta(pair) for pair in (LIGHT, SCRATCH)}
        assert w.count_deltas() == 3
        assert [each.pair for each in w.delta_page(offset=0, limit=2)] == [SCRATCH, HEAVY]
        assert w.delta_page(offset=2, limit=2) == [w.delta(LIGHT)]
        assert w.delta_page(offset=3, limit=2) == [] and w.deltas_of([]) == {}


@pytest.mark.parametrize("limit", [1, 10])
def test_of_builds_the_newest_of_each_pair_is_found_without_its_log(store: SqlStore, limit: int) -> None:
    with undone(store) as w:
        build(w, LIGHT, error="the disk is full")
        w.queue_builds({LIGHT: 1.0}, now=NOW + HOUR, again=True)
        build(w, BACK, error="it hung")
        build(w, HEAVY)
        build(w, SCRATCH, error="no room")
        w.record_delta(DeltaRecord(SCRATCH, "deltas/x", 1, 10, 0, 0), now=NOW)
        found = w.jobs_of([LIGHT, HEAVY, DeltaPair(OTHER, OLD)])
        newest = w.job(LIGHT)
        assert newest is not None and set(found) == {LIGHT, HEAVY}
        assert found[LIGHT] == replace(newest, log="") and found[LIGHT].status is JobStatus.QUEUED
        assert found[HEAVY].status is JobStatus.DONE and found[HEAVY].log == ""
        waiting = [(each.pair, each.status, each.error, each.log) for each in w.unsettled(limit=limit)]
        assert waiting == [(BACK, JobStatus.FAILED, "it hung", ""), (LIGHT, JobStatus.QUEUED, None, "")][:limit]
        assert w.jobs_of([]) == {}


def build(w: SqlWriting, pair: DeltaPair, *, error: str | None = None) -> None:
    """Queued, taken, and ended so; it has a log."""
    w.queue_builds({pair: 5.0}, now=NOW)
    job = w.lease_build("builder", now=NOW, until=NOW + HOUR)
    assert job is not None and job.pair == pair
    w.renew_build(job.key, job.fence, until=NOW + HOUR, stage="comparing", done=0.5, log="a line\n" * 100)
    record = None if error else DeltaRecord(pair, "deltas/y", 1, 10, 0, 0)
    w.finish_build(job.key, job.fence, record, error, now=NOW + HOUR)


def test_whether_anything_stirred_is_told_by_builds_that_ended(store: SqlStore) -> None:
    with undone(store) as w:
        before, pulse = w.stir(), w.pulse()
        build(w, LIGHT, error="the disk is full")
        assert w.stir() != before and w.pulse() != pulse
