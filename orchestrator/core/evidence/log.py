"""The evidence log as text and as a digest: a pure function of its rows, in their order.

A row is one line. Lines are hashed in blocks of 1,024; the digest of a log is that of the chain of its whole blocks and
of the block that has begun. So it can be worked out from any whole block on, it costs the path of a report nothing (it
is brought up to date by the tick and by each journal entry), and a row that was changed, removed, added or moved shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from orchestrator.core.outcomes import APART, NOT_BAD, Outcome

BLOCK: Final = 1_024
"""Rows in one block."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

EMPTY: Final = "0" * 64
"""The chain before the first block."""


class Seal(NamedTuple):
    """The log up to the end of a whole block: the ``seq`` of its last row, how many ``rows`` there are to it (a
    multiple of BLOCK), and the ``chain`` of blocks."""

    seq: int = 0
    rows: int = 0
    chain: str = EMPTY


class Covered(NamedTuple):
    """A log up to a row: its ``seq``, how many ``rows`` there are to it, and the ``digest`` of all ('' of none)."""

    seq: int
    rows: int
    digest: str


class Line(NamedTuple):
    """One row of the log, read from its line. ``at``: microseconds since 1970 in UTC. ``outcome``: ``confirmed``,
    ``left`` or a bad class; after ``apart/`` for a device that was unhealthy before and is left out of the count."""

    seq: int
    device_key: int
    at: int
    outcome: str
    wave: str
    slice: int
    rollout_place: int
    wave_place: int

    @property
    def apart(self) -> bool:
        """Whether it is of a device that is left out of the count."""
        return self.outcome.startswith(APART)

    @property
    def bad(self) -> Outcome:
        """The class of a bad outcome."""
        return self.outcome.removeprefix(APART)

    @property
    def received_at(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.at)


def tells_of_bad(line: str) -> bool:
    """Whether the row that a line stands for is a bad outcome."""
    return line.split("|", 4)[3].removeprefix(APART) not in NOT_BAD


def parsed(line: str) -> Line:
    """The row that a line stands for."""
    seq, device, at, outcome, wave, number, rollout_place, wave_place = line.split("|")
    return Line(int(seq), int(device), int(at), outcome, wave, int(number), int(rollout_place), int(wave_place))


class Digesting:
    """A log being read from its beginning or from a seal on. ``seal`` is that of the last whole block."""

    def __init__(self, seal: Seal | None = None) -> None:
        self.seal = seal or Seal()
        self.seq, self.rows = self.seal.seq, self.seal.rows
        self._block = hashlib.sha256()

    def add(self, seq: int, line: str) -> None:
        """The next row."""
        self._block.update(f"{line}\n".encode())
        self.seq, self.rows = seq, self.rows + 1
        if self.rows % BLOCK == 0:
            self.seal = Seal(seq, self.rows, _chained(self.seal.chain, self._block.hexdigest()))
            self._block = hashlib.sha256()

    def extend(self, rows: Iterable[tuple[int, str]]) -> None:
        for seq, line in rows:
            self.add(seq, line)

    def covered(self) -> Covered:
        """The digest so far."""
        digest = _chained(self.seal.chain, self._block.hexdigest()) if self.rows else ""
        return Covered(self.seq, self.rows, digest)


def _chained(chain: str, block: str) -> str:
    return hashlib.sha256(f"{chain}{block}".encode()).hexdigest()
