"""One file: a tar in gzip whose last member is a manifest with the SHA-256 of every other.

The manifest comes last, so that a file is read once to be written, and one that was cut off has none. What is read may
be damaged or forged: names, kinds and sizes are bounded before a byte is written, and nothing counts before all of it
was verified.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Self

from orchestrator.adapters.durable import sync
from orchestrator.errors import Conflict, InvalidInput, Unavailable

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
LARGEST_MANIFEST: Final = 256 * 1024 * 1024
LONGEST_NAME: Final = 1_024
KEPT_FREE: Final = 200 * 1000 * 1000
"""Bytes that unpacking leaves on a disk."""

_CHUNK: Final = 1024 * 1024
_TOPS: Final = frozenset({"database", "root", "elsewhere", "content"})
_PART: Final = re.compile(r"[^/\0\n]{1,255}")
_LEVEL: Final = 1
"""Of gzip: a database shrinks to a third at a hundred megabytes a second."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file: its name in the archive, how long, its digest, and whether it is for its owner alone."""

    name: str
    bytes: int
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself. ``database``: ``sqlite`` or ``postgresql``. ``elsewhere``: settings whose files
    lay outside the root. ``edition`` and ``root_version``: the last that devices had been shown."""

    made_at: datetime
    program: str
    database: str
    schema: str
    edition: int
    root_version: int
    content: bool
    members: tuple[Member, ...] = ()


class Packing:
    """An archive that is being written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members: list[Member] = []

    @property
    def members(self) -> int:
        return len(self._members)

    def add(self, name: str, file: Path) -> None:
        """A regular file as it is now. Raises Conflict when it changes its length meanwhile, FileNotFoundError."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Conflict(f"{file} is no file any more.")
            mode = 0o600 if not status.st_mode & 0o077 else 0o644
            self._put(name, _Reading(stream, status.st_size, file), status.st_size, mode)

    def close(self, manifest: Manifest) -> None:
        told = {"format": FORMAT, **asdict(manifest), "made_at": manifest.made_at.isoformat()}
        told["members"] = [asdict(each) for each in self._members]
        content = json.dumps(told, indent=0).encode()
        header = _header(MANIFEST, len(content), 0o600)
        import io

        self._tar.addfile(header, io.BytesIO(content))

    def _put(self, name: str, reading: _Reading, size: int, mode: int) -> None:
        self._tar.addfile(_header(_checked(name), size, mode), reading)
        self._members.append(Member(name, size, reading.digest.hexdigest(), mode))


class _Reading:
    """A stream of a known length that is digested as it is read."""

    def __init__(self, stream: IO[bytes], left: int, file: Path) -> None:
        self._stream, self._left, self._file = stream, left, file
        self.digest = hashlib.sha256()

    def read(self, most: int = -1) -> bytes:
        piece = self._stream.read(min(most, self._left) if most >= 0 else self._left)
        if not piece and self._left:
            raise Conflict(f"{self._file} became shorter while it was read.", remedy="Try again.")
        self._left -= len(piece)
        self.digest.update(piece)
        return piece


def _header(name: str, size: int, mode: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.mode = size, mode
    return made


@contextmanager
def packing(file: Path) -> Iterator[Packing]:
    """A new file for its owner only, under its name when all is on the disk; nothing is left of one that failed. Raises
    InvalidInput when there is one already, Unavailable."""
    beside = file.with_name(f".{file.name}.part")
    if file.exists():
        raise InvalidInput(f"{file} is there already.", remedy="Give another name: a backup is never written over.")
    try:
        # of one that was killed; two at once to one name are no use
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as raw:
                with (
                    gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as packed,
                    tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
                ):
                    yield Packing(tar)
                raw.flush()
                os.fsync(raw.fileno())
            os.link(beside, file)
        finally:
            beside.unlink(missing_ok=True)
        sync(file.parent)
    except FileExistsError:
        raise InvalidInput(f"{file} is there already.", remedy="Give another name.") from None
    except OSError as error:
        raise Unavailable(
            f"The backup {file} cannot be written: {error.strerror or error}.", remedy="Name a directory with room."
        ) from error


# ------------------------------------------------------------------------------------------------------ reading


class _Plain(tarfile.TarInfo):
    """Files and nothing else: no links, no devices, no headers of any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        made = super().frombuf(buf, encoding, errors)
        plain = made.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if not plain and not (made.type == tarfile.GNUTYPE_LONGNAME and 0 < made.size <= LONGEST_NAME + 1):
            raise tarfile.ReadError("it holds something that is no file")
        return made


