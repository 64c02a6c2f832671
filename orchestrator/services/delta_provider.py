"""The port to a content system: which commits there are, and the deltas between them.

Implementations live in ``adapters``; they share the contract that these docstrings state. All calls block, none reads
a clock to decide anything, all raise only ``orchestrator.errors``. Calls for different pairs may run at once in
threads and in processes; two builds of one pair at once are prevented by the caller's lease, and must
still never publish anything incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class DeltaPair:
    """From which commit to which. ``from_commit`` None means from scratch (a device whose commit is unknown)."""

    from_commit: str | None
    to_commit: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit that the repository holds: its refs, subject, and unix time of making in seconds."""

    commit: str
    refs: tuple[str, ...]
    subject: str
    made_at: int


@dataclass(frozen=True, slots=True)
class DeltaEstimate:
    """What a delta will probably cost. ``likely_bytes`` is a guess within a factor of 3; ``at_most_bytes`` an upper
    bound (the loose objects that a device without a delta fetches); ``objects`` how many those are (= requests)."""

    likely_bytes: int
    at_most_bytes: int
    objects: int
    build_seconds: float


@dataclass(frozen=True, slots=True)
class DeltaRecord:
    """A published, complete delta as found on disk.

    ``bytes`` = superblock + parts, ``fallback_bytes`` = objects outside the delta that a device fetches as well;
    a device downloads the sum. ``path`` is relative to the repository, as a URL would have it.

    ``bytes`` 0 is a record that no delta is worth it, or possible, for this pair: it counts as there, and the device
    fetches the content itself, which is ``fallback_bytes``.
    """

    pair: DeltaPair
    path: str
    parts: int
    bytes: int
    fallbacks: int
    fallback_bytes: int
    build_seconds: float | None = None
    cpu_seconds: float | None = None

    @property
    def whole(self) -> bool:
        """Whether this is the record that devices fetch the whole content."""
        return self.bytes == 0


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """A step of a build: ``stage`` of generate, verify, apply, publish; ``done`` in [0, 1]; a log ``line`` or none."""

    stage: str
    done: float
    line: str | None = None


class DeltaProvider(Protocol):
    """Deltas of one content system."""

    name: str

    def check(self) -> None:
        """Raise ContentUnavailable, with the remedy, when the repository or its tools cannot be used."""

    def refs(self) -> Mapping[str, str]:
        """Ref name to commit."""

    def commits(self) -> Sequence[CommitRecord]:
        """Every commit that a ref reaches, newest first."""

    def has_commit(self, commit: str) -> bool:
        """Whether the commit object itself is there."""

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        """Without building. Cheap after the first call for each commit. Raises ContentUnavailable for a missing
        commit."""

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        """The record that devices fetch everything (``DeltaRecord.whole``), where no build could come to anything else;
        None where one is to be built. Cheap after the first call. Raises ContentUnavailable, CorruptDelta when the
        content itself is not whole."""

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        """The published delta if every piece of it is there with the right size and checksum; None when there is none.
        Raises CorruptDelta when something is there that is not whole, ContentUnavailable when it cannot be read."""

    def published(self) -> Sequence[DeltaPair]:
        """All pairs that have something published, whole or not."""

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        """Build beside, verify part by part, apply once for real in a scratch repository, sync, publish whole, refresh
        the index. If a whole one is published already it is verified and returned. A broken one is removed first.
        A kill at any moment leaves nothing that ``find`` or a device would take for complete; the next ``build`` or
        ``sweep`` removes what it left. Polls ``cancelled`` at least once a second and then raises BuildFailed.
        Raises BuildFailed, ContentUnavailable."""

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        """As ``find``, and really applies it in a scratch repository. Raises CorruptDelta, or NotFound when there is
        none."""

    def drop(self, pair: DeltaPair) -> bool:
        """Remove a published delta and refresh the index; False when there was none."""

    def sweep(self) -> int:
        """Remove what killed builds left behind; how many things were removed. Never touches a build under way."""
