"""Many runs of one setting, in processes of their own with low priority.

What a run comes to depends on its number and the seed alone, so the answer is the same however many processes there
are. An interrupt ends all of them at once and leaves nothing behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from orchestrator.errors import InvalidInput
from orchestrator.services.simulation.play import play
from orchestrator.services.simulation.setting import Played, Setting

NICE: Final = 10
"""Priority given up: whatever else the machine does goes first."""

MOST_RUNS: Final = 1_000_000
MOST_JOBS: Final = 256

_BATCHES: Final = 16
"""Portions for each process, so that the last one does not leave the others waiting long."""

_setting: list[Setting] = []


def play_many(
    setting: Setting, runs: int, *, jobs: int = 1, progress: Callable[[int], None] = lambda done: None
) -> list[Played]:
    """Play runs 1 … ``runs``, in ``jobs`` processes; ``progress`` is told how many more are done.

    Raises InvalidInput for numbers that make no sense.
    """
    if not 1 <= runs <= MOST_RUNS:
        raise InvalidInput(f"`seeds` is the number of runs, from 1 to {MOST_RUNS:,}, not {runs:,}.")
    if not 1 <= jobs <= MOST_JOBS:
        raise InvalidInput(f"`jobs` is a number of processes from 1 to {MOST_JOBS}, not {jobs}.")
    found: list[Played] = []
    for part in _alone(setting, runs) if jobs == 1 or runs == 1 else _side_by_side(setting, runs, min(jobs, runs)):
        found += part
        progress(len(part))
    return found


def _alone(setting: Setting, runs: int) -> Iterator[Sequence[Played]]:
    for run in range(1, runs + 1):
        yield [play(setting, run)]


def _side_by_side(setting: Setting, runs: int, jobs: int) -> Iterator[Sequence[Played]]:
    size = max(1, runs // (jobs * _BATCHES))
    portions = [range(first, min(first + size, runs + 1)) for first in range(1, runs + 1, size)]
    # `spawn`: a child begins with nothing of this process, neither threads nor open files.
    with multiprocessing.get_context("spawn").Pool(jobs, _begin, (setting,)) as pool:
        yield from pool.imap(_portion, portions)
        pool.close()
        pool.join()


def _begin(setting: Setting) -> None:
    # Ctrl-C reaches the whole group of processes: the parent alone says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    _setting[:] = [setting]


def _portion(runs: range) -> list[Played]:
    return [play(_setting[0], run) for run in runs]
