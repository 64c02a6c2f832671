"""Stories of clocks that run on when a rollout has ended: nobody is locked out by what was never finished."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.states import RolloutStatus
from tests.stories.devices import Fate, Habits, SimDevice, SimOffer
from tests.stories.simulator import BY, Simulation


class Aborting(SimDevice):
    """Gives up its first download without a word, and goes on asking."""

    def _downloaded(self, offer: SimOffer, fate: Fate, attempt: int) -> None:
        if offer.version == 42:
            self.busy = False
            return
        super()._downloaded(offer, fate, attempt)


def one_that_aborts(sim: Simulation) -> SimDevice:
    """The fleet's first device that begins with 42 drops it."""
    device = next(device for device in sim.fleet.values() if device.busy)
    device.__class__ = Aborting
    return device


def twenty() -> Simulation:
    sim = Simulation()
    sim.enroll(20, habits=Habits(every=timedelta(hours=2), download=timedelta(hours=1)))
    for version in (42, 43):
        sim.release(version)
    sim.begin({"all": "all"}, policy="accelerated", own={"silent_after": "12h"})
    sim.run(hours=6, until=lambda: any(device.busy for device in sim.fleet.values()))
    return sim


@pytest.mark.parametrize("how", ["cancelled", "superseded"])
def test_a_download_that_was_dropped_after_the_end(how: str) -> None:
    """A device has begun with 42 when a person ends that rollout. It drops the download without a word. Half a day
    later its silence is counted, as it would have been; then it is offered 43 like everybody."""
    sim = twenty()
    device = one_that_aborts(sim)
    if how == "cancelled":
        sim.rollouts.cancel("r42", by=BY)
        sim.begin({"all": "all"}, name="r43", target=43, policy="accelerated")
    else:
        sim.begin({"all": "all"}, name="r43", target=43, policy="accelerated", supersedes="r42")
    sim.run(days=3).check()
    assert device.version == 43, sim.told()
    assert sim.status() is RolloutStatus.CANCELLED


def test_a_download_that_was_dropped_under_a_completed_rollout() -> None:
    """42 is completed by a person while a device downloads it, and 43 after it: 42 offers nothing more. The device
    drops 42, and comes to 43 when its silence has been counted."""
    sim = twenty()
    device = one_that_aborts(sim)
    sim.rollouts.complete("r42", by=BY)
    sim.begin({"all": "all"}, name="r43", target=43, policy="accelerated")
    sim.rollouts.complete("r43", by=BY, at_once=True)
    sim.run(days=3).check()
    assert device.version == 43, sim.told()
