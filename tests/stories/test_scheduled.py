"""Stories of rollouts that start by the clock."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.states import RolloutStatus
from tests.stories.devices import Habits
from tests.stories.simulator import BY, Simulation

ALL = {"all": "all"}


def two_releases() -> Simulation:
    sim = Simulation()
    sim.enroll(40, habits=Habits(every=timedelta(hours=2)))
    sim.release(42)
    sim.release(43)
    return sim


def test_what_a_scheduled_rollout_supersedes_runs_until_it_starts() -> None:
    """42 runs. 43, which supersedes it, is started on day 0 for day 2: 42 goes on for two days and reaches everybody;
    it is cancelled in the moment in which 43 starts, in the name of who ordered that."""
    sim = two_releases()
    sim.begin({"first": {"count": 10}, "rest": "all"}, policy="manual")
    start_at = sim.now + timedelta(days=2)
    sim.begin(ALL, name="r43", target=43, policy="accelerated", supersedes="r42", start_at=start_at.isoformat())
    assert sim.status() is RolloutStatus.RUNNING and sim.status("r43") is RolloutStatus.SCHEDULED
    sim.run(days=1.9).check()
    assert sim.status() is RolloutStatus.RUNNING and len(sim.running(42)) == 10
    sim.run(hours=6).check()
    assert sim.status() is RolloutStatus.CANCELLED and sim.status("r43") is RolloutStatus.RUNNING
    (cancelled,) = sim.journal(event="cancelled")
    (started,) = sim.journal("r43", "started")
    assert (cancelled.at, cancelled.by) == (started.at, BY)
    sim.run(days=3, until=sim.is_("completed", "r43"))
    sim.run(days=1).check()
    assert len(sim.running(43)) == 40


def test_a_start_that_has_become_an_overlap_is_put_off() -> None:
    """42 is completed and claims nobody, so 43 may be scheduled. Before its time comes 42 is halted: now both could
    have every device. 43 stays scheduled, says so once, and starts when a person has cancelled 42."""
    sim = two_releases()
    sim.begin(ALL, policy="accelerated")
    sim.run(days=3, until=sim.is_("completed"))
    start_at = sim.now + timedelta(hours=12)
    sim.begin(ALL, name="r43", target=43, policy="accelerated", start_at=start_at.isoformat())
    sim.rollouts.halt("r42", by=BY)
    sim.run(hours=11.9).check()
    sim.run(hours=4)
    assert sim.status("r43") is RolloutStatus.SCHEDULED
    assert "r42 is halted" in sim.view("r43").summary.standing.reason.sentence
    assert len(sim.journal("r43", "put_off")) == 1 and {name for name, _ in sim.problems} == {"r43"}
    sim.problems.clear()
    sim.rollouts.cancel("r42", by=BY)
    sim.run(days=3, until=sim.is_("completed", "r43"))
    sim.run(days=1).check()
    assert len(sim.running(43)) == 40
