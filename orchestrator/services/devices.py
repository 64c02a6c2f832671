"""What devices ask for and tell: check-ins and reports, from the token to the commit.

An idle check-in (nothing changed, nothing to offer) is answered from memory; its time is written later with many
others. Everything else goes through the one ``Writer``. A device in memory is believed as long as the register's mark
stands; where several processes serve one database, nothing is kept (``most_kept=0``): a device may be seen by another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.offers import Earlier, NoOffer, may_offer, unfit, way
from orchestrator.core.protocols import NOTHING_SPOKEN, DeviceProtocol
from orchestrator.errors import Busy, InvalidInput, Unauthorized
from orchestrator.services.board import Board, Listed, Snapshot, reach_of
from orchestrator.services.check_in import Arrival, CheckIns, Settle, Welcome, filled, usual_gap
from orchestrator.services.credentials import Shown, digest_of, is_own_token, new_secret
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.downloads import Downloads
from orchestrator.services.enrolment import Enrolments, Wish
from orchestrator.services.futures import chain, then
from orchestrator.services.identity import NOBODY, Identity
from orchestrator.services.kept import Heard as Heard
from orchestrator.services.kept import Kept as Kept
from orchestrator.services.kept import awaited, nothing_new, spread_of
from orchestrator.services.looking import MOST_LOOKS, Looks
from orchestrator.services.messages import CheckIn, Enrol, Received, ReportedEvent
from orchestrator.services.offering import earlier_of
from orchestrator.services.pressure import Pressure
from orchestrator.services.records import CourseRow, RolloutRow, UpdateRow
from orchestrator.services.register import Register
from orchestrator.services.remembered import Remembered
from orchestrator.services.reports import Reports, Told
from orchestrator.services.settings import Settings
from orchestrator.services.shelf import Shelf
from orchestrator.services.store import Reading, Store, Writing
from orchestrator.services.views import WhyNot
from orchestrator.services.waking import Waker
from orchestrator.services.why_not import reasons_of
from orchestrator.services.writer import Work, Writer

Result = TypeVar("Result")

MOST_KEPT: Final = 1_000_000
"""Devices kept in memory; the rest is read when it comes."""

MOST_STRANGERS: Final = 10_000
"""Unknown ids remembered, so that asking again costs no look into the store."""

STRANGER_FOR: Final = timedelta(seconds=5)


@dataclass(slots=True)
class Counters:
    """What happened since the start, for metrics."""

    check_ins: int = 0
    idle: int = 0
    unauthorized: int = 0


class Devices:
    """The device path. Threads begin with the first work; ``close`` finishes what waits.

    ``settle`` stops a rollout inside a transaction; ``poke`` wakes the ticker and must not block; ``knows`` says
    whether the repository has a commit (without it, the commits of Targets count as there); ``later`` runs work soon in
    another thread, for a caller that must not wait for a look into the store (without it, looks are made at once).
    ``downloads`` makes the URLs that offers name.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Callable[[], datetime],
        *,
        settle: Settle,
        poke: Callable[[], None] = lambda: None,
        knows: Callable[[str], bool] | None = None,
        later: Callable[[Callable[[], None]], None] | None = None,
        most_kept: int = MOST_KEPT,
        downloads: Downloads | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._knows_commit = knows
        self._known: dict[tuple[str, str], bool] = {}
        self._later = later
        self._kept = Shelf(most_kept)
        self._strangers: Remembered[str, datetime] = Remembered(MOST_STRANGERS)
        self._looks = 0
        self._looks_for = None if later is None else Looks(self._find, later)
        self._guard = threading.Lock()
        self.board = Board(store, clock=clock, later=later)
        self._waker = Waker(poke, clock)
        self.writer = Writer(store, clock=clock, between=self._waker.catch_up)
        self.pressure = Pressure(settings, lambda: self.writer.waiting, self.writer.most_waiting)
        self.register = Register(store, clock, self.board.expire)
        self.identity = Identity(store, clock, later=later)
        self.counters = Counters()
        self.downloads = downloads or Downloads(settings.url, makes_artifacts=settings.makes_artifacts)
        every = settings.check_in_every * (1 - settings.check_in_jitter)
        self.check_ins = CheckIns(self.board, settle, self._waker.wake, self._knows, self.downloads, every)
        self.reports = Reports(self.board, settle, self._waker.wake, self._reported)
        enrolments = Enrolments(store, self.forget, self.identity.spent)
        self._enrolments: Work[Wish, Device] = Work("enrolments", -1, enrolments.run)
        self._reports: Work[Told, Received] = Work("reports", 0, self.reports.run, self.reports.rollouts)
        self._check_ins: Work[Arrival, Welcome] = Work("check-ins", 1, self.check_ins.run, self.check_ins.rollouts)

    # --------------------------------------------------------------------------------------------- the house

    def close(self) -> None:
        self.writer.close()

    def now(self) -> datetime:
        """What time it is here."""
        return self._clock()

    @property
    def in_memory(self) -> int:
        return len(self._kept)

    def refresh(self) -> None:
        """A rollout changed: read the board anew now."""
        self.board.refresh()

    def expire(self, w: Writing, row: RolloutRow, *, now: datetime) -> int:
        """Count the silences of a rollout that are due, inside the ticker's transaction; how many were looked at."""
        return self.reports.expire(w, row, now=now)

    def why_not(self, device_id: str) -> tuple[WhyNot, ...]:
        """What each rollout of its tag holds for the device, and why it is offered the Target or not yet. Raises
        NotFound."""
        now = self._clock()
        with self._store.reading() as r:
            made = self.downloads.makes_artifacts
            return reasons_of(
                r, device_id, now=now, knows=lambda hw, commit: self._knows(r, hw, commit), makes_artifacts=made
            )

    # --------------------------------------------------------------------------------------------- check-ins

    def let_in(self, device_id: str, shown: Shown) -> Kept | Future[Kept]:
        """Who asks, before anything is read of what it says; hand it on as ``known``. An id that nobody knows yet is
        made known where a gateway token does that.

        Raises Unauthorized for an unknown device and a wrong credential alike, Busy."""
        now = self._clock()
        kept = self._in_memory(device_id, now)
        if kept is not None or self._later is None:
            return self._enter(device_id, shown, kept or self._load(device_id, now), now)
        return chain(self._look(device_id, now), lambda found: self._enter(device_id, shown, found, now))

    def remembered(self, device_id: str, shown: Shown) -> Kept | None:
        """The device, where it is in memory and the credential speaks for it; the store is not looked into."""
        now = self._clock()
        kept = self._in_memory(device_id, now)
        return kept if kept is not None and self.identity.admits(kept.person, shown, now) else None

    def _enter(self, device_id: str, shown: Shown, kept: Kept | None, now: datetime) -> Kept | Future[Kept]:
        grant = None if kept is not None else self.identity.registers(shown, now)
        if grant is None:
            return self._let_in(kept, shown, now)
        wish = Wish(grant.digest, device_id, None)
        try:
            wish.check()
        except InvalidInput:
            raise Unauthorized(NOBODY) from None  # no device can be called so
        known = self.writer.submit(self._enrolments, wish)
        return then(known, lambda _: self._let_in(self._load(device_id, now), shown, now))

    def join(self, token: str, said: Enrol) -> Future[tuple[Device, str]]:
        """A device makes itself known with an enrolment token: what it is now, and its own token, once it is committed.

        Raises Unauthorized, Busy, InvalidInput for what cannot be; the future Refused for an id that is taken and
        Forbidden for what the token's scope does not hold."""
        grant = self.identity.enrolment(token, self._clock(), spent=said.token is not None)
        secret = said.token or new_secret()[0]
        wish = Wish(grant.digest, said.device, said.hardware_id, said.labels, digest_of(secret))
        wish.check()
        return then(self.writer.submit(self._enrolments, wish), lambda device: (device, secret))

    def check_in(
        self,
        device_id: str,
        shown: Shown,
        said: CheckIn | None,
        *,
        known: Kept | None = None,
        over: DeviceProtocol = DeviceProtocol.OWN,
        asks: bool = True,
    ) -> Heard | Future[Heard]:
        """A device asks. The answer at once when nothing is to be written, else when it is committed. ``said`` None: it
        only shows that it is here, and what it said before holds. ``known`` is what ``let_in`` said, which may be long
        ago: it counts only while no person changed devices since. ``over``: the protocol it speaks. Not ``asks``: it
        only tells, wants no offer now, and is not counted as coming back without a start.

        Raises Unauthorized for an unknown device and a wrong credential alike, InvalidInput for what cannot be,
        Busy."""
        now = self._clock()
        kept = self._in_memory(device_id, now, known)
        if kept is not None or self._later is None:
            kept = self._admitted(kept or self._load(device_id, now), known, shown, now)
            return self._check_in(device_id, shown, said, kept, now, over, asks=asks)

        def looked_up(found: Kept | None) -> Heard | Future[Heard]:
            return self._check_in(device_id, shown, said, self._let_in(found, shown, now), now, over, asks=asks)

        return chain(self._look(device_id, now), looked_up)

    def _check_in(
        self,
        device_id: str,
        shown: Shown,
        said: CheckIn | None,
        kept: Kept,
        now: datetime,
        over: DeviceProtocol,
        *,
        asks: bool,
    ) -> Heard | Future[Heard]:
        self.counters.check_ins += 1
        if kept.spoken.protocol is over and self._idle(kept, said, now, asks=asks):
            self.counters.idle += 1
            if kept.seen_at is not None:
                kept.usual_gap = usual_gap(kept.usual_gap, now - kept.seen_at)
            kept.seen_at = now
            self.writer.touch(kept.person.key, now, kept.usual_gap)
            after = self.pressure.check_in_after(kept.place_in_jitter(), now, needed=awaited(kept.had))
            return Heard(None, after, kept.had, kept.person.device)
        tag = kept.person.device.tag
        if said is not None:
            if said != kept.said:
                said.check()
            tag = said.tag or tag
        digest = (kept.person.token_digest or b"") if is_own_token(shown) else None
        arrival = Arrival(kept.person.key, digest, said, tuple(kept.had), tag, over, asks)
        waiting = self.writer.submit(self._check_ins, arrival)
        return then(waiting, lambda welcome: self._welcomed(device_id, said, welcome))

    def _idle(self, kept: Kept, said: CheckIn | None, now: datetime, *, asks: bool) -> bool:
        """Whether nothing changed and the board has nothing for it."""
        if said is not None and kept.said != said and not nothing_new(kept, said):
            return False
        device = kept.person.device
        if device.since_at is None or kept.seen_at is None or (asks and kept.outstanding):
            return False
        snapshot = self.board.look(now)
        if now - kept.seen_at > reach_of(snapshot, device.tag):
            return False
        if not asks:
            return True
        if snapshot is kept.snapshot and (kept.until is None or now < kept.until):
            return True
        kept.snapshot = None
        until: datetime | None = None
        for listed in snapshot.by_tag.get(device.tag, ()):
            had, version = kept.had.get(listed.key, (None, 0))
            no = self._no(snapshot, listed, kept, had, now)
            if no is None or (had is not None and had.update.bad_outcome and version != listed.row.version):
                return False
            until = no.until if until is None or (no.until is not None and no.until < until) else until
        kept.snapshot, kept.until = snapshot, until
        return True

    def _no(self, snapshot: Snapshot, listed: Listed, kept: Kept, had: Earlier | None, now: datetime) -> NoOffer | None:
        """Why this rollout surely offers nothing, from the snapshot; None when it might."""
        device = kept.person.device
        found = may_offer(listed.terms, device, had, now)
        if isinstance(found, NoOffer):
            return found
        to_commit = listed.terms.scope.commits[device.hardware_id]
        if (no := unfit(kept.spoken.protocol, file=listed.format_of(to_commit))) is not None:
            return no
        known = device.commit is not None and (
            listed.known.get(found.wave, {}).get(device.commit)
            or self._known.get((device.hardware_id, device.commit), False)
        )
        pair = DeltaPair(device.commit, to_commit)
        ready = pair in snapshot.ready
        if not known and not ready:
            return None  # the transaction finds out, and has the delta built
        how = way(
            listed.terms,
            found.wave,
            from_commit=device.commit,
            to_commit=to_commit,
            ready=ready,
            known=known,
            now=now,
            over=kept.spoken.protocol,
            installs=pair in snapshot.smaller if ready else self.downloads.makes_artifacts,
        )
        return how if isinstance(how, NoOffer) else None

    def _welcomed(self, device_id: str, said: CheckIn | None, welcome: Welcome) -> Heard:
        had = self._had(welcome.updates.values())
        with self._kept.lock:
            kept = self._kept.get(device_id)
            if kept is not None:
                kept.person, kept.had, kept.snapshot = welcome.person, had, None
                kept.spoken = welcome.spoken
                kept.said = kept.said if said is None else filled(said, kept.said)
                kept.seen_at, kept.usual_gap = welcome.person.device.last_seen_at, welcome.person.device.usual_gap
        needed = welcome.offer is not None or awaited(had)
        return Heard(
            welcome.offer, self.check_in_after(welcome.person.device, needed=needed), had, welcome.person.device
        )

    def check_in_after(self, device: Device, *, needed: bool = False) -> float:
        """Seconds until this device shall ask again; see ``Pressure``."""
        return self.pressure.check_in_after(spread_of(device), self._clock(), needed=needed)

    # --------------------------------------------------------------------------------------------- reports

    def report(
        self, device_id: str, shown: Shown, events: Sequence[ReportedEvent], *, known: Kept | None = None
    ) -> Future[Received]:
        """A device tells. Done when it is committed. ``known`` as in ``check_in``. Raises Unauthorized, Busy."""
        now = self._clock()
        kept = self._in_memory(device_id, now, known)
        if kept is not None or self._later is None:
            return self._report(events, self._admitted(kept or self._load(device_id, now), known, shown, now), now)
        found = self._look(device_id, now)
        return chain(found, lambda kept: self._report(events, self._let_in(kept, shown, now), now))

    def _report(self, events: Sequence[ReportedEvent], kept: Kept, now: datetime) -> Future[Received]:
        person = kept.person
        told = Told(person.key, person.device.id, events, now)
        return self.writer.submit(self._reports, told, weight=max(1, len(events)))

    def _reported(self, touched: Mapping[str, list[CourseRow]]) -> None:
        """After a commit: what is kept of the devices whose updates moved is not true any more."""
        for device_id, rows in touched.items():
            with self._kept.lock:
                if (kept := self._kept.get(device_id)) is None:
                    continue
                kept.snapshot = None
                for row in rows:
                    if row.rollout_key not in kept.had:
                        self._kept.drop(device_id)  # of an offer that another process gave; read anew when it asks
                        break
                    earlier, version = kept.had[row.rollout_key]
                    kept.had[row.rollout_key] = (replace(earlier, update=earlier.update.come_to(row.update)), version)

    # --------------------------------------------------------------------------------------------- who is it

    def _in_memory(self, device_id: str, now: datetime, known: Kept | None = None) -> Kept | None:
        """The device as it is kept, or as it was read for this request, while no person changed devices since."""
        kept = self._kept.get(device_id) or known
        if kept is None or kept.register != self.board.look(now).register:
            return None
        return kept

    def _load(self, device_id: str, now: datetime) -> Kept | None:
        """Read the device and keep it; None for a stranger."""
        return None if self._is_stranger(device_id, now) else self._find([device_id]).get(device_id)

    def _look(self, device_id: str, now: datetime) -> Future[Kept | None]:
        """The same, soon, with all who ask just now. Raises Busy."""
        assert self._looks_for is not None
        if self._is_stranger(device_id, now):
            nobody: Future[Kept | None] = Future()
            nobody.set_result(None)
            return nobody
        return self._looks_for.look(device_id)

    def _is_stranger(self, device_id: str, now: datetime) -> bool:
        since = self._strangers.get(device_id)
        return since is not None and now - since < STRANGER_FOR

    def _find(self, device_ids: Sequence[str]) -> dict[str, Kept]:
        now = self._clock()
        snapshot = self.board.look(now)
        with self._store.reading() as r:
            people = r.devices_called(device_ids)
            keys = [person.key for person in people]
            updates, spoken = r.updates_of_devices(keys), r.spoken(keys)
        found: dict[str, Kept] = {}
        for person in people:
            device, had = person.device, self._had(updates.get(person.key, ()))
            kept = Kept(person, snapshot.register, None, had, device.last_seen_at, device.usual_gap)
            kept.spoken = spoken.get(person.key, NOTHING_SPOKEN)
            found[device.id] = kept
        with self._guard:
            for device_id in device_ids:
                if device_id in found:
                    self._strangers.pop(device_id)
                    self._kept.put(device_id, found[device_id])
                else:
                    self._strangers.put(device_id, now)
        return found

    def _had(self, rows: Iterable[UpdateRow]) -> dict[int, tuple[Earlier, int]]:
        listed = self.board.snapshot.listed
        found: dict[int, tuple[Earlier, int]] = {}
        for row in rows:
            on_board = listed.get(row.rollout_key)
            earlier = earlier_of(row, None if on_board is None else on_board.row.state)
            assert earlier is not None
            found[row.rollout_key] = (earlier, on_board.row.version if on_board is not None else 0)
        return found

    def _let_in(self, kept: Kept | None, shown: Shown, now: datetime) -> Kept:
        """A stranger costs as much as a wrong token."""
        admitted = self.identity.admits(None if kept is None else kept.person, shown, now)
        if kept is None or not admitted:
            self.counters.unauthorized += 1
            raise Unauthorized(NOBODY)
        return kept

    def _admitted(self, kept: Kept | None, known: Kept | None, shown: Shown, now: datetime) -> Kept:
        """The same, and at once when it is what ``let_in`` said of this request: nobody changed devices since."""
        return kept if kept is not None and kept is known else self._let_in(kept, shown, now)

    def _knows(self, r: Reading, hardware_id: str, commit: str) -> bool:
        """Whether the repository has the commit: those of Targets, and what it says itself. Only a yes is kept."""
        known = self._known.get((hardware_id, commit), False)
        if not known:
            known = r.known_version(hardware_id, commit) is not None
            if not known and self._knows_commit is not None:
                known = self._knows_commit(commit)
            if known and len(self._known) < MOST_STRANGERS:
                self._known[hardware_id, commit] = True
        return known

    def forget(self, device_ids: Iterable[str]) -> None:
        """After a commit that changed these devices, new ones among them: read them again when they ask."""
        with self._guard:
            for device_id in device_ids:
                self._strangers.pop(device_id)
                self._kept.drop(device_id)

    def aside(self, work: Callable[[], Result | Future[Result]]) -> Future[Result]:
        """Look something up beside the event loop, within the same bound as looks for devices. Raises Busy."""
        if self._later is not None:
            return self._soon(work)
        done: Future[Result] = Future()
        try:
            found = work()
        except Exception as error:
            done.set_exception(error)
            return done
        if isinstance(found, Future):
            return found
        done.set_result(found)
        return done

    def _soon(self, work: Callable[[], Result | Future[Result]]) -> Future[Result]:
        """Run in another thread; a future of what comes of it in the end. Raises Busy when too many wait for that."""
        assert self._later is not None
        with self._guard:
            if self._looks >= MOST_LOOKS:
                raise Busy("Too many devices have to be looked up at once.", remedy="Ask again in a few seconds.")
            self._looks += 1

        def run() -> None:
            with self._guard:
                self._looks -= 1
            begun.set_result(None)

        begun: Future[None] = Future()
        done: Future[Result] = chain(begun, lambda _: work())
        self._later(run)
        return done

    # --------------------------------------------------------------------------------------------- people's orders

    def enroll(
        self, devices: Iterable[Device], *, tokens: bool, renew: bool = False
    ) -> Iterator[tuple[str, str | None]]:
        """See ``Register``; the same for the orders below."""
        return self.register.enroll(devices, tokens=tokens, renew=renew)

    def new_token(self, device_id: str) -> str:
        return self.register.new_token(device_id)

    def revoke(self, device_id: str) -> None:
        self.register.revoke(device_id)

    def set_group(self, device_ids: Sequence[str], group: str | None) -> int:
        return self.register.set_group(device_ids, group)

    def add_group(self, group: str) -> None:
        self.register.add_group(group)

    def set_label(self, device_ids: Sequence[str], key: str, value: str | None) -> int:
        return self.register.set_label(device_ids, key, value)

    def set_status(self, device_ids: Sequence[str], status: DeviceStatus, because: str | None = None) -> int:
        return self.register.set_status(device_ids, status, because)
