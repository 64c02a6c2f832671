"""The store of artifacts below one directory: implements ``services.artifact_store``; its docstrings are the contract.

::

    <aa>/<sha256>          a file, immutable, mode 0644; ``aa`` are the first two digits
    incoming/              what is not whole yet: nothing in it is ever served
    deltas/                see ``provider``

A file is published by one rename after it was synced; its sums are those of the bytes that were written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final

from orchestrator.adapters.artifacts.disk import CHUNK, Sums, is_sha256, sha256_of, sums_of, told
from orchestrator.adapters.artifacts.formats.reading import describe
from orchestrator.adapters.durable import sync
from orchestrator.core.artifact import LARGEST, Described, Digests
from orchestrator.errors import Busy, Conflict, ContentUnavailable, InvalidInput, NotFound, Refused
from orchestrator.services.artifact_store import Progress, Upload, silent

INCOMING: Final = "incoming"
KEPT_FOR: Final = timedelta(days=7)
"""How long an upload waits for whoever began it."""

MOST_UPLOADS: Final = 1_000
"""Under way at once."""

SPARE_BYTES: Final = 64 << 20
"""What must stay free on the disk beside a file that is taken in."""


class FolderStore:
    """Files below ``root``, which is made when something is first put there."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    # ------------------------------------------------------------------------------------------ taking files in

    def digest(self, path: Path, *, progress: Progress = silent) -> Digests:
        with _source(path) as (stream, size):
            return sums_of(stream, size, progress=progress)

    def take(self, path: Path, *, progress: Progress = silent) -> Digests:
        with _source(path) as (source, size), told(self._root, doing=f"taking in {path.name}"):
            before = os.fstat(source.fileno())
            # Named after the very file, so that the same file goes on where it stopped and a changed one does not.
            name = f"{path.resolve()}\0{size}\0{before.st_mtime_ns}\0{before.st_ino}"
            part = self._incoming() / f"file-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}.part"
            with _alone(part, path) as target:
                self._room(size - os.fstat(target.fileno()).st_size)
                sums = _copy(source, target, size, progress)
                after = os.fstat(source.fileno())
                if (after.st_size, after.st_mtime_ns) != (size, before.st_mtime_ns) or sums.size != size:
                    part.unlink()
                    raise InvalidInput(f"{path} changed while it was read.", remedy="Add it again when it is finished.")
                self._publish(part, target, sums.digests.sha256)
            return sums.digests

    def describe(self, path: Path, *, filename: str | None = None) -> Described:
        with _source(path) as (stream, size):
            return describe(stream, size, path, filename=filename or path.name)

    # ------------------------------------------------------------------------------------------ uploads

    def begin(self, size: int, sha256: str | None = None, note: Mapping[str, str] | None = None) -> Upload:
        if not 0 < size <= LARGEST:
            raise InvalidInput(f"An artifact of {size} bytes cannot be: it has 1 to {LARGEST}.")
        if sha256 is not None and not is_sha256(sha256):
            raise InvalidInput(f"{sha256[:80]!r} is no sha256: that has 64 lower-case hex digits.")
        upload = Upload(uuid.uuid4().hex, size, 0, sha256, dict(note or {}))
        with told(self._root, doing="beginning an upload"):
            incoming = self._incoming()
            under_way = list(incoming.glob("*.json"))
            if sha256 is not None and (known := self._same(under_way, upload)) is not None:
                return known
            if len(under_way) >= MOST_UPLOADS:
                raise Busy(
                    f"{MOST_UPLOADS:,} uploads are under way.", remedy="One that nobody goes on with ends in a week."
                )
            self._room(size)
            (incoming / f"{upload.id}.part").touch(mode=0o644)
            beside = incoming / f"{upload.id}.new"
            said = {"size": size, "sha256": sha256, "note": upload.note}
            beside.write_text(json.dumps(said), encoding="utf-8")
            beside.rename(incoming / f"{upload.id}.json")
        return upload

    def _same(self, under_way: Sequence[Path], wanted: Upload) -> Upload | None:
        """An upload of the same that was begun before."""
        for file in under_way:
            with contextlib.suppress(NotFound):
                known = self.upload(file.stem)
                if (known.size, known.sha256, known.note) == (wanted.size, wanted.sha256, wanted.note):
                    return known
        return None

    def upload(self, upload_id: str) -> Upload:
        with self._uploading(upload_id) as (upload, _):
            return upload

    def append(self, upload_id: str, offset: int, piece: bytes) -> Upload:
        with self._uploading(upload_id) as (upload, target):
            if offset != upload.offset:
                raise Conflict(
                    f"The upload stands at {upload.offset}, not at {offset}.", remedy=f"Go on at {upload.offset}."
                )
            if offset + len(piece) > upload.size:
                raise InvalidInput(f"The upload was announced with {upload.size} bytes; this would be more.")
            self._room(len(piece))
            target.seek(offset)
            target.write(piece)
            target.flush()
            os.fsync(target.fileno())
            return replace(upload, offset=offset + len(piece))

    def finish(self, upload_id: str) -> Digests:
        with self._uploading(upload_id) as (upload, target):
            if upload.offset != upload.size:
                raise Refused(
                    f"The upload has {upload.offset} of {upload.size} bytes.", remedy="Send the rest, then finish it."
                )
            target.seek(0)
            digests = sums_of(target, upload.size)
            part = self._root / INCOMING / f"{upload.id}.part"
            wrong = upload.sha256 is not None and upload.sha256 != digests.sha256
            if wrong:
                part.unlink()
            else:
                self._publish(part, target, digests.sha256)
            (self._root / INCOMING / f"{upload.id}.json").unlink()
            if wrong:
                raise InvalidInput(
                    f"The upload came to sha256 {digests.sha256}, not to {upload.sha256}; it was thrown away.",
                    remedy="Upload it again.",
                )
            return digests

    # ------------------------------------------------------------------------------------------ what is there

    def path(self, sha256: str) -> Path | None:
        file = self._file(sha256)
        return file if file is not None and file.is_file() else None

    def size(self, sha256: str) -> int | None:
        file = self._file(sha256)
        try:
            return None if file is None else file.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ContentUnavailable(
                f"{file} cannot be read: {error.strerror}.", remedy="See the machine's log."
            ) from error

    def verify(self, sha256: str, *, progress: Progress = silent) -> bool:
        file = self.path(sha256)
        if file is None:
            raise NotFound(f"There is no artifact {sha256[:12]} on disk.", remedy="Add the file again.")
        with told(self._root, doing=f"reading {sha256[:12]}"):
            return sha256_of(file, progress=progress) == sha256

    def remove(self, sha256: str) -> bool:
        file = self.path(sha256)
        if file is None:
            return False
        with told(self._root, doing=f"removing {sha256[:12]}"):
            file.unlink(missing_ok=True)
            sync(file.parent)
        return True

    def stored(self) -> Sequence[str]:
        with told(self._root, doing="listing artifacts"):
            return sorted(file.name for file in self._root.glob("[0-9a-f][0-9a-f]/*") if is_sha256(file.name))

    def sweep(self) -> int:
        """By the time of the last byte; one that is just being written is newer."""
        oldest = time.time() - KEPT_FOR.total_seconds()
        removed = 0
        with told(self._root, doing="sweeping"):
            for file in (self._root / INCOMING).glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if file.stat().st_mtime < oldest:
                        file.unlink()
                        removed += file.suffix == ".part"
        return removed

    # ------------------------------------------------------------------------------------------ within

    def _file(self, sha256: str) -> Path | None:
        return self._root / sha256[:2] / sha256 if is_sha256(sha256) else None

    def _incoming(self) -> Path:
        folder = self._root / INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _room(self, size: int) -> None:
        """Better said before a copy of minutes than after it."""
        free = shutil.disk_usage(self._root).free
        if size + SPARE_BYTES > free:
            raise ContentUnavailable(
                f"The disk of {self._root} has {free / 1e6:.0f} MB free; {max(size, 0) / 1e6:.0f} MB are to come.",
                remedy="Free space there, or remove artifacts that no Target needs; then do it again.",
            )

    def _publish(self, part: Path, stream: BinaryIO, sha256: str) -> None:
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
        folder = self._root / sha256[:2]
        fresh = not folder.is_dir()
        folder.mkdir(exist_ok=True)
        part.replace(folder / sha256)
        sync(folder)
        if fresh:
            sync(self._root)

    @contextlib.contextmanager
    def _uploading(self, upload_id: str) -> Iterator[tuple[Upload, BinaryIO]]:
        """The upload, alone."""
        missing = NotFound(f"There is no upload {upload_id[:40]!r}.", remedy="Begin it anew.")
        if len(upload_id) != 32 or not set(upload_id) <= set("0123456789abcdef"):
            raise missing
        incoming = self._root / INCOMING
        with told(self._root, doing="going on with an upload"):
            try:
                stream = (incoming / f"{upload_id}.part").open("r+b")
            except FileNotFoundError:
                raise missing from None
            with stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                try:
                    said = json.loads((incoming / f"{upload_id}.json").read_text(encoding="utf-8"))
                except FileNotFoundError:
                    raise missing from None
                offset = os.fstat(stream.fileno()).st_size
                yield Upload(upload_id, said["size"], offset, said["sha256"], said.get("note", {})), stream


