"""Stories of fleets as they are: dark for weeks, moved about, cut off, replaced."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from tests.stories.devices import Fate, Habits, SimDevice, by_chance
from tests.stories.fleets import WAVES, company
from tests.stories.simulator import BY, Simulation

QUICK = Habits(every=timedelta(hours=2))


def dark(devices: list[SimDevice], sim: Simulation, start: timedelta, end: timedelta) -> None:
    for device in devices:
        device.away.append((sim.now + start, sim.now + end))


def update_status(sim: Simulation, device: SimDevice) -> UpdateStatus:
    return dict(sim.queries.updates("r42", limit=10_000))[device.id].update.status


def test_half_of_a_wave_is_offline() -> None:
    """Half of the fleet was last seen nine days ago. The wave counts on the other half: it opens, bakes and passes upon
    them, and the rollout completes within days."""
    sim = Simulation()
    here = sim.enroll(60, habits=QUICK)
    away = sim.enroll(60, prefix="away", habits=QUICK)
    dark(away, sim, timedelta(0), timedelta(days=30))
    sim.last_seen(away, timedelta(days=9))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(days=3, until=sim.is_("completed")).check()
    assert {device.id for device in sim.running(42)} == {device.id for device in here}


def test_devices_that_come_back_after_a_month() -> None:
    """Forty devices are in a warehouse when the rollout runs through. Day 30: they are switched on, get late slices
    of the completed rollout, and run 42 the same day. They are newcomers to the slices: nobody's place is theirs."""
    sim = Simulation()
    sim.enroll(60, habits=Habits(every=timedelta(hours=8)))
    stored = sim.enroll(40, prefix="w", habits=QUICK)
    dark(stored, sim, timedelta(minutes=-1), timedelta(days=30))
    sim.last_seen(stored, timedelta(days=8))
    sim.release(42)
    sim.begin({"lab": {"count": 10}, "all": "all"}, policy="accelerated")
    sim.to_day(29)
    assert len(sim.running(42)) == 60
    sim.to_day(31.5).check()
    assert len(sim.running(42)) == 100


def test_a_site_outage() -> None:
    """A third of the fleet stands on one site, which loses its line for two days in the middle of its wave. Those
    that were at it fall silent; that holds at worst, and once the line is back the rest of them come through."""
    sim = Simulation()
    sim.enroll(80, habits=QUICK)
    site = sim.enroll(40, prefix="site", labels={"site": "harbour"}, habits=QUICK)
    dark(site, sim, timedelta(hours=4), timedelta(days=2))
    sim.release(42)
    sim.begin({"site": {"labels": {"site": "harbour"}}, "rest": "all"}, policy="accelerated")
    sim.run(days=2.5).check()
    for _ in range(3):
        if sim.status() is RolloutStatus.HELD:
            names = [m.monitor for m in sim.view().monitors if m.crossed_at and not m.accepted]
            names += [f"budget/{b.name}" for b in sim.view().budgets if b.reached]
            sim.rollouts.resume("r42", by=BY, accept=names, reason="the line was cut")
        elif sim.held("site")():
            sim.rollouts.resume("r42", by=BY, wave="site")
        sim.run(days=1).check()
    assert len(sim.running(42)) >= 110 and sim.status() is not RolloutStatus.HALTED


def test_a_day_without_the_gateway_is_nobodys_silence() -> None:
    """Hour 6: the server goes down with devices in the middle of their updates, for thirty hours. When it is back
    they tell what happened; not one was taken for silent, though the policy's patience is six hours. The slice had no
    time to report meanwhile, so its wave holds: one resume, and it goes on."""
    sim = Simulation()
    sim.enroll(120, habits=Habits(every=timedelta(hours=2), install=timedelta(hours=1)))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(hours=6)
    sim.down.append((sim.now, sim.now + timedelta(hours=30)))
    sim.run(days=1.25)
    sim.run(hours=12)
    assert sim.wave("all").bad(OutcomeClass.SILENT) == 0, sim.told()
    sim.rollouts.resume("r42", by=BY, wave="all")
    sim.run(days=3, until=sim.is_("completed")).check()
    assert len(sim.running(42)) == 120


def test_a_device_that_moves_to_another_group_in_mid_rollout() -> None:
    """Two lab devices are carried to a shop. The one that has the offer keeps its wave and its place for ever; the
    other is one of the rest from then on, and gets it with them."""
    sim = company(habits=Habits(every=timedelta(hours=4), install=timedelta(hours=1)))
    sim.release(42)
    sim.begin({"lab": {"group": "lab"}, "rest": "all"}, policy="accelerated")
    sim.run(hours=2)
    lab = [device for device in sim.fleet.values() if device.group == "lab"]
    offered = next(device for device in lab if device.id in sim.offered())
    waiting = next(device for device in lab if device.id not in sim.offered())
    for device in (offered, waiting):
        sim.devices.set_group([device.id], "shop")
        sim.changed.add(device.id)
    sim.run(days=4, until=sim.is_("completed")).check()
    sim.run(days=1).check()
    waves = {name: row.wave for name, row in sim.queries.updates("r42", limit=10_000)}
    assert (waves[offered.id], waves[waiting.id]) == ("lab", "rest")
    assert len(sim.running(42)) == 300


