"""Stories that end well, each in the time that its policy promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.states import RolloutStatus, WaveStatus
from tests.stories.content import commit_of
from tests.stories.devices import Fate, Habits, by_chance
from tests.stories.fleets import WAVES, company
from tests.stories.simulator import MONDAY, Simulation


def test_a_good_release_reaches_everybody_by_itself() -> None:
    """Monday 9:00 the rollout starts; nobody touches it again. One wave a day or so, in office hours: by Thursday night
    of the next week every device runs 42."""
    sim = company()
    sim.release(42, by_chance(fails=0.004, rolls_back=0.002))
    sim.begin(WAVES)
    sim.run(days=10.5, until=sim.is_("completed"))
    opened = {entry.wave: entry.at for entry in sim.journal(event="opened")}
    assert list(opened) == ["lab", "canary", "emea", "rest"]
    assert all(at.weekday() <= 3 and 8 <= at.hour < 15 for at in opened.values())
    sim.run(days=1).check()
    bad = [device for device in sim.fleet.values() if device.version == 41]
    assert len(sim.running(42)) == 300 - len(bad) and len(bad) <= 5
    assert sim.view().summary.confirmed == 300 - len(bad)


def test_the_same_seed_tells_the_same_story() -> None:
    """Twice the same seed: the same journals to the hash, and the same offers to the minute."""
    told = []
    for _ in range(2):
        sim = Simulation(seed=7)
        sim.enroll(60, habits=Habits(twice=True, every=timedelta(hours=1)))
        sim.release(42, by_chance(fails=0.02))
        sim.begin({"all": "all"}, policy="accelerated")
        sim.run(days=2)
        told.append(([entry.hash for entry in sim.journal()], sim.offers))
    assert told[0] == told[1]


def test_waves_side_by_side() -> None:
    """emea and amer come after canary and open in the same minute; the rest waits for both."""
    sim = company()
    sim.release(42)
    sim.begin(
        {
            "canary": {"count": 20},
            "emea": {"labels": {"region": "emea"}},
            "amer": {"devices": {"labels": {"region": "amer"}, "share": "50%"}, "after": ["canary"]},
            "rest": {"devices": "all", "after": ["emea", "amer"]},
        },
        policy="accelerated",
    )
    sim.run(days=4, until=sim.is_("completed")).check()
    opened = {entry.wave: entry.at for entry in sim.journal(event="opened")}
    assert opened["emea"] == opened["amer"] < opened["rest"]


def test_two_rollouts_on_two_tags_at_once() -> None:
    """Factory devices get 43 while the promoted get 42; neither hears of the other's."""
    sim = Simulation()
    sim.enroll(60)
    sim.enroll(60, prefix="f", tag="factory")
    sim.release(42)
    sim.release(43)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.begin({"all": "all"}, policy="accelerated", name="r43", target=43, tag="factory")
    sim.run(days=3)
    sim.check()
    assert {device.id[0] for device in sim.running(42)} == {"d"} and len(sim.running(42)) == 60
    assert {device.id[0] for device in sim.running(43)} == {"f"} and len(sim.running(43)) == 60


def test_a_start_time_a_weekend_and_the_change_of_clocks() -> None:
    """Friday 27 March 2026: applied, to start on Saturday. Monday is the 30th; on Sunday the clocks of Berlin went
    forward, so that 9:00 is 7:00 UTC and no longer 8:00."""
    friday = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
    sim = Simulation(start=friday)
    sim.enroll(40)
    sim.release(42)
    sim.begin({"all": "all"}, start_at="2026-03-28T10:00:00+01:00")
    assert sim.status() is RolloutStatus.SCHEDULED
    sim.run(hours=20)
    assert sim.status() is RolloutStatus.SCHEDULED and not sim.offers
    sim.run(hours=2)
    assert sim.status() is RolloutStatus.RUNNING and "window" in sim.waiting("all")
    sim.run(days=4, until=sim.is_("completed")).check()
    (opened,) = sim.journal(event="opened")
    assert datetime(2026, 3, 30, 7, 0, tzinfo=UTC) <= opened.at < datetime(2026, 3, 30, 7, 5, tzinfo=UTC)


