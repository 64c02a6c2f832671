"""The feed: every journal's entries in the one order in which they were committed, each with a number.

A journal has its own order; the numbers say which of two journals went on first. Who has read as far as a number has
read everything up to it, whatever was going on at the time and whichever process wrote it, and goes on after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.journal import Entry


@dataclass(frozen=True, slots=True)
class Fed:
    """An entry of the journal of ``rollout``. ``number`` grows with each commit; numbers may be missing."""

    number: int
    rollout: str
    entry: Entry


class ReadsFeed(Protocol):
    """A consistent snapshot. The contract of ``services.store`` holds."""

    def feed_head(self) -> int:
        """The number of the last entry; 0 while there is none."""

    def stir(self) -> str:
        """Another text after any entry of a journal and anything that a device reported or that was counted. A few
        looks at the ends of indexes."""

    def feed(self, *, after: int, limit: int) -> Sequence[Fed]:
        """Entries after that number, in their order. One with a smaller number than any that was ever seen is never
        committed later."""
