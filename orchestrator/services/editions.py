"""Which edition each device is shown, and what is served of it.

A device's edition is chosen when it asks for ``timestamp.json`` and stays until it asks for that again: what it fetches
next belongs together, whatever it is offered meanwhile. Choosing writes only when something changes; all else is
answered from memory, or, where several processes serve one database (``most_kept=0``), after one look into the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from orchestrator.core.editions import (
    MOST_EDITIONS,
    Content,
    Edition,
    Lifetimes,
    first_of,
    holds,
    read_content,
)
from orchestrator.errors import InvalidInput, NotFound, Refused, TooMany, Unavailable, WaveError
from orchestrator.services.remembered import Remembered
from orchestrator.services.store import Reading, Store, Writing
from orchestrator.services.tuf import NOT_BEGUN, Bodies, Mint, Tuf
from orchestrator.services.writer import Batch, Work, Writer

MOST_BODIES: Final = 512
"""Editions whose documents are kept as they are served."""

MOST_RISES: Final = 100
"""Editions in a day that are made because one device has had a higher number. Numbers are finite and for all: a device
that says now this and now that of itself would use them up. Who changes with others shares theirs."""

RISES_FOR: Final = timedelta(days=1)
MOST_RISING: Final = 100_000
"""Devices of which it is remembered."""


class Wish(NamedTuple):
    """A device is to be shown a content; ``stats``: files that it names, by digest."""

    device_key: int
    content: Content
    stats: tuple[tuple[str, str], ...] = ()


class Chosen(NamedTuple):
    """An edition, and the content that was wished for when it was chosen."""

    edition: Edition
    content: Content


@dataclass(frozen=True, slots=True)
class _Rules:
    lifetimes: Lifetimes
    root_version: int
    now: datetime

    def good(self, edition: Edition) -> bool:
        """Whether it can be shown as it is."""
        return edition.lasts(self.lifetimes, self.now) and edition.fresh(self.lifetimes, self.root_version, self.now)


class Editions:
    """Thread-safe as far as one event loop and one writer need it. ``later`` runs work soon in another thread, for a
    caller that must not wait for the store (without it, it is read at once)."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        tuf: Tuf,
        clock: Callable[[], datetime],
        *,
        later: Callable[[Callable[[], None]], None] | None = None,
        most_kept: int,
    ) -> None:
        self._store = store
        self._writer = writer
        self._tuf = tuf
        self._clock = clock
        self._later = later or (lambda work: work())
        self._shown: Remembered[int, Chosen] = Remembered(most_kept)
        self._editions: Remembered[int, Edition] = Remembered(most_kept)
        self._bodies: Remembered[tuple[int, int, int], Bodies] = Remembered(MOST_BODIES)
        self._rises: Remembered[int, tuple[datetime, int]] = Remembered(MOST_RISING)
        self._work: Work[Wish, Chosen] = Work("editions", 2, self._choose)

    def mint(self) -> Mint:
        """Raises NotFound before ``wave tuf init``, Unavailable."""
        try:
            mint = self._tuf.mint()
        except (Refused, InvalidInput) as error:
            raise Unavailable(str(error)) from error  # no fault of whoever asks
        if mint is None:
            raise NotFound(NOT_BEGUN)
        return mint

    def root(self, version: int) -> bytes:
        """Raises NotFound."""
        content = self.mint().roots.get(version)
        if content is None:
            raise NotFound(f"There is no root {version}.")
        return content

    def show(self, wish: Wish) -> Edition | Future[Edition]:
        """The edition for a device that asks what is new; the future is done when that it was shown is committed.
        Raises NotFound, Busy, Unavailable; the future TooMany for a device that had too many made for it alone."""
        rules = self._rules()
        kept = self._shown.get(wish.device_key)
        if kept is not None:
            edition = self._newest(kept)
            if kept.content == wish.content and rules.good(edition):
                return edition
            return _edition_of(self._writer.submit(self._work, wish))
        done: Future[Edition] = Future()
        self._later(lambda: self._look(wish, rules, done))
        return done

    def shown(self, device_key: int) -> Edition | Future[Edition]:
        """The edition that the device was shown last. Raises NotFound."""
        kept = self._shown.get(device_key)
        if kept is not None:
            return self._newest(kept)
        done: Future[Edition] = Future()
        self._later(lambda: self._look_back(device_key, done))
        return done

    def bodies(self, edition: Edition) -> Bodies:
        """What is served of it. Raises NotFound, Unavailable."""
        mint = self.mint()
        key = (edition.number, edition.signings, mint.root.version)
        found = self._bodies.get(key)
        if found is None:
            found = mint.bodies(edition)
            self._bodies.put(key, found)
        return found

    # --------------------------------------------------------------------------------------------- the store

    def _rules(self) -> _Rules:
        return _Rules(self._tuf.lifetimes, self.mint().root.version, self._clock())

    def _look(self, wish: Wish, rules: _Rules, done: Future[Edition]) -> None:
        """What the store says that it was shown; when that will not do, a new choice is written."""
        try:
            with self._store.reading() as r:
                found = _shown(r, wish.device_key)
                stored = all(r.delta_stats(digest) is not None for digest, _ in wish.stats)
            if found is not None and stored and rules.good(found):
                before = read_content(wish.content.hardware_id, found.body)
                if holds(before, wish.content):
                    self._note(wish, found)
                    done.set_result(found)
                    return
            _pass_on(_edition_of(self._writer.submit(self._work, wish)), done)
        except Exception as error:
            done.set_exception(error)

    def _look_back(self, device_key: int, done: Future[Edition]) -> None:
        try:
            with self._store.reading() as r:
                found = _shown(r, device_key)
            if found is None:
                raise NotFound("The device has not asked for timestamp.json yet.")
            done.set_result(found)
        except Exception as error:
            done.set_exception(error)

    def _choose(self, batch: Batch, wishes: Sequence[Wish]) -> list[Chosen | WaveError]:
        w, rules = batch.w, _Rules(self._tuf.lifetimes, self.mint().root.version, batch.now)
        w.lock_editions()
        numbers = w.shown_editions([wish.device_key for wish in wishes])
        desk = _Desk(w, rules)
        answers: list[Chosen | WaveError] = []
        shown: dict[int, int] = {}
        for wish in wishes:
            for digest, text in wish.stats:
                w.keep_delta_stats(digest, text)
            number = shown.get(wish.device_key, numbers.get(wish.device_key))
            before = None if number is None else desk.edition(number)
            try:
                chosen = desk.choose(before, wish.content, partial(self._rise, wish.device_key, batch.now))
            except WaveError as error:
                answers.append(error)
                continue
            if number != chosen.number:
                shown[wish.device_key] = chosen.number
            answers.append(Chosen(chosen, wish.content))
        desk.save()
        if shown:
            w.show_editions(shown)

        def committed() -> None:
            for wish, answer in zip(wishes, answers, strict=True):
                if isinstance(answer, Chosen):
                    self._note(wish, answer.edition)

        batch.after.append(committed)
        return answers

    def _rise(self, device_key: int, now: datetime) -> None:
        """One more is to be made for this device. Raises TooMany."""
        since, made = self._rises.get(device_key) or (now, 0)
        if not timedelta(0) <= now - since < RISES_FOR:
            since, made = now, 0
        if made >= MOST_RISES:
            left = (since + RISES_FOR - now).total_seconds()
            raise TooMany("What this device says of itself changes too often.", after=left)
        self._rises.put(device_key, (since, made + 1))

    def _note(self, wish: Wish, edition: Edition) -> None:
        self._shown.put(wish.device_key, Chosen(edition, wish.content))
        self._editions.put(edition.number, edition)

    def _newest(self, chosen: Chosen) -> Edition:
        """The edition as it was signed last."""
        return self._editions.get(chosen.edition.number) or chosen.edition


