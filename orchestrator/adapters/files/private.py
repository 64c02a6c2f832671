"""Files that hold secrets: made for their owner only, and not read when others could."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import InvalidInput


def check_private(path: Path) -> None:
    """Raises InvalidInput when the file is missing or others than its owner may read or write it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(mode):
        raise InvalidInput(f"{path} is no file.")
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(f"{path} holds a secret, and others may read it.", remedy=f"`chmod 600 {path}`.")


def private_text(path: Path) -> str:
    """What stands in it. Raises InvalidInput."""
    check_private(path)
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"{path} cannot be read as text.") from None


def write_new(path: Path, text: str, *, private: bool = False) -> None:
    """A new file; with ``private`` for its owner only. Raises InvalidInput when there is one already."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    except FileExistsError:
        raise InvalidInput(f"{path} is there already.", remedy="Move it away first.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(opened, "w", encoding="ascii") as stream:
        stream.write(text)
