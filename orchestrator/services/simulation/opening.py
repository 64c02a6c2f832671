"""How a simulated rollout begins and a slice of it opens: what a start and an opening fix, from a virtual fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from orchestrator.core.evidence.allowance import WaveSize, allot, allot_segments
from orchestrator.core.evidence.budgets import default_budgets
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.policy import Policy
from orchestrator.core.position import SPACE
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.slices import (
    BINS,
    EXACT_RANKS,
    ROLLOUT,
    Slice,
    coarse_ranks,
    exact_ranks,
    segment_population,
    wave_population,
)
from orchestrator.services.simulation.fleet import Fleet
from orchestrator.services.simulation.silence import Silence
from orchestrator.services.simulation.tally import Evidence, Monitor, WaveTally


def begun(
    spec: RolloutFile,
    policy: Policy,
    fleet: Fleet,
    sizes: Mapping[str, int],
    *,
    budgets: bool,
    silence: Silence | None = None,
) -> Evidence:
    """The evidence of a rollout at its start, with its monitors, and its budgets unless they are left
    out, and the clock of its silence where there is one."""
    devices = sum(sizes.values())
    planned = [
        WaveSize(name, sizes[name], sum(sizes[before] for before in spec.ancestors(name)))
        for name in spec.topological_order
    ]
    dark = None if silence is None else silence.clock.dark
    specs = allot(
        tolerate=policy.tolerances_over(dark),
        false_halt=policy.false_halt,
        waves=planned,
        devices=devices,
        clock=silence is not None,
    )
    segments = {
        name: {segment_population(name, value): many for value, many in fleet.sizes(name).items()}
        for name in policy.segments
    }
    specs += allot_segments(
        tolerate=policy.tolerances_over(dark, segment=True),
        false_exclude=policy.false_exclude,
        sizes=segments,
        devices=devices,
    )
    return Evidence(
        devices=devices,
        waves={wave.name: WaveTally(wave.name) for wave in spec.waves},
        monitors=tuple(map(Monitor, specs)),
        budgets=_budgets(policy, devices, dark) if budgets else [],
        silence=silence,
    )


def _budgets(policy: Policy, devices: int, dark: Darkness | None) -> list[BudgetFacts]:
    own = policy.budget.limits
    found = [BudgetFacts((outcome,), limit.devices(devices), 0) for outcome, limit in own.items()]
    for default in default_budgets(tolerate=policy.tolerances_over(dark), devices=devices):
        if len(default.outcomes) > 1 or default.outcomes[0] not in own:
            found.append(BudgetFacts(default.outcomes, default.count, 0, answer=default.answer))
    return found


def opened_slice(
    wave: str,
    number: int,
    members: Sequence[tuple[int, int]],
    left: int,
    segments: Callable[[int], Sequence[str]],
    given: Mapping[str, int],
    now: datetime,
) -> Slice:
    """The slice of a wave's next ``members`` (position and device, by rising position) while ``left`` more wait, with
    the places of all populations: exact ranks up to a thousand members, counts by stretch above, as the store."""
    whole = (ROLLOUT, wave_population(wave))
    upto = members[-1][0] + 1 if left else SPACE
    places: dict[str, list[int]] = {name: [] for name in whole} if members else {}
    for position, device in members:
        for name in whole:
            places[name].append(position)
        for name in segments(device):
            places.setdefault(name, []).append(position)
    ranks = {
        name: exact_ranks(found)
        if len(members) <= EXACT_RANKS
        else coarse_ranks(Counter(position * BINS // SPACE for position in found))
        for name, found in places.items()
    }
    return Slice(wave, number, upto, now, dict(given), ranks)
