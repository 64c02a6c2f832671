"""Places for work under way inside a repository: ``REPO/.wave``, where neither ostree nor the file server looks.

It lies in the repository so that publishing is a rename. A workspace is alive as long as somebody holds the lock on its
``lock`` file: the kernel lets go of it when the last process dies, whatever killed it, and no pid can be reused.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from orchestrator.errors import BuildFailed

FOLDER = ".wave"
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Workspace:
    """An own empty folder; ``lock_fd`` keeps it alive, also in children that inherit it."""

    folder: Path
    lock_fd: int


@contextmanager
def workspace(repository: Path) -> Iterator[Workspace]:
    """A new workspace, removed at the end. Raises OSError."""
    builds = repository / FOLDER / "builds"
    # mode 0o700: what lies here is half-made
    builds.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = builds / uuid.uuid4().hex
    with locked(repository, "workspaces"):
        folder.mkdir()
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield Workspace(folder, fd)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


@contextmanager
def locked(repository: Path, name: str, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Alone among all processes of this machine that use this ``name``. Raises OSError, BuildFailed when cancelled."""
    (repository / FOLDER).mkdir(mode=0o700, exist_ok=True)
    fd = os.open(repository / FOLDER / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # flock has no time limit, so a wait that can be cancelled has to try again and again
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cancelled():
                    raise BuildFailed(f"The wait for the lock {name} of {repository} was cancelled.") from None
                Event().wait(_RETRY_SECONDS)
        yield
    finally:
        os.close(fd)


def sweep(repository: Path) -> int:
    """Remove the workspaces that nobody holds; how many. Raises OSError."""
    builds = repository / FOLDER / "builds"
    if not builds.is_dir():
        return 0
    removed = 0
    with locked(repository, "workspaces"):
        for folder in builds.iterdir():
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed += not folder.exists()
    return removed


def _abandoned(folder: Path) -> bool:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
