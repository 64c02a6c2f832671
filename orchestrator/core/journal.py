"""The journal: an append-only, hash-chained record of decisions and orders, one chain per rollout.

Each entry carries the hash of the one before it, so that a change, a gap or a reordering shows. What an entry was
based on stands in ``facts``; with the evidence log up to ``evidence_seq`` a decision can be made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

GENESIS: Final = "0" * 64
"""The hash before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision or order. ``event`` is a past participle (``opened``, ``halted``); ``seq`` counts from 1."""

    seq: int
    at: datetime
    event: str
    by: str
    sentence: str
    wave: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    policy_digest: str = ""
    evidence_seq: int = 0
    before: str = GENESIS
    hash: str = ""

    def sealed(self) -> Entry:
        """The entry with its hash."""
        return replace(self, hash=entry_hash(self))


def entry_hash(entry: Entry) -> str:
    """SHA-256 over the canonical JSON of everything but the hash itself; the time in UTC, wherever it was read."""
    content = [
        entry.seq,
        entry.at.astimezone(UTC).isoformat(),
        entry.event,
        entry.by,
        entry.sentence,
        entry.wave,
        entry.facts,
        entry.policy_digest,
        entry.evidence_seq,
        entry.before,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Fault(StrEnum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    """The entry is not what was written."""
    MISSING = "missing"
    """Entries are not there."""
    MOVED = "moved"
    """The entry stands where another one was written."""
    CUT_OFF = "cut_off"
    """The chain ends before the entry that was written last."""


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that is wrong with a chain: at which entry, and in a sentence."""

    seq: int
    fault: Fault
    sentence: str


class Chain:
    """A chain being read from its beginning, entry by entry. ``seq``: of the last entry, ``hash``: its hash."""

    def __init__(self) -> None:
        self.seq, self.hash = 0, GENESIS

    def take(self, entry: Entry) -> list[Break]:
        """What is wrong with the next entry."""
        found: list[Break] = []
        if entry.seq <= self.seq:
            found.append(Break(entry.seq, Fault.MOVED, f"Entry {entry.seq} follows entry {self.seq}."))
        elif entry.seq != self.seq + 1:
            gone = f"Entry {self.seq + 1} is" if entry.seq == self.seq + 2 else _gone(self.seq + 1, entry.seq - 1)
            sentence = f"{gone} missing: entry {entry.seq} follows entry {self.seq}."
            found.append(Break(self.seq + 1, Fault.MISSING, sentence))
        elif entry.before != self.hash:
            sentence = f"Entry {entry.seq} does not follow the entry before it: one of them was replaced or moved."
            found.append(Break(entry.seq, Fault.MOVED, sentence))
        if entry_hash(entry) != entry.hash:
            found.append(Break(entry.seq, Fault.CHANGED, f"Entry {entry.seq} was changed after it was written."))
        self.seq, self.hash = max(entry.seq, self.seq), entry.hash
        return found

    def end(self, head: str) -> list[Break]:
        """What is wrong when nothing follows. ``head``: the hash of the last entry as the rollout's own row has it
        (GENESIS before the first). Only against it does it show when entries are missing at the end, or when the whole
        chain was written anew."""
        if self.hash == head:
            return []
        last = f"entry {self.seq} is not the one" if self.seq else "there is no entry, not even the one"
        sentence = f"The journal does not end as the rollout says: {last} that was written last."
        return [Break(self.seq, Fault.CUT_OFF, sentence)]


def _gone(first: int, last: int) -> str:
    return f"Entries {first} to {last} are"


def first_break(entries: Iterable[Entry], *, head: str | None = None) -> str | None:
    """What is wrong first with a whole chain, read from its beginning, in one sentence; None when nothing is. ``head``
    as in ``Chain.end``; without it the end is not looked at."""
    chain = Chain()
    for entry in entries:
        if found := chain.take(entry):
            return found[0].sentence
    found = [] if head is None else chain.end(head)
    return found[0].sentence if found else None
