"""All or nothing, one after the other, and nothing lost: whoever else is at work, and whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.core.states import OFFERING_ROLLOUT, Reason, ReasonKind, RolloutStatus
from orchestrator.errors import Busy, Conflict, WaveError
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.records import CountedOutcome, DeviceFilter, EventRow
from orchestrator.services.store import Store
from tests.contract.building import HOUR, NOW, Opener, device, enroll, offered, rollout, undone
from tests.postgres import Cluster

ROOT = Path(__file__).parents[2]


def together(*works: Callable[[], object]) -> None:
    """Run all at once, each in a thread of its own; what one raises is raised here."""
    gate = threading.Barrier(len(works))
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        gate.wait()
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def test_the_sql_store_is_a_store(store: SqlStore) -> None:
    port: Store = store
    with port.reading() as r:
        assert r.frozen() is None


def test_what_raises_leaves_nothing_behind(store: SqlStore) -> None:
    with undone(store) as w:
        w.add_group("lab")
        enroll(w, device("a", hardware_id="new-board"))
    with store.reading() as r:
        assert r.groups() == {}
        assert r.count_devices(DeviceFilter()) == 0
    with store.writing() as w:  # what it had learnt of short names is forgotten, too
        enroll(w, device("b", hardware_id="other-board"), device("a", hardware_id="new-board"))
        assert [one.device.hardware_id for one in w.devices(DeviceFilter())] == ["new-board", "other-board"]


def test_a_rehearsal_seals_nothing_and_cannot_be_committed(store: SqlStore) -> None:
    with store.writing() as w:
        row = w.add_rollout(rollout())
        (key,) = enroll(w, device("a"))
        w.log_outcomes([CountedOutcome(row.key, key, NOW, "confirmed", "all", 1, 1, 1)])
    with undone(store) as w:
        assert w.seal_evidence(row.key, at_most=10).rows == 1

    def rehearsed() -> None:
        with store.writing() as w:
            w.rehearse()
            w.add_group("lab")
            assert w.seal_evidence(row.key, at_most=10) == (0, 0, "")

    with pytest.raises(RuntimeError, match="taken back"):
        rehearsed()
    with store.reading() as r:
        assert "lab" not in r.groups()


def test_a_transaction_reads_what_it_wrote(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_group("lab")
        assert w.groups() == {"lab": 0}


def test_a_reader_sees_one_moment(opener: Opener) -> None:
    store, other = opener(), opener()
    with store.reading() as r:
        assert r.groups() == {}
        with other.writing() as w:
            w.add_group("lab")
        assert r.groups() == {}
    with store.reading() as r:
        assert r.groups() == {"lab": 0}


def test_a_session_inside_another_is_told_so_where_it_would_wait_for_itself() -> None:
    store = open_store("sqlite://")
    with store.writing(), pytest.raises(RuntimeError, match="inside another"), store.writing():
        pass
    store.close()


def test_many_threads_write_and_none_is_lost(store: SqlStore) -> None:
    def write(name: str) -> None:
        for number in range(10):
            with store.writing() as w:
                w.add_group(f"{name}-{number}")

    together(*(partial(write, name) for name in "abcd"))
    with store.reading() as r:
        assert len(r.groups()) == 40


def test_two_offers_at_once_are_one(opener: Opener) -> None:
    stores = (opener(), opener())
    with stores[0].writing() as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(20)))
        row = w.add_rollout(rollout())
    given: list[int] = []

    def offer_all(store: SqlStore) -> None:
        for key in keys:
            with store.writing() as w:
                w.lock_rollout(row.key)
                if w.add_update(offered(row, key)):
                    given.append(key)

    together(lambda: offer_all(stores[0]), lambda: offer_all(stores[1]))
    assert sorted(given) == keys


def test_an_event_sent_to_two_at_once_is_new_for_one(opener: Opener) -> None:
    stores = (opener(), opener())
    events = [EventRow(number % 7 + 1, f"e{number}", None, "failed", NOW, None, None, None) for number in range(300)]
    fresh: list[bool] = []

    def report(store: SqlStore) -> None:
        for start in range(0, 300, 30):
            for _ in range(20):
                try:
                    with store.writing() as w:
                        found = w.log_events(events[start : start + 30])
                    break
                except Conflict:
                    continue
            fresh.extend(found)

    together(lambda: report(stores[0]), lambda: report(stores[1]))
    assert fresh.count(True) == 300


def test_no_offer_commits_after_a_halt(opener: Opener) -> None:
    """Offers race with a halt. None is added after the halt's commit."""
    stores = (opener(), opener(), opener())
    with stores[0].writing() as w:
        keys = enroll(w, *(device(f"d{n}") for n in range(200)))
        row = w.add_rollout(rollout())
    offering, halted = threading.Event(), threading.Event()
    after_halt: list[int] = []

    def offer_some(store: SqlStore, mine: list[int]) -> None:
        for key in mine:
            late = halted.is_set()
            with store.writing() as w:
                status, epoch = w.lock_rollout(row.key)
                if status in OFFERING_ROLLOUT:
                    assert epoch == 1
                    w.add_update(offered(row, key))
                    if late:
                        after_halt.append(key)
            offering.set()

    def halt() -> None:
        assert offering.wait(30)
        with stores[2].writing() as w:
            state = replace(row.state, status=RolloutStatus.HALTED, epoch=2)
            w.save_rollout(replace(row, state=state))
            before.append(len(w.list_updates(row.key, limit=1_000)))
        halted.set()

    before: list[int] = []
    together(lambda: offer_some(stores[0], keys[:100]), lambda: offer_some(stores[1], keys[100:]), halt)
    assert after_halt == [] and before[0] > 0
    with stores[0].reading() as r:
        assert len(r.list_updates(row.key, limit=1_000)) == before[0]


