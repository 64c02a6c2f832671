"""The part of the store that holds messages to people: asked for with a decision, sent afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from orchestrator.core.notices import Notice


class Post(StrEnum):
    """What became of a message."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A message that is asked for. ``occasion``: what it is about, within the rollout."""

    rollout_key: int
    occasion: str
    notice: Notice
    at: datetime
    give_up_at: datetime


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """One message to one destination. ``attempts``: tries so far, the one under way included; ``next_at``: when it is
    tried next; ``give_up_at``: after that it is dead; ``error``: why the last try failed."""

    key: int
    destination: str
    notice: Notice
    status: Post
    attempts: int
    queued_at: datetime
    next_at: datetime
    give_up_at: datetime
    lease_until: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Unsent:
    """Messages that did not arrive. ``failing``: those of the waiting whose last try failed."""

    waiting: int
    failing: int
    dead: int


class ReadsNotices(Protocol):
    def notices(
        self,
        *,
        statuses: Collection[Post] | None = None,
        rollout: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Sequence[NoticeRow]:
        """Newest first; those that follow the one with the key ``after``."""

    def next_notice_at(self) -> datetime | None:
        """When the next message is to be tried, those under way when their lease ends; None: none waits."""

    def count_notices(self) -> dict[Post, int]:
        """How many there are of each."""

    def unsent_notices(self, *, most: int) -> Unsent:
        """Each counted up to ``most``, which is what it costs at most, however many were ever sent."""


class WritesNotices(ReadsNotices, Protocol):
    def add_notices(self, wanted: Wanted, destinations: Iterable[str]) -> None:
        """Ask for a message to each; what was asked for before, by rollout, occasion and destination, is not asked for
        again."""

    def lease_notices(self, *, now: datetime, until: datetime, limit: int) -> Sequence[NoticeRow]:
        """Messages that are due, of each destination the oldest, and counted as tried: nobody else is given them before
        ``until``. Safe between processes."""

    def end_notice(self, key: int, attempts: int, status: Post, error: str | None, *, at: datetime) -> bool:
        """What became of a try, named by its number: sent or dead; or it waits until ``at``. False, and nothing is
        written, when another try was begun meanwhile."""

    def revive_notices(self, keys: Collection[int] | None, *, now: datetime, give_up_at: datetime) -> int:
        """Let dead messages, and those that wait for their next try, be tried at once; None: all of them. How many."""