@contextlib.contextmanager
def _source(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file that somebody named. Raises InvalidInput with the system's own words."""
    try:
        if not path.is_file():
            raise InvalidInput(f"{path} is no file." if path.exists() else f"{path} is not there.")
        stream = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if not 0 < size <= LARGEST:
            raise InvalidInput(f"{path} has {size} bytes; an artifact has 1 to {LARGEST}.")
        yield stream, size


@contextlib.contextmanager
def _alone(part: Path, path: Path) -> Iterator[BinaryIO]:
    """The partial copy of a file, whose lock the kernel lets go of whatever ends this process."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"Another process is taking in {path}.", remedy="Wait for it, then do it again.") from None
        # another process may have published what was opened here, and the name be gone or a third one's
        if not part.exists() or not os.path.samestat(os.fstat(fd), part.stat()):
            raise Busy(f"Another process has just taken in {path}.", remedy="Do it again.")
        yield stream


def _copy(source: BinaryIO, target: BinaryIO, size: int, progress: Progress) -> Sums:
    """Copy what ``target`` lacks; what it has is compared and cut off where it differs. A file that grows while it is
    read is not followed for ever."""
    sums, agrees = Sums(), True
    while sums.size <= size and (piece := source.read(CHUNK)):
        at = sums.size
        if agrees and target.read(len(piece)) != piece:
            agrees = False
            target.seek(at)
            target.truncate()
        if not agrees:
            target.write(piece)
        sums.add(piece)
        progress(sums.size, max(size, sums.size))
    target.truncate(sums.size)
    return sums
