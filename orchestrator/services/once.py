"""Orders that are given once, however often they are sent: whoever gives one may name it by a key, and who sends the
same again with that key gets the answer of the first time.

A key belongs to a person and to one request; it is kept for a day. The order itself and the note that it was carried
out are two transactions: where the process dies between them, nobody knows any more, and that is said instead of
guessing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from orchestrator.errors import Conflict, InvalidInput, Refused

KEPT_FOR: Final = timedelta(hours=24)

UNDER_WAY_FOR: Final = timedelta(minutes=15)
"""An order that has no answer for so long had a process that died."""

LONGEST_KEY: Final = 255
LARGEST_ANSWER: Final = 65_536
"""Bytes; of a larger answer only the status is kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A request that was sent with a key. ``digest`` of what was asked; ``status`` None: no answer yet; ``answer``
    None: it is not kept."""

    digest: bytes
    begun_at: datetime
    status: int | None = None
    answer: bytes | None = None


class WritesOnce(Protocol):
    """One transaction. The contract of ``services.store`` holds."""

    def begin_once(self, person: str, key: str, digest: bytes, *, now: datetime) -> Kept | None:
        """None: it is begun with this. Else what was begun before, also by a transaction that has just committed."""

    def end_once(self, person: str, key: str, status: int, answer: bytes | None) -> None: ...

    def drop_once(self, person: str, key: str) -> None: ...

    def sweep_once(self, before: datetime) -> int:
        """Forget what was begun before that; how many."""


class OpensOnce(Protocol):
    """As much of a store as this needs."""

    def writing(self) -> AbstractContextManager[WritesOnce]: ...


class Once:
    """``clock`` gives aware UTC."""

    def __init__(self, store: OpensOnce, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def begin(self, person: str, key: str, digest: bytes) -> Kept | None:
        """None: carry it out, then ``end`` or ``forget`` it. Else the answer of the first time.

        Raises Conflict while the first is under way, Refused when the key was another request's or nobody knows what
        became of it, InvalidInput for what cannot be a key."""
        if not 1 <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise InvalidInput(f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters.")
        now = self._clock()
        with self._store.writing() as w:
            w.sweep_once(now - KEPT_FOR)
            known = w.begin_once(person, key, digest, now=now)
        if known is None:
            return None
        if known.digest != digest:
            raise Refused("This Idempotency-Key was used for another request.", remedy="Give each request its own key.")
        if known.status is not None:
            return known
        if now - known.begun_at < UNDER_WAY_FOR:
            raise Conflict("The same request is being carried out.", remedy="Ask again in a moment, with the same key.")
        raise Refused(
            "This request was begun, and nobody knows what became of it: the server ended meanwhile.",
            remedy="Look how things stand; if it was not done, give it again with another key.",
        )

    def end(self, person: str, key: str, status: int, answer: bytes | None) -> None:
        """This was the answer. None, or too large: it is not kept."""
        if answer is not None and len(answer) > LARGEST_ANSWER:
            answer = None
        with self._store.writing() as w:
            w.end_once(person, key, status, answer)

    def forget(self, person: str, key: str) -> None:
        """Nothing of it was done: it may be sent again."""
        with self._store.writing() as w:
            w.drop_once(person, key)
