"""Runs a command of somebody else: own process group, time limit, cancellation, the end of what it printed.

The child dies with the thread that waits for it (``setpriv --pdeathsig``, where there is one), so a killed worker
leaves nothing computing for nobody.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LOOK_UP_SECONDS = 0.25
"""How often ``cancelled`` is asked while a command runs."""

_KEEP = 64 * 1024  # bytes of each output stream that are kept, counted from its end


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: ``stdout`` and ``stderr`` are the last 64 KiB of each, ``cpu_seconds`` its user and system
    time."""

    stdout: str
    stderr: str
    returncode: int
    cpu_seconds: float


class TimedOut(Exception):
    """The time limit came first."""


class Cancelled(Exception):
    """Somebody asked for the end."""


def watch(
    process: subprocess.Popen[bytes],
    deadline: float,
    cancelled: Callable[[], bool] | None,
    on_line: Callable[[str], None] | None,
) -> CommandResult:
    """Wait for its end, or for ``deadline`` of the monotonic clock; by then its whole process group is dead. Raises
    TimedOut, Cancelled."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = kept
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for fd in (*kept, ended):
                if fd != ended:
                    os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            running = True
            while running:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimedOut
                for key, _ in selector.select(min(left, LOOK_UP_SECONDS)):
                    if key.fd == ended:
                        running = False
                    elif not _drain(key.fd, kept[key.fd], on_line):
                        selector.unregister(key.fd)
                if running and cancelled is not None and cancelled():
                    raise Cancelled
        # the process is gone; a child of its own could hold the pipes open, so only what is there already is read
        for fd in kept:
            while _drain(fd, kept[fd], on_line, more=False):
                pass
    finally:
        os.close(ended)
        cpu = _reap(process)
        process.stdout.close()
        process.stderr.close()
    return CommandResult(
        stdout=kept[out].decode(errors="replace"),
        stderr=kept[err].decode(errors="replace"),
        returncode=process.returncode,
        cpu_seconds=cpu,
    )


def _drain(fd: int, kept: bytearray, on_line: Callable[[str], None] | None, *, more: bool = True) -> bool:
    """Read once; False at the end of the stream, or when nothing is there and no ``more`` is expected."""
    try:
        piece = os.read(fd, 65536)
    except BlockingIOError:
        return more
    if not piece:
        return False
    kept += piece
    del kept[:-_KEEP]
    if on_line is not None:
        for line in re.split(rb"[\r\n]+", piece):
            if line.strip():
                on_line(line.decode(errors="replace").strip())
    return True


def _reap(process: subprocess.Popen[bytes]) -> float:
    """Kill what is left of the group, wait for the child, return its CPU seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def start(
    argv: Sequence[str],
    *,
    nice: int = 0,
    keep_open: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start it for ``watch``. ``environment``: all that it is given instead of this process's. Raises OSError when it
    cannot be run."""
    prefix = []
    if nice and (program := shutil.which("nice")):
        prefix += [program, "-n", str(nice)]
    if setpriv := shutil.which("setpriv"):
        prefix += [setpriv, "--pdeathsig", "KILL"]
    return subprocess.Popen(
        [*prefix, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"} if environment is None else dict(environment),
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )
