"""Worker processes: started, kept alive, stopped; and what a worker needs to know when to stop.

Each worker leads a process group of its own, so that what it started can be ended with it and nothing else, and so that
Ctrl-C in a terminal reaches only the process that knows the order in which to stop. Only pids and groups that were
started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Final, Self

from orchestrator.errors import Unavailable

LOG = logging.getLogger(__name__)

GRACE: Final = timedelta(seconds=10)
"""How long a worker may take to stop before it is killed."""

SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
"""Seconds before a worker that died is started again: doubled with each death, back to the shortest after a worker has
lived for the longest."""

PARENT: Final = "WAVE_WORKER_OF"
"""Environment variable by which a worker knows the pid of the process that looks after it."""

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the workers."""


def wave_command(*arguments: str) -> tuple[str, ...]:
    """The argv that runs a sub-command of this very installation."""
    return (sys.executable, "-m", "orchestrator", *arguments)


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    wait: float = SHORTEST_WAIT


@dataclass(slots=True)
class Workers:
    """``count`` processes of one command, restarted when they die.

    ``{number}`` in ``argv`` becomes the worker's number, from 1. ``nice`` is added to their priority. A context
    manager: entering starts them, leaving stops them.
    """

    argv: Sequence[str]
    count: int
    nice: int = 10
    grace: timedelta = GRACE
    environment: Mapping[str, str] | None = None
    _workers: list[_Worker] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start all and watch over them from a thread. Raises Unavailable when the command cannot be run at all."""
        self._stopping.clear()
        self._workers = [_Worker(number) for number in range(1, self.count + 1)]
        try:
            for worker in self._workers:
                self._spawn(worker)
        except OSError as error:
            self.stop()
            raise Unavailable(
                f"The worker {self.argv[0]} cannot be started: {error.strerror}.", remedy="Check the installation."
            ) from error
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask every worker to stop, wait, kill what is still there after ``grace``. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + self.grace.total_seconds()
        for process in running:
            while not _has_ended(process) and time.monotonic() < deadline:
                time.sleep(0.02)
            if not _has_ended(process):
                LOG.warning("worker %d did not stop within %g seconds", process.pid, self.grace.total_seconds())
            _end_group(process)
        self._workers = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Of those that are alive."""
        processes = [worker.process for worker in self._workers]
        return tuple(process.pid for process in processes if process is not None and not _has_ended(process))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            for worker in self._workers:
                self._look_after(worker)

    def _look_after(self, worker: _Worker) -> None:
        now = time.monotonic()
        if worker.process is None:
            if now >= worker.start_again_at:
                try:
                    self._spawn(worker)
                except OSError as error:
                    LOG.error("worker %d cannot be started: %s", worker.number, error)
                    _put_off(worker, now)
            return
        if not _has_ended(worker.process):
            return
        # What it left running would go on with work that now belongs to another.
        status = _end_group(worker.process)
        worker.process = None
        if now - worker.started_at >= LONGEST_WAIT:
            worker.wait = SHORTEST_WAIT
        LOG.warning("worker %d ended with %d; again in %g seconds", worker.number, status, worker.wait)
        _put_off(worker, now)

    def _spawn(self, worker: _Worker) -> None:
        process = subprocess.Popen(
            [part.replace("{number}", str(worker.number)) for part in self.argv],
            stdin=subprocess.DEVNULL,
            env={**(os.environ if self.environment is None else self.environment), PARENT: str(os.getpid())},
            process_group=0,
        )
        # From here and not in the child: code between fork and exec is not safe in a process with threads.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, min(os.getpriority(os.PRIO_PROCESS, 0) + self.nice, 19))
        worker.process = process
        worker.started_at = time.monotonic()


def _put_off(worker: _Worker, now: float) -> None:
    worker.start_again_at = now + worker.wait
    worker.wait = min(worker.wait * 2, LONGEST_WAIT)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A child that was not reaped keeps its pid, so this can hit no other process."""
    if not _has_ended(process):
        os.kill(process.pid, number)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it: as long as it is a zombie its pid, and the id of its group, are nobody else's."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> int:
    """Kill the worker, if it is still there, and all of its group; reap it. How it ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@contextlib.contextmanager
def stop_event(*, with_parent: bool = False) -> Iterator[threading.Event]:
    """For a main thread: an event that SIGTERM and SIGINT set; the former handlers come back at the end.

    ``with_parent``: in a process that ``Workers`` started, the death of whoever started it sets it too, for nobody
    would be left to end it. One that was started by hand outlives its shell.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        # Not from here: the handler may interrupt the very lines of ``wait`` that hold the event's lock.
        threading.Thread(target=stop.set, name="stop").start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    parent = os.environ.get(PARENT, "")
    if with_parent and parent.isdecimal():
        threading.Thread(target=_watch_parent, args=(int(parent), stop), name="parent", daemon=True).start()
    try:
        yield stop
    finally:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_parent(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        if stop.wait(1.0):
            return
    LOG.warning("process %d that started this one is gone: stopping", parent)
    stop.set()
