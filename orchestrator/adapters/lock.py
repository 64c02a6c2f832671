"""One serving process per SQLite database: a lock that the kernel gives back when its holder dies, however it dies.
And what a process is called where it holds something."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from orchestrator.errors import StoreUnavailable


def process_name() -> str:
    """Who this process is, in leases: host, process id and something that nobody else has, because in two containers
    both may be alike."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def lock_file(database_url: str, root: Path) -> Path:
    """Beside the database and named after it, so that the database is served once whatever root it is reached from."""
    database = make_url(database_url).database
    return (Path(database) if database else root / "wave").resolve().with_suffix(".lock")


class Lock:
    """An exclusive lock on a file beside the database. The file stays; what counts is who holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Whether this process holds it now; never waits. Raises StoreUnavailable when the file cannot be opened."""
        if self._fd is not None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"The lock {self._path} cannot be opened: {error.strerror}.") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd
        return True

    def holder(self) -> str:
        """The process id that the holder wrote down, for people; empty when nobody did."""
        try:
            return self._path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def drop(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Drop it at the end, whoever took it."""
        try:
            yield
        finally:
            self.drop()