def test_a_rollout_is_locked_by_one(opener: Opener) -> None:
    """Also of two that only offer: one that shares a lock cannot halt without waiting for the other."""
    store, other = opener(), opener()
    with store.writing() as w:
        row = w.add_rollout(rollout())
    locked = threading.Event()

    def lock() -> None:
        with other.writing() as w:
            w.lock_rollout(row.key)
            locked.set()

    with store.writing() as w:
        w.lock_rollout(row.key)
        thread = threading.Thread(target=lock)
        thread.start()
        assert not locked.wait(0.3)
    thread.join(30)
    assert locked.is_set()


def test_no_offer_commits_after_frost(opener: Opener) -> None:
    store, other = opener(), opener()
    frozen = threading.Event()

    def freeze() -> None:
        with other.writing() as w:
            w.freeze(Reason(ReasonKind.FROZEN, "Stop."))
        frozen.set()

    with store.writing() as w:
        assert w.frozen() is None
        thread = threading.Thread(target=freeze)
        thread.start()
        assert not frozen.wait(0.3)  # it waits for the offer that found no frost
    thread.join(30)
    assert frozen.is_set()


def test_an_update_is_changed_by_one_at_a_time(opener: Opener) -> None:
    """Two add one to the same count, a hundred times each, and both hundreds are there."""
    stores = (opener(), opener())
    with stores[0].writing() as w:
        keys = enroll(w, device("a"), device("b"))
        row = w.add_rollout(rollout())
        for key in keys:
            w.add_update(offered(row, key))

    def count(store: SqlStore, order: list[int]) -> None:
        for _ in range(50):
            with store.writing() as w:
                rows = w.load_updates([(row.key, key) for key in order])
                for one in rows.values():
                    one.update = replace(one.update, check_ins=one.update.check_ins + 1)
                w.save_updates(rows.values())

    together(lambda: count(stores[0], keys), lambda: count(stores[1], keys[::-1]))
    with stores[0].reading() as r:
        found = [r.update(row.key, key) for key in keys]
    assert [one.update.check_ins for one in found if one is not None] == [100, 100]


