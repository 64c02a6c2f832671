"""Simulations started from the page: one at a time, in processes of their own with low priority, the last few kept."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.policy import Policy
from orchestrator.errors import Busy, InvalidInput, NotFound, WaveError
from orchestrator.services.simulation.picture import Drawn, picture
from orchestrator.services.simulation.study import Asked, setting_of, study

JOBS: Final = 2
"""Processes of one simulation: never this one, which serves."""

MOST_RUNS: Final = 400
MOST_DEVICES: Final = 20_000
_KEPT: Final = 20

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Study:
    """One simulation. ``done`` of ``asked.runs`` are played; then ``drawn``, or ``problem`` with why not."""

    id: str
    policy: str
    by: str
    asked: Asked
    done: int = 0
    drawn: Drawn | None = None
    problem: str = ""

    @property
    def over(self) -> bool:
        return self.drawn is not None or bool(self.problem)

    def svg(self) -> str:
        """Raises NotFound until it is over."""
        if self.drawn is None:
            raise NotFound("There is no picture of it yet.")
        return picture([self.drawn])


Play = Callable[[Policy, Asked, Callable[[int], None]], Drawn]


@dataclass(slots=True)
class Studies:
    """Those of one process. ``play``: how one is played."""

    play: Play = study
    _found: OrderedDict[str, Study] = field(default_factory=OrderedDict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def start(self, policy: Policy, asked: Asked, by: str) -> Study:
        """Raises InvalidInput for what makes no sense or would take too long, Busy while another is played."""
        if not 2 <= asked.runs <= MOST_RUNS:
            raise InvalidInput(f"From the page 2 to {MOST_RUNS} rollouts are played; `wave simulate` plays more.")
        if asked.fleet > MOST_DEVICES:
            raise InvalidInput(f"From the page at most {MOST_DEVICES:,} devices; `wave simulate` takes more.")
        setting_of(policy, asked)
        with self._guard:
            running = [each for each in self._found.values() if not each.over]
            if running:
                raise Busy(f"A simulation of {running[0].policy} is being played for {running[0].by}: wait for it.")
            made = Study(secrets.token_urlsafe(9), policy.name, by, asked)
            self._found[made.id] = made
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        threading.Thread(target=self._run, args=(policy, made), name="simulation", daemon=True).start()
        return made

    def get(self, id: str) -> Study:
        """Raises NotFound; what was played before a restart is forgotten."""
        found = self._found.get(id)
        if found is None:
            raise NotFound("That simulation is not kept any more.", remedy="Play it again: it comes out the same.")
        return found

    def _run(self, policy: Policy, made: Study) -> None:
        def advance(done: int) -> None:
            made.done += done

        try:
            made.drawn = self.play(policy, made.asked, advance)
        except WaveError as error:
            made.problem = str(error)
        except Exception:
            _log.exception("a simulation of %s could not be played", policy.name)
            made.problem = "The server made a mistake; it has written it down."
