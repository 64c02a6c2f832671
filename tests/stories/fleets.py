"""The fleets and waves that most stories share."""

from __future__ import annotations

from tests.stories.devices import Habits
from tests.stories.simulator import Simulation

WAVES = {
    "lab": {"group": "lab"},
    "canary": {"count": 20, "spread": "hardware_id"},
    "emea": {"labels": {"region": "emea"}},
    "rest": "all",
}


def company(seed: int = 1, *, habits: Habits | None = None, **keys) -> Simulation:
    """300 devices: 24 in the lab, a quarter of them in emea, one in ten a cm4."""
    sim = Simulation(seed=seed, **keys)
    sim.enroll(24, group="lab", habits=habits)
    sim.enroll(76, labels={"region": "emea"}, habits=habits)
    sim.enroll(170, labels={"region": "amer"}, habits=habits)
    sim.enroll(30, hardware_id="cm4", labels={"region": "amer"}, habits=habits)
    return sim