def test_a_build_is_leased_to_one(opener: Opener) -> None:
    stores = (opener(), opener())
    with stores[0].writing() as w:
        w.queue_builds({DeltaPair(f"{number:064x}", "b" * 64): number for number in range(30)}, now=NOW)
    leased: list[int] = []

    def work(store: SqlStore) -> None:
        while True:
            with store.writing() as w:
                job = w.lease_build("w", now=NOW, until=NOW + HOUR)
            if job is None:
                return
            leased.append(job.key)

    together(lambda: work(stores[0]), lambda: work(stores[1]))
    assert len(leased) == len(set(leased)) == 30


def test_two_starts_write_over_a_rollout_once(opener: Opener) -> None:
    stores = (opener(), opener())
    with stores[0].writing() as w:
        row = w.add_rollout(rollout())
    told: list[str] = []

    def save(store: SqlStore) -> None:
        try:
            with store.writing() as w:
                w.save_rollout(replace(row, devices=7))
            told.append("done")
        except Conflict:
            told.append("conflict")

    together(lambda: save(stores[0]), lambda: save(stores[1]))
    assert sorted(told) == ["conflict", "done"]


@pytest.mark.postgres
def test_a_deadlock_is_a_conflict(postgres: tuple[Cluster, str]) -> None:
    """Two that take what the other holds: one gives way and is told to try again. (On SQLite the writer is alone.)"""
    running, template = postgres
    url = running.url(running.database(template))
    stores = (open_store(url), open_store(url))
    with stores[0].writing() as w:
        keys = enroll(w, device("a"), device("b"))
        row = w.add_rollout(rollout())
        for key in keys:
            w.add_update(offered(row, key))
    gate = threading.Barrier(2)
    told: list[WaveError] = []

    def cross(store: SqlStore, order: list[int]) -> None:
        try:
            with store.writing() as w:
                w.load_updates([(row.key, order[0])])
                gate.wait()
                w.load_updates([(row.key, order[1])])
        except WaveError as error:
            told.append(error)

    together(lambda: cross(stores[0], keys), lambda: cross(stores[1], keys[::-1]))
    assert [type(error) for error in told] == [Conflict]
    for store in stores:
        store.close()


def test_a_writer_that_waits_too_long_is_told_to_come_back(tmp_path: Path) -> None:
    with ExitStack() as ending:
        opener = Opener(f"sqlite:///{tmp_path / 'wave.db'}", ending)
        store, other = opener(), opener(busy_after=0.2)
        with store.writing(), pytest.raises(Busy, match="busy"), other.writing():
            pass
        told: list[WaveError] = []

        def write() -> None:
            try:
                with other.writing():
                    pass
            except WaveError as error:
                told.append(error)

        with other.writing():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join(10)
        assert [type(error) for error in told] == [Busy]


WRITER = """
import sys
from orchestrator.adapters.sql.store import open_store
from orchestrator.services.records import EventRow
from tests.contract.building import NOW
store = open_store(sys.argv[1])
number = 0
while True:
    with store.writing() as w:
        w.log_events([EventRow(1, f"{number}-{part}", None, "failed", NOW, None, None, None) for part in range(50)])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_it_has_committed(opener: Opener) -> None:
    """kill -9 in the middle of writing: what was acknowledged is there, and every batch is whole."""
    store = opener()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, opener.url], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        until = time.monotonic() + 60
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged >= 30 or time.monotonic() > until:
                break
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout)])
    with store.reading() as r:
        events = r.events(limit=100_000)
        assert r.check() == []
    batches: dict[int, int] = {}
    for event in events:
        number = int(event.event_id.split("-")[0])
        batches[number] = batches.get(number, 0) + 1
    assert set(batches.values()) == {50}
    assert set(range(acknowledged + 1)) <= set(batches)
    with store.writing() as w:
        w.add_group("alive")
