"""The part of the store's port that holds editions, what devices told of themselves beside check-ins, and sizes of
deltas as files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from orchestrator.core.editions import Edition


class Told(NamedTuple):
    """The last that a device told of itself under a topic. ``text`` may be cut; ``size`` is of the whole, in bytes."""

    topic: str
    text: str
    size: int
    digest: str
    received_at: datetime


class ReadsEditions(Protocol):
    """Part of a snapshot."""

    def edition(self, number: int) -> Edition | None: ...

    def newest_edition(self, digest: str) -> Edition | None:
        """Of that content."""

    def last_edition(self) -> int:
        """The highest number that was given out; 0 before the first."""

    def shown_editions(self, device_keys: Collection[int]) -> Mapping[int, int]:
        """By device key, the number of the edition that it was shown last."""

    def told(self, device_key: int) -> Sequence[Told]:
        """By topic."""

    def delta_stats(self, sha256: str) -> str | None:
        """The file of that digest."""


class WritesEditions(ReadsEditions, Protocol):
    """Part of a transaction."""

    def lock_editions(self) -> None:
        """Nobody else gives out or changes editions until this transaction ends."""

    def save_edition(self, edition: Edition) -> None:
        """Add it, or change when it was signed."""

    def retire_editions(self, number: int, now: datetime) -> None:
        """None that there is will be chosen again, and numbers go on above this one: what was handed out after a backup
        is not known to what was restored from it."""

    def show_editions(self, shown: Mapping[int, int]) -> None:
        """Number by device key; a number that is lower than what is there changes nothing."""

    def tell(self, device_key: int, told: Told) -> None:
        """In the place of what it told before under that topic."""

    def keep_delta_stats(self, sha256: str, text: str) -> None:
        """Idempotent."""
