"""How fast the reports service writes into SQLite, against bare sqlite3 writing the same event rows, side by side.

``python -m tests.benchmarks.reports_store [--events N] [--batch N] [--synchronous FULL NORMAL] [--before N]``

Bare: ``executemany`` of INSERT OR IGNORE into one table of the same columns with the same unique key, a commit for
each batch. Ours: ``Reports.run`` on a ``Batch`` in one transaction, as the writer calls it, from the decoded events to
the counters after the commit: refusals, dedupe, each update, tallies, crossings, the halt, the evidence log.

Devices report in random order a download, an installation and its end, which is a failure for one in two hundred: one
event at a time, or, as clients that batch do, all three in one report. Ids are random UUIDs and every hundredth event
comes twice. Both write equal batches in turns, round by round, so that what else the machine does meets both; the
ratio is that of the medians. ``--before`` lets both begin with a log of so many events. CPU is what this process
spent, without waiting for the disk.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID

from orchestrator.adapters.sql.codec import packed_id
from orchestrator.adapters.sql.store import SqlStore, SqlWriting, open_store
from orchestrator.adapters.sql.times import stored
from orchestrator.core.fleet import Device, Target
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.update import Counts
from orchestrator.services.devices import Devices
from orchestrator.services.messages import ReportedEvent
from orchestrator.services.reports import Reports, Told
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settings import Settings
from orchestrator.services.settling import settle
from orchestrator.services.tick import Ticker
from orchestrator.services.writer import MOST_AT_ONCE, Batch
from tests.benchmarks.figures import figure
from tests.contract.building import NEW, OLD, offered

NOW: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
COURSE: Final = ("downloading", "installing", "applied")
PARTS: Final = ("log_events", "load_courses", "save_courses", "add_counts", "add_bad")
COLUMNS: Final = "device_key, event_id, rollout_key, kind, received_at, device_at, code, message"
Row = tuple[Any, ...]


def reports(devices: int, events: int, per_report: int) -> Iterator[Told]:
    """As the gateway hands them over: each device's course in reports of one event, or whole in one of three."""
    chance = random.Random(7)
    order = list(range(1, devices + 1))
    for number in range(events // per_report):
        if number % devices == 0:
            chance.shuffle(order)
        first = number // devices * per_report
        device = order[number % devices]
        at = NOW + timedelta(seconds=number // 2_000)
        said = []
        for step in range(first, first + per_report):
            kind = "failed" if step % 3 == 2 and device % 200 == 0 else COURSE[step % 3]
            name = str(UUID(int=chance.getrandbits(128), version=4))
            said.append(ReportedEvent(name, "r", 42, kind, at.isoformat()))
        told = Told(device, f"d{device}", said, at)
        yield told
        if number % 100 == 99:
            yield told


def rows_of(batch: Sequence[Told], rollout_key: int) -> list[Row]:
    """What is bound for one event row."""
    return [
        (one.device_key, packed_id(event.id), rollout_key, event.event, stored(one.received_at), event.at, None, None)
        for one in batch
        for event in one.events
    ]


def prepared(store: SqlStore, devices: int) -> int:
    """A running rollout whose devices all have an offer; its key."""
    fleet = (
        Device(f"d{n}", "rpi4", "promoted", commit=OLD, version=41, since_at=NOW, last_seen_at=NOW)
        for n in range(1, devices + 1)
    )
    with store.writing() as w:
        w.enroll(((one, None) for one in fleet), now=NOW)
        w.add_target(Target("t42", 42, NEW, ("rpi4",), ("promoted",)), now=NOW)
    orders = Rollouts(store, lambda: NOW)
    policy = {"policy": "p", "deltas": {"within": "0s", "otherwise": "full"}, "slices": {"first": devices}}
    waves = [{"wave": "all", "devices": "all"}]
    orders.apply(
        RolloutFile.parse({"rollout": "r", "target": 42, "tag": "promoted", "policy": "p", "waves": waves}),
        Policy.parse(policy),
        by="ann",
    )
    orders.start("r", by="ann")
    Ticker(store, lambda w, row, now: 0, lambda row, wave, now: _look(store, row, wave, now)).tick(NOW)
    with store.writing() as w:
        row = w.rollout("r")
        assert row is not None
        for key in range(1, devices + 1):
            places = f'{{"hardware_id=rpi4":{key},"source_version=41":{key}}}'
            w.add_update(offered(row, key, segment_places=places, usual_gap=timedelta(hours=1)))
        w.add_counts({(row.key, "all", 1, False): Counts(offered=devices)})
    return row.key


def _look(store: SqlStore, row: Any, wave: str, now: datetime) -> None:
    with store.writing() as w:
        w.set_needs(row.key, wave, w.look(row.scope, wave, seen_since=now - timedelta(days=7)), [], now=now)


class Clock:
    """Seconds of the wall and of this process's CPU since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


@dataclass(slots=True)
class Bare:
    """sqlite3 alone."""

    path: Path
    synchronous: str
    link: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.link = sqlite3.connect(self.path, isolation_level=None)
        self.link.execute("PRAGMA journal_mode = WAL")
        self.link.execute(f"PRAGMA synchronous = {self.synchronous}")
        self.link.execute(
            "CREATE TABLE event (seq INTEGER PRIMARY KEY, device_key INTEGER, event_id BLOB, rollout_key INTEGER, "
            "kind TEXT, received_at INTEGER, device_at TEXT, code TEXT, message TEXT, UNIQUE (device_key, event_id))"
        )

    def write(self, rows: Sequence[Row]) -> None:
        self.link.execute("BEGIN IMMEDIATE")
        self.link.executemany(f"INSERT OR IGNORE INTO event ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self.link.execute("COMMIT")


@dataclass(slots=True)
class Ours:
    """The service. ``spent``: CPU seconds by part; ``fold`` is what the service does between its statements."""

    store: SqlStore
    service: Reports
    spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def write(self, told: Sequence[Told]) -> None:
        clock = Clock()
        before = sum(self.spent[part] for part in PARTS)
        with self.store.writing() as w:
            self._watch(w)
            batch = Batch(w, told[-1].received_at)
            self.service.run(batch, told)
            run = clock()[1]
        written = clock()[1]
        for then in batch.after:
            then()
        fold = run - (sum(self.spent[part] for part in PARTS) - before)
        for part, took in (("fold", fold), ("commit", written - run), ("after", clock()[1] - written)):
            self.spent[part] += took

    def _watch(self, w: SqlWriting) -> None:
        for part in PARTS:
            setattr(w, part, self._timed(part, getattr(w, part)))

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            clock = Clock()
            found = call(*given)
            self.spent[part] += clock()[1]
            return found

        return timed


def grown(bare: Bare, store: SqlStore, events: int, devices: int, rollout_key: int) -> None:
    """Both logs with so many events, of the same devices and older."""
    chance = random.Random(11)
    at = stored(NOW) - 1
    rows = [
        (chance.randint(1, devices), chance.randbytes(16), rollout_key, "downloading", at, "2026-03-02", None, None)
        for _ in range(events)
    ]
    bare.write(rows)
    with store.writing() as w:
        w.link.many(f"INSERT INTO event ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def measure(asked: argparse.Namespace, synchronous: str, per_report: int) -> None:
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        store = open_store(f"sqlite:///{directory}/wave.db", synchronous=synchronous)
        rollout_key = prepared(store, asked.devices)
        bare = Bare(Path(directory) / "bare.db", synchronous)
        grown(bare, store, asked.before, asked.devices, rollout_key)
        devices = Devices(store, Settings(), lambda: NOW, settle=settle)
        devices.refresh()
        ours = Ours(store, devices.reports)
        told = list(reports(asked.devices, asked.events, per_report))
        size = max(1, asked.batch // per_report)
        batches = [told[start : start + size] for start in range(0, len(told), size)]
        per_round = max(1, len(batches) // asked.rounds)
        rates: dict[str, list[float]] = {"bare": [], "ours": []}
        cpu = {"bare": 0.0, "ours": 0.0}
        gc.collect()
        gc.freeze()  # the work that is prepared here is no garbage of the store's
        for start in range(0, len(batches), per_round):
            work = batches[start : start + per_round]
            plain = [rows_of(batch, rollout_key) for batch in work]
            for name in ("bare", "ours") if start // per_round % 2 else ("ours", "bare"):
                clock = Clock()
                for batch, rows in zip(work, plain, strict=True):
                    if name == "bare":
                        bare.write(rows)
                    else:
                        ours.write(batch)
                wall, spent = clock()
                rates[name].append(sum(map(len, plain)) / wall)
                cpu[name] += spent
        service = devices.reports
        with store.reading() as r:
            row = r.rollout("r")
            assert row is not None and row.state.status == "running", row
            assert (service.accepted, service.refused) == (asked.events // per_report * per_report, 0)
            assert len(told) * per_report == service.accepted + service.duplicates
            assert r.check() == []
        devices.close()
        store.close()
    many = len(told) * per_report
    limit, rate = median(rates["bare"]), median(rates["ours"])
    print(f"\nsynchronous {synchronous}: {many} events, {per_report} a report, {asked.batch} a transaction", end="")
    print(f", after {asked.before} others" if asked.before else "")
    print(f"  bare sqlite3 {limit:9,.0f} events/s   {cpu['bare'] / many * 1e6:6.2f} us CPU an event")
    print(f"  the service  {rate:9,.0f} events/s   {cpu['ours'] / many * 1e6:6.2f} us CPU an event")
    print(f"  of bare      {rate / limit:9.2f} of its rate  {cpu['bare'] / cpu['ours']:6.2f} by CPU")
    for name, took in sorted(ours.spent.items(), key=lambda each: -each[1]):
        print(f"    {name:<13}{took / many * 1e6:7.2f} us CPU an event")
    after = f", after {asked.before:,} others" if asked.before else ""
    figure(
        f"reports through the service, {per_report} event{'s' if per_report > 1 else ''} a report, synchronous"
        f" {synchronous}{after}",
        f"{rate / limit:.2f} of bare sqlite3, {rate:,.0f} events/s (by CPU {cpu['bare'] / cpu['ours']:.2f})",
        "at least 0.3 of bare",
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--events", type=int, default=150_000)
    ask.add_argument("--devices", type=int, default=50_000)
    ask.add_argument("--before", type=int, default=0)
    ask.add_argument("--batch", type=int, default=MOST_AT_ONCE)
    ask.add_argument("--rounds", type=int, default=10)
    ask.add_argument("--synchronous", nargs="+", default=["FULL", "NORMAL"], choices=("FULL", "NORMAL"))
    ask.add_argument("--per-report", type=int, nargs="+", default=[1, 3], choices=(1, 3))
    ask.add_argument("--directory", help="where the databases are made")
    asked = ask.parse_args()
    for synchronous in asked.synchronous:
        for per_report in asked.per_report:
            measure(asked, synchronous, per_report)


if __name__ == "__main__":
    main()
