"""Playing cases in processes of their own, and adding up what came of them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.services.simulation.play import play
from orchestrator.services.simulation.setting import Ending, Played
from orchestrator.services.simulation.summary import Chance, Quantiles, chance, quantiles
from tests.evidence.cases import CANARIES, PARTS, Case

PORTION = 50


@dataclass(frozen=True)
class Measured:
    """A case and what came of it. ``failed`` and ``exposed`` of the halted runs."""

    case: Case
    runs: tuple[Played, ...]

    @property
    def halted(self) -> Chance:
        return chance(sum(each.ending is Ending.HALTED for each in self.runs), len(self.runs))

    @property
    def held(self) -> Chance:
        return chance(sum(each.ending is Ending.HELD for each in self.runs), len(self.runs))

    @property
    def stopped(self) -> Chance:
        """Halted, or held for a person."""
        return chance(sum(each.ending in (Ending.HALTED, Ending.HELD) for each in self.runs), len(self.runs))

    @property
    def failed_at_the_stop(self) -> Quantiles | None:
        """Devices that had failed when it was halted or held."""
        return quantiles([each.failed for each in self.runs if each.ending in (Ending.HALTED, Ending.HELD)])

    @property
    def failed(self) -> Quantiles | None:
        return quantiles([each.failed for each in self.runs if each.ending is Ending.HALTED])

    @property
    def doomed(self) -> Quantiles | None:
        return quantiles([each.doomed for each in self.runs if each.ending is Ending.HALTED])

    def stopped_by_silence(self) -> Chance:
        """Halted or held by the clock of silence."""
        return chance(len(self._by_silence()), len(self.runs))

    def stopped_within(self, minutes: float) -> Chance:
        """Stopped by the clock so many minutes after the last start of the canaries, or sooner: also before the last of
        them has begun, which a night installer does hours later."""
        stopped = self._by_silence()
        early = sum(each.begun < CANARIES or _delay(each) <= minutes for each in stopped)
        return chance(early, len(self.runs))

    def minutes_to_the_stop(self) -> Quantiles | None:
        """Minutes to the stop by the clock from the last start of a device until then."""
        return quantiles([_delay(each) for each in self._by_silence()])

    def begun_at_the_stop(self) -> Quantiles | None:
        """Of the canaries those that had begun to install when the clock stopped it."""
        return quantiles([each.begun for each in self._by_silence()])

    def _by_silence(self) -> list[Played]:
        return [each for each in self.runs if each.cause in ("silence", "environment")]

    @property
    def most_failed(self) -> int:
        return max((each.failed for each in self.runs if each.ending is Ending.HALTED), default=0)

    @property
    def exposed(self) -> Quantiles | None:
        return quantiles([each.exposed for each in self.runs if each.ending is Ending.HALTED])

    @property
    def halted_after_excluding(self) -> Chance:
        """Of the runs in which a segment was excluded: those halted all the same."""
        mine = [each for each in self.runs if each.excluded]
        return chance(sum(each.ending is Ending.HALTED for each in mine), len(mine))

    @property
    def excluded_rightly(self) -> Chance:
        """Runs in which the one bad segment was excluded, and no other."""
        right = sum([each.segment for each in one.excluded] == ["hardware_id=hw-d"] for one in self.runs)
        return chance(right, len(self.runs))

    @property
    def named_rightly(self) -> Chance:
        """The same, or halted by a monitor over the whole that crossed first, in a sentence that names the segment."""
        right = sum(
            [each.segment for each in one.excluded] == ["hardware_id=hw-d"]
            or (one.ending is Ending.HALTED and "Segment hardware_id=hw-d carries" in one.sentence)
            for one in self.runs
        )
        return chance(right, len(self.runs))

    def of_exclusion(self, what: str) -> Quantiles | None:
        """Quantiles of a figure of the first exclusion, such as ``reported``."""
        return quantiles([getattr(each.excluded[0], what) for each in self.runs if each.excluded])

    def passed_within(self, wave: str, hours: float) -> Chance:
        """Of the runs in which this wave began to bake: those in which it passed within so many hours of it."""
        waves = [found for each in self.runs for found in each.waves if found.wave == wave and found.opened is not None]
        passed = [each for each in waves if each.passed is not None and each.baked is not None and each.held is None]
        return chance(sum((w.passed or 0.0) - (w.baked or 0.0) <= hours for w in passed), len(waves))


def _delay(each: Played) -> float:
    return round(60 * (each.hours - each.last_start), 1)


def measure(case: Case, runs: int) -> Measured:
    """Play one case in this process."""
    return Measured(case, tuple(_played(case, range(1, _runs(case, runs) + 1))))


def measure_all(part: str, runs: int, *, jobs: int) -> Iterator[Measured]:
    """Every case of a part, in the order of the part, whoever was ready first."""
    cases = PARTS[part]()
    work = [
        (part, number, range(first, min(first + PORTION, _runs(case, runs) + 1)))
        for number, case in enumerate(cases)
        for first in range(1, _runs(case, runs) + 1, PORTION)
    ]
    with multiprocessing.get_context("spawn").Pool(jobs, os.nice, (10,)) as pool:
        waiting: dict[int, list[Played]] = {}
        for (_, number, portion), found in zip(work, pool.imap(_portion, work), strict=True):
            waiting.setdefault(number, []).extend(found)
            if portion[-1] == _runs(cases[number], runs):
                yield Measured(cases[number], tuple(waiting.pop(number)))


def _runs(case: Case, runs: int) -> int:
    return max(1, round(runs * case.weight))


def _portion(work: tuple[str, int, range]) -> list[Played]:
    part, number, portion = work
    return _played(PARTS[part]()[number], portion)


def _played(case: Case, portion: Iterable[int]) -> list[Played]:
    return [play(case.setting, run, case.watcher() if case.watcher is not None else None) for run in portion]
