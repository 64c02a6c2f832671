"""The key that signs download URLs: a file for its owner only, made when it is first needed, and kept in memory for as
long as the file is the same."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, NamedTuple

from orchestrator.errors import ContentUnavailable

KEY_BYTES: Final = 32
_FILE: Final = "urls.key"


class SigningKey:
    """The key of one store of artifacts, asked for with every offer: the file is looked at each time and read when it
    is another, so that one that was replaced, removed or opened to others counts at once. Safe in threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / _FILE
        self._kept: tuple[_Sight, bytes] | None = None

    def __call__(self) -> bytes:
        """Raises ContentUnavailable."""
        kept = self._kept
        if kept is not None:
            with contextlib.suppress(OSError):
                if _sight(self._file.stat()) == kept[0]:
                    return kept[1]
        self._kept = None
        kept = self._kept = _had(self._root)
        return kept[1]


def signing_key(root: Path) -> bytes:
    """The key of the store of artifacts at ``root``, the same for everybody who uses it. Raises ContentUnavailable."""
    return _had(root)[1]


def _had(root: Path) -> tuple[_Sight, bytes]:
    file = root / _FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(file)
        root.mkdir(parents=True, exist_ok=True)
        beside = root / f"{_FILE}.{secrets.token_hex(8)}"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            # a link fails where a rename would put this key in the place of another's
            with contextlib.suppress(FileExistsError):
                os.link(beside, file)
        finally:
            beside.unlink(missing_ok=True)
        return _read(file)
    except OSError as error:
        raise ContentUnavailable(
            f"The key of download addresses {file} cannot be had: {error.strerror}.",
            remedy="Let the user this program runs as read and write that directory.",
        ) from error


class _Sight(NamedTuple):
    """By what a file is told from another, without reading it."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    device: int
    mode: int


def _sight(found: os.stat_result) -> _Sight:
    return _Sight(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev, found.st_mode)


def _read(file: Path) -> tuple[_Sight, bytes]:
    with file.open("rb") as stream:
        sight = _sight(os.fstat(stream.fileno()))
        if stat.S_IMODE(sight.mode) & 0o077:
            raise ContentUnavailable(
                f"The key of download addresses {file} can be read by others.", remedy=f"chmod 600 {file}"
            )
        key = stream.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ContentUnavailable(
            f"The key of download addresses {file} is damaged.", remedy="Remove it: a new one is made."
        )
    return sight, key
