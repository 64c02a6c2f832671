"""Stories of bad releases: each is stopped by what it does, before it does it to many."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.errors import InvalidInput, Refused
from tests.stories.devices import Fate, Habits, by_chance, only
from tests.stories.fleets import WAVES, company
from tests.stories.simulator import Simulation


def failed(sim: Simulation) -> int:
    return sum(device.failed for device in sim.fleet.values())


@pytest.mark.parametrize("fate", [Fate.FAILS, Fate.ROLLS_BACK])
def test_bad_for_all_is_halted_in_the_lab(fate: Fate) -> None:
    """Monday: the first slice of 20 lab devices gets it. The halt comes with the fifth that fails at the latest;
    whoever was still fetching may finish, nobody else is ever offered it."""
    sim = company()
    sim.release(42, fate)
    sim.begin(WAVES)
    sim.run(days=3)
    sim.check()
    (halt,) = sim.journal(event="halted")
    assert sim.status() is RolloutStatus.HALTED and sim.wave_status("lab") is WaveStatus.FAILED
    at_the_halt = next(m for m in halt.facts["monitors"] if m["monitor"] == f"rollout/{_class(fate)}")
    assert at_the_halt["bad"] <= 5
    assert len(sim.offers) <= 20 and not sim.running(42)
    assert sim.wave_status("canary") is WaveStatus.PREPARING


def _class(fate: Fate) -> OutcomeClass:
    return OutcomeClass.FAILED if fate is Fate.FAILS else OutcomeClass.ROLLED_BACK


def test_bad_on_one_board_only() -> None:
    """The lab has no cm4, so it passes. The canary has, because it is spread over hardware ids; what it cannot prove,
    the rest does: the board is left out with a handful of the thirty cm4 gone bad, or all is halted, naming it."""
    sim = company()
    sim.release(42, only("cm4", Fate.FAILS))
    sim.begin(WAVES)
    sim.run(days=12, until=lambda: bool(sim.view().excluded) or sim.status() is RolloutStatus.HALTED)
    stop = (sim.journal(event="excluded") or sim.journal(event="halted"))[0]
    assert "hardware_id=cm4" in stop.sentence
    sim.run(days=1).check()
    broken = [device for device in sim.fleet.values() if device.failed]
    assert {device.hardware_id for device in broken} == {"cm4"} and len(broken) <= 15
    assert sim.journal(event="passed")[0].wave == "lab"


def test_bricks_that_say_nothing_hold_under_standard() -> None:
    """Many devices are never heard of again after installing. Silence is counted a day later, and silence above 5 %
    holds: a person looks at it. Half of the slice were confirmed in time, so the four that were left of the lab may
    have been given it in the last minutes of that day; nobody else was."""
    sim = company()
    sim.release(42, by_chance(bricks=0.5))
    sim.begin(WAVES)
    sim.run(days=4, until=sim.is_("held"))
    sim.run(days=2).check()
    assert sim.day < 3.5 and len(sim.offers) <= 24
    assert sum(device.dead for device in sim.fleet.values()) >= 5


def test_bricks_among_most_of_the_slice_open_no_other() -> None:
    """Nine of ten are never heard of again. Silence opens nothing: the first 20 stay the only ones, for a week."""
    sim = company()
    sim.release(42, by_chance(bricks=0.9))
    sim.begin(WAVES, own={"tolerate": {"silent": {"at_most": "5%", "then": "count"}}})
    sim.run(days=3, until=sim.held("lab"))
    sim.run(days=5).check()
    assert len(sim.offers) == 20


def test_bricks_that_say_nothing_halt_where_the_policy_says_so() -> None:
    """The same release, and a policy that halts upon silence above 1 %: halted a day after the first slice, no
    later."""
    sim = company()
    sim.release(42, Fate.BRICKS)
    sim.begin(WAVES, own={"tolerate": {"silent": {"at_most": "1%", "then": "halt"}}})
    sim.run(days=2, until=sim.is_("halted"))
    sim.run(days=2).check()
    assert len(sim.offers) <= 20


@pytest.mark.parametrize("fate", [Fate.ROLLS_BACK_LATER, Fate.ROLLS_BACK_UNSAID])
def test_a_late_regression_still_halts(fate: Fate) -> None:
    """The release runs for a day, says so, and then falls back: a leak that fills the disk. The lab may have passed by
    then; the rollout is halted all the same, before half of the fleet has it."""
    sim = company()
    sim.release(42, fate)
    sim.begin(WAVES)
    sim.run(days=4, until=sim.is_("halted"))
    assert len(sim.offers) < 150
    sim.run(days=2).check()
    assert not sim.running(42)


def test_a_late_regression_after_the_completion_halts_too() -> None:
    """Under ``accelerated`` everything is done within the day, and the devices fall back on the next: the completed
    rollout is halted, and newcomers are not offered it any more."""
    sim = Simulation()
    sim.enroll(220, habits=Habits(every=timedelta(hours=1)))
    sim.release(42, Fate.ROLLS_BACK_LATER)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=1, until=sim.is_("completed"))
    sim.run(days=2, until=sim.is_("halted"))
    sim.enroll(10, prefix="new", known=False)
    sim.run(days=1).check()
    assert len(sim.offers) == 220


def test_devices_that_die_after_they_confirmed() -> None:
    """They run 42, say so, and are dark from then on: after the day of patience each counts as silent after all, and
    is not confirmed any more."""
    sim = company()
    sim.release(42, by_chance(dies_later=0.4))
    sim.begin({"lab": {"group": "lab"}, "rest": {"devices": "all", "policy": {"promote": "manual"}}})
    sim.run(days=3).check()
    dead = sum(device.dead for device in sim.fleet.values())
    lab = sim.wave("lab")
    assert lab.bad(OutcomeClass.SILENT) == dead > 5 and lab.confirmed == lab.offered - dead
    assert sim.status() is RolloutStatus.HELD


def test_devices_that_ignore_it() -> None:
    """The client refuses 42 as a downgrade: it asks again and again and never starts. That holds; it is not called a
    failure."""
    sim = company()
    sim.release(42, Fate.IGNORES)
    sim.begin(WAVES)
    sim.run(days=3, until=sim.is_("held"))
    assert sim.wave("lab").bad(OutcomeClass.IGNORED) > 3
    sim.run(days=1).check()
    assert len(sim.offers) <= 20


def test_content_that_nobody_can_fetch() -> None:
    """The file server is gone. Downloads fail again and again: that holds, for it says nothing of the release."""
    sim = company()
    sim.release(42, Fate.NO_CONTENT)
    sim.begin(WAVES)
    sim.run(days=3, until=sim.is_("held"))
    sim.run(days=1).check()
    assert len(sim.offers) <= 20 and sim.wave("lab").bad(OutcomeClass.FAILED) == 0


def test_a_shaky_network_stops_nothing() -> None:
    """One download in ten fails at the first try and succeeds at the next check-in."""
    sim = company()
    sim.release(42, by_chance(shaky_network=0.1))
    sim.begin(WAVES, policy="accelerated")
    sim.run(days=5, until=sim.is_("completed"))
    sim.run(days=1).check()
    assert len(sim.running(42)) == 300


def test_the_first_bad_device_of_a_tiny_fleet() -> None:
    """Five devices, and the first wave of two has a failure: nobody can tell chance from cause, so it holds. A person
    looks, accepts it by its name and with a reason, and the rest goes on."""
    sim = Simulation()
    sim.enroll(5)
    sim.release(42, lambda device, attempt: Fate.FAILS if device.id == sim.offers[0].device else Fate.WELL)
    sim.begin({"first": {"count": 2}, "rest": "all"}, policy="accelerated")
    sim.run(days=1, until=sim.is_("held"))
    assert sim.view().summary.standing.reason.kind == "first_bad"
    with pytest.raises(Refused, match="small-wave/first_bad"):
        sim.rollouts.resume("r42", by="ann", reason="a broken card")
    with pytest.raises(InvalidInput, match="reason"):
        sim.rollouts.resume("r42", by="ann", accept=["small-wave/first_bad"])
    sim.rollouts.resume("r42", by="ann", accept=["small-wave/first_bad"], reason="a broken card")
    sim.run(days=1)
    sim.check()
    assert sim.status() is not RolloutStatus.HALTED and failed(sim) == 1


def test_a_release_at_half_of_the_tolerance_is_not_stopped() -> None:
    """One per cent fails where two are tolerated, over three fleets: at most one of them is stopped by mistake."""
    stopped = 0
    for seed in range(3):
        sim = Simulation(seed=seed, check_daily=False)
        sim.enroll(220, prefix=f"s{seed}-", habits=Habits(every=timedelta(hours=2)))
        sim.release(42, by_chance(fails=0.01))
        sim.begin({"first": {"count": 20}, "rest": "all"}, policy="accelerated")
        sim.run(days=1.5)
        sim.check()
        stopped += sim.status() is RolloutStatus.HALTED
    assert stopped <= 1