def unpacked(file: Path, into: Path | None) -> Manifest:
    """Read it all and verify it; with ``into``, a directory that nobody else has, every file is in it afterwards under
    its name. Raises InvalidInput for a file that is damaged, cut off, forged or none of ours; Unavailable."""
    try:
        with (
            file.open("rb") as raw,
            gzip.GzipFile(fileobj=raw, mode="rb") as packed,
            tarfile.open(fileobj=packed, mode="r|", tarinfo=_Plain) as tar,
        ):
            manifest = _read(tar, into)
            while packed.read(_CHUNK):  # the checksum of gzip stands at its end
                pass
            return manifest
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError, TypeError) as error:
        raise damaged(file, str(error) or type(error).__name__) from None
    except OSError as error:
        raise Unavailable(f"{error.filename or file} cannot be used: {error.strerror or error}.") from error


def damaged(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{file} is no whole backup of this program: {why.rstrip('.')}.",
        remedy="Nothing was changed. Take another backup.",
    )


def _read(tar: tarfile.TarFile, into: Path | None) -> Manifest:
    found: dict[str, tuple[int, str]] = {}
    manifest: Manifest | None = None
    for each in tar:
        stream = tar.extractfile(each)
        if stream is None or manifest is not None:
            raise ValueError("something stands behind its manifest")
        if each.name == MANIFEST:
            if each.size > LARGEST_MANIFEST:
                raise ValueError("its manifest is too large")
            manifest = _manifest(stream.read())
            continue
        name = _checked(each.name)
        if name in found:
            raise ValueError(f"{name} is in it twice")
        found[name] = _copied(stream, each.size, None if into is None else into / name, each.mode)
    if manifest is None:
        raise ValueError("it is cut off: its manifest is missing")
    named = {each.name: (each.bytes, each.sha256) for each in manifest.members}
    if wrong := sorted(name for name in named.keys() | found.keys() if named.get(name) != found.get(name)):
        raise ValueError(f"{wrong[0]} is not what its manifest says")
    return manifest


def _checked(name: str) -> str:
    """A path that stays inside. Raises ValueError."""
    parts = name.split("/")
    bad = len(name.encode()) > LONGEST_NAME or len(parts) < 2 or parts[0] not in _TOPS
    if bad or any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        raise ValueError(f"{name[:80]!r} is no name that a backup has")
    return name


def _copied(stream: IO[bytes], size: int, to: Path | None, mode: int) -> tuple[int, str]:
    digest, read = hashlib.sha256(), 0
    fd = None
    if to is not None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if size > shutil.disk_usage(to.parent).free - KEPT_FREE:
            raise Unavailable(f"There is no room for {to.name} below {to.parent}.", remedy="Free some.")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(to, flags, 0o644 if mode == 0o644 else 0o600)
    try:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
            read += len(piece)
            if fd is not None:
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
        if fd is not None:
            os.fsync(fd)
    finally:
        if fd is not None:
            with suppress(OSError):
                os.close(fd)
    return read, digest.hexdigest()


def _manifest(content: bytes) -> Manifest:
    told = json.loads(content)
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']!r}, and this program reads {FORMAT}")
    made_at = datetime.fromisoformat(told["made_at"]).astimezone(UTC)
    members = tuple(
        Member(str(each["name"]), int(each["bytes"]), str(each["sha256"]), int(each["mode"]))
        for each in told["members"]
    )
    if told["database"] not in ("sqlite", "postgresql"):
        raise ValueError("it holds a database of an unknown kind")
    return Manifest(
        made_at,
        str(told["program"]),
        str(told["database"]),
        str(told["schema"]),
        int(told["edition"]),
        int(told["root_version"]),
        bool(told["content"]),
        members,
    )
