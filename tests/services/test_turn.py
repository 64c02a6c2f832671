"""Whose turn it is to tick, and when silence counts: a long tick is no gateway that is down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.adapters import scheduler as clockwork
from orchestrator.adapters.lock import process_name
from orchestrator.adapters.scheduler import TickScheduler
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import StoreUnavailable, WaveError
from orchestrator.services.settings import Settings
from orchestrator.services.tick import GATEWAY
from orchestrator.services.turn import BEAT_EVERY, LEASE, Turn
from orchestrator.serving import carried_on, lock_file
from tests.services.fleet_world import World

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def turn(world: World, owner: str = "cron") -> Turn:
    return Turn(world.ticker, world.store, owner, lease=timedelta(seconds=30))


def begun(world: World) -> str:
    """A device in the middle of its update, with the policy's patience of two hours; its id."""
    (device,) = world.fleet(1)
    world.apply(policy={"silent_after": "2h"})
    world.devices.refresh()
    turn(world).beat(world.now)
    assert world.check_in(device) is not None
    world.report(device, "downloading")
    return device


def beats(world: World, *, hours: float) -> None:
    """The gateway's job, so long."""
    for _ in range(int(hours * HOUR / MINUTE)):
        world.now += MINUTE
        turn(world).beat(world.now)


def test_without_a_gateway_nobody_is_silent(world: World) -> None:
    """``wave serve`` is down for a day, and cron ticks on: it says that it counts nobody. When the gateway is back the
    device has all the time it had left; after that it is silent."""
    device = begun(world)
    beats(world, hours=0.5)
    for _ in range(24):
        world.now += HOUR
        ticked = turn(world).look(world.now)
    assert world.status(device) is UpdateStatus.DOWNLOADING and ticked.not_counted == 1
    assert ticked.wake_at is None or ticked.wake_at > world.now
    assert turn(world).beat(world.now) == 24 * HOUR
    beats(world, hours=1)
    assert turn(world).look(world.now).not_counted == 0
    assert world.status(device) is UpdateStatus.DOWNLOADING
    beats(world, hours=2)
    turn(world).look(world.now)
    assert world.status(device) is UpdateStatus.SILENT


def test_a_long_tick_moves_no_deadline(world: World) -> None:
    """The tick takes an hour, the gateway lives all the while."""
    device = begun(world)
    before = world.update(device).update.deadline_at
    beats(world, hours=1)
    assert world.update(device).update.deadline_at == before


def test_nobody_ticks_beside_who_does(world: World) -> None:
    """``wave tick`` beside ``wave serve`` decides nothing, and says why; when that one is gone it may."""
    world.fleet(1)
    world.apply(start=False)
    server, cron = turn(world, "serve"), turn(world)
    assert not server.look(world.now).elsewhere
    world.rollouts.start("lmp-42", by="anna")
    ticked = cron.look(world.now)
    assert ticked.elsewhere and ticked.decided == 0
    cron.end()
    with world.store.reading() as r:
        holder = r.lease_holder(LEASE)
    assert holder is not None and holder[0] == "serve"
    server.end()
    assert cron.look(world.now).decided > 0


def test_the_heartbeat_goes_on_while_a_tick_is_under_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clockwork, "BEAT_EVERY", BEAT_EVERY / 200)
    ticking, release = threading.Event(), threading.Event()

    def slow(now: datetime, **options: Any) -> Any:
        ticking.set()
        release.wait(10)
        raise AssertionError("the tick is given up")

    monkeypatch.setattr(Turn, "look", lambda self, now: slow(now))
    scheduler = TickScheduler(world.ticker, world.store, lambda: datetime.now(UTC), at_most=MINUTE, lease=3 * MINUTE)
    scheduler.start()
    try:
        assert ticking.wait(10)
        since = datetime.now(UTC)
        seen = None
        for _ in range(200):
            with world.store.reading() as r:
                seen = r.last_heartbeat(GATEWAY)
            if seen is not None and seen > since:
                break
            threading.Event().wait(0.02)
        assert seen is not None and seen > since
    finally:
        release.set()
        scheduler.stop()


