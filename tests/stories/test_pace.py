"""How fast a rollout goes: what holds it back, what lets it go, and that it comes to its end all the same.

``hold_offer`` counts every pace again at every offer; the stories make sure that there was something to see.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from orchestrator.core.states import RolloutStatus
from tests.stories.devices import Behaviour, Fate, Habits, SimDevice, by_chance
from tests.stories.simulator import Simulation
from tests.stories.test_fleet import dark

HOURLY = Habits(every=timedelta(hours=1), install=timedelta(minutes=40))


def first_fail(many: int) -> Behaviour:
    """Of those who come first so many fail, as soon as they have begun; everybody else is well."""
    failing: set[str] = set()

    def fate(device: SimDevice, attempt: int) -> Fate:
        if len(failing) < many:
            failing.add(device.id)
        return Fate.FAILS if device.id in failing else Fate.WELL

    return fate


def test_two_of_a_site_at_a_time_and_all_get_there() -> None:
    """Ten sites of eight devices each and twenty devices that stand nowhere. Those at one place come two by two; at no
    site more than two are ever down, and in a day and a half everybody has it."""
    sim = Simulation()
    for site in range(10):
        sim.enroll(8, labels={"site": f"site-{site}"}, habits=HOURLY)
    sim.enroll(20, habits=HOURLY)
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated", own={"pace": {"per": {"label": "site", "at_most": 2}}})
    most: Counter[str] = Counter()
    while sim.status() is not RolloutStatus.COMPLETED and sim.day < 4:
        sim.run(minutes=20)
        busy = Counter(device.labels.get("site", "nowhere") for device in sim.fleet.values() if device.busy)
        most = most | busy
    sim.run(hours=8).check()
    assert len(sim.running(42)) == 100
    assert max(many for site, many in most.items() if site != "nowhere") == 2


def test_a_rate_by_day_and_night_over_restarts() -> None:
    """Two hundred devices at twenty an hour, while the server is started anew every two hours. It takes ten hours at
    least for the offers, and the rollout completes."""
    sim = Simulation()
    sim.enroll(200, habits=Habits(every=timedelta(minutes=20)))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated", own={"pace": {"rate": "20/h"}, "slices": {"first": 200}})
    for _ in range(20):
        sim.run(hours=2)
        sim.restart()
    sim.check()
    assert sim.status() is RolloutStatus.COMPLETED
    times = sorted(offer.at for offer in sim.offers)
    assert timedelta(hours=9.5) <= times[-1] - times[0] <= timedelta(hours=12)


def test_the_evidence_lets_a_good_release_through_and_keeps_a_mediocre_one_slow() -> None:
    """Three hundred devices under a policy that bears much, five at stake. Everybody gets there; but while all is well
    more than fifty are at it at once in the end, and when an eighth rolls back never more than thirty-five."""
    most = {}
    fates: dict[str, Fate | Behaviour] = {"good": Fate.WELL, "bad": by_chance(rolls_back=0.12)}
    for name, fate in fates.items():
        sim = Simulation(check_daily=False)
        sim.enroll(300, habits=HOURLY)
        sim.release(42, fate)
        own = {"tolerate": {"rolled_back": "20%"}, "bake": {"early": "never"}}
        sim.begin({"all": {"devices": "all", "policy": {"pace": {"stake": 5}}}}, policy="accelerated", own=own)
        at_it = [sum(device.busy for device in sim.run(minutes=20).fleet.values()) for _ in range(108)]
        sim.check()
        most[name] = max(at_it)
        assert len(sim.offered()) == 300
    assert most["good"] > 50 and most["bad"] <= 35, most


def test_early_failures_slow_it_down_and_confirmations_let_it_go_again() -> None:
    """The first three who report have failed: amber. The wave trickles until others have confirmed, and completes
    without anybody's word."""
    sim = Simulation()
    sim.enroll(300, habits=Habits(every=timedelta(hours=1), install=timedelta(minutes=50)))
    sim.release(42, first_fail(3))
    sim.begin({"all": "all"}, policy="accelerated", own={"slices": {"first": 60}, "budget": {"failed": 40}})
    seen = []
    while sim.status() is RolloutStatus.RUNNING and sim.day < 4:
        sim.run(minutes=5)
        seen.append(any(monitor.amber for monitor in sim.view().monitors))
    sim.check()
    assert sim.status() is RolloutStatus.COMPLETED, sim.told()
    assert any(seen) and not seen[-1]
    assert "held" not in {entry.event for entry in sim.journal()}


def test_a_wave_that_proves_itself_does_not_wait_for_its_time() -> None:
    """Four waves under ``accelerated``, two hours each at least: the small ones take their time, the large one passes
    as soon as its devices have confirmed."""
    sim = Simulation()
    sim.enroll(400, habits=Habits(every=timedelta(minutes=10)))
    sim.release(42)
    sim.begin({"lab": {"count": 20}, "rest": "all"}, policy="accelerated")
    sim.run(days=1, until=sim.is_("completed")).check()
    baked = {
        wave: next(e.at for e in sim.journal(event="passed") if e.wave == wave)
        - next(e.at for e in sim.journal(event="bake_started") if e.wave == wave)
        for wave in ("lab", "rest")
    }
    assert baked["lab"] >= timedelta(hours=2) > baked["rest"]
    (passed,) = [entry for entry in sim.journal(event="passed") if entry.wave == "rest"]
    assert "Early:" in passed.sentence


def test_devices_that_are_switched_off_open_no_early_door() -> None:
    """A tenth of the wave is dark: nothing is proven, it bakes as ever and passes in its time."""
    sim = Simulation()
    sim.enroll(400, habits=Habits(every=timedelta(minutes=10)))
    sim.release(42)
    dark(list(sim.fleet.values())[::10], sim, timedelta(0), timedelta(days=30))
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=4, until=sim.is_("completed")).check()
    (baking,), (passed,) = sim.journal(event="bake_started"), sim.journal(event="passed")
    assert passed.at - baking.at >= timedelta(hours=2)
    assert "Early" not in passed.sentence
    assert len(sim.running(42)) == 360
