"""Passwords: hashed with argon2id, compared at one price whoever is asked for.

A token has 256 random bits and is kept by its plain digest (``credentials``); a password is what a person could think
of, so each guess must cost. Hashing takes 64 MiB and a few hundredths of a second of two cores: only so many are
counted at once, and who waits too long is told to come again.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

from orchestrator.errors import InvalidInput, TooMany

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LEAST: Final = 12
"""Characters of a password."""

MOST: Final = 1024

AT_ONCE: Final = 2
"""Hashes counted at once: each holds 64 MiB."""

WAIT_AT_MOST: Final = timedelta(seconds=5)


class Passwords:
    """Makes hashes and compares with them, by argon2id as the library has it: the second choice of RFC 9106.
    Thread-safe."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._given = hasher
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def hashed(self, password: str) -> str:
        """Raises InvalidInput for one that is too short or too long, TooMany when too many ask at once."""
        plain = _checked(password)
        with self._one_of_few():
            return self._hasher.hash(plain)

    def good(self, kept: str | None, password: str) -> bool:
        """Whether it is the one. Without one to compare with, a hash of nothing is taken, so that the answer comes at
        the same price. Raises TooMany when too many ask at once."""
        from argon2.exceptions import InvalidHashError, VerificationError

        if len(password) > MOST:
            kept = None
        with self._one_of_few():
            try:
                self._hasher.verify(self._of_nobody if kept is None else kept, _plain(password))
            except (VerificationError, InvalidHashError):
                return False
        return kept is not None

    @contextmanager
    def _one_of_few(self) -> Iterator[None]:
        if not self._room.acquire(timeout=WAIT_AT_MOST.total_seconds()):
            raise TooMany("Too many passwords are looked at at once.", after=WAIT_AT_MOST.total_seconds())
        try:
            yield
        finally:
            self._room.release()

    def digest(self, secret: bytes, salt: bytes) -> bytes:
        """32 bytes that tell one secret from another and cost a password to try. Raises TooMany when too many ask at
        once."""
        from argon2.low_level import hash_secret_raw

        price = self._hasher
        with self._one_of_few():
            return hash_secret_raw(
                secret,
                hashlib.sha256(salt).digest(),
                time_cost=price.time_cost,
                memory_cost=price.memory_cost,
                parallelism=price.parallelism,
                hash_len=32,
                type=price.type,
            )

    def outdated(self, kept: str) -> bool:
        """Whether it was made at another price than this one."""
        return self._hasher.check_needs_rehash(kept)

    def prepare(self) -> None:
        """Have the hash of nobody ready, so that the first stranger is not told by the time it takes."""
        _ = self._of_nobody

    @cached_property
    def _hasher(self) -> PasswordHasher:
        # Most commands need none of this.
        from argon2 import PasswordHasher

        return self._given or PasswordHasher()

    @cached_property
    def _of_nobody(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe(32))


def _plain(password: str) -> str:
    # Keyboards differ in how they write one letter.
    return unicodedata.normalize("NFKC", password[:MOST]).encode("utf-8", "replace").decode()


def _checked(password: str) -> str:
    if len(password) > MOST:
        raise InvalidInput(f"A password has {MOST} characters at most.")
    if len(password) < LEAST or not password.strip():
        raise InvalidInput(f"A password has at least {LEAST} characters.", remedy="A few words in a row will do.")
    return _plain(password)
