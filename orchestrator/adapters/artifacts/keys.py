"""The key that signs download URLs: a file for its owner only, made when it is first needed."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from orchestrator.errors import ContentUnavailable

KEY_BYTES: Final = 32
_FILE: Final = "urls.key"


def signing_key(root: Path) -> bytes:
    """The key of the store of artifacts at ``root``, the same for everybody who uses it. Raises ContentUnavailable."""
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


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
            raise ContentUnavailable(
                f"The key of download addresses {file} can be read by others.", remedy=f"chmod 600 {file}"
            )
        key = stream.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ContentUnavailable(
            f"The key of download addresses {file} is damaged.", remedy="Remove it: a new one is made."
        )
    return key