def test_a_device_that_leaves_the_tag() -> None:
    """Two devices are put on another tag. The one that has not started loses the offer; the one that has comes to its
    end and is counted."""
    sim = Simulation()
    sim.enroll(60, habits=Habits(every=timedelta(hours=1), install=timedelta(hours=2)))
    sim.release(42, lambda device, attempt: Fate.IGNORES if device.id == "d0003" else Fate.WELL)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(hours=24, until=lambda: {"d0003"} <= set(sim.offered()) and any(d.busy for d in sim.fleet.values()))
    busy = next(device for device in sim.fleet.values() if device.busy)
    for device in (busy, sim.fleet["d0003"]):
        device.tag = "attic"
        sim.changed.add(device.id)
    sim.run(hours=12).check()
    assert update_status(sim, sim.fleet["d0003"]) is UpdateStatus.WITHDRAWN
    assert update_status(sim, busy) is UpdateStatus.CONFIRMED


def test_retired_and_held_devices_are_left_alone() -> None:
    """One device in ten is retired, one in ten held. Neither is offered anything and neither keeps a wave from
    passing; the held ones come when a person lets them."""
    sim = Simulation()
    sim.enroll(100, habits=QUICK)
    names = sorted(sim.fleet)
    sim.devices.set_status(names[:10], DeviceStatus.RETIRED, "sold")
    sim.devices.set_status(names[10:20], DeviceStatus.HELD, "a customer's demo")
    sim.release(42)
    sim.begin({"first": {"count": 20}, "all": "all"}, policy="accelerated")
    sim.run(days=3, until=sim.is_("completed")).check()
    assert len(sim.running(42)) == 80
    sim.devices.set_status(names[10:20], DeviceStatus.ACTIVE, None)
    sim.run(days=1).check()
    assert len(sim.running(42)) == 90


def test_a_visitor_during_a_long_pause() -> None:
    """Paused for ten days. On day 1 a new device is switched on, asks once, and goes back into its box. It is late,
    but it cannot be reached when the rollout is resumed: nothing may stumble over that."""
    sim = Simulation()
    sim.enroll(60, habits=QUICK)
    sim.release(42)
    sim.begin({"first": {"count": 20}, "all": "all"}, policy="accelerated")
    sim.run(hours=4)
    sim.rollouts.pause("r42", by=BY)
    sim.run(days=1)
    (visitor,) = sim.enroll(1, prefix="visitor", known=False)
    dark([visitor], sim, timedelta(hours=3), timedelta(days=25))
    sim.run(days=9)
    sim.rollouts.resume("r42", by=BY)
    sim.run(hours=6).check()
    if sim.held("all")():  # the time of its slice was over during the pause
        sim.rollouts.resume("r42", by=BY, wave="all")
    sim.run(days=4, until=sim.is_("completed")).check()
    sim.run(days=18).check()
    assert visitor.version == 42


def test_a_policy_with_a_short_reach() -> None:
    """``emergency`` counts on devices seen within the last day only. Those that were away for two come back after the
    slices were cut without them: they wait for one of their own, and take nobody's place."""
    sim = Simulation()
    sim.enroll(60, habits=Habits(every=timedelta(hours=1)))
    back = sim.enroll(40, prefix="back", habits=Habits(every=timedelta(hours=1)))
    dark(back, sim, timedelta(minutes=-1), timedelta(hours=8))
    sim.last_seen(back, timedelta(days=2))
    sim.release(42)
    sim.begin({"all": "all"}, policy="emergency")
    sim.run(hours=30).check()
    assert len(sim.running(42)) == 100


def test_a_device_that_was_flashed_by_hand() -> None:
    """In the middle of its update a device comes back with 40 on it: somebody has reinstalled it. It has left,
    without an outcome, and is offered 42 anew with the place it had."""
    sim = Simulation()
    sim.enroll(40, habits=Habits(every=timedelta(hours=1), install=timedelta(hours=2)))
    sim.release(42)
    sim.begin({"all": "all"}, policy="accelerated")
    sim.run(hours=8, until=lambda: any(device.busy for device in sim.fleet.values()))
    device = next(device for device in sim.fleet.values() if device.busy)
    old = sim.enroll(1, prefix="old", version=40)[0]
    device.commit, device.version = old.commit, old.version
    sim.check_in(device)
    assert update_status(sim, device) in (UpdateStatus.LEFT, UpdateStatus.OFFERED)
    sim.run(days=3, until=sim.is_("completed")).check()
    assert device.version == 42


def test_sick_devices_that_shout_do_not_halt_a_good_release() -> None:
    """One device in a hundred fails, and those that did ask ten times as often from then on. Places are by position and
    not by arrival, so their shouting changes nothing."""
    sim = company(habits=Habits(sick=True, twice=True))
    sim.release(42, by_chance(fails=0.007))
    sim.begin(WAVES, policy="accelerated")
    sim.run(days=4, until=sim.is_("completed"))
    sim.check()
