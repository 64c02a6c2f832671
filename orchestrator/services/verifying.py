"""``wave journal verify``: whether journals, bound files and evidence logs are what they were when they were written.

Each journal is read once from its beginning, beside its evidence log, in pages: memory stays flat however long both
are. What is found: an entry changed, missing or moved; a tail cut off; an evidence log that is not what an entry saw; a
bound file that is not the one the journal names; a rollout's record that is not what its decisions and orders made of
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.evidence.log import Covered, Digesting, Seal
from orchestrator.core.journal import GENESIS, Chain, Entry, Fault
from orchestrator.errors import NotFound, WaveError
from orchestrator.services.recorded import Following, covered, state_digest
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading, Store

ENTRIES_AT_ONCE: Final = 200
LINES_AT_ONCE: Final = 5_000

BEFORE_ALL: Final = -(2**62)
"""Before any ``seq``, also one that only somebody else can have written."""

Progress = Callable[[str, int, int], None]
"""Told now and then: the rollout, rows of its evidence log that were read, and how many there are."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``fault``: ``changed``, ``missing``, ``moved``, ``cut_off``, ``evidence``, ``file``,
    ``record`` or ``unreadable``; ``entry``: the entry at which it shows, None when it is none's."""

    rollout: str
    fault: str
    entry: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A rollout whose journal was read: how many entries and rows of evidence, and what is wrong with them."""

    rollout: str
    entries: int
    evidence: int
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class Verifier:
    store: Store

    def verify(
        self,
        name: str | None = None,
        *,
        after: str | None = None,
        progress: Progress = lambda rollout, rows, of: None,
    ) -> Iterator[Verified]:
        """One rollout, or each, oldest first, every one in a snapshot of its own; ``after``: those that are younger
        than this one. Raises NotFound."""
        with self.store.reading() as r:
            for named in (name, after):
                if named is not None and r.rollout(named) is None:
                    raise NotFound(f"There is no rollout {named}.", remedy="`wave list` shows them all.")
            rows = list(reversed(r.rollouts()))
            begin = 0 if after is None else [row.state.rollout for row in rows].index(after) + 1
            keys = [row.key for row in rows[begin:] if name in (None, row.state.rollout)]
        for key in keys:
            with self.store.reading() as r:
                row = r.rollout_by_key(key)
                found = None if row is None else _Check(r, row, progress).run()
            if found is not None:
                yield found


def entries_of(r: Reading, key: int) -> Iterator[Entry]:
    """A whole journal, page by page, in the order of ``seq``."""
    after = BEFORE_ALL
    while page := r.journal(key, after=after, limit=ENTRIES_AT_ONCE):
        yield from page
        after = page[-1].seq


def lines_of(r: Reading, key: int) -> Iterator[tuple[int, str]]:
    """A whole evidence log, page by page."""
    after = BEFORE_ALL
    while page := r.evidence_lines(key, after=after, limit=LINES_AT_ONCE):
        yield from page
        after = page[-1][0]


@dataclass(slots=True)
class _Check:
    """One rollout's journal beside its evidence log."""

    r: Reading
    row: RolloutRow
    progress: Progress
    findings: list[Finding] = field(default_factory=list)

    def run(self) -> Verified:
        chain, followed, files, log = Chain(), Following(), _Files(), _Log(self.r, self.row, self.progress)
        entries, broken = 0, False
        for entry in entries_of(self.r, self.row.key):
            entries += 1
            found = chain.take(entry)
            for each in found:
                self._find(each.fault, each.seq, each.sentence)
            # What a forged entry says is not held against anything else; what comes after a gap is.
            broken = broken or bool(found)
            if not found or found[0].fault is Fault.MISSING:
                self._entry(entry, followed, files, log, broken)
        for each in chain.end(self.row.journal_hash or GENESIS):
            broken = True
            self._find(each.fault, None, each.sentence)
        if not broken and self.row.journal_seq != chain.seq:
            self._find("cut_off", None, f"The rollout says that its journal has {self.row.journal_seq} entries.")
        if not broken and followed.state is not None and state_digest(followed.state) != state_digest(self.row.state):
            sentence = "The rollout's record is not what its journal made of it."
            self._find("record", None, sentence)
        for sentence in files.at_the_end(self.row):
            self._find("file", None, sentence)
        log.read_to_the_end()
        if (unsealed := log.against_seal()) is not None and not any(f.fault == "evidence" for f in self.findings):
            self._find("evidence", None, unsealed)
        return Verified(self.row.state.rollout, entries, log.digesting.rows, tuple(self.findings))

    def _entry(self, entry: Entry, followed: Following, files: _Files, log: _Log, broken: bool) -> None:
        try:
            followed.take(entry)
            seen = covered(entry)
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration, WaveError) as error:
            if not broken:
                self._find("unreadable", entry.seq, f"Entry {entry.seq} cannot be read: {error}.")
            return
        if not followed.told and not broken:
            sentence = f"Entry {entry.seq} was made from another record than the entries before it leave."
            self._find("record", entry.seq, sentence)
        for sentence in files.take(entry):
            self._find("file", entry.seq, sentence)
        if seen is not None and (other := log.against(entry, seen)) is not None:
            self._find("evidence", entry.seq, other)

    def _find(self, fault: str, entry: int | None, sentence: str) -> None:
        self.findings.append(Finding(self.row.state.rollout, str(fault), entry, sentence))


