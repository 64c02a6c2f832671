"""Stories of what people order: the program obeys at any time, and forgets nothing over it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.errors import Overlap, Refused, WaveError, WrongState
from tests.stories.devices import Fate, Habits, at_first, by_chance
from tests.stories.fleets import WAVES, company
from tests.stories.simulator import BY, Simulation


def hundred(seed: int = 1, **habits) -> Simulation:
    """A hundred devices that ask every two hours."""
    sim = Simulation(seed=seed)
    sim.enroll(100, habits=Habits(every=timedelta(hours=2), **habits))
    return sim


TWO = {"first": {"count": 30}, "rest": "all"}


def test_a_person_opens_every_wave() -> None:
    """Under ``manual`` the first wave opens by the start itself, each later one after ``promote``: days of waiting
    open nothing."""
    sim = company()
    sim.release(42)
    sim.begin(WAVES, policy="manual")
    sim.run(days=2, until=sim.wave_is("lab", "passed"))
    sim.run(days=3)
    assert sim.waiting("canary") == ["awaiting_promotion"] and len(sim.offers) == 24
    sim.rollouts.promote("r42", "canary", by=BY)
    sim.rollouts.promote("r42", "emea", by=BY)
    sim.run(days=4, until=sim.wave_is("emea", "passed"))
    sim.run(days=2).check()
    assert sim.waiting("rest") == ["awaiting_promotion"]


def test_a_freeze_stops_everything_and_loses_nothing() -> None:
    """Hour 3: everything is frozen, in the middle of a slice; started devices go on reporting. Hour 30: unfrozen, and
    it ends as if nothing had been."""
    sim = hundred()
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=2)
    sim.rollouts.freeze(by=BY, reason="the summit")
    frozen = len(sim.offers)
    sim.run(hours=27).check()
    assert 0 < frozen == len(sim.offers) < 100 and "frozen" in sim.waiting("first")
    sim.rollouts.unfreeze(by=BY)
    sim.run(days=4, until=lambda: sim.status() is RolloutStatus.COMPLETED or sim.held("first")())
    if sim.held("first")():
        sim.rollouts.resume("r42", by=BY, wave="first")
        sim.run(days=4, until=sim.is_("completed"))
    sim.check()
    assert len(sim.running(42)) == 100


def test_a_pause_in_the_middle_of_a_wave() -> None:
    """Paused an hour after the first slice, for a week; what had started comes to its end, nothing else begins.
    Resumed, the wave goes on where it was."""
    sim = hundred()
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=1.5)
    sim.rollouts.pause("r42", by=BY)
    before = len(sim.offers)
    sim.run(days=7).check()
    assert len(sim.offers) == before and len(sim.running(42)) == before > 0
    sim.rollouts.resume("r42", by=BY)
    resumed = sim.now
    sim.run(days=5, until=lambda: sim.status() is RolloutStatus.COMPLETED or sim.held("first")())
    assert sim.status() is RolloutStatus.COMPLETED, f"resumed {resumed}: {sim.told()}"
    sim.check()


def test_cancel_withdraws_what_has_not_started_and_counts_what_has() -> None:
    """Cancelled in the first slice: nobody is offered it any more; who had started reports, and is counted."""
    sim = hundred(install=timedelta(hours=3))
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=2)
    sim.rollouts.cancel("r42", by=BY, reason="a typo in the notes")
    started = sum(device.busy for device in sim.fleet.values())
    before = len(sim.offers)
    sim.run(days=2).check()
    assert started > 0 and len(sim.offers) == before
    assert len(sim.running(42)) == sim.view().summary.confirmed == before
    with pytest.raises(WaveError):
        sim.rollouts.resume("r42", by=BY)


def test_cancel_and_skip_one_wave() -> None:
    """The first wave is cancelled while it is open. The rest waits, whatever the time, until a person skips it. In
    the end the devices of the cancelled wave have come as far as they had."""
    sim = hundred()
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=2)
    sim.rollouts.cancel("r42", by=BY, wave="first")
    before = set(sim.offered())
    sim.run(days=5)
    assert sim.wave_status("rest") is not WaveStatus.OPEN and set(sim.offered()) == before
    assert "cancelled_before" in sim.waiting("rest")
    sim.rollouts.skip("r42", "first", by=BY)
    sim.run(days=3, until=sim.is_("completed"))
    sim.check()


def test_complete_a_wave_by_a_persons_word() -> None:
    """Half of the first wave has no power. A person says that it is enough: the next wave opens in the same hour."""
    sim = hundred()
    for device in list(sim.fleet.values())[::2]:
        device.away = [(sim.now, sim.now + timedelta(days=20))]
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=5)
    sim.rollouts.complete("r42", by=BY, wave="first")
    sim.run(hours=3, until=sim.wave_is("rest", "open"))
    assert sim.wave_status("first") is WaveStatus.PASSED
    sim.run(days=1).check()


@pytest.mark.parametrize("at_once", [False, True])
def test_complete_early(at_once: bool) -> None:
    """Hour 3 of a rollout of weeks: a hole is being exploited, and a person completes it. Everybody is offered it at
    once; without ``--now`` each device waits for its delta, which takes a day to build, with it nobody does."""
    sim = hundred()
    sim.content.seconds = 86_400
    sim.release(42)
    sim.begin(TWO, own={"deltas": {"within": "7d"}})
    sim.run(hours=3)
    assert not sim.offers
    sim.rollouts.complete("r42", by=BY, at_once=at_once)
    sim.run(hours=4).check()
    assert len(sim.offers) == (100 if at_once else 0)
    sim.run(days=3).check()
    assert len(sim.running(42)) == 100


def test_an_accepted_resume_is_a_new_attempt() -> None:
    """Halted by failures. A person accepts them with a reason: the monitors begin anew and the wave goes on. As the
    release is no better, it is halted again, by new evidence."""
    sim = company(habits=Habits(every=timedelta(hours=2)))
    sim.release(42, by_chance(fails=0.6))
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=2, until=sim.is_("halted"))
    first = sum(device.failed for device in sim.fleet.values())
    with pytest.raises(Refused, match="rollout/failed"):
        sim.rollouts.resume("r42", by=BY)
    sim.run(hours=12).check()
    accepted = [key for key in ("rollout/failed", "budget/failed") if key in refusal(sim)]
    sim.rollouts.resume("r42", by=BY, accept=accepted, reason="known bad cards")
    sim.run(minutes=10)
    assert sim.view().attempt == 2 and sim.status() is RolloutStatus.RUNNING
    sim.run(days=2, until=sim.is_("halted"))
    sim.run(days=1).check()
    assert sum(device.failed for device in sim.fleet.values()) > first
    assert [entry.event for entry in sim.journal() if entry.event in ("halted", "resumed")] == [
        "halted",
        "resumed",
        "halted",
    ]


def refusal(sim: Simulation) -> str:
    """What must be accepted, in the words of the refusal."""
    try:
        sim.rollouts.resume("r42", by=BY, dry_run=True)
    except Refused as error:
        return str(error)
    return ""


def test_failed_devices_try_again() -> None:
    """Three devices fail at the first try and would succeed at the second. Nobody is offered it twice by itself; after
    ``retry`` they run 42, and what was counted stays counted."""
    sim = hundred()
    names = list(sim.fleet)[:3]
    sim.release(42, lambda device, attempt: at_first(Fate.FAILS)(device, attempt) if device.id in names else Fate.WELL)
    sim.begin({"all": "all"}, policy="accelerated", own={"tolerate": {"failed": "10%"}})
    sim.run(days=2, until=sim.is_("completed"))
    sim.run(days=2)
    assert len(sim.running(42)) == 97 and sim.wave("all").bad(OutcomeClass.FAILED) == 3
    sim.rollouts.retry("r42", by=BY)
    sim.run(days=1).check()
    assert len(sim.running(42)) == 100 and sim.wave("all").bad(OutcomeClass.FAILED) == 3
    with pytest.raises(Refused):
        sim.rollouts.retry("r42", ["d0050"], by=BY)


def test_trying_again_takes_back_what_had_been_applied() -> None:
    """Four devices ran it for a day and fell back. The retry begins them anew: the tally of those that have it written
    takes them back, until they have it again."""
    sim = hundred()
    names = list(sim.fleet)[:4]
    later = at_first(Fate.ROLLS_BACK_LATER)
    sim.release(42, lambda device, attempt: later(device, attempt) if device.id in names else Fate.WELL)
    sim.begin({"all": "all"}, policy="accelerated", own={"tolerate": {"rolled_back": "10%"}})
    sim.run(days=3).check()
    before = sum(piece.applied for piece in sim.wave("all").slices)
    sim.rollouts.retry("r42", [*names, names[0]], by=BY)
    assert sum(piece.applied for piece in sim.wave("all").slices) == before - 4
    sim.check()
    sim.run(days=1).check()
    assert len(sim.running(42)) == 100 and sum(piece.applied for piece in sim.wave("all").slices) == before


def test_a_newer_rollout_supersedes() -> None:
    """42 is half-way when 43 comes. Two live rollouts for one fleet are refused; with ``supersedes`` 42 is cancelled
    and all devices come to 43, those in the middle of 42 after they are through with it."""
    sim = hundred(install=timedelta(hours=2))
    sim.release(42)
    sim.release(43)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=6)
    sim.apply({"all": "all"}, name="r43x", target=43, policy="accelerated")
    with pytest.raises(Overlap, match="r42"):
        sim.rollouts.start("r43x", by=BY)
    sim.begin({"all": "all"}, name="r43", target=43, policy="accelerated", supersedes="r42")
    assert sim.status() is RolloutStatus.CANCELLED
    sim.run(days=3, until=sim.is_("completed", "r43"))
    sim.run(days=1).check()
    assert len(sim.running(43)) == 100


def test_a_halt_by_hand() -> None:
    """A person has seen something that no device reports. Halted at hour 2; resumed the next day without anything to
    accept."""
    sim = hundred()
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(hours=2)
    sim.rollouts.halt("r42", by=BY, reason="smoke")
    before = len(sim.offers)
    sim.run(days=1).check()
    assert len(sim.offers) == before and sim.wave_status("first") is WaveStatus.FAILED
    sim.rollouts.resume("r42", by=BY, reason="it was the toaster")
    sim.run(days=3, until=sim.is_("completed"))
    sim.check()
    assert len(sim.running(42)) == 100


def test_a_hold_over_the_weekend_is_resumed_once() -> None:
    """The wave's bake could not end on Friday: half of its devices were dark. On Monday they are back, and a person
    resumes it: once is enough, whatever time has passed."""
    sim = hundred()
    dark = list(sim.fleet.values())[::2]
    for device in dark:
        device.away = [(sim.now + timedelta(minutes=1), sim.now + timedelta(days=5))]
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=2.5, until=lambda: sim.held("all")() or sim.status() is RolloutStatus.HELD)
    sim.to_day(5.5)
    if sim.status() is RolloutStatus.HELD:
        sim.rollouts.resume(
            "r42", by=BY, accept=[k for k in ("rollout/silent", "budget/silent") if k in refusal(sim)], reason="dark"
        )
    else:
        sim.rollouts.resume("r42", by=BY, wave="all")
    sim.run(days=3, until=sim.is_("completed"))
    sim.run(days=1).check()
    assert len(sim.running(42)) == 100


def test_orders_that_are_refused_change_nothing() -> None:
    """A dozen orders that the state forbids: each is refused, and the journal does not grow."""
    sim = hundred()
    sim.release(42)
    sim.begin(TWO, policy="accelerated")
    sim.run(days=3, until=sim.is_("completed"))
    before = len(sim.journal())
    for order in (
        lambda: sim.rollouts.start("r42", by=BY),
        lambda: sim.rollouts.pause("r42", by=BY),
        lambda: sim.rollouts.resume("r42", by=BY),
        lambda: sim.rollouts.promote("r42", "rest", by=BY),
        lambda: sim.rollouts.skip("r42", "rest", by=BY),
        lambda: sim.rollouts.complete("r42", by=BY),
        lambda: sim.rollouts.complete("r42", by=BY, wave="first"),
        lambda: sim.rollouts.cancel("r42", by=BY, wave="first"),
        lambda: sim.rollouts.unfreeze(by=BY),
    ):
        with pytest.raises((WrongState, Refused)):
            order()
    assert len(sim.journal()) == before
    sim.check()
