"""Where a command's words go: streams that are there, and what is said when they take nothing.

A command that is started with a closed stream (``>&-``) works as if that were /dev/null; the number is taken at once,
so that no database is ever opened under it. One whose output finds no room says so: it was carried out all the same.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orchestrator.errors import Unavailable, WaveError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class _NotShown(Unavailable):
    """Standard output takes no more. Nothing can be said there."""


class NoRoom(OSError):
    """A standard stream takes no more. Errors of files, which name no file either once they are open, are not this."""


class _Standard(io.FileIO):
    """The file under a standard stream: all that is written there comes through here, whoever writes it."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise NoRoom(error.errno, error.strerror) from error
            raise


def _marking(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, whose errors can be told from those of files."""
    raw = _Standard(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def steady() -> None:
    """Every standard stream is there, and shows what it can: a terminal without arrows gets a question mark."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            setattr(sys, name, _marking(stream))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def silenced() -> None:
    """Nobody reads, or nothing fits: what is left goes nowhere, and Python's own flush at the end does not complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def not_shown(error: BaseException) -> WaveError | None:
    """The error of ours for an output that finds no room."""
    if not isinstance(error, NoRoom):
        return None
    return _NotShown(
        f"The output cannot be written: {error.strerror}.",
        remedy="What was ordered may be done all the same: look, before you order it again.",
    )


def complain(text: str) -> None:
    """To standard error, which may be full too: the exit code tells then."""
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def answer(text: str) -> None:
    """To standard output, for a program, once something has gone wrong already."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        silenced()
