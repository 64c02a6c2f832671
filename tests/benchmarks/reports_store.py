"""How fast reports go into the store, against bare sqlite3 writing the same event rows in the same run.

``python -m tests.benchmarks.reports_store [--events N] [--synchronous FULL|NORMAL]``

Bare: ``executemany`` of INSERT OR IGNORE into one table of the same columns with the same unique key, a commit for
each batch. Ours, for each batch in one transaction: ``log_events``, ``load_updates``, the pure ``on_event`` fold,
``save_updates``, ``add_counts``. Ids are random UUIDs; devices report in random order, a download, an installation
and its end each, and every hundredth event comes twice.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from orchestrator.adapters.sql.codec import packed_id
from orchestrator.adapters.sql.store import SqlStore, open_store
from orchestrator.adapters.sql.times import stored
from orchestrator.core.fleet import Device
from orchestrator.core.update import Counts, EventKind, Patience, on_event
from orchestrator.services.records import EventRow
from tests.contract.building import WEEK_AGO, offered, rollout, scope

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PATIENCE = Patience(timedelta(days=1))
BATCH = 1_000
COURSE = ("downloading", "installing", "applied")
KINDS = {kind.value: kind for kind in EventKind}


def batches(devices: list[int], events: int, rollout_key: int) -> Iterator[list[EventRow]]:
    """Rows as the gateway hands them over."""
    chance = random.Random(7)
    order = list(devices)
    step = 0
    made: list[EventRow] = []
    for number in range(events):
        if number % len(order) == 0:
            chance.shuffle(order)
            step = number // len(order)
        name = str(UUID(int=chance.getrandbits(128), version=4))
        at = NOW + timedelta(seconds=number // 100)
        made.append(
            EventRow(order[number % len(order)], name, rollout_key, COURSE[step % 3], at, at.isoformat(), None, None)
        )
        if number % 100 == 99:
            made[-1] = made[-2]
        if len(made) == BATCH:
            yield made
            made = []


def bare(path: Path, work: list[list[EventRow]], synchronous: str) -> float:
    """Events a second, sqlite3 alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(
        "CREATE TABLE event (seq INTEGER PRIMARY KEY, device_key INTEGER, event_id BLOB, rollout_key INTEGER, "
        "kind TEXT, "
        "received_at INTEGER, device_at TEXT, code TEXT, message TEXT, UNIQUE (device_key, event_id))"
    )
    rows = [[(e[0], packed_id(e[1]), e[2], e[3], stored(e[4]), *e[5:]) for e in batch] for batch in work]
    begun = time.perf_counter()
    for batch in rows:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT OR IGNORE INTO event (device_key, event_id, rollout_key, kind, received_at, device_at, code, "
            "message) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            batch,
        )
        connection.execute("COMMIT")
    spent = time.perf_counter() - begun
    connection.close()
    return sum(map(len, work)) / spent


def report(store: SqlStore, batch: list[EventRow], spent: dict[str, float]) -> None:
    """One batch, as the reports service does it."""
    clock = time.perf_counter
    with store.writing() as w:
        t0 = clock()
        fresh = w.log_events(batch)
        t1 = clock()
        rows = w.load_updates({(event.rollout_key or 0, event.device_key) for event in batch})
        t2 = clock()
        sums: dict[tuple[int, str, int], list[int]] = {}
        changed = {}
        for event, new in zip(batch, fresh, strict=True):
            if not new:
                continue
            key = (event.rollout_key or 0, event.device_key)
            row = rows[key]
            step = on_event(row.update, KINDS[event.kind], patience=PATIENCE, now=event.received_at)
            if step.changed:
                row.update = step.update
                changed[key] = row
            total = sums.setdefault((row.rollout_key, row.wave, row.slice), [0, 0])
            total[0] += step.counts.started
            total[1] += step.counts.applied
        counts = {key: Counts(started=total[0], applied=total[1]) for key, total in sums.items()}
        t3 = clock()
        w.save_updates(changed.values())
        t4 = clock()
        w.add_counts(counts)
        t5 = clock()
    t6 = clock()
    for name, took in zip(
        ("log_events", "load_updates", "on_event", "save_updates", "add_counts", "commit"),
        (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4, t6 - t5),
        strict=True,
    ):
        spent[name] = spent.get(name, 0.0) + took


def prepared(store: SqlStore, devices: int) -> tuple[int, list[int]]:
    """A rollout whose devices all have an offer."""
    fleet = (
        Device(f"d{n}", "rpi4", "promoted", commit="a" * 64, version=41, since_at=NOW, last_seen_at=NOW)
        for n in range(devices)
    )
    with store.writing() as w:
        w.enroll(((one, None) for one in fleet), now=NOW)
        row = w.add_rollout(rollout())
        w.open_slice(row, scope(), "all", size=None, seen_since=WEEK_AGO, dimensions=(), now=NOW)
        keys = list(range(1, devices + 1))
        for key in keys:
            w.add_update(offered(row, key))
    return row.key, keys


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--events", type=int, default=200_000)
    asked.add_argument("--devices", type=int, default=50_000)
    asked.add_argument("--synchronous", default="FULL", choices=("FULL", "NORMAL"))
    asked.add_argument("--url", help="measure this store (PostgreSQL) instead of a SQLite file")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(chosen.url or f"sqlite:///{directory}/wave.db", synchronous=chosen.synchronous)
        rollout_key, keys = prepared(store, chosen.devices)
        work = list(batches(keys, chosen.events, rollout_key))
        events = sum(map(len, work))
        gc.collect()
        gc.freeze()  # the work that is prepared here is no garbage of the store's
        limit = bare(Path(directory) / "bare.db", work, chosen.synchronous)
        spent: dict[str, float] = {}
        begun = time.perf_counter()
        for batch in work:
            report(store, batch, spent)
        rate = events / (time.perf_counter() - begun)
        store.close()
    print(f"{events} events in batches of {BATCH}, synchronous {chosen.synchronous}")
    print(f"bare sqlite3     {limit:10,.0f} events/s")
    print(f"the store        {rate:10,.0f} events/s   {rate / limit:.2f} of bare")
    for name, took in spent.items():
        print(f"  {name:<14} {took / events * 1e6:8.2f} us an event")


if __name__ == "__main__":
    main()
