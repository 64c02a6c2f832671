"""Nobody wrote these stories: everything happens at random, and what must hold holds (``invariants``).

A seed that fails is run again, and looked at, with ``sim.told()``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.errors import WaveError
from tests.stories.content import commit_of
from tests.stories.devices import Behaviour, Fate, Habits, SimDevice
from tests.stories.simulator import BY, TICK_AT_MOST, Simulation

SEEDS = range(8)

DAYS = 6

SHORTEST_OUTAGE = 4 * TICK_AT_MOST
"""The scheduler takes three of its pauses without a tick for an outage: half a minute in earnest, hours under the
pauses of the simulator. A shorter outage would count as silence here, and only here."""


def behaviour(rng: Random) -> Behaviour:
    """Each fate with a chance of its own; small ones mostly, now and then a release that is really bad."""
    worst = rng.choice([0.005, 0.02, 0.05, 0.4])
    weights = {fate: rng.random() * worst for fate in Fate if fate is not Fate.WELL}

    def behave(device: SimDevice, attempt: int) -> Fate:
        drawn = Random(f"{device.id} {attempt} {worst}").random()
        for fate, weight in weights.items():
            drawn -= weight
            if drawn < 0:
                return fate
        return Fate.WELL

    return behave


def fleet(sim: Simulation, rng: Random) -> None:
    for prefix in "abc"[: rng.randint(1, 3)]:
        habits = Habits(
            every=timedelta(minutes=rng.choice([30, 60, 240])),
            jitter=0.4,
            install=timedelta(minutes=rng.choice([5, 60])),
            twice=rng.random() < 0.5,
            sick=rng.random() < 0.5,
            clock=timedelta(hours=rng.randint(-100, 100)),
            says_version=rng.random() < 0.7,
        )
        sim.enroll(
            rng.choice([3, 15, 40, 90]),
            prefix=prefix,
            hardware_id=rng.choice(["rpi4", "cm4"]),
            group=rng.choice(["lab", None]),
            labels={"region": rng.choice(["emea", "amer"])},
            version=rng.choice([40, 41]),
            habits=habits,
            known=rng.random() < 0.8,
        )
    for device in sim.fleet.values():
        while rng.random() < 0.15:
            start = sim.now + timedelta(days=DAYS * rng.random())
            device.away.append((start, start + timedelta(days=rng.choice([0.1, 1, 9]) * rng.random())))


def waves(rng: Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in "uvwx"[: rng.randint(0, 4)]:
        devices: dict[str, Any] = rng.choice(
            [{"count": rng.randint(1, 30)}, {"share": "30%"}, {"labels": {"region": "emea"}, "share": "50%"}]
        )
        if "count" in devices and rng.random() < 0.5:
            devices = {**devices, "spread": "hardware_id"}
        after = rng.sample(sorted(found), rng.randint(0, len(found)))
        found[name] = {"devices": devices, **({"after": after} if rng.random() < 0.5 else {})}
    return {**found, "rest": "all"}


class Chaos:
    """A person who gives an order now and then, without knowing what is going on."""

    def __init__(self, sim: Simulation, rng: Random) -> None:
        self.sim, self.rng = sim, rng
        self.taken = self.refused = 0
        self._later()

    def _later(self) -> None:
        self.sim.later(timedelta(hours=18 * self.rng.random()), self._act)

    def _act(self) -> None:
        try:
            self._order()()
            self.taken += 1
        except WaveError:
            self.refused += 1
        self._later()

    def _order(self) -> Callable[[], object]:
        sim, rng, rollouts = self.sim, self.rng, self.sim.rollouts
        wave = rng.choice([each.state.wave for each in sim.view().waves])
        device = rng.choice(sorted(sim.fleet))
        orders: list[Callable[[], object]] = [
            lambda: rollouts.pause("r42", by=BY),
            self._resume,
            self._resume,
            self._resume,
            lambda: rollouts.resume("r42", by=BY),
            lambda: rollouts.promote("r42", wave, by=BY),
            lambda: rollouts.complete("r42", by=BY, wave=wave),
            lambda: rollouts.cancel("r42", by=BY, wave=wave),
            lambda: rollouts.skip("r42", wave, by=BY),
            lambda: rollouts.halt("r42", by=BY),
            lambda: rollouts.retry("r42", by=BY),
            lambda: rollouts.freeze(by=BY, reason="chaos"),
            lambda: rollouts.unfreeze(by=BY),
            lambda: rollouts.unfreeze(by=BY),
            lambda: self._change(device, lambda: sim.devices.set_group([device], rng.choice(["lab", "shop", None]))),
            lambda: self._change(device, lambda: sim.devices.set_label([device], "region", "apac")),
            lambda: self._change(device, lambda: sim.devices.set_status([device], DeviceStatus.RETIRED, "sold")),
            lambda: self._change(device, lambda: sim.devices.set_status([device], DeviceStatus.HELD, "a demo")),
            lambda: self._change(device, lambda: sim.devices.set_status([device], DeviceStatus.ACTIVE)),
            lambda: self._change(device, lambda: setattr(sim.fleet[device], "tag", rng.choice(["promoted", "attic"]))),
            lambda: sim.enroll(rng.randint(1, 10), prefix="late", known=False),
            lambda: sim.down.append((sim.now, sim.now + SHORTEST_OUTAGE + timedelta(hours=26 * rng.random()))),
            lambda: sim.content.drop(rng.choice(list(sim.content.whole))) if sim.content.whole else None,
        ]
        if rng.random() < 0.03:
            orders = [
                lambda: rollouts.complete("r42", by=BY, at_once=rng.random() < 0.5),
                lambda: rollouts.cancel("r42", by=BY),
            ]
        return rng.choice(orders)

    def _change(self, device: str, do: Callable[[], object]) -> None:
        self.sim.changed.add(device)
        do()

    def _resume(self) -> None:
        """Accept whatever has stopped it."""
        view = self.sim.view()
        accept = [m.monitor for m in view.monitors if m.crossed_at and not m.accepted and m.answer != "count"]
        accept += [f"budget/{budget.name}" for budget in view.budgets if budget.reached]
        self.sim.rollouts.resume("r42", by=BY, accept=accept, reason="chaos")


def play(seed: int) -> tuple[Simulation, Chaos]:
    rng = Random(f"chaos {seed}")
    sim = Simulation(seed=seed)
    fleet(sim, rng)
    sim.release(42, behaviour(rng))
    sim.content.seconds = rng.choice([60, 3_600, 20_000])
    if rng.random() < 0.3:
        sim.content.failures[commit_of("rpi4", 41)] = rng.choice([1, 2, 100])
    policy = rng.choice(["accelerated", "accelerated", "emergency", "standard", "manual"])
    own = {"deltas": {"otherwise": rng.choice(["hold", "full", "skip"])}, "window": None}
    with sim.store.writing() as w:
        w.add_group("lab")
    sim.begin(waves(rng), policy=policy, own=own)
    chaos = Chaos(sim, rng)
    sim.run(days=DAYS).check()
    return sim, chaos


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos(seed: int) -> None:
    """Six days of it."""
    sim, chaos = play(seed)
    assert chaos.taken and sim.ticks
