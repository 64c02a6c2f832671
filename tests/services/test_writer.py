"""The writer: one thread, one transaction for all that waits, and nobody told before the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.adapters.sql.store import SqlStore, SqlWriting, open_store
from orchestrator.core.fleet import Device
from orchestrator.errors import Busy, Conflict, InvalidInput, NotFound, StoreUnavailable, WaveError
from orchestrator.services.writer import FAILING_FOR, Batch, Work, Writer

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Flaky:
    """A real store that can be told to fail, and to wait before a transaction begins."""

    def __init__(self, inner: SqlStore) -> None:
        self.inner = inner
        self.fails: list[WaveError] = []
        self.gate = threading.Event()
        self.gate.set()
        self.transactions = 0

    @contextmanager
    def writing(self) -> Iterator[SqlWriting]:
        self.gate.wait(10)
        if self.fails:
            raise self.fails.pop(0)
        with self.inner.writing() as w:
            yield w
        self.transactions += 1

    def reading(self) -> Any:
        return self.inner.reading()

    def failures(self) -> Mapping[str, int]:
        return self.inner.failures()

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def store() -> Iterator[Flaky]:
    with open_store_closed() as inner:
        yield Flaky(inner)


@contextmanager
def open_store_closed() -> Iterator[SqlStore]:
    store = open_store("sqlite://")
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def writer(store: Flaky) -> Iterator[Writer]:
    writer = Writer(store, clock=lambda: NOW, touch_every=timedelta(milliseconds=20))
    yield writer
    store.gate.set()
    writer.close()


def add_groups(batch: Batch, names: Sequence[str]) -> list[str | WaveError]:
    """Work that can be seen in the database; a name can ask for trouble."""
    done: list[str | WaveError] = []
    for name in names:
        if name == "conflict":
            raise Conflict("Somebody was faster.")
        if name == "fault":
            raise ZeroDivisionError
        if name == "refused":
            done.append(NotFound("There is no such thing."))
            continue
        batch.w.add_group(name)
        done.append(name.upper())
    return done


GROUPS: Work[str, str] = Work("groups", 1, add_groups)


def groups(store: Flaky) -> set[str]:
    with store.reading() as r:
        return set(r.groups())


def together(store: Flaky, submit: Callable[[], list[Future[Any]]]) -> list[Future[Any]]:
    """Hand in several items so that they wait for one transaction."""
    store.gate.clear()
    futures = submit()
    store.gate.set()
    wait(futures, 10)
    return futures


def test_a_result_comes_only_after_the_commit(store: Flaky, writer: Writer) -> None:
    seen: list[set[str]] = []
    store.gate.clear()
    future = writer.submit(GROUPS, "a")
    future.add_done_callback(lambda _: seen.append(groups(store)))
    assert not future.done()
    store.gate.set()
    writer.close()
    assert (future.result(0), seen) == ("A", [{"a"}])


def test_what_waits_together_is_committed_together_and_in_order(store: Flaky, writer: Writer) -> None:
    writer.submit(GROUPS, "first").result(10)
    order: list[str] = []

    def note(batch: Batch, items: Sequence[str]) -> list[str | WaveError]:
        order.extend(items)
        return list(items)

    notes: Work[str, str] = Work("notes", 0, note)
    together(store, lambda: [writer.submit(GROUPS, "first"), *(writer.submit(notes, f"{n}") for n in range(50))])
    assert order == [f"{n}" for n in range(50)]
    assert store.transactions <= 3


def test_reports_go_before_check_ins_in_a_batch(store: Flaky, writer: Writer) -> None:
    order: list[str] = []

    def noting(batch: Batch, items: Sequence[str]) -> list[str | WaveError]:
        order.extend(items)
        return list(items)

    late: Work[str, str] = Work("late", 1, noting)
    early: Work[str, str] = Work("early", 0, noting)
    store.gate.clear()
    warm = writer.submit(late, "warm")
    while writer.waiting:
        pass  # it has been taken, and waits at the gate
    futures = [writer.submit(late, "late"), writer.submit(early, "early")]
    store.gate.set()
    wait([warm, *futures], 10)
    assert order == ["warm", "early", "late"]


@pytest.mark.parametrize("trouble", ["conflict", "fault"])
def test_one_bad_item_fails_alone(store: Flaky, writer: Writer, trouble: str) -> None:
    good, bad, other = together(store, lambda: [writer.submit(GROUPS, name) for name in ("a", trouble, "b")])
    assert (good.result(), other.result()) == ("A", "B")
    assert isinstance(bad.exception(), Conflict if trouble == "conflict" else ZeroDivisionError)
    assert groups(store) == {"a", "b"}
    assert writer.submit(GROUPS, "c").result(10) == "C", "the thread lives on"


def test_an_item_can_be_refused_without_undoing_the_others(store: Flaky, writer: Writer) -> None:
    good, bad = together(store, lambda: [writer.submit(GROUPS, name) for name in ("a", "refused")])
    assert good.result() == "A"
    assert isinstance(bad.exception(), NotFound)


@pytest.mark.parametrize("error", [StoreUnavailable("The disk is full."), Busy("Locked.")])
def test_when_the_store_cannot_be_had_all_are_told(store: Flaky, writer: Writer, error: WaveError) -> None:
    store.fails = [error]
    futures = together(store, lambda: [writer.submit(GROUPS, name) for name in ("a", "b")])
    assert futures[0].exception() is error
    assert writer.submit(GROUPS, "c").result(10) == "C"


def test_a_conflict_with_another_writer_is_tried_again(store: Flaky, writer: Writer) -> None:
    store.fails = [Conflict("Two writers met."), Conflict("Two writers met.")]
    assert writer.submit(GROUPS, "a").result(10) == "A"


def test_a_full_queue_says_so_at_once(store: Flaky) -> None:
    writer = Writer(store, clock=lambda: NOW, most_waiting=10)
    store.gate.clear()
    first = writer.submit(GROUPS, "a")
    while writer.waiting:
        pass
    waiting = [writer.submit(GROUPS, f"b{n}") for n in range(10)]
    with pytest.raises(Busy):
        writer.submit(GROUPS, "c")
    store.gate.set()
    assert len(wait([first, *waiting], 10).not_done) == 0
    writer.close()


def test_what_fails_between_two_batches_ends_nothing(store: Flaky) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise ZeroDivisionError

    writer = Writer(store, clock=lambda: NOW, between=fails)
    assert [writer.submit(GROUPS, name).result(10) for name in ("a", "b")] == ["A", "B"]
    assert (writer.alive, len(calls) > 0) == (True, True)
    writer.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_whose_thread_has_ended_takes_nothing(store: Flaky) -> None:
    """Nobody would ever resolve the future: the caller is told at once, and so is who asks for its health."""

    def dies() -> None:
        raise SystemExit

    writer = Writer(store, clock=lambda: NOW, between=dies)
    assert writer.submit(GROUPS, "a").result(10) == "A"
    while writer.alive:
        pass
    with pytest.raises(Busy):
        writer.submit(GROUPS, "b")
    writer.close()


def test_one_item_of_any_weight_is_taken(store: Flaky, writer: Writer) -> None:
    assert writer.submit(GROUPS, "a", weight=1_000_000).result(10) == "A"


def test_closing_finishes_what_waits_and_takes_nothing_more(store: Flaky) -> None:
    writer = Writer(store, clock=lambda: NOW)
    store.gate.clear()
    futures = [writer.submit(GROUPS, f"g{n}") for n in range(5)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    store.gate.set()
    closing.join(10)
    assert [future.result(0) for future in futures] == [f"G{n}" for n in range(5)]
    with pytest.raises(Busy):
        writer.submit(GROUPS, "late")
    writer.close()


def test_closing_a_writer_that_never_worked_is_nothing() -> None:
    with open_store_closed() as inner:
        Writer(inner, clock=lambda: NOW).close()


def test_what_follows_a_commit_runs_before_anybody_is_told_and_may_fail(store: Flaky, writer: Writer) -> None:
    told: list[str] = []

    def fails() -> None:
        raise ZeroDivisionError

    def run(batch: Batch, items: Sequence[str]) -> list[str | WaveError]:
        batch.after += [fails, lambda: told.append("after")]
        return list(items)

    work: Work[str, str] = Work("work", 0, run)
    future = writer.submit(work, "a")
    future.add_done_callback(lambda _: told.append("told"))
    writer.close()
    assert (future.result(0), told) == ("a", ["after", "told"])


def test_times_of_idle_check_ins_wait_for_their_second_and_never_set_back_what_a_batch_has_saved(store: Flaky) -> None:
    with store.writing() as w:
        w.enroll([(Device(name, "rpi4", "promoted"), None) for name in ("dev-1", "dev-2")], now=NOW)
        rows = [w.device("dev-1"), w.device("dev-2")]
    keys = [row.key for row in rows if row is not None]
    writer = Writer(store, clock=lambda: NOW, touch_every=timedelta(hours=1))

    def save(batch: Batch, items: Sequence[int]) -> list[WaveError | None]:
        batch.saved.update(items)
        batch.w.touch({key: (batch.now, timedelta(0)) for key in items})
        return [None] * len(items)

    def seen_at() -> list[datetime | None]:
        with store.reading() as r:
            found = [r.device("dev-1"), r.device("dev-2")]
        return [None if each is None else each.device.last_seen_at for each in found]

    work: Work[int, None] = Work("work", 0, save)
    writer.submit(work, keys[0]).result(10)  # the first batch of all takes along what there is; now the hour begins
    earlier = NOW - timedelta(seconds=1)
    for key in keys:
        writer.touch(key, earlier, timedelta(0))
    writer.submit(work, keys[0]).result(10)
    assert seen_at() == [NOW, None]
    writer.close()
    assert seen_at() == [NOW, earlier]


def test_when_a_device_was_seen_is_written_soon(store: Flaky, writer: Writer) -> None:
    with store.writing() as w:
        w.enroll([(Device("dev-1", "rpi4", "promoted"), None)], now=NOW)
        row = w.device("dev-1")
    assert row is not None
    later = NOW + timedelta(minutes=5)
    writer.touch(row.key, later, timedelta(minutes=5))
    writer.close()
    with store.reading() as r:
        found = r.device("dev-1")
    assert found is not None
    assert (found.device.last_seen_at, found.device.usual_gap) == (later, timedelta(minutes=5))


def test_when_devices_were_seen_survives_a_store_that_is_away(store: Flaky, writer: Writer) -> None:
    with store.writing() as w:
        w.enroll([(Device("dev-1", "rpi4", "promoted"), None)], now=NOW)
        row = w.device("dev-1")
    assert row is not None
    store.fails = [StoreUnavailable("Away.")] * 3
    writer.touch(row.key, NOW, timedelta(0))
    while store.fails:
        pass
    writer.close()
    with store.reading() as r:
        found = r.device("dev-1")
    assert found is not None and found.device.last_seen_at == NOW


def test_an_error_of_input_is_handed_to_its_caller(store: Flaky, writer: Writer) -> None:
    def run(batch: Batch, items: Sequence[str]) -> list[str | WaveError]:
        raise InvalidInput("No.")

    work: Work[str, str] = Work("work", 0, run)
    with pytest.raises(InvalidInput):
        writer.submit(work, "a").result(10)


def test_a_store_that_cannot_be_written_is_known_and_said_once_until_it_can(
    store: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    now = [NOW]
    writer = Writer(store, clock=lambda: now[0], touch_every=timedelta(days=1))
    assert not writer.failing
    with caplog.at_level("INFO", logger="orchestrator.services.writer"):
        for _ in range(3):
            store.fails = [StoreUnavailable("The disk is full.")]
            with pytest.raises(StoreUnavailable):
                writer.submit(GROUPS, "a").result(10)
            assert writer.failing
        now[0] += FAILING_FOR
        assert not writer.failing, "after so long nobody knows: who asks next tries"
        now[0] = NOW
        assert writer.failing
        assert writer.submit(GROUPS, "a").result(10) == "A"
        writer.close()
    assert not writer.failing
    assert [each.getMessage() for each in caplog.records] == [
        "nothing of devices can be written: The disk is full. They are told to come again later.",
        "what devices say is written again",
    ]


def test_a_heartbeat_that_cannot_be_written_tells_of_a_store_that_nobody_has_tried(writer: Writer) -> None:
    writer.heard(Busy("Locked."))
    assert not writer.failing
    writer.heard(StoreUnavailable("PostgreSQL is away."))
    assert writer.failing
    writer.heard(None)
    assert not writer.failing
