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


def first_break(entries: Iterable[Entry], *, head: str | None = None) -> str | None:
    """What is wrong with a whole chain, read from its beginning, in one sentence; None when nothing is.

    ``head``: the hash of the last entry as the rollout's own row has it (GENESIS before the first). Only against it
    does it show when entries are missing at the end, or when the whole chain was written anew.
    """
    before, seq = GENESIS, 0
    for entry in entries:
        if entry.seq != seq + 1:
            return f"Entry {seq + 1} is missing: entry {entry.seq} follows entry {seq}."
        if entry.before != before:
            return f"Entry {entry.seq} does not follow the entry before it: one of them was replaced or moved."
        if entry_hash(entry) != entry.hash:
            return f"Entry {entry.seq} was changed after it was written."
        before, seq = entry.hash, entry.seq
    if head is not None and before != head:
        last = f"entry {seq} is not the one" if seq else "there is no entry, not even the one"
        return f"The journal does not end as the rollout says: {last} that was written last."
    return None
