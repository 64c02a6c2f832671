"""The house's log: what people ordered about devices, Targets, artifacts, deltas, certificates and messages, and who.

Orders about rollouts stand in the rollouts' journals, those about people in their own log (``people_orders``). An
entry is written in the transaction of what it tells of, so that none is lost and none tells of what did not happen.
Only added to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.errors import StoreUnavailable, WaveError
from orchestrator.services.house_log_store import HouseEvent
from orchestrator.services.store import Store, Writing

NAMED: Final = 3
"""Of many that an order is about, so many are named."""


@dataclass(frozen=True, slots=True)
class HouseLog:
    """The log for people to read, and to write into where what was done is in no database."""

    store: Store
    clock: Callable[[], datetime]

    def events(self, *, after: int | None = None, limit: int = 100) -> Sequence[HouseEvent]:
        """The newest first; with ``after`` those before that number."""
        with self.store.reading() as r:
            return r.house_events(after=after, limit=limit)

    def note(self, event: str, what: str, deed: str, *, by: str) -> None:
        """As ``note`` below, in a transaction of its own: before the deed, so that nothing is done that nobody wrote
        down."""
        with self.store.writing() as w:
            note(w, self.clock(), event, what, deed, by=by)

    @contextmanager
    def during(self, event: str, what: str, deed: str, *, by: str) -> Iterator[None]:
        """For a deed in files that may be refused: written with the end of the block, and not at all where that
        raises. Nothing else may be asked of the store within.

        Raises StoreUnavailable where the deed is done and its line could not be kept: doing it again would do it
        twice."""
        done = False
        try:
            with self.store.writing() as w:
                note(w, self.clock(), event, what, deed, by=by)
                yield
                done = True
        except WaveError as error:
            if not done:
                raise
            raise StoreUnavailable(
                f"It is done, and only the house's log does not say so: {error.message}",
                remedy="Do not order it again.",
            ) from error


def note(w: Writing, now: datetime, event: str, what: str, deed: str, *, by: str) -> None:
    """``deed`` goes on after the name of who did it: ``put gw-1 into lab``."""
    w.log_house_event(HouseEvent(now, by, event, what, f"{by} {deed}."))


def several(names: Sequence[str]) -> str:
    """The names, or the first of them and how many more."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED:,} more"