def test_a_store_that_is_away_is_said_once_and_when_it_is_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its pulse is felt twice a second: a night without PostgreSQL must not fill the log."""
    away = [StoreUnavailable("PostgreSQL is away.")] * 3

    class Store:
        def reading(self) -> Any:
            if away:
                raise away.pop()
            return world.store.reading()

    clock = TickScheduler(world.ticker, cast(Any, Store()), lambda: world.now, at_most=MINUTE, lease=3 * MINUTE)
    with caplog.at_level("INFO", logger=clockwork.__name__):
        for _ in range(5):
            clock.listen()
    assert [each.getMessage() for each in caplog.records] == [
        "the store's pulse could not be felt: PostgreSQL is away.",
        "the store's pulse is felt again",
    ]


def test_a_clock_that_is_set_back_stops_neither_heartbeat_nor_pulse(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs are due by the clock of the day: set back by an hour, they would be due an hour later."""
    by = [timedelta(0)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - by[0]

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Clock)
    monkeypatch.setattr("apscheduler.triggers.interval.datetime", Clock)
    monkeypatch.setattr(clockwork, "datetime", Clock)
    monkeypatch.setattr(clockwork, "LISTEN_EVERY", timedelta(milliseconds=20))
    monkeypatch.setattr("time.time", lambda: Clock.now(UTC).timestamp())
    felt = threading.Semaphore(0)
    monkeypatch.setattr(TickScheduler, "listen", lambda self: felt.release())
    scheduler = TickScheduler(world.ticker, world.store, lambda: Clock.now(UTC), at_most=MINUTE, lease=3 * MINUTE)
    scheduler.start()
    try:
        assert felt.acquire(timeout=10)
        by[0] = HOUR
        while felt.acquire(blocking=False):
            pass
        for _ in range(20):
            assert felt.acquire(timeout=10), "nobody feels the store's pulse"
    finally:
        scheduler.stop()
    assert "the clock of this machine was set back by 3600 s: what is due is due now" in caplog.messages


def test_who_asks_is_told_what_became_of_each_heartbeat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: Iterator[StoreUnavailable | None] = iter([StoreUnavailable("PostgreSQL is away."), None])
    told: list[str] = []
    both = threading.Event()

    def beat(self: Turn, now: datetime) -> timedelta:
        if (error := next(outcomes, None)) is not None:
            raise error
        return timedelta(0)

    def on_beat(error: WaveError | None) -> None:
        told.append(str(error))
        if len(told) == 2:
            both.set()

    monkeypatch.setattr(Turn, "beat", beat)
    monkeypatch.setattr(clockwork, "BEAT_EVERY", timedelta(milliseconds=20))
    scheduler = TickScheduler(
        world.ticker, world.store, lambda: datetime.now(UTC), at_most=MINUTE, lease=3 * MINUTE, on_beat=on_beat
    )
    scheduler.start()
    try:
        assert both.wait(10)
    finally:
        scheduler.stop()
    assert told[:2] == ["PostgreSQL is away.", "None"]


def test_a_server_that_starts_says_what_it_takes_over(world: World) -> None:
    assert carried_on(world.store) == "no rollout is on its way; what was completed is offered on"
    begun(world)
    assert carried_on(world.store) == "carrying on with lmp-42 (running); deltas to build: 1"
    world.rollouts.halt("lmp-42", by="mika", reason="smoke")
    world.rollouts.freeze(by="mika", reason="fire")
    assert carried_on(world.store) == "carrying on with lmp-42 (halted); deltas to build: 1; all offers are frozen"


def test_two_processes_never_have_one_name() -> None:
    """In two containers host and process id may be alike."""
    assert process_name() != process_name()


def test_two_roots_with_one_database_have_one_lock(tmp_path: Path) -> None:
    """Also by way of a link: one of the two serves."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    roots = [
        Settings(root=tmp_path / root, database=f"sqlite:///{tmp_path / way / 'house.db'}")
        for root, way in (("one", "there"), ("two", "link"))
    ]
    assert len({lock_file(each) for each in roots}) == 1
    assert len({lock_file(Settings(root=tmp_path / root)) for root in ("one", "two")}) == 2
