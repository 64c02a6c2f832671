"""Whoever watches, told as it happens: one look at the store a second for all of them, none while nobody watches.

A follower stands at a number of the feed (``services.feed``). What came since is handed on from memory while it is
recent, and read from the store for whoever was away longer; nobody is left out and nothing comes twice. A follower who
reads slowly has no queue: it only stands further back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from orchestrator.errors import WaveError
from orchestrator.services.feed import Fed
from orchestrator.services.store import Store

LOOK_EVERY: Final = timedelta(seconds=1)
"""How often the store is asked whether anything happened."""

BEAT_EVERY: Final = timedelta(seconds=15)
"""A follower hears something at least so often, so that what lies between keeps the connection open."""

AT_ONCE: Final = 200
"""Entries handed on in one piece."""

_KEPT: Final = 1_000
"""The newest entries, kept for all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """What came since the last: ``entries``, oldest first; ``position``: the number to go on after. ``stirred``: a
    device reported, or something was counted, so that figures may be others. Nothing of all this: a sign of life.
    ``lost``: the follower came with a number that this store has not come to, after a restored backup: it begins
    anew."""

    entries: tuple[Fed, ...]
    position: int
    stirred: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class _Follower:
    """``awake`` belongs to ``loop``. Figures may be others than on a page that was made before it came."""

    loop: asyncio.AbstractEventLoop
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    stirred: bool = True


class Feed:
    """``store`` is asked for when somebody follows; ``over``: set when everything ends, and every ``follow`` with it.
    Safe in threads and event loops."""

    def __init__(
        self, store: Callable[[], Store], over: threading.Event, *, look_every: timedelta = LOOK_EVERY
    ) -> None:
        self._store = store
        self._over = over
        self._look_every = look_every.total_seconds()
        self._guard = threading.Lock()
        self._followers: set[_Follower] = set()
        self._looking = False
        self._stir = ""
        self._recent: deque[Fed] = deque(maxlen=_KEPT)
        self._whole_after: int | None = None
        """``_recent`` has every entry with a greater number, as far as they were read. None: nobody has looked yet."""

    async def follow(
        self, after: int | None = None, *, beat_every: timedelta = BEAT_EVERY
    ) -> AsyncGenerator[News, None]:
        """Everything after a number, or from now on, until ``over``. Raises StoreUnavailable, Busy at the start."""
        head = await asyncio.to_thread(self._head)
        position, lost = (head, False) if after is None else (min(after, head), after > head)
        if lost:
            yield News((), position, lost=True)
        follower = _Follower(asyncio.get_running_loop())
        self._join(follower)
        try:
            while not self._over.is_set():
                follower.awake.clear()
                entries, stirred, whole_after = self._take(follower, position)
                further_back = whole_after is None or position < whole_after
                if further_back:
                    entries = await asyncio.to_thread(self._read, position)
                if entries:
                    position = entries[-1].number
                if entries or stirred:
                    yield News(entries, position, stirred)
                if len(entries) == AT_ONCE:
                    continue
                if further_back and whole_after is not None:
                    # The store was read after that: nothing more lies between here and what is recent.
                    position = max(position, whole_after)
                    continue
                try:
                    await asyncio.wait_for(follower.awake.wait(), beat_every.total_seconds())
                except TimeoutError:
                    yield News((), position)
        finally:
            with self._guard:
                self._followers.discard(follower)

    @property
    def followers(self) -> int:
        return len(self._followers)

    # --------------------------------------------------------------------------------------------- reading

    def _head(self) -> int:
        with self._store().reading() as r:
            return r.feed_head()

    def _read(self, after: int) -> tuple[Fed, ...]:
        with self._store().reading() as r:
            return tuple(r.feed(after=after, limit=AT_ONCE))

    def _take(self, follower: _Follower, position: int) -> tuple[tuple[Fed, ...], bool, int | None]:
        """What memory has for it, whether figures may be others, and after which number memory is whole."""
        with self._guard:
            stirred, follower.stirred = follower.stirred, False
            recent = tuple(each for each in self._recent if each.number > position)[:AT_ONCE]
            return recent, stirred, self._whole_after

    # --------------------------------------------------------------------------------------------- looking

    def _join(self, follower: _Follower) -> None:
        with self._guard:
            self._followers.add(follower)
            if self._looking:
                return
            self._looking = True
            self._recent.clear()
            self._whole_after, self._stir = None, ""
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    def _run(self) -> None:
        quiet = True
        while True:
            try:
                self._look()
                quiet = True
            except WaveError as error:
                if quiet:
                    _log.warning("the journals could not be followed, and are tried again: %s", error)
                quiet = False
            ended = self._over.wait(self._look_every)
            with self._guard:
                if ended or not self._followers:
                    self._looking = False
                    followers = tuple(self._followers)
                    break
        _wake(followers)

    def _look(self) -> None:
        with self._store().reading() as r:
            stir = r.stir()
            if stir == self._stir:
                return
            first = self._whole_after is None
            after = self._recent[-1].number if self._recent else self._whole_after or 0
            head = r.feed_head()
            fresh: Sequence[Fed] = () if first else r.feed(after=after, limit=_KEPT)
        with self._guard:
            over = len(self._recent) + len(fresh) - _KEPT
            if first:
                self._whole_after = head
            elif over > 0:
                self._whole_after = [*self._recent, *fresh][over - 1].number
            self._recent.extend(fresh)
            # Where there is more, the next look goes on.
            self._stir = stir if len(fresh) < _KEPT else f"{stir} and more"
            followers = tuple(self._followers)
            for each in followers:
                each.stirred = True
        _wake(followers)


def _wake(followers: tuple[_Follower, ...]) -> None:
    for loop in {each.loop for each in followers}:
        # Where the loop has ended, whoever followed there has too.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_set, [each.awake for each in followers if each.loop is loop])


def _set(events: Sequence[asyncio.Event]) -> None:
    for each in events:
        each.set()


def frame(event: str, value: Mapping[str, Any] | None = None, *, number: int | None = None) -> bytes:
    """One event of a stream: ``event``, ``data`` as JSON on one line, ``id`` where it moves the reader on."""
    lines = [f"event: {event}", f"data: {json.dumps(value or {}, ensure_ascii=False, separators=(',', ':'))}"]
    if number is not None:
        lines.insert(0, f"id: {number}")
    return ("\n".join(lines) + "\n\n").encode()


BEAT: Final = b": still here\n\n"
"""A comment, which no reader hears."""