@pytest.mark.parametrize("devices", [50, 5, 1])
def test_a_small_fleet(devices: int) -> None:
    """A handful of devices, all well: it completes all the same, within the working week."""
    sim = Simulation()
    sim.enroll(devices)
    sim.release(42)
    sim.begin({"first": {"count": 2}, "rest": "all"} if devices > 2 else {"all": "all"})
    sim.run(days=7, until=sim.is_("completed")).check()
    assert len(sim.running(42)) == devices


def test_a_target_with_the_same_commit_needs_no_delta() -> None:
    """42 is 41 with another name: nothing is built, and everybody is there already."""
    sim = Simulation()
    sim.enroll(40)
    sim.targets.add(version=42, commit=commit_of("rpi4", 41), hardware_ids=["rpi4"])
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(hours=6, until=sim.is_("completed")).check()
    assert not sim.content.built and not sim.offers
    assert "already" in sim.journal(event="passed")[0].sentence


def test_the_way_back() -> None:
    """42 was a mistake. A rollout of 41 with ``allow_older`` takes back those that run 42, and only those."""
    sim = Simulation()
    sim.enroll(30, version=42)
    sim.enroll(30, version=40)
    sim.release(41)
    sim.begin({"all": "all"}, policy="accelerated", name="back", target=41, allow_older=True, running=[42])
    sim.run(days=2, until=sim.is_("completed", "back")).check()
    assert len(sim.running(41)) == 30 and len(sim.running(40)) == 30 and not sim.running(42)


def test_newcomers_after_the_completion() -> None:
    """Day 0 … 2 the rollout completes. Day 3: forty new devices leave the factory with 41; within a day they run 42."""
    sim = Simulation()
    sim.enroll(40)
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=2, until=sim.is_("completed"))
    sim.to_day(3)
    sim.enroll(40, prefix="new", known=False)
    sim.run(days=1.5).check()
    assert len(sim.running(42)) == 80


def test_odd_devices_are_counted_like_all_others() -> None:
    """Every device sends each report twice and in any order, and its clock is three years off; the failed ask ten
    times as often. The figures are those of a fleet that behaves."""
    plain, odd = Habits(), Habits(twice=True, sick=True, clock=timedelta(days=-1000))
    ends = []
    for habits in (plain, odd):
        sim = Simulation()
        sim.enroll(220, habits=habits)
        sim.release(42, by_chance(fails=0.01, rolls_back=0.005, shaky_network=0.1))
        sim.begin({"first": {"share": "25%"}, "rest": "all"}, policy="accelerated")
        sim.run(days=4, until=sim.is_("completed"))
        sim.run(days=1).check()
        ends.append((sim.view().summary.confirmed, sim.view().summary.bad))
    assert ends[0] == ends[1]


def test_a_version_that_is_told_by_its_commit_alone() -> None:
    """These devices name no version. What they run is known by its commit, and 42 is never offered to them twice."""
    sim = Simulation()
    sim.release(41, hardware_ids=("rpi4",))
    sim.enroll(40, habits=Habits(says_version=False))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=2, until=sim.is_("completed"))
    sim.run(days=2).check()
    assert len(sim.running(42)) == 40 and sim.wave("all").confirmed == 40


def test_nobody_waits_for_a_wave_whose_devices_run_it_already() -> None:
    """The lab was flashed by hand on Sunday. Its wave passes as ``already_there``, and the next one opens the same
    day."""
    sim = Simulation()
    sim.enroll(10, group="lab", version=42)
    sim.enroll(30)
    sim.release(42)
    sim.begin({"lab": {"group": "lab"}, "rest": "all"})
    sim.run(hours=6, until=sim.wave_is("rest", "open"))
    assert sim.wave_status("lab") is WaveStatus.PASSED
    sim.run(days=4, until=sim.is_("completed")).check()
    assert sim.start == MONDAY and not any(name in sim.offered() for name in list(sim.fleet)[:10])


def test_a_slow_roll_takes_three_weeks() -> None:
    """Under ``slow-roll`` a wave is watched for two days and more, offers are given at night, and a wave opens from
    Monday to Wednesday: three waves take more than two weeks."""
    sim = Simulation()
    sim.enroll(60)
    sim.release(42, Fate.WELL)
    sim.begin({"a": {"count": 10}, "b": {"share": "30%"}, "c": "all"}, policy="slow-roll")
    sim.run(days=28, until=sim.is_("completed")).check()
    assert 14 < sim.day < 25
    assert all(offer.at.hour in (21, 22, 23, 0, 1, 2, 3) for offer in sim.offers)
