"""Devices of the stories: each with its habits, its fate under a release, and its own true history of what it did and
what the server took from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Protocol

from orchestrator.core.codes import Classes
from orchestrator.core.update import KINDS_OF_FAILURE, EventKind


class Fate(StrEnum):
    """What a release does to a device."""

    WELL = "it runs"
    FAILS = "the installation fails, and says so"
    VERIFY_FAILS = "what it wrote is not what it should be, and it says so"
    ROLLS_BACK = "it does not come up; the old version does, and says so"
    ROLLS_BACK_UNSAID = "it runs for a day; then the old version checks in as if nothing had been"
    ROLLS_BACK_LATER = "it runs for a day; then the old version is back, and says so"
    BRICKS = "it is never heard of again after installing"
    DIES_LATER = "it runs, says so, and is never heard of again"
    NO_CONTENT = "the download fails each time"
    SHAKY_NETWORK = "the download fails once"
    IGNORES = "it takes no notice of the offer"


Behaviour = Callable[["SimDevice", int], Fate]
"""The fate of a device at its n-th try, counted from 1."""

SICK_FACTOR = 10
"""A sick device asks this many times as often."""


@dataclass(frozen=True)
class Habits:
    """``every`` with ``jitter``: when it checks in. ``twice``: each report is sent twice, and in any order.
    ``clock``: how wrong its clock is. ``says_version``: otherwise it names only its commit."""

    every: timedelta = timedelta(hours=4)
    jitter: float = 0.2
    download: timedelta = timedelta(minutes=10)
    install: timedelta = timedelta(minutes=5)
    reboot: timedelta = timedelta(minutes=2)
    twice: bool = False
    sick: bool = False
    clock: timedelta = timedelta(0)
    says_version: bool = True


@dataclass(frozen=True)
class SimOffer:
    """What a device is told. ``by_delta``: there is one for it."""

    rollout: str
    version: int
    commit: str
    by_delta: bool


@dataclass(frozen=True)
class SimEvent:
    """One item of a report, as the device made it."""

    id: str
    rollout: str
    version: int
    kind: EventKind
    at: datetime
    code: str | None = None


@dataclass
class History:
    """What the server acknowledged of one device and one rollout: reports and check-ins, with the moment of receipt."""

    offered_at: datetime
    events: list[tuple[datetime, EventKind]] = field(default_factory=list)
    codes: set[tuple[EventKind, str | None]] = field(default_factory=set)
    confirmed_at: datetime | None = None
    back_at: datetime | None = None

    def said(self, kind: EventKind) -> bool:
        return any(each is kind for _, each in self.events)

    def failures(self, classes: Classes) -> dict[EventKind, set[str]]:
        """The classes of what it said went wrong, by kind."""
        found: dict[EventKind, set[str]] = {}
        for kind, code in self.codes:
            if kind in KINDS_OF_FAILURE:
                found.setdefault(kind, set()).add(classes.of(KINDS_OF_FAILURE[kind], code))
        return found


class World(Protocol):
    """What a device can do to the world around it."""

    @property
    def now(self) -> datetime: ...

    def later(self, delay: timedelta, do: Callable[[], None]) -> None: ...

    def is_down(self) -> bool:
        """Nobody answers."""

    def check_in(self, device: SimDevice) -> SimOffer | None: ...

    def report(self, device: SimDevice, events: list[SimEvent]) -> None: ...

    def fate(self, device: SimDevice, version: int) -> Behaviour: ...


@dataclass
class SimDevice:
    """One device. ``away``: when it has no power or no line, from and to; ``code``: what it says beside a failure;
    ``healthy``: what it says of itself at each check-in."""

    id: str
    hardware_id: str
    tag: str
    world: World
    rng: Random
    commit: str
    version: int
    habits: Habits = field(default_factory=Habits)
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    away: list[tuple[datetime, datetime]] = field(default_factory=list)
    history: dict[str, History] = field(default_factory=dict)
    outbox: list[SimEvent] = field(default_factory=list)
    last_sent: list[SimEvent] = field(default_factory=list)
    tries: dict[int, int] = field(default_factory=dict)
    busy: bool = False
    dead: bool = False
    failed: bool = False
    made: int = 0
    code: str | None = None
    healthy: bool = True

    def begin(self) -> None:
        """Come to life: the first check-in somewhere within the first interval."""
        self.world.later(self.habits.every * self.rng.random(), self._live)

    @property
    def gone(self) -> bool:
        """Away, or the server is."""
        now = self.world.now
        return self.dead or self.world.is_down() or any(start <= now < end for start, end in self.away)

    def _live(self) -> None:
        if self.dead:
            return
        if not self.busy and not self.gone:
            self._ask()
        pause = self.habits.every * (1 + self.habits.jitter * (2 * self.rng.random() - 1))
        now = self.world.now
        back = max((end for start, end in self.away if start <= now < end), default=None)
        if back is not None:
            pause = back - now + pause * self.rng.random()
        self.world.later(pause / SICK_FACTOR if self.habits.sick and self.failed else pause, self._live)

    def _ask(self) -> None:
        """Send what is kept, say what runs here, and do what the answer says."""
        if self.gone:
            return
        self._send()
        offer = self.world.check_in(self)
        if offer is not None and offer.commit != self.commit:
            self._take(offer)

    def _take(self, offer: SimOffer) -> None:
        attempt = self.tries.get(offer.version, 0) + 1
        fate = self.world.fate(self, offer.version)(self, attempt)
        if fate is Fate.IGNORES:
            return
        self.tries[offer.version] = attempt
        self.busy = True
        self._say(offer, EventKind.DOWNLOADING)
        self.world.later(
            self.habits.download * (0.5 + self.rng.random()), lambda: self._downloaded(offer, fate, attempt)
        )

    def _downloaded(self, offer: SimOffer, fate: Fate, attempt: int) -> None:
        if fate is Fate.NO_CONTENT or (fate is Fate.SHAKY_NETWORK and attempt == 1):
            self._end(offer, EventKind.DOWNLOAD_FAILED)
            return
        self._say(offer, EventKind.INSTALLING)
        self.world.later(self.habits.install * (0.5 + self.rng.random()), lambda: self._installed(offer, fate))

    def _installed(self, offer: SimOffer, fate: Fate) -> None:
        if fate is Fate.FAILS:
            self._end(offer, EventKind.FAILED)
        elif fate is Fate.VERIFY_FAILS:
            self._end(offer, EventKind.VERIFY_FAILED)
        elif fate is Fate.BRICKS:
            self.dead = True
        else:
            self._say(offer, EventKind.APPLIED)
            self.world.later(self.habits.reboot, lambda: self._booted(offer, fate))

    def _booted(self, offer: SimOffer, fate: Fate) -> None:
        if fate is Fate.ROLLS_BACK:
            self._end(offer, EventKind.ROLLED_BACK)
            return
        old = (self.commit, self.version)
        self.commit, self.version, self.busy = offer.commit, offer.version, False
        self._ask()
        if fate is Fate.DIES_LATER:
            self.dead = not self.gone or self.dead
        if fate in (Fate.ROLLS_BACK_LATER, Fate.ROLLS_BACK_UNSAID):
            self.world.later(timedelta(days=1), lambda: self._fall_back(offer, old, fate))

    def _fall_back(self, offer: SimOffer, old: tuple[str, int], fate: Fate) -> None:
        self.commit, self.version = old
        self.failed = True
        if fate is Fate.ROLLS_BACK_LATER:
            self._say(offer, EventKind.ROLLED_BACK)
        self._ask()

    def _end(self, offer: SimOffer, kind: EventKind) -> None:
        self.busy, self.failed = False, True
        self._say(offer, kind)
        if not self.gone:
            self._send()
            self.world.check_in(self)  # the answer comes too early to be acted on

    def _say(self, offer: SimOffer, kind: EventKind) -> None:
        self.made += 1
        at = self.world.now + self.habits.clock
        code = self.code if kind in KINDS_OF_FAILURE else None
        self.outbox.append(SimEvent(f"{self.id}-{self.made}", offer.rollout, offer.version, kind, at, code))
        if not self.gone:
            self._send()

    def _send(self) -> None:
        if not self.outbox:
            return
        batch = list(self.outbox)
        if self.habits.twice:
            batch = [*self.last_sent, *batch, *batch]
            self.rng.shuffle(batch)
        self.world.report(self, batch)
        self.last_sent, self.outbox = self.outbox, []


def everywhere(fate: Fate) -> Behaviour:
    return lambda device, attempt: fate


def by_chance(**chances: float) -> Behaviour:
    """Each fate, by its name in lower case, with its probability; the same for a device at every try."""

    def behave(device: SimDevice, attempt: int) -> Fate:
        drawn = Random(f"fate of {device.id} {sorted(chances)}").random()
        for name, chance in chances.items():
            drawn -= chance
            if drawn < 0:
                return Fate[name.upper()]
        return Fate.WELL

    return behave


def only(hardware_id: str, fate: Fate) -> Behaviour:
    return lambda device, attempt: fate if device.hardware_id == hardware_id else Fate.WELL


def at_first(fate: Fate) -> Behaviour:
    """Bad at the first try, well at each later one."""
    return lambda device, attempt: fate if attempt == 1 else Fate.WELL
