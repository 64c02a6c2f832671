"""Rollouts, journal, monitors, budgets, needs: what is kept, and that nobody writes over what he has not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, RolloutState, WaveFacts
from orchestrator.core.journal import GENESIS, Entry, first_break
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.states import LIVE_ROLLOUT, RolloutStatus
from orchestrator.errors import Conflict, Refused
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.records import DeltaNeed, WaveCount
from tests.contract.building import (
    DAY,
    HOUR,
    NEW,
    NOW,
    OLD,
    OTHER,
    STANDING,
    device,
    enroll,
    monitor,
    offered,
    rollout,
    scope,
    selector,
    undone,
)


def test_a_rollout_comes_back_as_it_was_written(store: SqlStore) -> None:
    of = scope(
        selector("a", group="lab"), selector("b", labels=(("k", "v"),), bounds=(("rpi4", 7),)), from_versions=(43,)
    )
    row = rollout(of=of, waves=("a", "b"), spec='{"x": "ü"}', journal_seq=3, journal_hash="h")
    with store.writing() as w:
        added = w.add_rollout(row)
        assert added == replace(row, key=added.key, version=1)
    with store.reading() as r:
        assert r.rollout("r") == added
        assert r.rollout_by_key(added.key) == added
        assert r.rollout("other") is None


def test_a_name_is_taken_once(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_rollout(rollout())
        with pytest.raises(Refused, match="already"):
            w.add_rollout(rollout())


def test_rollouts_are_listed_newest_first_and_by_status(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_rollout(rollout("old"))
        new = w.add_rollout(rollout("new", created_at=NOW + DAY))
        halted = replace(new, state=replace(new.state, status=RolloutStatus.HALTED, epoch=2))
        assert w.save_rollout(halted).version == 2
        assert [row.state.rollout for row in w.rollouts()] == ["new", "old"]
        assert [row.state.rollout for row in w.rollouts({RolloutStatus.HALTED, RolloutStatus.HELD})] == ["new"]
        assert w.rollouts(()) == []
        assert w.lock_rollout(new.key) == (RolloutStatus.HALTED, 2)


def test_of_the_completed_only_the_newest_of_each_tag_may_still_offer(store: SqlStore) -> None:
    """The newest is the one completed last, to the microsecond, whenever it was made; live ones are all there."""
    second = timedelta(seconds=1)
    completed = (
        ("first", "promoted", 0 * second),
        ("last", "promoted", 3.5 * second),
        ("almost", "promoted", 3.25 * second),
        ("before", "promoted", 3 * second),
        ("alone", "beta", 1 * second),
    )
    with store.writing() as w:
        for minute, (name, tag, at) in enumerate(completed):
            row = rollout(name, tag=tag, created_at=NOW + timedelta(minutes=minute))
            standing = replace(row.state.standing, since=NOW + at)
            w.add_rollout(replace(row, state=replace(row.state, status=RolloutStatus.COMPLETED, standing=standing)))
        for minute, status in enumerate(RolloutStatus):
            if status is not RolloutStatus.COMPLETED:
                row = rollout(status.value, created_at=NOW + timedelta(hours=1, minutes=minute))
                w.add_rollout(replace(row, state=replace(row.state, status=status)))
    with store.reading() as r:
        names = [row.state.rollout for row in r.offering()]
        for tag in ("promoted", "beta", "nobody's"):
            assert r.offering(tag) == [row for row in r.offering() if row.tag == tag]
        everyone = [row.state.rollout for row in r.rollouts()]
    assert set(names) == {status.value for status in LIVE_ROLLOUT} | {"last", "alone"}
    assert names == [name for name in everyone if name in names]


def test_who_writes_over_an_older_version_is_told(store: SqlStore) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
    with store.writing() as w:
        newer = w.save_rollout(replace(row, devices=7))
    assert newer.version == 2
    with pytest.raises(Conflict), store.writing() as w:
        w.save_rollout(replace(row, devices=9))
    with store.reading() as r:
        assert r.rollout("r") == newer


def test_the_journal_keeps_its_chain(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        one = Entry(1, NOW, "started", "ann", "Started.", facts={"p": 0.1, "n": [1, None, {"ü": True}]}).sealed()
        two = Entry(2, NOW + HOUR, "opened", "policy", "Opened.", wave="all", evidence_seq=9, before=one.hash).sealed()
        w.append_journal(row, [one, two])
        assert w.journal(row.key) == [one, two]
        assert first_break(w.journal(row.key)) is None
        assert w.journal(row.key, after=1) == [two]
        assert w.journal(row.key, limit=1) == [one]
        with pytest.raises(Conflict):
            w.append_journal(row, [Entry(2, NOW, "halted", "policy", "Halted.", before=GENESIS).sealed()])


@pytest.mark.parametrize("statement", ["UPDATE journal SET sentence = 'x'", "DELETE FROM journal"])
def test_the_database_itself_refuses_to_change_the_journal(store: SqlStore, statement: str) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
        w.append_journal(row, [Entry(1, NOW, "started", "ann", "Started.").sealed()])
    with pytest.raises(Exception, match="append only"), store.writing() as w:
        w.link.run(statement)
    with store.reading() as r:
        assert len(r.journal(row.key)) == 1


def test_needs_are_replaced_and_their_readiness_is_counted(store: SqlStore) -> None:
    ready, waiting, failed, same = (DeltaPair(start, NEW) for start in (OLD, OTHER, "d" * 64, NEW))
    unknown = DeltaPair("e" * 64, NEW)
    record = DeltaRecord(ready, "deltas/x", 1, 2, 3, 4)
    with undone(store) as w:
        row = w.add_rollout(rollout())
        needs = [
            DeltaNeed(ready, 50),
            DeltaNeed(waiting, 30),
            DeltaNeed(failed, 10),
            DeltaNeed(unknown, 5, known=False),
            DeltaNeed(DeltaPair(None, NEW), 3, known=False),
        ]
        w.set_needs(row.key, "all", WaveCount(100, 99, 7, ()), [*needs, DeltaNeed(same, 1)], now=NOW)
        w.record_delta(record, now=NOW)
        w.queue_builds({waiting: 1.0, failed: 2.0}, now=NOW)
        job = w.lease_build("w", now=NOW, until=NOW + HOUR)
        assert job is not None
        w.finish_build(job.key, job.fence, None, "broken", now=NOW)
        assert w.needs(row.key, "all") == [*needs, DeltaNeed(same, 1)]
        wave = w.facts(row, now=NOW).waves[0]
        assert wave == WaveFacts(
            "all", 100, 7, DeltaFacts(NOW, devices=90, covered=50, unknown=8, pairs=3, ready=1, failed=1)
        )
        assert not w.check()
        w.set_needs(row.key, "all", WaveCount(1, 1, 0, ()), [], now=NOW + HOUR)
        assert w.needs(row.key, "all") == []
        assert w.facts(row, now=NOW).waves[0].deltas == DeltaFacts(NOW + HOUR)


def test_budgets_keep_their_count_when_they_are_set_again(store: SqlStore) -> None:
    failed = BudgetFacts((OutcomeClass.FAILED,), 5, 2)
    pooled = BudgetFacts((OutcomeClass.FAILED, OutcomeClass.SILENT), 9, 0, answer=Answer.HOLD)
    with undone(store) as w:
        row = w.add_rollout(rollout())
        w.set_budgets(row.key, [failed, pooled])
        assert w.budgets(row.key) == [failed, pooled]
        w.set_budgets(row.key, [replace(failed, limit=6, bad=0, base=2)])
        assert w.budgets(row.key) == [BudgetFacts((OutcomeClass.FAILED,), 6, 2, 2)]


def test_a_monitor_begins_again_only_after_it_was_closed(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        spec = monitor()
        w.add_monitors(row.key, [spec, monitor("wave:all")], from_places={"wave:all/failed": 100})
        with pytest.raises(Conflict):
            w.add_monitors(row.key, [spec], from_places={})
        w.close_monitors(row.key, [spec.key], now=NOW)
        w.add_monitors(row.key, [spec], from_places={spec.key: 40})
        found = [(one.spec.key, one.attempt, one.from_place, one.accepted_at) for one in w.monitors(row.key)]
        assert found == [
            ("rollout/failed", 1, 0, NOW),
            ("wave:all/failed", 1, 100, None),
            ("rollout/failed", 2, 40, None),
        ]
        assert [one.accepted for one in w.facts(row, now=NOW).monitors] == [True, False, False]


def test_facts_of_a_rollout_that_has_just_begun(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout(waves=("a", "b")))
        assert w.facts(row, now=NOW) == Facts(devices=1000, waves=(WaveFacts("a"), WaveFacts("b")))


def test_facts_take_few_statements_for_many_waves(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    waves = [f"w{n}" for n in range(12)]
    of = scope(*(selector(wave, group=wave) for wave in waves))
    with undone(store) as w:
        enroll(w, *(device(f"d-{wave}", group=wave) for wave in waves))
        row = w.add_rollout(rollout(of=of, waves=waves))
        for wave in waves:
            w.open_slice(row, of, wave, size=None, seen_since=NOW - DAY, dimensions=(), now=NOW)
            w.set_needs(row.key, wave, WaveCount(1, 1, 0, ()), [DeltaNeed(DeltaPair(OLD, NEW), 1)], now=NOW)
            w.add_monitors(row.key, [monitor(f"wave:{wave}")], from_places={})
        said: list[str] = []
        rows = w.link.rows

        def heard(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            said.append(sql)
            return rows(sql, values)

        monkeypatch.setattr(w.link, "rows", heard)
        assert len(w.facts(row, now=NOW + DAY).waves) == 12
        assert len(said) <= 9


def test_the_next_deadline_is_the_earliest(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        for number, key in enumerate(enroll(w, device("a"), device("b"), device("c"))):
            update = offered(row, key)
            update.update = replace(update.update, deadline_at=None if number == 0 else NOW + number * HOUR)
            w.add_update(update)
        assert w.facts(row, now=NOW).next_deadline == NOW + HOUR


def test_states_are_kept_with_reason_since_and_who(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        wave = replace(row.state.waves[0], hold=STANDING, promoted=True, baking_at=NOW)
        state: RolloutState = replace(row.state, waves=(wave,), start_at=NOW, serve_whole=True, attempt=2)
        saved = w.save_rollout(replace(row, state=state, scope=None))
        again = w.rollout("r")
        assert again == saved
        assert again.state == state
        assert again.scope is None