@dataclass(slots=True)
class _Files:
    """The bound files as the journal names them."""

    spec_digest: str = ""
    policy_digest: str = ""

    def take(self, entry: Entry) -> Iterator[str]:
        if "spec_digest" in entry.facts:
            self.spec_digest, self.policy_digest = entry.facts["spec_digest"], entry.facts["policy_digest"]
            for file, digest in (("spec", self.spec_digest), ("policy", self.policy_digest)):
                if _digest(entry.facts[file]) != digest:
                    yield f"The copy of the {_FILES[file]} in entry {entry.seq} is not the one it names."
        if entry.policy_digest != self.policy_digest:
            yield f"Entry {entry.seq} was decided under another policy than the one bound last."

    def at_the_end(self, row: RolloutRow) -> Iterator[str]:
        for file, text, stored, told in (
            ("spec", row.spec, row.spec_digest, self.spec_digest),
            ("policy", row.policy, row.policy_digest, self.policy_digest),
        ):
            if told and stored != told:
                yield f"The rollout names another {_FILES[file]} ({stored[:12]}) than its journal ({told[:12]})."
            if _digest(text) != stored:
                yield f"The bound {_FILES[file]} is not the one whose digest the rollout names ({stored[:12]})."


_FILES: Final = {"spec": "rollout file", "policy": "policy file"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Log:
    """The evidence log, read as far as the entries have seen it."""

    def __init__(self, r: Reading, row: RolloutRow, progress: Progress) -> None:
        self.digesting = Digesting()
        self._seal = r.evidence_seal(row.key)
        self._of = r.evidence_rows(row.key)
        self._name, self._progress = row.state.rollout, progress
        self._lines = lines_of(r, row.key)
        self._next = next(self._lines, None)
        self._at_seal: Seal | None = Seal() if self._seal == Seal() else None
        self._last: int | None = None
        self._differs = False

    def against(self, entry: Entry, seen: Covered) -> str | None:
        """What is wrong with the log up to where this entry saw it; said once, because whatever follows a changed row
        has another digest too."""
        self._read(seen.seq)
        before, self._last = self._last, entry.seq
        if self._differs or self.digesting.covered() == seen:
            return None
        self._differs = True
        since = "before" if before is None else f"since entry {before} and before"
        many = seen.rows - self.digesting.rows
        what = f"{many} rows are missing" if many > 0 else f"{-many} rows are too many" if many else "rows differ"
        if abs(many) == 1:
            what = what.replace("rows are", "row is")
        return f"The evidence log is not what entry {entry.seq} saw: of what counted {since} entry {entry.seq}, {what}."

    def read_to_the_end(self) -> None:
        self._read(None)

    def against_seal(self) -> str | None:
        if self._at_seal == self._seal:
            return None
        return f"The evidence log is not what it was when {self._seal.rows} rows of it were sealed."

    def _read(self, upto: int | None) -> None:
        while self._next is not None and (upto is None or self._next[0] <= upto):
            self.digesting.add(*self._next)
            if self.digesting.rows == self._seal.rows:
                self._at_seal = self.digesting.seal
            if self.digesting.rows % LINES_AT_ONCE == 0:
                self._progress(self._name, self.digesting.rows, self._of)
            self._next = next(self._lines, None)
