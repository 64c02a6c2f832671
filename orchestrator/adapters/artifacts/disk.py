"""Small things that the store and the deltas share: summing up, and errors of the disk in our words."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from orchestrator.core.artifact import Digests
from orchestrator.errors import ContentUnavailable
from orchestrator.services.artifact_store import Progress, silent

CHUNK: Final = 1 << 20
"""Bytes read and written at a time."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Sums:
    """The three sums that devices ask for, fed piece by piece."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        # The protocols want these two for finding transmission errors; nothing is trusted because of them.
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._sha1.update(piece)
        self._md5.update(piece)
        self.size += len(piece)

    @property
    def digests(self) -> Digests:
        return Digests(self._sha256.hexdigest(), self._sha1.hexdigest(), self._md5.hexdigest(), self.size)


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def sums_of(stream: BinaryIO, size: int, *, progress: Progress = silent) -> Digests:
    """Of a stream of ``size`` bytes; one that grows while it is read is not followed for ever."""
    sums = Sums()
    while sums.size <= size and (piece := stream.read(CHUNK)):
        sums.add(piece)
        progress(sums.size, max(size, sums.size))
    return sums.digests


def sha256_of(path: Path, *, progress: Progress = silent) -> str:
    """Raises OSError."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
            done += len(piece)
            progress(done, size)
    return digest.hexdigest()


@contextmanager
def told(root: Path, *, doing: str) -> Iterator[None]:
    """What the system says, in our tree; ``doing`` completes "while …"."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise ContentUnavailable(
                    f"The disk of {root} is full (while {doing}).",
                    remedy="Free space there, or remove artifacts that no Target needs; then do it again.",
                ) from error
            case errno.EROFS | errno.EACCES | errno.EPERM:
                raise ContentUnavailable(
                    f"This user may not write to {root} (while {doing}: {error.strerror}).",
                    remedy="Run as its owner, or change its permissions.",
                ) from error
            case _:
                raise ContentUnavailable(
                    f"It failed while {doing} in {root}: {error.strerror or error}.", remedy="See the machine's log."
                ) from error
