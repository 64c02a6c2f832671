"""Settings for the tests of the simulator: the shipped policies, small fleets, the usual waves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.adapters.files.library import Library
from orchestrator.core.policy import Policy
from orchestrator.services.simulation.fleet import Shape
from orchestrator.services.simulation.scenarios import SCENARIOS
from orchestrator.services.simulation.setting import Setting
from orchestrator.services.simulation.waves import USUAL, waves_of


def policy(name: str = "standard", **changed: Any) -> Policy:
    """A shipped policy with single keys changed, as they are written."""
    return Policy.parse({**Library().policy(name).document(), **changed})


def setting(scenario: str = "good", *, fleet: int = 600, waves: str = USUAL, **changed: Any) -> Setting:
    """The standard policy over a small fleet, without waiting for office hours."""
    made = Setting(policy(window="always"), waves_of(waves), Shape(fleet), SCENARIOS[scenario])
    return replace(made, **changed)