class _Desk:
    """Editions inside one transaction that has them locked."""

    def __init__(self, w: Writing, rules: _Rules) -> None:
        self._w = w
        self._rules = rules
        self._by_number: dict[int, Edition] = {}
        self._newest: dict[str, int | None] = {}
        self._last: int | None = None
        self._changed: set[int] = set()

    def edition(self, number: int) -> Edition | None:
        if number not in self._by_number:
            found = self._w.edition(number)
            if found is None:
                return None
            self._by_number[number] = found
        return self._by_number[number]

    def choose(self, before: Edition | None, content: Content, rise: Callable[[], None]) -> Edition:
        """Never a lower number than ``before``. ``rise`` is asked before a content gets another number for that alone.
        Raises as ``rise``, and Unavailable when numbers are used up."""
        rules = self._rules
        if (
            before is not None
            and before.lasts(rules.lifetimes, rules.now)
            and holds(read_content(content.hardware_id, before.body), content)
        ):
            return self._fresh(before)
        body = content.body
        digest = hashlib.sha256(body).hexdigest()
        newest = self._newest_of(digest)
        if newest is not None and newest.lasts(rules.lifetimes, rules.now):
            if before is None or newest.number >= before.number:
                return self._fresh(newest)
            rise()
        return self._new(digest, body.decode())

    def save(self) -> None:
        for number in sorted(self._changed):
            self._w.save_edition(self._by_number[number])

    def _newest_of(self, digest: str) -> Edition | None:
        if digest not in self._newest:
            found = self._w.newest_edition(digest)
            self._newest[digest] = None if found is None else found.number
            if found is not None:
                self._by_number.setdefault(found.number, found)
        number = self._newest[digest]
        return None if number is None else self._by_number[number]

    def _new(self, digest: str, body: str) -> Edition:
        if self._last is None:
            self._last = self._w.last_edition()
        if self._last >= MOST_EDITIONS:
            raise Unavailable(
                "All numbers for what aktualizr-lite devices are shown are used up.",
                remedy="Begin a new TUF repository whose root follows the present one.",
            )
        self._last += 1
        rules = self._rules
        made = first_of(self._last, digest, body, rules.lifetimes, root_version=rules.root_version, now=rules.now)
        self._by_number[made.number], self._newest[digest] = made, made.number
        self._changed.add(made.number)
        return made

    def _fresh(self, edition: Edition) -> Edition:
        rules = self._rules
        if not edition.fresh(rules.lifetimes, rules.root_version, rules.now):
            edition = edition.signed_again(rules.lifetimes, rules.root_version, rules.now)
            self._by_number[edition.number] = edition
            self._changed.add(edition.number)
        return edition


def _shown(r: Reading, device_key: int) -> Edition | None:
    number = r.shown_editions([device_key]).get(device_key)
    return None if number is None else r.edition(number)


def _edition_of(chosen: Future[Chosen]) -> Future[Edition]:
    done: Future[Edition] = Future()

    def finish(future: Future[Chosen]) -> None:
        error = future.exception()
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(future.result().edition)

    chosen.add_done_callback(finish)
    return done


def _pass_on(first: Future[Edition], done: Future[Edition]) -> None:
    def finish(future: Future[Edition]) -> None:
        error = future.exception()
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(future.result())

    first.add_done_callback(finish)
