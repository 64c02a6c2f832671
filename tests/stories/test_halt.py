"""A halt halts (P6, promises 2 and 3): at the very report that proves it, and long before many are at risk."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator.adapters.files.library import Library
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from tests.stories.devices import Fate, Habits, SimDevice, SimEvent, SimOffer, everywhere
from tests.stories.simulator import Simulation

SHIPPED = {
    "accelerated": Habits(every=timedelta(hours=1)),
    "demo": Habits(
        every=timedelta(seconds=3),
        download=timedelta(seconds=1),
        install=timedelta(seconds=1),
        reboot=timedelta(seconds=1),
    ),
    "emergency": Habits(every=timedelta(minutes=30)),
    "manual": Habits(every=timedelta(hours=2)),
    "slow-roll": Habits(every=timedelta(hours=3)),
    "standard": Habits(every=timedelta(hours=3)),
}
"""Every shipped policy, with devices that it is made for."""

SEEDS = range(6)


def failing(policy: str, fate: Fate, seed: int, waves: dict) -> Simulation:
    """200 devices, all of which come to this fate, until the halt."""
    sim = Simulation(seed=seed, check_daily=False)
    sim.content.seconds = 1.0
    sim.enroll(200, prefix=f"s{seed}-", habits=SHIPPED[policy])
    sim.release(42, everywhere(fate))
    sim.begin(waves, policy=policy)
    return sim.run(days=9, until=sim.is_("halted"))


@pytest.mark.parametrize("policy", SHIPPED)
@pytest.mark.parametrize("fate", [Fate.FAILS, Fate.ROLLS_BACK])
def test_what_fails_everywhere_is_halted_by_its_fifth_failed_device(policy: str, fate: Fate) -> None:
    """Whatever the seed, the order in which devices come, and whether the first wave is all there is or a third of
    it."""
    worst = 0
    for seed in SEEDS:
        waves = {"all": "all"} if seed % 2 else {"first": {"share": "30%"}, "rest": "all"}
        sim = failing(policy, fate, seed, waves)
        (halt,) = sim.journal(event="halted")
        worst = max(
            worst, sum(piece["bad"].get(_class(fate), 0) for wave in halt.facts["waves"] for piece in wave["slices"])
        )
        assert len([wave for wave in halt.facts["waves"] if wave["slices"]]) == 1, "it came to a second wave"
        assert len(sim.offers) <= 20
        sim.check()
    assert worst <= 5


def _class(fate: Fate) -> str:
    return "failed" if fate is Fate.FAILS else "rolled_back"


def test_every_policy_that_is_shipped_is_tried() -> None:
    assert set(SHIPPED) == set(Library().policies())


def test_the_report_that_proves_it_halts_within_its_own_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tick comes between: the journal's entry bears the moment of the report's receipt, and the device that asks
    in the same instant is told *none*."""
    sim = Simulation()
    sim.enroll(220, habits=Habits(every=timedelta(hours=1)))
    sim.release(42, Fate.FAILS)
    sim.begin({"all": "all"}, policy="accelerated")
    halted_at: list[datetime] = []
    asked: list[SimOffer | None] = []
    report = sim.report

    def watched(device: SimDevice, events: list[SimEvent]) -> None:
        report(device, events)
        if not halted_at and sim.is_("halted")():
            halted_at.append(sim.now)
            others = [other for other in sim.fleet.values() if other is not device and not other.busy]
            asked.extend(sim.check_in(other) for other in others)

    monkeypatch.setattr(sim, "report", watched)
    sim.run(hours=12)
    (entry,) = sim.journal(event="halted")
    assert [entry.at] == halted_at and asked and not any(asked)
    sim.check()


def test_a_halt_takes_back_what_has_not_started() -> None:
    """Ten devices are offered it and do not start; five others fail. The halt withdraws the ten at the next tick, and
    whoever reports all the same is counted."""
    sim = Simulation()
    sim.enroll(220, habits=Habits(every=timedelta(hours=1)))
    order: list[str] = []

    def fate(device, attempt) -> Fate:
        if device.id not in order:
            order.append(device.id)
        return Fate.IGNORES if device.id in order[:10] else Fate.FAILS

    sim.release(42, fate)
    sim.begin({"all": "all"}, policy="accelerated", own={"tolerate": {"ignored": {"at_most": "50%", "then": "count"}}})
    sim.run(hours=12, until=sim.is_("halted"))
    sim.run(minutes=10).check()
    statuses = {name: row.update.status for name, row in sim.queries.updates("r42", limit=1000)}
    left = [statuses[name] for name in order[:10]]
    assert set(left) <= {UpdateStatus.WITHDRAWN, UpdateStatus.IGNORED} and UpdateStatus.WITHDRAWN in left


def test_no_more_at_once_than_the_pace_allows() -> None:
    """Seven devices may be at it at once, in a fleet where each takes hours. ``hold_offer`` looks at every offer; here
    it is made sure that there was something to see."""
    sim = Simulation()
    sim.enroll(80, habits=Habits(every=timedelta(hours=1), install=timedelta(hours=3)))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated", own={"pace": {"in_flight": 7}, "slice_at_most": "7d"})
    most = 0
    while sim.status() is not RolloutStatus.COMPLETED and sim.day < 8:
        sim.run(hours=2)
        most = max(most, sum(device.busy for device in sim.fleet.values()))
    sim.check()
    assert 5 <= most <= 7


def test_a_budget_of_ones_own_comes_first() -> None:
    """The operator allows three failures in all. At the third it halts, however well the evidence looks."""
    sim = Simulation()
    sim.enroll(300, habits=Habits(every=timedelta(hours=1)))
    bad = iter([True] * 3)
    seen: dict[str, bool] = {}

    def fate(device, attempt) -> Fate:
        late = len(seen) > 60 and len(seen) % 40 == 0
        seen.setdefault(device.id, late and next(bad, False))
        return Fate.FAILS if seen[device.id] else Fate.WELL

    sim.release(42, fate)
    sim.begin({"all": "all"}, policy="accelerated", own={"budget": {"failed": 3}})
    sim.run(days=3, until=sim.is_("halted")).check()
    assert sim.view().summary.standing.reason.kind == "budget"
    assert sum(device.failed for device in sim.fleet.values()) == 3
