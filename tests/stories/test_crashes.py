"""Whatever is killed and whenever, nothing is lost, nothing is decided or counted twice (promise 7).

A rollout is played; at each moment that writes something the world is stopped, and the same moment is lived again
once for every point at which the process could have died in it. After each death fresh services go on over what the
store kept. The whole content of the database must then be that of the life without a death: the same journal to the
hash, the same tallies, offers, builds and effects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.core.states import RolloutStatus
from orchestrator.services.builder import Builder, Pace
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.records import JobStatus
from tests.stories.content import commit_of
from tests.stories.crashing import Contents, Crash, CrashingStore, Fuse, contents_of, difference, remember, revive
from tests.stories.devices import Fate, Habits, SimDevice, SimEvent, SimOffer
from tests.stories.simulator import BY, Simulation

RESTLESS = frozenset({"house", "lease"})
"""Tables that say only that somebody was alive."""

ASKED_TWICE = frozenset({"usual_gap", "check_ins", "last_seen_at"})
"""Columns that may tell that a device, whose answer was lost after the commit, has asked once more."""

SHAPES_EACH = 3
"""Calls of devices that are lived again, of each shape."""


def _beat_and_look(sim: Simulation) -> object:
    sim.scheduler._beat()
    return sim.scheduler._look()


class Mortal(Simulation):
    """A world whose moments are lived again, with a death at every point of each."""

    def __post_init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.decided: set[str] = set()
        self._shapes: Counter[tuple[Any, ...]] = Counter()
        super().__post_init__()

    def tick(self) -> None:
        then = self._remember()
        super().tick()
        if self._quiet() != then:
            self._live_again(_beat_and_look, "tick")

    def check_in(self, device: SimDevice) -> SimOffer | None:
        then = self._remember()
        offer = super().check_in(device)
        shape = ("check-in", offer is not None, device.version, self._changes(then))
        if self._quiet() != then and self._is_new(shape):
            self.flush()
            self._live_again(lambda sim: asks(sim, device), "check-in", ASKED_TWICE)
        return offer

    def report(self, device: SimDevice, events: list[SimEvent]) -> None:
        then = self._remember()
        super().report(device, events)
        shape = ("report", tuple(event.kind for event in events), self._changes(then))
        if self._is_new(shape):
            self._live_again(lambda sim: Simulation.report(sim, device, events), "report")

    def _is_new(self, shape: tuple[Any, ...]) -> bool:
        self._shapes[shape] += 1
        return self._shapes[shape] <= SHAPES_EACH

    def _remember(self) -> Contents:
        self.flush()
        remember(self.store)
        return self._quiet()

    def _quiet(self) -> Contents:
        return {table: rows for table, rows in contents_of(self.store).items() if table not in RESTLESS}

    def _changes(self, then: Contents) -> frozenset[str]:
        now = self._quiet()
        return frozenset(table for table in now if now[table] != then[table])

    def _live_again(
        self, act: Callable[[Simulation], object], what: str, restless: frozenset[str] = frozenset()
    ) -> None:
        for point in range(10_000):
            fuse = Fuse(point)
            store = revive()
            try:
                act(self._reborn(CrashingStore(store, fuse)))
            except Crash:
                act(self._reborn(store))
                died = fuse.passed[-1]
                self.deaths[f"{what}: {died}"] += 1
                aside = restless if died == "after the commit" else frozenset()
                self._hold_same(store, f"{what}, died at point {point}, {died}", aside)
            else:
                self._hold_same(store, f"{what}, no death", frozenset())
                return
        raise AssertionError(f"{what} never ends")

    def _hold_same(self, store: Any, where: str, aside: frozenset[str]) -> None:
        lived, should = contents_of(store, without=aside), contents_of(self.store, without=aside)
        assert lived == should, f"{where}, at {self.now}:\n{difference(lived, should)}"

    def _reborn(self, store: Any) -> Simulation:
        """A fresh process at this very moment. What devices know they know: they do not die."""
        sim = Simulation(start=self.now, brought=store, content=self.content, check_daily=False)
        sim._next_tick = sim.now  # its pokes lead nowhere
        return sim


def asks(sim: Simulation, device: SimDevice) -> None:
    """A check-in, written whether it was idle or not."""
    Simulation.check_in(sim, device)
    sim.flush()


def quick(**keys: Any) -> Habits:
    return Habits(every=timedelta(hours=1), **keys)


def test_a_good_rollout_with_a_death_at_every_point() -> None:
    """Applied for later, started by the clock, two waves in three slices, deltas, bake, pass, completion."""
    sim = Mortal(check_daily=False)
    sim.enroll(30, habits=quick())
    sim.enroll(8, prefix="old", version=40, habits=quick())
    sim.release(42)
    sim.begin(
        {"first": {"count": 6}, "rest": "all"},
        policy="accelerated",
        own={"deltas": {"otherwise": "hold"}},
        start_at="2026-03-02T09:30:00+00:00",
    )
    sim.run(days=3, until=sim.is_("completed"))
    sim.run(hours=2).check()
    assert len(sim.running(42)) == 38
    events = {entry.event for entry in sim.journal()}
    assert events >= {"started", "prepared", "opened", "slice_opened", "bake_started", "passed", "completed"}
    hold_enough_deaths(sim, "tick: open_slice", "tick: save_rollout", "tick: set_needs", "tick: finish_effect")
    hold_enough_deaths(
        sim, "tick: after the commit", "report: log_events", "check-in: add_update", "tick: queue_builds"
    )


def test_a_bad_rollout_with_a_death_at_every_point() -> None:
    """Some fail, some brick, some take no notice: silence is counted, offers are withdrawn, the rollout is halted; a
    person accepts, and it is halted again."""
    sim = Mortal(check_daily=False)
    sim.enroll(60, habits=quick())
    fates = [Fate.WELL, Fate.IGNORES, Fate.BRICKS, Fate.FAILS]
    sim.release(42, lambda device, attempt: fates[int(device.id[1:]) % 4])
    own = {
        "tolerate": {"silent": {"at_most": "5%", "then": "halt"}, "ignored": {"at_most": "50%", "then": "count"}},
        "budget": {"failed": 10, "silent": 10, "rolled_back": 10},
    }
    sim.begin({"all": "all"}, policy="accelerated", own=own)
    sim.run(days=1, until=sim.is_("halted"))
    sim.run(hours=12)
    with sim.store.reading() as r:
        row = r.rollout("r42")
        assert row is not None
        facts = r.facts(row, now=sim.now)
    accept = [m.monitor for m in facts.monitors if m.crossed_at and not m.accepted]
    accept += [f"budget/{budget.name}" for budget in facts.budgets if budget.reached]
    sim.rollouts.resume("r42", by=BY, accept=accept, reason="to see it again")
    sim.run(days=2)
    sim.check()
    hold_enough_deaths(sim, "tick: withdraw", "tick: due", "tick: add_bad", "report: add_bad")


def hold_enough_deaths(sim: Mortal, *points: str) -> None:
    missing = [point for point in points if not sim.deaths[point]]
    assert not missing, f"nobody died at {missing}; deaths were {dict(sim.deaths)}"


def test_the_halt_stands_or_the_report_is_not_acknowledged() -> None:
    """The report that proves it counts and halts in one transaction: die anywhere in it, and either both have
    happened or neither has."""

    class Halting(Mortal):
        halts = 0

        def _hold_same(self, store: Any, where: str, aside: frozenset[str]) -> None:
            super()._hold_same(store, where, aside)
            with store.reading() as r:
                row = r.rollout("r42")
                facts = r.facts(row, now=self.now)
                crossed = any(monitor.crossed_at for monitor in facts.monitors)
            assert crossed == (row.state.status is RolloutStatus.HALTED), where
            self.halts += crossed

    sim = Halting(check_daily=False)
    sim.enroll(220, habits=quick())
    sim.release(42, Fate.FAILS)
    sim.begin({"all": "all"}, policy="accelerated", own={"budget": {"failed": 100}})
    sim.run(hours=6, until=sim.is_("halted"))
    assert sim.halts > 5


@pytest.mark.parametrize(
    "order", ["start", "pause", "resume", "promote", "halt", "cancel", "complete", "freeze", "skip"]
)
def test_an_order_is_given_whole_or_not_at_all(order: str) -> None:
    """Die at any point of a person's order: it stands with its journal entry, or nothing of it does."""
    sim = Simulation(check_daily=False)
    sim.enroll(40, habits=quick())
    sim.release(42)
    waves = {"first": {"count": 10}, "rest": "all"}
    if order == "start":
        sim.apply(waves, policy="accelerated")
    else:
        sim.begin(waves, policy="accelerated").title()
        sim.run(hours=2)
    if order == "resume":
        sim.rollouts.pause("r42", by=BY)
    sim.flush()
    remember(sim.store)
    before = contents_of(sim.store)
    keys = {"wave": "rest"} if order in ("promote", "skip") else {}
    words = () if order == "freeze" else ("r42",)
    stood = fell = 0
    for point in range(1_000):
        fuse = Fuse(point)
        store = revive()
        crashing = Simulation(start=sim.now, brought=CrashingStore(store, fuse), check_daily=False)
        try:
            getattr(crashing.rollouts, order)(*words, by=BY, reason="because", **keys)
        except Crash:
            if fuse.passed[-1] == "after the commit":
                stood += 1
                assert contents_of(store) != before
                with store.reading() as r:
                    row = r.rollout("r42")
                    assert row is not None and r.journal(row.key)[-1].hash == row.journal_hash and not r.check()
            else:
                fell += 1
                assert contents_of(store) == before, f"{order} left something at {fuse.passed[-1]}"
        else:
            break
    assert stood == 1 and fell >= 2


def test_a_builder_that_dies_at_any_point() -> None:
    """Its job is taken up when the lease is over; in the end there is one delta, recorded once."""
    sim = Simulation(check_daily=False)
    sim.enroll(1)
    sim.release(42)
    pair = DeltaPair(commit_of("rpi4", 41), commit_of("rpi4", 42))
    with sim.store.writing() as w:
        w.queue_builds({pair: 1.0}, now=sim.now)
    remember(sim.store)
    idle = SimpleNamespace(is_set=lambda: False, wait=lambda timeout=None: False)
    for point in range(100):
        fuse = Fuse(point)
        store = revive()
        died = False
        try:
            Builder(CrashingStore(store, fuse), sim.content, sim.clock, owner="one").work_once(idle)
        except Crash:
            died = True
        later = sim.now + 2 * Pace().lease
        Builder(store, sim.content, lambda: later, owner="two").work_once(idle)  # noqa: B023
        with store.reading() as r:
            (job,) = r.jobs()
            assert job.status is JobStatus.DONE and job.attempts <= 2 and len(r.deltas()) == 1, fuse.passed
        if not died:
            break
    assert point >= 4
