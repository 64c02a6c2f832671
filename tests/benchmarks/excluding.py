"""What leaving a segment out takes when a rollout has many bad outcomes: in the report's transaction and after it.

``python -m tests.benchmarks.excluding [--devices N] [--bad N]``

A rollout of N devices of three boards and three versions on SQLite, all offered the Target in slices of 20, 20, 40, 80
…, of which so many have failed, evenly over the boards; monitors over the rollout, its wave and the six segments. A
tenth of the devices is of the board that is left out. Measured: the recount of all monitors, which the transaction of
the report that excludes waits for; the first report with bad outcomes after it, and the tenth; the steps in which the
outbox takes the board's updates out of the tallies, each a transaction, the longest and all of them; and the recount of
a version, whose slices need not be asked. Medians of three, each undone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from orchestrator.adapters.sql.codec import BAD_BITS, STATUS_NUMBER, update_key
from orchestrator.adapters.sql.store import SqlStore, SqlWriting, open_store
from orchestrator.core.facts import Excluded
from orchestrator.core.fleet import Device
from orchestrator.core.offers import place_in
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.slices import sizes
from orchestrator.core.states import Reason, ReasonKind, Standing
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import BadOutcome, DeviceFilter, RolloutRow
from tests.benchmarks.figures import figure
from tests.contract.building import NOW, WEEK_AGO, device, monitor, offered, rollout

BOARDS: Final = {"rpi4": 6, "imx8": 3, "cm4": 1}
VERSIONS: Final = (39, 40, 41)
DIMENSIONS: Final = ("hardware_id", "source_version")
BOARD, VERSION = "hardware_id=cm4", "source_version=39"
SCOPES: Final = (
    "rollout",
    "wave:all",
    *(f"segment:hardware_id={board}" for board in BOARDS),
    *(f"segment:source_version={version}" for version in VERSIONS),
)
PAGE: Final = 20_000


class _Undone(Exception):
    """What was measured is taken back."""


def fleet(devices: int) -> Iterator[tuple[Device, None]]:
    dice = random.Random(1)
    boards, weights = list(BOARDS), list(BOARDS.values())
    for number in range(devices):
        board = dice.choices(boards, weights)[0]
        yield device(f"d{number:07d}", hardware_id=board, version=dice.choice(VERSIONS)), None


def prepared(store: SqlStore, devices: int, bad: int) -> RolloutRow:
    with store.writing() as w:
        w.enroll(fleet(devices), now=NOW)
        row = w.add_rollout(rollout(devices=devices))
        w.add_monitors(row.key, [monitor(name, alpha=1e-9) for name in SCOPES], from_places={})
        assert row.scope is not None
        for size in sizes(devices, first=20, growth=2.0):
            w.open_slice(row, row.scope, "all", size=size, seen_since=WEEK_AGO, dimensions=DIMENSIONS, now=NOW)
    slices = w_slices(store, row)
    selector = row.scope.selectors[0]
    with store.writing() as w:
        for person in w.devices(DeviceFilter(), limit=devices):
            place = place_in(slices, selector, person.device, DIMENSIONS)
            assert place is not None
            segments = msgspec.json.encode(dict(place.segments)).decode()
            about: dict[str, Any] = {"slice": place.slice, "places": place.places, "segment_places": segments}
            w.add_update(offered(row, person.key, hardware_id=person.device.hardware_id, **about))
        failing = random.Random(2).sample(range(1, devices + 1), bad)
        w.link.many(
            f"UPDATE device_update SET status = {STATUS_NUMBER[UpdateStatus.FAILED]}, resolved = 1, "
            f"bad = {BAD_BITS['bad_failed']} WHERE key = ?",
            [(update_key(row.key, each),) for each in sorted(failing)],
        )
        w.count_again(row)
    return row


def w_slices(store: SqlStore, row: RolloutRow) -> Any:
    with store.reading() as r:
        return r.slices(row.key)


def without(row: RolloutRow, segment: str) -> RolloutRow:
    standing = Standing(Reason(ReasonKind.ORDERED, "So."), NOW, "ann")
    return replace(row, state=replace(row.state, excluded=(Excluded(segment, standing, 1),)))


@contextmanager
def undone(store: SqlStore) -> Iterator[SqlWriting]:
    try:
        with store.writing() as w:
            yield w
            raise _Undone
    except _Undone:
        pass


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def recounts(store: SqlStore, row: RolloutRow, segment: str) -> float:
    found = []
    for _ in range(3):
        with undone(store) as w:
            saved = w.save_rollout(without(w.rollout_by_key(row.key) or row, segment))
            found.append(timed(partial(w.count_again, saved)))
    return median(found)


def excluded(store: SqlStore, row: RolloutRow, segment: str) -> RolloutRow:
    with store.writing() as w:
        saved = w.save_rollout(without(w.rollout_by_key(row.key) or row, segment))
        w.count_again(saved)
    return saved


def reports(store: SqlStore, row: RolloutRow) -> list[float]:
    """Ten batches of ten bad outcomes each."""
    found = []
    with store.reading() as r:
        some = [update for _, update in r.list_updates(row.key, bad=True, limit=500)]
    rest = [each for each in some if BOARD not in each.segments][:100]
    for number in range(10):
        outcomes = [
            BadOutcome(
                OutcomeClass.FAILED, "all", *each.places, frozenset(), each.device_key, each.slice, each.segments
            )
            for each in rest[number * 10 : number * 10 + 10]
        ]
        with store.writing() as w:
            found.append(timed(partial(w.add_bad, row.key, outcomes)))
    return found


def moved(store: SqlStore, row: RolloutRow) -> list[float]:
    found: list[float] = []
    after: int | None = 0
    while after is not None:
        with store.writing() as w:
            began = time.perf_counter()
            after = w.leave_out(row, after=after).after
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--devices", type=int, default=200_000)
    asked.add_argument("--bad", type=int, default=100_000)
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(f"sqlite:///{Path(directory) / 'wave.db'}")
        row = prepared(store, chosen.devices, chosen.bad)
        board, version = (recounts(store, row, segment) for segment in (BOARD, VERSION))
        print(f"recount: without a board {board:.2f} s, without a version {version:.2f} s")
        row = excluded(store, row, BOARD)
        batches = reports(store, row)
        print(f"reports after it: the first {batches[0] * 1e3:.1f} ms, then {median(batches[1:]) * 1e3:.1f} ms")
        steps = moved(store, row)
        print(f"leaving out: {len(steps)} steps, the longest {max(steps) * 1e3:.0f} ms, all {sum(steps):.2f} s")
        store.close()
    what = f"a segment excluded at {chosen.bad:,} bad outcomes of {chosen.devices:,} devices"
    figure(f"{what}: in the report's transaction", f"{max(board, version):.2f} s", "under 1 s")
    figure(f"{what}: longest transaction after it", f"{max(steps) * 1e3:.0f} ms", "under 1 s")


if __name__ == "__main__":
    main()
