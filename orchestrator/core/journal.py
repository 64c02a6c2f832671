"""The journal: an append-only, hash-chained record of decisions and orders, one chain per rollout.

Each entry carries the hash of the one before it, so that a change, a gap or a reordering shows. What an entry was
based on stands in ``facts``; with the evidence log up to ``evidence_seq`` a decision can be made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
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


def breaks(entries: Iterable[Entry], *, head: str | None = None) -> Iterator[Break]:
    """Everything that is wrong with a whole chain, read from its beginning; the entries are taken one by one.

    ``head``: the hash of the last entry as the rollout's own row has it (GENESIS before the first). Only against it
    does it show when entries are missing at the end, or when the whole chain was written anew.
    """
    before, seq = GENESIS, 0
    for entry in entries:
        if entry.seq <= seq:
            yield Break(entry.seq, Fault.MOVED, f"Entry {entry.seq} follows entry {seq}.")
        elif entry.seq != seq + 1:
            which = f"Entry {seq + 1} is" if entry.seq == seq + 2 else f"Entries {seq + 1} to {entry.seq - 1} are"
            yield Break(seq + 1, Fault.MISSING, f"{which} missing: entry {entry.seq} follows entry {seq}.")
        elif entry.before != before:
            sentence = f"Entry {entry.seq} does not follow the entry before it: one of them was replaced or moved."
            yield Break(entry.seq, Fault.MOVED, sentence)
        if entry_hash(entry) != entry.hash:
            yield Break(entry.seq, Fault.CHANGED, f"Entry {entry.seq} was changed after it was written.")
        before, seq = entry.hash, max(seq, entry.seq)
    if head is not None and before != head:
        last = f"entry {seq} is not the one" if seq else "there is no entry, not even the one"
        sentence = f"The journal does not end as the rollout says: {last} that was written last."
        yield Break(seq, Fault.CUT_OFF, sentence)


def first_break(entries: Iterable[Entry], *, head: str | None = None) -> str | None:
    """What is wrong first with a whole chain, in one sentence; None when nothing is. As :func:`breaks`."""
    found = next(breaks(entries, head=head), None)
    return None if found is None else found.sentence
