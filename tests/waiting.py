"""Waiting for what others come to in their own time, and tell nobody."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

PATIENCE: Final = 120.0
"""Seconds until a wait is given up: the machine may be busy with others."""


Held = TypeVar("Held")


class Running(Protocol):
    """A process, and what it said so far."""

    @property
    def process(self) -> subprocess.Popen[Any]: ...

    def said(self) -> str: ...


@dataclass(frozen=True)
class Logged:
    """One that says it to a file."""

    process: subprocess.Popen[Any]
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def until(
    what: str,
    holds: Callable[[], Held],
    *,
    within: float = PATIENCE,
    alive: Running | None = None,
    every: float = 0.05,
) -> Held:
    """What it is once it holds; fail with what was waited for, and what the process said that must stay ``alive``."""
    ends = time.monotonic() + within
    while not (found := holds()):
        if alive is not None and alive.process.poll() is not None:
            raise AssertionError(f"the server ended with {alive.process.returncode} before {what}:\n{alive.said()}")
        if time.monotonic() > ends:
            said = "" if alive is None else f":\n{alive.said()[-3000:]}"
            raise AssertionError(f"waited {within:g} s in vain until {what}{said}")
        time.sleep(every)
    return found


def gone(pids: Sequence[int], *, within: float = PATIENCE) -> float:
    """Wait until none of these processes runs; how long it took. Nothing is signalled."""
    began = time.monotonic()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = began + within - time.monotonic()
            readable = select.select([fd], [], [], max(left, 0))[0]
        finally:
            os.close(fd)
        assert readable, f"process {pid} lingers: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
    return time.monotonic() - began
