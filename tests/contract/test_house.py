"""Builds, outbox, leases, clocks: one holder at a time, and nothing is written by who has lost his lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.states import Reason, ReasonKind
from orchestrator.errors import Conflict, StoreUnavailable
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import BuildJob, Effect, EffectKind, JobStatus
from tests.contract.building import DAY, HOUR, NEW, NOW, OLD, OTHER, rollout, undone

LIGHT, HEAVY, SCRATCH = DeltaPair(OLD, NEW), DeltaPair(OTHER, NEW), DeltaPair(None, NEW)


def record(pair: DeltaPair, **more: Any) -> DeltaRecord:
    return replace(DeltaRecord(pair, "deltas/ab/cd", 2, 1_000, 1, 50, build_seconds=1.5), **more)


def test_a_delta_is_recorded_over_and_forgotten_once(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.delta(LIGHT) is None
        for pair in (LIGHT, SCRATCH):
            w.record_delta(record(pair), now=NOW)
        w.record_delta(record(LIGHT, bytes=2_000, cpu_seconds=0.5), now=NOW)
        assert w.delta(LIGHT) == record(LIGHT, bytes=2_000, cpu_seconds=0.5)
        assert {one.pair for one in w.deltas()} == {LIGHT, SCRATCH}
        assert w.forget_delta(LIGHT)
        assert not w.forget_delta(LIGHT)
        assert w.deltas() == [record(SCRATCH)]


def test_a_pair_has_one_build_under_way(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.queue_builds({LIGHT: 1.0, HEAVY: 2.0}, now=NOW) == 2
        assert w.queue_builds({LIGHT: 5.0, HEAVY: 5.0, SCRATCH: 1.0}, now=NOW) == 1
        w.record_delta(record(DeltaPair(NEW, OLD)), now=NOW)
        assert w.queue_builds({DeltaPair(NEW, OLD): 9.0}, now=NOW) == 0
        assert [job.pair for job in w.jobs()] == [SCRATCH, HEAVY, LIGHT]
        assert len(w.jobs(limit=1)) == 1
        assert w.job(DeltaPair(NEW, NEW)) is None


def test_builds_are_counted_by_status_among_the_newest(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.job_counts(newest=10) == dict.fromkeys(JobStatus, 0)
        w.queue_builds({LIGHT: 1.0, HEAVY: 2.0}, now=NOW)
        job = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert job is not None
        w.finish_build(job.key, job.fence, None, "no", now=NOW)
        w.queue_builds({SCRATCH: 9.0}, now=NOW)
        w.lease_build("a", now=NOW, until=NOW + HOUR)
        counts = {JobStatus.QUEUED: 1, JobStatus.RUNNING: 1, JobStatus.DONE: 0, JobStatus.FAILED: 1}
        assert w.job_counts(newest=10) == counts
        assert sum(w.job_counts(newest=2).values()) == 2


def test_sessions_that_fail_are_counted_by_the_kind_of_error(store: SqlStore) -> None:
    assert store.failures() == {}
    for error in (Conflict("Somebody was first."), Conflict("Again."), StoreUnavailable("Full."), KeyError("ours")):
        for session in (store.reading, store.writing):
            with pytest.raises(type(error)), session():
                raise error
    assert store.failures() == {"conflict": 4, "store_unavailable": 2}


def test_the_heaviest_build_is_leased_first(store: SqlStore) -> None:
    with undone(store) as w:
        w.queue_builds({LIGHT: 1.0, HEAVY: 2.0}, now=NOW)
        first = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert first == BuildJob(
            key=first.key if first else 0,
            pair=HEAVY,
            status=JobStatus.RUNNING,
            weight=2.0,
            fence=1,
            owner="a",
            lease_until=NOW + HOUR,
            attempts=1,
            queued_at=NOW,
            started_at=NOW,
        )
        second = w.lease_build("b", now=NOW, until=NOW + HOUR)
        assert second is not None
        assert second.pair == LIGHT
        assert w.lease_build("c", now=NOW, until=NOW + HOUR) is None
        assert [job.pair for job in w.jobs(statuses={JobStatus.RUNNING})] == [HEAVY, LIGHT]


def test_who_has_lost_the_lease_writes_nothing(store: SqlStore) -> None:
    with undone(store) as w:
        w.queue_builds({LIGHT: 1.0}, now=NOW)
        old = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert old is not None
        assert w.renew_build(old.key, old.fence, until=NOW + 2 * HOUR, stage="generate", done=0.4, log="one\n")
        assert w.renew_build(old.key, old.fence, until=NOW + 2 * HOUR, stage="verify", done=0.7, log="two\n")
        renewed = w.job(LIGHT)
        assert renewed is not None
        assert (renewed.stage, renewed.done, renewed.log) == ("verify", 0.7, "one\ntwo\n")
        assert w.lease_build("b", now=NOW + HOUR, until=NOW + 3 * HOUR) is None
        new = w.lease_build("b", now=NOW + 2 * HOUR, until=NOW + 3 * HOUR)
        assert new is not None
        assert (new.fence, new.attempts, new.owner) == (2, 2, "b")
        assert not w.renew_build(old.key, old.fence, until=NOW + DAY, stage="x", done=1, log="late")
        assert not w.finish_build(old.key, old.fence, record(LIGHT), None, now=NOW)
        assert w.delta(LIGHT) is None
        assert w.job(LIGHT) == new
        assert w.finish_build(new.key, new.fence, record(LIGHT), None, now=NOW + 3 * HOUR)
        assert not w.finish_build(new.key, new.fence, record(LIGHT), None, now=NOW + 3 * HOUR)
        done = w.job(LIGHT)
        assert done is not None
        assert (done.status, done.done, done.ended_at) == (JobStatus.DONE, 1.0, NOW + 3 * HOUR)
        assert w.delta(LIGHT) == record(LIGHT)


def test_a_failed_build_waits_until_it_is_asked_for_again(store: SqlStore) -> None:
    with undone(store) as w:
        w.queue_builds({LIGHT: 1.0}, now=NOW)
        job = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert job is not None
        assert w.finish_build(job.key, job.fence, None, "worker stopped", now=NOW, retry=True)
        job = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert job is not None
        assert w.finish_build(job.key, job.fence, None, "no space", now=NOW)
        failed = w.job(LIGHT)
        assert failed is not None
        assert (failed.status, failed.error, failed.attempts) == (JobStatus.FAILED, "no space", 1)
        assert w.queue_builds({LIGHT: 1.0}, now=NOW) == 0
        assert w.queue_builds({LIGHT: 1.0}, now=NOW, again=True) == 1
        again = w.job(LIGHT)
        assert again is not None
        assert again.status is JobStatus.QUEUED
        assert again.key > failed.key


def test_effects_wait_in_order_until_they_are_done(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_effects([Effect(EffectKind.WITHDRAW, "r"), Effect(EffectKind.ENSURE_DELTAS, "r", "lab")])
        first, second = w.effects()
        assert (first.kind, first.wave, second.wave) == (EffectKind.WITHDRAW, None, "lab")
        assert w.effects(limit=1) == [first]
        w.fail_effect(first.key, "no repository")
        assert w.effects()[0] == replace(first, error="no repository")
        w.finish_effect(first.key)
        w.finish_effect(first.key)
        assert w.effects() == [second]


def test_what_withdraws_goes_first_and_a_look_waits_once(store: SqlStore) -> None:
    look = Effect(EffectKind.ENSURE_DELTAS, "r", "lab")
    with undone(store) as w:
        w.add_effects([look, look, Effect(EffectKind.ENSURE_DELTAS, "r", "rest"), Effect(EffectKind.WITHDRAW, "r")])
        w.add_effects([look, Effect(EffectKind.ENSURE_DELTAS, "other", "lab"), Effect(EffectKind.WITHDRAW, "r")])
        found = [(one.kind.value, one.rollout, one.wave) for one in w.effects()]
        assert found == [
            ("withdraw", "r", None),
            ("withdraw", "r", None),
            ("ensure_deltas", "r", "lab"),
            ("ensure_deltas", "r", "rest"),
            ("ensure_deltas", "other", "lab"),
        ]


def test_a_lease_has_one_owner_until_it_is_over(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.lease_holder("ticker") is None
        assert w.take_lease("ticker", "a", now=NOW, until=NOW + HOUR)
        assert not w.take_lease("ticker", "b", now=NOW, until=NOW + HOUR)
        assert w.take_lease("ticker", "a", now=NOW, until=NOW + 2 * HOUR)
        assert w.lease_holder("ticker") == ("a", NOW + 2 * HOUR)
        assert w.take_lease("ticker", "b", now=NOW + 2 * HOUR, until=NOW + 3 * HOUR)
        w.drop_lease("ticker", "a")
        assert w.lease_holder("ticker") == ("b", NOW + 3 * HOUR)
        w.drop_lease("ticker", "b")
        assert w.lease_holder("ticker") is None


def test_ticks_never_go_back_and_heartbeats_say_the_one_before(store: SqlStore) -> None:
    with undone(store) as w:
        assert w.latest_tick(now=NOW) == NOW
        assert w.latest_tick(now=NOW - HOUR) == NOW
        assert w.latest_tick(now=NOW + timedelta(microseconds=1)) == NOW + timedelta(microseconds=1)
        assert w.heartbeat("gateway", now=NOW) is None
        assert w.heartbeat("gateway", now=NOW - HOUR) == NOW
        assert w.heartbeat("gateway", now=NOW) == NOW - HOUR
        assert w.heartbeat("ticker", now=NOW) is None


def test_frost_comes_and_goes(store: SqlStore) -> None:
    reason = Reason(ReasonKind.FROZEN, "The site burns.")
    with store.writing() as w:
        assert w.frozen() is None
        w.freeze(reason)
    with store.reading() as r:
        assert r.frozen() == reason
    with store.writing() as w:
        w.freeze(None)
        assert w.frozen() is None


def test_the_pulse_changes_with_every_order_and_with_a_build_that_ends(store: SqlStore) -> None:
    with undone(store) as w:
        seen = [w.pulse()]
        row = w.add_rollout(rollout())
        seen.append(w.pulse())
        w.save_rollout(row)
        seen.append(w.pulse())
        w.queue_builds({LIGHT: 1.0}, now=NOW)
        job = w.lease_build("a", now=NOW, until=NOW + HOUR)
        assert job is not None
        w.finish_build(job.key, job.fence, None, "no", now=NOW)
        seen.append(w.pulse())
        assert len(set(seen)) == 4
