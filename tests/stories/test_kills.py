"""The same at the level of processes: a server over a SQLite file, killed with SIGKILL at random moments of its
work."""

from __future__ import annotations

from collections import Counter, deque
from datetime import timedelta
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import pytest

from orchestrator.adapters.sql.store import open_store
from orchestrator.services.messages import CheckIn, ReportedEvent
from tests.stories.devices import Fate, Habits
from tests.stories.served import Killed, Server
from tests.stories.simulator import Simulation

KILLS = {"tick": 3, "report": 4, "check-in": 3}
"""So many hit a server at such work: what was asked stayed unanswered. Others come too late and do not count."""

AIMED_AT = {"tick": 0.4, "report": 0.4, "check-in": 0.2}
"""The part of such calls at which a kill is aimed, until enough have hit."""


class Remote(Simulation):
    """A world whose server is another process. Now and then it is killed while it works; who was not answered
    asks again."""

    server: Server

    def serve(self, url: str) -> None:
        self.server = Server(url, self.content)
        self._moments = Random("moments of death")
        self._lasted: dict[str, deque[float]] = {what: deque(maxlen=50) for what in KILLS}
        self.acknowledged: list[tuple[str, str]] = []
        self.unanswered: Counter[str] = Counter()

    def _ask(self, what: str, *arguments: Any) -> Any:
        # Aimed by how long such work took before, so that a quick machine is hit as well as a slow one.
        enough = self.unanswered[what] >= KILLS[what] or not self._lasted[what]
        die = not enough and self._moments.random() < AIMED_AT[what]
        die_after = self._moments.random() * self._moments.choice(self._lasted[what]) if die else None
        while True:
            begun = perf_counter()
            try:
                answer = self.server.ask(self.now, what, *arguments, die_after=die_after)
            except Killed:
                self.unanswered[what] += 1
                die_after = None
            else:
                if die_after is None:
                    self._lasted[what].append(perf_counter() - begun)
                return answer

    def _asks(self, device_id: str, said: CheckIn) -> Any:
        return self._ask("check-in", device_id, device_id, said)

    def _tells(self, device_id: str, events: list[ReportedEvent]) -> Any:
        received = self._ask("report", device_id, device_id, events)
        self.acknowledged += [(device_id, event.id) for event in events]
        self.poke()
        return received

    def tick(self) -> None:
        pause, problems = self._ask("tick")
        self.ticks += 1
        self.problems += problems
        self._build()
        self._tick_at(self.now + pause)


def some_fail(device: Any, attempt: int) -> Fate:
    return Fate.FAILS if device.id in ("d0007", "d0021") else Fate.WELL


@pytest.mark.e2e
def test_ten_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    """Forty devices, two of which fail. In the course of the rollout the server is killed ten times in the middle of
    what it does. The rollout ends as it does without a kill; every report that was acknowledged is in the log, none
    twice."""
    url = f"sqlite:///{tmp_path / 'wave.db'}"
    sim = Remote(brought=open_store(url, synchronous="NORMAL"), check_daily=False)
    sim.enroll(40, habits=Habits(every=timedelta(hours=1)))
    sim.release(42, some_fail)
    sim.begin({"first": {"count": 10}, "rest": "all"}, policy="accelerated", own={"tolerate": {"failed": "10%"}})
    sim.serve(url)
    try:
        sim.run(days=3, until=sim.is_("completed"))
        sim.run(hours=2).check()
        assert sim.unanswered == KILLS and sim.server.kills >= 10
        assert len(sim.running(42)) == 38 and sim.view().summary.bad == 2
        logged = Counter((event.device, event.event_id) for event in events(sim))
        assert set(logged) >= set(sim.acknowledged) and set(logged.values()) == {1}
        assert len(logged) == 38 * 3 + 2 * 3
    finally:
        sim.server.close()
        sim.store.close()


def events(sim: Simulation) -> Any:
    with sim.store.reading() as r:
        return r.events(rollout="r42", limit=100_000)
