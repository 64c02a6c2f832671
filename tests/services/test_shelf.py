"""What is remembered of devices: the same when it comes back from being packed, bounded, and small."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.offers import Earlier
from orchestrator.core.protocols import DeviceProtocol, Spoken
from orchestrator.core.update import Update, UpdateStatus
from orchestrator.services.board import Snapshot
from orchestrator.services.kept import Kept, spread_of
from orchestrator.services.messages import CheckIn
from orchestrator.services.pressure import Pressure
from orchestrator.services.records import DeviceRow
from orchestrator.services.settings import Settings
from orchestrator.services.shelf import Shelf
from tests.services.fleet_world import START, commit_of

moments = st.integers(0, 10**15).map(lambda micros: START + timedelta(microseconds=micros - 10**14))
maybe = st.none() | moments
spoken = st.builds(Spoken, st.sampled_from(DeviceProtocol), st.none() | st.integers(0, 9))
labels = st.dictionaries(st.sampled_from("abc"), st.text(max_size=3), max_size=3)


def update(status: UpdateStatus, at: datetime) -> Update:
    return Update(status, at, offered_at=at, from_commit=commit_of(41), to_commit=commit_of(42))


@st.composite
def kept_devices(draw: st.DrawFn) -> Kept:
    seen, gap = draw(maybe), draw(st.timedeltas(timedelta(0), timedelta(days=30)))
    device = Device(
        id="dev",
        hardware_id=draw(st.sampled_from(("rpi4", "imx8"))),
        tag="promoted",
        group=draw(st.none() | st.just("lab")),
        labels=draw(labels),
        commit=draw(st.none() | st.just(commit_of(41))),
        version=draw(st.none() | st.integers(0, 2**63 - 1)),
        status=draw(st.sampled_from(DeviceStatus)),
        held_because=draw(st.none() | st.text(max_size=5)),
        healthy=draw(st.booleans()),
        enrolled_at=draw(maybe),
        last_seen_at=seen,
        since_at=draw(maybe),
        usual_gap=gap,
    )
    sayings = st.builds(CheckIn, st.just(commit_of(41)), labels=st.none() | labels, healthy=st.booleans())
    said = draw(st.none() | sayings)
    statuses = draw(st.lists(st.sampled_from(UpdateStatus), max_size=2))
    had = {key: (Earlier(update(each, draw(moments)), "all", 0, (1, 2)), 3) for key, each in enumerate(statuses)}
    digest = draw(st.none() | st.binary(min_size=32, max_size=32))
    row = DeviceRow(draw(st.integers(0, 2**63 - 1)), device, digest)
    return Kept(
        row,
        draw(st.sampled_from(("a", "b", None))),
        said,
        had,
        seen,
        gap,
        until=draw(maybe),
        spread=0.5,
        spoken=draw(spoken),
    )


@given(st.lists(kept_devices(), min_size=2, max_size=6))
def test_what_comes_back_is_what_was_put_there(devices: list[Kept]) -> None:
    shelf = Shelf(len(devices), most_open=1)
    snapshots = [Snapshot(), Snapshot()]
    wanted = {}
    for number, kept in enumerate(devices):
        kept.snapshot = snapshots[number % 2]
        row = replace(kept.person, device=replace(kept.person.device, id=str(number)))
        kept.person = row
        shelf.put(str(number), kept)
        wanted[str(number)] = kept
    for name, kept in [*wanted.items(), *wanted.items()]:
        found = shelf.get(name)
        assert found is not None
        # a verdict is remembered for the latest snapshot only; to have none is always right
        assert found.snapshot is kept.snapshot or found.snapshot is None
        found.snapshot = kept.snapshot
        assert found == kept
    for name in wanted:
        shelf.drop(name)
    assert len(shelf) == 0 and not shelf._alike and not shelf._numbers


def a_fleet(number: int, *, had: bool, labelled: bool = False) -> Kept:
    own = {"serial": f"SN{number:09}", "site": f"site-{number % 400}"} if labelled else {}
    device = Device(
        f"dev-{number:07}",
        "rpi4",
        "promoted",
        commit=commit_of(41),
        version=41,
        labels=own,
        since_at=START,
        last_seen_at=START + timedelta(seconds=number),
    )
    earlier = Earlier(update(UpdateStatus.CONFIRMED, START + timedelta(seconds=number)), "all", 0, (number, number))
    row = DeviceRow(number, device, number.to_bytes(32))
    said = CheckIn(commit_of(41), 41, labels=dict(own))
    return Kept(row, "mark", said, {1: (earlier, 1)} if had else {}, device.last_seen_at, timedelta(seconds=300))


@pytest.mark.parametrize(
    ("had", "labelled", "bytes_each"), [(False, False, 330), (True, False, 430), (True, True, 520)]
)
def test_a_packed_device_is_small(had: bool, labelled: bool, bytes_each: int) -> None:
    devices = 20_000
    shelf = Shelf(devices, most_open=10)
    gc.collect()
    tracemalloc.start()
    for number in range(devices):
        shelf.put(f"dev-{number:07}", a_fleet(number, had=had, labelled=labelled))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shelf) == devices and used / devices < bytes_each


def test_what_does_not_fit_is_not_remembered() -> None:
    shelf = Shelf(3, most_open=1)
    for number in range(9):
        shelf.put(str(number), a_fleet(number, had=False))
    assert len(shelf) == 3 and shelf.get("2") is not None and shelf.get("8") is None
    shelf.drop("1")
    shelf.put("8", a_fleet(8, had=False))
    assert len(shelf) == 3 and shelf.get("8") is not None and shelf.get("1") is None
    assert len(Shelf(0)) == 0


def test_the_interval_stretches_with_the_queue_and_not_for_whom_decisions_wait() -> None:
    waiting, now = 0, START
    pressed = Pressure(Settings(check_in_jitter=0), lambda: waiting, 1_000)
    assert pressed.check_in_after(0, now, needed=False) == 300
    waiting = 1_000
    found = []
    for _ in range(120):
        now += timedelta(seconds=1)
        found.append(pressed.check_in_after(0, now, needed=False))
        assert pressed.check_in_after(0, now, needed=True) == 300
    assert found == sorted(found) and found[0] < 500 and 1_790 < found[-1] <= 1_800
    waiting = 0
    for _ in range(3_600):
        now += timedelta(seconds=1)
        last = pressed.check_in_after(0, now, needed=False)
    assert last == 300


def test_a_late_event_loop_is_pressure_until_it_is_in_time_again() -> None:
    pressed = Pressure(Settings(check_in_jitter=0), lambda: 0, 1_000)
    pressed.check_in_after(0, START, needed=False)
    pressed.late(timedelta(seconds=2))
    pressed.late(timedelta(seconds=0.1))
    then = START + timedelta(seconds=10)
    assert pressed.check_in_after(0, then, needed=False) > 1_000
    assert pressed.counts > 0.8
    pressed.check_in_after(0, then + timedelta(minutes=20), needed=False)
    assert pressed.counts < 0.01


def test_devices_keep_their_part_of_the_jitter() -> None:
    spread = [spread_of(Device(f"dev-{number}", "rpi4", "promoted")) for number in range(2_000)]
    assert -1 <= min(spread) < -0.95 and 0.95 < max(spread) <= 1 and abs(sum(spread)) / 2_000 < 0.05
