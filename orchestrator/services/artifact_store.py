"""The port to where artifacts lie: files named by their sha256, complete or not there at all.

The implementation lives in ``adapters.artifacts``. All calls block; all raise only ``orchestrator.errors``, and
ContentUnavailable when the disk cannot be read or written. Safe in threads and in processes: two that add the same
bytes end with one file. A file that was published is never changed, only removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.core.artifact import Described, Digests

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def silent(done: int, of: int) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way. ``offset``: how many bytes are on disk, where the next piece begins. ``sha256``: what it
    must come to; None: whatever it comes to. ``note``: what whoever began it keeps with it."""

    id: str
    size: int
    offset: int
    sha256: str | None = None
    note: Mapping[str, str] = field(default_factory=dict)


class ArtifactStore(Protocol):
    """Files by their sha256."""

    def digest(self, path: Path, *, progress: Progress = silent) -> Digests:
        """Read a file anywhere and sum it up; nothing is kept. Raises InvalidInput when it cannot be read."""

    def take(self, path: Path, *, progress: Progress = silent) -> Digests:
        """Copy a file in, summing it up on the way, and publish it. What an interrupted call with the same file has
        copied is compared with it and kept as far as it agrees. Idempotent. Raises InvalidInput for a file that cannot
        be read or that changed meanwhile, Busy while another process takes the same file."""

    def describe(self, path: Path, *, filename: str | None = None) -> Described:
        """What a file says of itself, by its content, never by its name alone; in bounded memory and time whatever is
        in it. Raises InvalidInput for a file that claims a format and breaks it."""

    def begin(self, size: int, sha256: str | None = None, note: Mapping[str, str] | None = None) -> Upload:
        """Begin an upload; one with the same sha256, size and note that was begun before goes on. Raises InvalidInput
        for a size that cannot be, Busy when too many are under way."""

    def upload(self, upload_id: str) -> Upload:
        """How far it is. Raises NotFound."""

    def append(self, upload_id: str, offset: int, piece: bytes) -> Upload:
        """Write a piece at the end; on disk when it returns. Raises Conflict when ``offset`` is not where the upload
        stands (ask ``upload``), InvalidInput when it would become longer than announced, NotFound."""

    def finish(self, upload_id: str) -> Digests:
        """Sum up and publish; the upload is then gone. Raises Refused when bytes are missing, InvalidInput when the sum
        is another (the upload is removed), NotFound."""

    def path(self, sha256: str) -> Path | None:
        """Where the file lies; None when it is not there."""

    def size(self, sha256: str) -> int | None:
        """Its bytes; None when it is not there."""

    def verify(self, sha256: str, *, progress: Progress = silent) -> bool:
        """Read it all: whether it is what its name says. Raises NotFound."""

    def remove(self, sha256: str) -> bool:
        """False when it was not there."""

    def stored(self) -> Sequence[str]:
        """Every file that is published."""

    def sweep(self) -> int:
        """Remove uploads that nobody went on with for a week; how many."""
