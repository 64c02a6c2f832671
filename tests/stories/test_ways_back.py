"""Stories of ways back: from a hold for a delta that was given up, and from the halt of what was completed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.errors import WrongState
from orchestrator.services.records import JobStatus
from tests.stories.content import commit_of
from tests.stories.devices import Habits
from tests.stories.simulator import BY, Simulation

TWO = {"first": {"count": 20}, "rest": "all"}


def sixty() -> Simulation:
    sim = Simulation()
    sim.enroll(60, habits=Habits(every=timedelta(hours=2)))
    sim.release(42)
    return sim


def test_a_build_that_was_given_up_is_tried_again_by_a_resume() -> None:
    """The builder has no memory left, time after time: the delta is given up, and the wave holds and says that a build
    failed. A person gives it more memory and resumes the wave: that has it built, and the wave opens."""
    sim = sixty()
    sim.content.failures[commit_of("rpi4", 41)] = 100
    sim.begin({"all": "all"}, policy="accelerated", own={"deltas": {"within": "6h", "otherwise": "hold"}})
    sim.run(days=1, until=sim.held("all"))
    (why,) = [reason.sentence for wave in sim.view().waves for reason, _ in wave.waiting]
    assert "1 could not be built" in why
    sim.content.failures.clear()
    sim.run(days=1)
    assert not sim.content.built
    sim.rollouts.resume("r42", by=BY, wave="all")
    with sim.store.reading() as r:
        assert [job.status for job in r.jobs(limit=1)] == [JobStatus.QUEUED]
    sim.run(days=3, until=sim.is_("completed")).check()
    assert len(sim.running(42)) == 60


def test_what_was_completed_with_a_cancelled_wave_is_completed_again() -> None:
    """The first wave is cancelled and a person completes the rollout. Weeks later it is halted by hand, and resumed the
    next day: it is completed again, and goes on serving. As a running one it would wait for the cancelled wave for
    ever."""
    sim = sixty()
    sim.begin(TWO, policy="manual")
    sim.rollouts.cancel("r42", by=BY, wave="first")
    sim.rollouts.complete("r42", by=BY, at_once=True)
    sim.run(days=2).check()
    assert len(sim.running(42)) == 40
    sim.rollouts.halt("r42", by=BY)
    late = sim.enroll(5, prefix="late", known=False, habits=Habits(every=timedelta(hours=2)))
    sim.run(days=1).check()
    assert sim.rollouts.resume("r42", by=BY, reason="it was the toaster").status is RolloutStatus.COMPLETED
    assert sim.wave_status("first") is WaveStatus.CANCELLED and sim.view().attempt == 2
    sim.run(days=2).check()
    assert sim.status() is RolloutStatus.COMPLETED
    assert any(device.version == 42 for device in late)


@pytest.mark.parametrize("end", ["halt", "cancel"])
def test_a_wave_of_what_stands_still_is_not_promoted(end: str) -> None:
    """A promotion would be remembered, and open the wave days later when somebody resumes the rollout for another
    reason."""
    sim = sixty()
    sim.begin(TWO, policy="manual")
    sim.run(hours=2)
    getattr(sim.rollouts, end)("r42", by=BY)
    before = len(sim.journal())
    with pytest.raises(WrongState, match="stand still"):
        sim.rollouts.promote("r42", "rest", by=BY)
    assert len(sim.journal()) == before
