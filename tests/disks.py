"""Small disks for tests that fill one or make it read-only: a tmpfs where that may be mounted.

Mounting takes the rights of root, which many containers withhold. A test then shows the same by another way, and says
by which; it is never left out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def mounted(at: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own at ``at``, which is made where it is missing; False where none may be mounted."""
    at.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "wave-test", str(at)]
    made = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(at)], check=True)


def remount(at: Path, *, writable: bool) -> None:
    options = f"remount,{'rw' if writable else 'ro'}"
    subprocess.run(["mount", "-o", options, str(at)], check=True, capture_output=True)


def fill(at: Path, *, leave: int = 0) -> Path:
    """A file that takes all room but ``leave`` bytes; without it the room is there again."""
    path = at / "filler"
    with path.open("wb") as filler:
        for piece in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    os.write(filler.fileno(), b"x" * piece)
        if leave:
            filler.truncate(filler.tell() - leave)
    return path
