"""A fleet under virtual time: whole rollouts of simulated weeks, in seconds, through the real services and the real
store.

The only things that are not real: the clock (a value that the event queue moves), the devices (``devices``), the
content system (``content``), and the writer's thread, whose work is done at once in the caller's. Everything that
happens is an event in one queue; with the same seed the same things happen in the same order.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from orchestrator.adapters.files.library import Library
from orchestrator.adapters.scheduler import TickScheduler
from orchestrator.adapters.sql.store import open_store
from orchestrator.core.facts import WaveFacts
from orchestrator.core.fleet import Device
from orchestrator.core.journal import Entry
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.services import devices as device_services
from orchestrator.services import rollouts as rollout_services
from orchestrator.services.builder import Builder
from orchestrator.services.credentials import digest_of
from orchestrator.services.deltas import Deltas
from orchestrator.services.devices import Devices, Heard
from orchestrator.services.messages import CheckIn, Received, ReportedEvent
from orchestrator.services.queries import Queries
from orchestrator.services.records import JobStatus
from orchestrator.services.register import mark
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settings import Settings
from orchestrator.services.settling import settle
from orchestrator.services.store import Store
from orchestrator.services.targets import Targets
from orchestrator.services.tick import Ticker
from orchestrator.services.views import RolloutView
from orchestrator.services.writer import Writer
from tests.stories.content import Content, commit_of
from tests.stories.devices import Behaviour, Fate, Habits, History, SimDevice, SimEvent, SimOffer, everywhere
from tests.stories.invariants import hold_offer, hold_store

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""Nine o'clock in Berlin: the window of ``standard`` has just opened."""

POKED_WITHIN = timedelta(minutes=3)
"""How soon a tick follows a poke; in earnest it is at once. Many pokes come together in one tick so."""

TICK_AT_MOST = timedelta(hours=1)
"""The longest pause between two ticks; in earnest it is a minute. What comes sooner comes by ``wake_at`` or a poke."""

BY = "ann"
WARM = timedelta(days=30)


class InlineWriter(Writer):
    """The writer without its thread: what is handed in is committed before ``submit`` returns."""

    def start(self) -> None: ...

    def submit(self, work: Any, item: Any, *, weight: int = 1) -> Any:
        future = super().submit(work, item, weight=weight)
        while batch := self._take():
            self._commit(batch)
        return future

    def close(self) -> None:
        self._touch_only()


@dataclass
class Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Offered:
    """An offer as it went out for the first time."""

    at: datetime
    device: str
    rollout: str
    by_delta: bool


