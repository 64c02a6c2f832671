"""A rollout's journal and its evidence log as one story: what happened, step by step, in the order in which it did.

Both are read once, in pages; a step is made when it is asked for, so memory stays flat however long they are. What
cannot be read is a step of its own and does not end the story.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.evidence.log import Line, parsed, tells_of_bad
from orchestrator.core.facts import RolloutState, WaveFacts
from orchestrator.core.journal import GENESIS, Chain, Entry
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import WaveError
from orchestrator.services.clocks import dark_noted
from orchestrator.services.recorded import DECIDED, Following, Look, Watching, read, watched
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading
from orchestrator.services.verifying import LINES_AT_ONCE, Progress, entries_of, lines_of

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, StopIteration, WaveError)
"""What an entry raises that does not hold what such an entry holds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The waves with their slices as they stand from here to the next look."""

    waves: tuple[WaveFacts, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """From here on the rollout is bound to these files."""

    entry: Entry
    spec: RolloutFile
    policy: Policy


@dataclass(frozen=True, slots=True)
class Began:
    """From here on these monitors and budgets count. ``dark``: of the clock that was bound with them; None: of none, or
    as before."""

    entry: Entry
    watching: Watching
    dark: Darkness | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """A bad outcome was counted while this was the rollout's record. ``upcoming``: the next entry, if any follows."""

    line: Line
    state: RolloutState | None
    upcoming: Entry | None


@dataclass(frozen=True, slots=True)
class Looked:
    """A look that decided."""

    entry: Entry
    look: Look


@dataclass(frozen=True, slots=True)
class Ordered:
    """A person's order, or a start that was put off, left this record."""

    entry: Entry
    state: RolloutState


@dataclass(frozen=True, slots=True)
class Broken:
    """Something here is not as it was written. ``what``: ``journal`` or ``record``."""

    what: str
    at: datetime
    seq: int
    sentence: str


Step = Seen | Bound | Began | Counted | Looked | Ordered | Broken


class Steps:
    """The story of one rollout. ``entries`` and ``outcomes``: how many were read so far, ``evidence``: the row of the
    log that was read last."""

    def __init__(self, r: Reading, row: RolloutRow, progress: Progress, present: Sequence[WaveFacts]) -> None:
        self.entries = self.outcomes = self.evidence = 0
        self._r, self._row, self._progress, self._present = r, row, progress, tuple(present)
        self._of = r.evidence_rows(row.key)
        self._lines = lines_of(r, row.key)
        self._next = next(self._lines, None)
        self._followed = Following()

    def __iter__(self) -> Iterator[Step]:
        chain = Chain()
        waiting: list[Entry] = []
        for entry in entries_of(self._r, self._row.key):
            self.entries += 1
            for each in chain.take(entry):
                yield Broken("journal", entry.at, entry.seq, each.sentence)
            waiting.append(entry)
            if DECIDED in entry.facts:
                # The slices that a look sees are those that there were since the look before.
                yield from self._seen(entry)
                yield from self._until(waiting)
                waiting = []
        yield Seen(self._present)
        yield from self._until(waiting)
        yield from self._counted(None, None)
        for each in chain.end(self._row.journal_hash or GENESIS):
            yield Broken("journal", self._row.state.standing.since, chain.seq, each.sentence)

    def _seen(self, entry: Entry) -> Iterator[Step]:
        try:
            yield Seen(read(entry.facts["waves"], tuple[WaveFacts, ...]))
        except UNREADABLE:
            return  # the look itself says so

    def _until(self, entries: Sequence[Entry]) -> Iterator[Step]:
        for entry in entries:
            yield from self._counted(entry.evidence_seq, entry)
            try:
                yield from self._entry(entry)
            except UNREADABLE as error:
                yield Broken("journal", entry.at, entry.seq, f"Entry {entry.seq} cannot be read: {error}.")

    def _counted(self, upto: int | None, upcoming: Entry | None) -> Iterator[Step]:
        while self._next is not None and (upto is None or self._next[0] <= upto):
            self.evidence, line = self._next
            self.outcomes += 1
            if self.outcomes % LINES_AT_ONCE == 0:
                self._progress(self._row.state.rollout, self.outcomes, self._of)
            if tells_of_bad(line):
                yield Counted(parsed(line), self._followed.state, upcoming)
            self._next = next(self._lines, None)

    def _entry(self, entry: Entry) -> Iterator[Step]:
        look = self._followed.take(entry)
        if not self._followed.told:
            sentence = f"Entry {entry.seq} was made from another record than the entries before it leave."
            yield Broken("record", entry.at, entry.seq, sentence)
        if "spec" in entry.facts:
            files = RolloutFile.from_canonical(entry.facts["spec"]), Policy.from_canonical(entry.facts["policy"])
            yield Bound(entry, *files)
        if look is not None:
            yield Looked(entry, look)
        elif self._followed.state is not None and "state" in entry.facts:
            yield Ordered(entry, self._followed.state)
        if (watching := watched(entry)) is not None:
            yield Began(entry, watching, dark_noted(entry.facts))
