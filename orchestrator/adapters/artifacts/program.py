"""Runs the operator's program: niced, bounded in time, memory and what it may write, ended whole when nobody waits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from orchestrator.adapters.commands import Cancelled, TimedOut, start, watch
from orchestrator.core.artifact import LARGEST
from orchestrator.errors import BuildFailed, ContentUnavailable
from orchestrator.services.delta_program import Command, DeltaProgram, filled

_MB: Final = 1 << 20

_MOST_SCRATCH: Final = LARGEST
"""Bytes that a program which only looks may write aside."""


class ProgramFailed(Exception):
    """It said no, or died; ``str()`` is the last it said. Never leaves this package."""


class Program:
    """``timeout`` for each command; ``cpu_seconds`` adds up what the commands used."""

    def __init__(
        self, program: DeltaProgram, *, nice: int, timeout: timedelta, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self._program = program
        self._nice = nice
        self._timeout = timeout
        self._cancelled = cancelled
        self.cpu_seconds = 0.0

    def make(self, old: Path, new: Path, delta: Path, *, most: int, on_line: Callable[[str], None]) -> None:
        """Write ``delta``, of ``most`` bytes at most. Raises ProgramFailed, BuildFailed, ContentUnavailable."""
        self._run(self._program.make, {"from": old, "to": new, "delta": delta}, delta, most, on_line)

    def apply(self, old: Path, delta: Path, new: Path, *, most: int) -> None:
        """Write ``new``, of ``most`` bytes at most. Raises as ``make``."""
        self._run(self._program.apply, {"from": old, "to": new, "delta": delta}, new, most, lambda line: None)

    def verify(self, old: Path, new: Path, delta: Path, *, scratch: Path) -> None:
        """Have the delta looked at. Raises as ``make``."""
        places = {"from": str(old), "to": str(new), "delta": str(delta), "scratch": str(scratch)}
        try:
            for command in self._program.verify:
                self._one(filled(command, places), _MOST_SCRATCH, lambda line: None)
        finally:
            scratch.unlink(missing_ok=True)

    def _run(
        self,
        commands: tuple[Command, ...],
        files: dict[str, Path],
        made: Path,
        most: int,
        on_line: Callable[[str], None],
    ) -> None:
        places = {name: str(file) for name, file in files.items()}
        places["scratch"] = str(made.with_name(f"{made.name}.scratch"))
        for command in commands:
            self._one(filled(command, places), most, on_line)
        if not made.is_file() or made.is_symlink():
            raise ProgramFailed(f"`{commands[-1][0]}` ended well and wrote nothing")

    def _one(self, words: list[str], most: int, on_line: Callable[[str], None]) -> None:
        executable = find(words[0])
        limits = []
        if prlimit := shutil.which("prlimit"):
            limits = [prlimit, f"--as={self._program.memory_mb * _MB}", f"--fsize={most}", "--core=0"]
        try:
            process = start([*limits, executable, *words[1:]], nice=self._nice)
        except OSError as error:
            raise ContentUnavailable(
                f"{executable} cannot be run: {error.strerror}.", remedy="Install it again."
            ) from error
        try:
            result = watch(process, time.monotonic() + self._timeout.total_seconds(), self._cancelled, on_line)
        except TimedOut:
            raise BuildFailed(
                f"`{words[0]}` was ended after {self._timeout.total_seconds():g} seconds.",
                remedy="Give builds more time (`build_timeout`), or its words a quicker level.",
            ) from None
        except Cancelled:
            raise BuildFailed(f"`{words[0]}` was cancelled.") from None
        self.cpu_seconds += result.cpu_seconds
        if result.returncode:
            said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
            why = said[-1][:300] if said else f"it ended with {result.returncode}"
            raise ProgramFailed(f"`{words[0]}` failed: {why}")


def find(executable: str) -> str:
    """Where it is. Raises ContentUnavailable."""
    path = shutil.which(executable)
    if path is None:
        raise ContentUnavailable(
            f"The program `{executable}` of `delta_program` is not there.",
            remedy="Install it, or change `delta_program` in the settings.",
        )
    return path