@dataclass
class Simulation:
    """The world of one story. A store may be ``brought`` from an earlier life."""

    seed: int = 1
    start: datetime = MONDAY
    brought: Store | None = None
    content: Content = field(default_factory=Content)
    check_daily: bool = True
    fleet: dict[str, SimDevice] = field(default_factory=dict)
    offers: list[Offered] = field(default_factory=list)
    down: list[tuple[datetime, datetime]] = field(default_factory=list)
    given: dict[tuple[str, str | None], list[datetime]] = field(default_factory=dict)
    ticks: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock(self.start)
        self._queue: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._releases: dict[int, Behaviour] = {}
        self._salts = Random(f"salts {self.seed}")
        self._next_tick: datetime | None = None
        self._building: datetime | None = None
        self.changed: set[str] = set()
        self._version_by_name: dict[str, int] = {}
        self.store: Store = self.brought or open_store("sqlite://")
        self.restart()
        if self.check_daily:
            self.later(timedelta(days=1), self._check_daily)

    def restart(self) -> None:
        """Services as a fresh process makes them: nothing is kept but the store."""
        settings = Settings(tick_at_most=TICK_AT_MOST, lease=6 * TICK_AT_MOST)
        with patch.object(device_services, "Writer", InlineWriter):
            self.devices = Devices(
                self.store, settings, self.clock, settle=settle, poke=self.poke, knows=self.content.has_commit
            )
        self.deltas = Deltas(self.store, self.content, self.clock, self.poke)
        self.rollouts = Rollouts(self.store, self.clock, self.poke)
        self.targets = Targets(self.store, self.content, self.clock)
        self.queries = Queries(self.store, self.clock, self.devices.why_not)
        self.ticker = Ticker(self.store, self.devices.expire, self.deltas.ensure, changed=self.devices.refresh)
        self.scheduler = TickScheduler(
            self.ticker,
            self.store,
            self.clock,
            at_most=TICK_AT_MOST,
            lease=6 * TICK_AT_MOST,
            owner="the only one",
            down_after=3 * TICK_AT_MOST,
        )
        self.builder = Builder(self.store, self.content, self.clock, owner="builder", poke=self.poke)
        self._next_tick = None
        self._building = None
        self.poke()

    # ------------------------------------------------------------------------------------------ time

    @property
    def now(self) -> datetime:
        return self.clock.now

    @property
    def day(self) -> float:
        """Days since the beginning."""
        return (self.now - self.start) / timedelta(days=1)

    def later(self, delay: timedelta, do: Callable[[], None]) -> None:
        self.at(self.now + delay, do)

    def at(self, when: datetime, do: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), do))

    def run(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        to: datetime | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Simulation:
        """Let time pass: so long, to a moment, or (at most so long) until something holds after a tick."""
        end = to or self.now + timedelta(days=days, hours=hours, minutes=minutes)
        while self._queue and self._queue[0][0] <= end:
            when, _, do = heapq.heappop(self._queue)
            self.clock.now = max(when, self.clock.now)
            before = self.ticks
            do()
            if until is not None and self.ticks != before and until():
                return self
        assert until is None, f"it did not come to that within {days} days and {hours} hours:\n{self.told()}"
        self.clock.now = end
        return self

    def to_day(self, day: float) -> Simulation:
        return self.run(to=self.start + timedelta(days=day))

    # ------------------------------------------------------------------------------------------ the server's clockwork

    def poke(self) -> None:
        """A tick soon."""
        self._tick_at(self.now + POKED_WITHIN)

    def _tick_at(self, when: datetime) -> None:
        if self._next_tick is None or when < self._next_tick:
            self._next_tick = when
            self.at(when, lambda: self._tick(when))

    def _tick(self, when: datetime) -> None:
        if self._next_tick != when:
            return  # an earlier one came between
        self._next_tick = None
        if self.is_down():
            self._tick_at(max(end for start, end in self.down if start <= self.now < end))
            return
        self.tick()

    def tick(self) -> None:
        """What APScheduler does when the time has come: the real scheduler's one look."""
        self.flush()
        self.scheduler._beat()
        pause = self.scheduler._look()
        self.ticks += 1
        self.problems += self.ticker._problems.items()
        self._build()
        self._tick_at(self.now + pause)

    def flush(self) -> None:
        """Write when idle devices were seen, as the writer's thread does once in a second."""
        self.devices.writer._touch_only()

    def _build(self) -> None:
        """Begin with a build when one waits; it ends when its time is over."""
        if self._building is not None and self._building > self.now:
            return
        with self.store.reading() as r:
            jobs = r.jobs(statuses={JobStatus.QUEUED, JobStatus.RUNNING})
        if jobs:
            free = min(max(job.lease_until or self.now, self.now) for job in jobs)
            self._building = free + timedelta(seconds=self.content.seconds)
            self.at(self._building, self._built)

    def _built(self) -> None:
        self._building = None
        self.builder.work_once(SimpleNamespace(is_set=lambda: False, wait=lambda timeout=None: False))
        self._build()

    def _check_daily(self) -> None:
        self.check()
        self.later(timedelta(days=1), self._check_daily)

    def check(self) -> None:
        """Everything that must hold at any moment."""
        hold_store(self)

    # ------------------------------------------------------------------------------------------ the fleet

    def enroll(
        self,
        count: int,
        *,
        prefix: str = "d",
        hardware_id: str = "rpi4",
        tag: str = "promoted",
        group: str | None = None,
        labels: Mapping[str, str] | None = None,
        version: int = 41,
        habits: Habits | None = None,
        known: bool = True,
    ) -> list[SimDevice]:
        """Devices that come to life now. ``known``: the server has known them for a month and has seen them lately."""
        habits = habits or Habits()
        made = []
        for number in range(len(self.fleet), len(self.fleet) + count):
            name = f"{prefix}{number:04}"
            device = SimDevice(
                id=name,
                hardware_id=hardware_id,
                tag=tag,
                world=self,
                rng=Random(f"{self.seed} {name}"),
                commit=commit_of(hardware_id, version),
                version=version,
                habits=habits,
                group=group,
                labels=dict(labels or {}),
            )
            self.content.known.add(device.commit)
            self.fleet[name] = device
            made.append(device)
            device.begin()
        with self.store.writing() as w:
            w.enroll(((self._row(device, known), digest_of(device.id)) for device in made), now=self.now)
            mark(w, self.now)
        return made

    def _row(self, device: SimDevice, known: bool) -> Device:
        seen = self.now - device.habits.every * device.rng.random()
        return Device(
            id=device.id,
            hardware_id=device.hardware_id,
            tag=device.tag,
            group=device.group,
            labels=device.labels,
            commit=device.commit if known else None,
            version=device.version if known else None,
            last_seen_at=seen if known else None,
            since_at=self.now - WARM if known else None,
            usual_gap=device.habits.every if known else timedelta(0),
        )

    def last_seen(self, devices: Iterable[SimDevice], ago: timedelta) -> None:
        """The server heard of these so long ago."""
        with self.store.writing() as w:
            rows = [w.device(device.id) for device in devices]
            w.touch({row.key: (self.now - ago, row.device.usual_gap) for row in rows if row is not None})

    def release(self, version: int, fate: Fate | Behaviour = Fate.WELL, hardware_ids: tuple[str, ...] = ()) -> None:
        """Add a Target for each board there is, and say what it will do to devices."""
        boards = hardware_ids or tuple(sorted({device.hardware_id for device in self.fleet.values()}))
        for board in boards:
            self.content.known.add(commit_of(board, version))
            self.targets.add(
                version=version, commit=commit_of(board, version), hardware_ids=[board], name=f"{board}-{version}"
            )
        self._releases[version] = everywhere(fate) if isinstance(fate, Fate) else fate

    # ------------------------------------------------------------------------------------------ what devices do

    def is_down(self) -> bool:
        return any(start <= self.now < end for start, end in self.down)

    def fate(self, device: SimDevice, version: int) -> Behaviour:
        return self._releases.get(version, everywhere(Fate.WELL))

    def check_in(self, device: SimDevice) -> SimOffer | None:
        said = CheckIn(
            commit=device.commit,
            version=device.version if device.habits.says_version else None,
            hardware_id=device.hardware_id,
            tag=device.tag,
            healthy=device.healthy,
        )
        answer = self._asks(device.id, said)
        for name, history in device.history.items():
            self._saw(device, history, name)
        if answer.offer is None:
            return None
        offer = SimOffer(
            answer.offer.rollout,
            answer.offer.target.version,
            answer.offer.target.commit,
            answer.offer.delta is not None,
        )
        hold_offer(self, device, offer)
        if offer.rollout not in device.history:
            device.history[offer.rollout] = History(self.now)
            self.offers.append(Offered(self.now, device.id, offer.rollout, offer.by_delta))
        return offer

    def _asks(self, device_id: str, said: CheckIn) -> Heard:
        """A device's token is its id."""
        heard: Heard = settled(self.devices.check_in(device_id, device_id, said))
        return heard

    def _tells(self, device_id: str, events: list[ReportedEvent]) -> Received:
        received: Received = settled(self.devices.report(device_id, device_id, events))
        return received

    def _saw(self, device: SimDevice, history: History, rollout: str) -> None:
        """The server has acknowledged what the device runs."""
        target = commit_of(device.hardware_id, self.version_of(rollout))
        if device.commit == target and history.confirmed_at is None:
            history.confirmed_at = self.now
        elif device.commit != target and history.confirmed_at is not None and history.back_at is None:
            history.back_at = self.now

    def report(self, device: SimDevice, events: list[SimEvent]) -> None:
        said = [ReportedEvent(e.id, e.rollout, e.version, e.kind.value, e.at.isoformat(), e.code) for e in events]
        received = self._tells(device.id, said)
        assert not received.refused, f"the server refused what {device.id} said: {received.refused}"
        for event in events:
            device.history[event.rollout].events.append((self.now, event.kind))
            device.history[event.rollout].codes.add((event.kind, event.code))

    # ------------------------------------------------------------------------------------------ what people do

    def apply(self, waves: Any, *, policy: str = "standard", name: str = "r42", target: int = 42, **keys: Any) -> str:
        """Apply a rollout file. ``waves`` by name: a selector, or a whole wave; ``own`` keys change the policy."""
        own = keys.pop("own", {})
        rules = Policy.parse(merged(Library().policy(policy).document(), own))
        listed = [
            {"wave": key, **(value if "devices" in value else {"devices": value})} for key, value in waves.items()
        ]
        document = {"rollout": name, "target": target, "tag": "promoted", "policy": policy, "waves": listed, **keys}
        salts = SimpleNamespace(token_hex=lambda size: self._salts.randbytes(size).hex())
        with patch.object(rollout_services, "secrets", salts):
            self.rollouts.apply(RolloutFile.parse(document), rules, by=BY)
        return name

    def begin(self, waves: Any, **keys: Any) -> str:
        """Apply and start."""
        name = self.apply(waves, **keys)
        self.rollouts.start(name, by=BY)
        return name

    # ------------------------------------------------------------------------------------------ how things stand

    def view(self, name: str = "r42") -> RolloutView:
        return self.queries.rollout(name)

    def status(self, name: str = "r42") -> RolloutStatus:
        return self.view(name).summary.status

    def is_(self, status: str, name: str = "r42") -> Callable[[], bool]:
        """For ``run(until=…)``."""
        return lambda: self._row_of(name).state.status == status

    def wave_is(self, wave: str, status: str, name: str = "r42") -> Callable[[], bool]:
        return lambda: self._row_of(name).state.wave(wave).status == status

    def held(self, wave: str, name: str = "r42") -> Callable[[], bool]:
        return lambda: self._row_of(name).state.wave(wave).hold is not None

    def _row_of(self, name: str) -> Any:
        with self.store.reading() as r:
            row = r.rollout(name)
        assert row is not None
        return row

    def version_of(self, name: str) -> int:
        if name not in self._version_by_name:
            self._version_by_name[name] = self._row_of(name).target_version
        return self._version_by_name[name]

    def wave(self, wave: str, name: str = "r42") -> WaveFacts:
        return next(each.facts for each in self.view(name).waves if each.state.wave == wave)

    def wave_status(self, wave: str, name: str = "r42") -> WaveStatus:
        return next(each.state.status for each in self.view(name).waves if each.state.wave == wave)

    def waiting(self, wave: str | None, name: str = "r42") -> list[str]:
        """Kinds of reasons why nothing more happens."""
        view = self.view(name)
        if wave is None:
            return [reason.kind for reason, _ in view.waiting]
        return [reason.kind for each in view.waves if each.state.wave == wave for reason, _ in each.waiting]

    def journal(self, name: str = "r42", event: str | None = None) -> list[Entry]:
        return [entry for entry in self.queries.journal(name) if event in (None, entry.event)]

    def running(self, version: int) -> list[SimDevice]:
        return [device for device in self.fleet.values() if device.version == version]

    def offered(self, name: str = "r42") -> list[str]:
        return [offer.device for offer in self.offers if offer.rollout == name]

    def told(self) -> str:
        """The story so far, for a test that failed."""
        with self.store.reading() as r:
            names = [row.state.rollout for row in reversed(r.rollouts())]
        lines = [f"now {self.now:%a %d %b %H:%M}, day {self.day:.2f}; problems: {self.problems[-3:]}"]
        for name in names:
            view = self.view(name)
            lines.append(f"{name} is {view.summary.status}: {view.summary.standing.reason.sentence}")
            lines += [f"  {e.at:%a %d %b %H:%M} {e.wave or ''} {e.event}: {e.sentence}" for e in self.journal(name)]
            for wave in view.waves:
                facts, held = wave.facts, wave.state.hold
                counts = f"{facts.offered} offered, {facts.resolved} resolved, {facts.confirmed} confirmed"
                why = "; ".join(reason.sentence for reason, _ in wave.waiting)
                lines.append(f"  {wave.state.wave}: {wave.state.status}{' HELD' if held else ''}, {counts}; {why}")
        return "\n".join(lines)


def settled(answer: Any) -> Any:
    """An answer that was there at once, or has been written by now."""
    return answer.result(timeout=10) if isinstance(answer, Future) else answer


def merged(document: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A policy with single keys of one's own; None takes a key away."""
    found = dict(document)
    for key, value in own.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found
