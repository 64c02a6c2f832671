"""One call for ``wave simulate``: from a policy and what was asked to runs and what they add up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidInput
from orchestrator.services.simulation.fleet import MOST_DEVICES, Shape, fitting
from orchestrator.services.simulation.many import play_many
from orchestrator.services.simulation.picture import Drawn
from orchestrator.services.simulation.scenarios import scenario
from orchestrator.services.simulation.setting import Setting
from orchestrator.services.simulation.summary import summary
from orchestrator.services.simulation.waves import USUAL, waves_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for. ``fail``: the probability of failure where the scenario's trouble strikes, instead of the
    scenario's own. ``history``: devices of an earlier release from which the clock of silence is learnt. ``spec``: a
    rollout file whose waves are played; else ``waves`` in a line."""

    scenario: str = "good"
    fleet: int = 2_000
    fail: float | None = None
    offline: float = 0.0
    history: int = 2_000
    runs: int = 200
    jobs: int = 1
    seed: int = 1
    budgets: bool = True
    waves: str = USUAL
    spec: RolloutFile | None = None


def setting_of(policy: Policy, asked: Asked) -> Setting:
    """What is played. Raises InvalidInput with a sentence for what makes no sense."""
    if not 0.0 <= asked.offline < 1.0:
        raise InvalidInput(f"`offline` is a share of at least 0 % and below 100 %, not {100 * asked.offline:g} %.")
    if not 0 <= asked.history <= MOST_DEVICES:
        raise InvalidInput(f"`history` is a number of devices from 0 to {MOST_DEVICES:,}, not {asked.history:,}.")
    spec = waves_of(asked.waves) if asked.spec is None else asked.spec
    played = scenario(asked.scenario)
    if asked.fail is not None:
        played = played.failing(asked.fail)
    if not -len(spec.waves) <= played.from_wave < len(spec.waves):
        raise InvalidInput(f"Scenario {played.name} begins in a wave that the rollout does not have.")
    shape = fitting(Shape(devices=asked.fleet), spec)
    return Setting(
        policy,
        spec,
        shape,
        played,
        offline=asked.offline,
        budgets=asked.budgets,
        seed=asked.seed,
        history=asked.history,
    )


def study(policy: Policy, asked: Asked, progress: Callable[[int], None] = lambda done: None) -> Drawn:
    """Play it, and add up what came of it; the same for the same request, whatever ``jobs``."""
    setting = setting_of(policy, asked)
    played = play_many(setting, asked.runs, jobs=asked.jobs, progress=progress)
    return Drawn(summary(setting, played), played)
