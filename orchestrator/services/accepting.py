"""Leaving a halt or a hold: what stopped a rollout is accepted by name, closed, and begins anew (RULES 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.core.decide import bad_in_small_waves
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.clock import CLOCK, minute_of
from orchestrator.core.facts import BudgetFacts, Facts
from orchestrator.core.harmless import reason_given
from orchestrator.core.slices import ROLLOUT, wave_population
from orchestrator.core.states import ReasonKind, RolloutStatus
from orchestrator.errors import InvalidInput, Refused
from orchestrator.services.chronicle import rules_of
from orchestrator.services.records import RolloutRow
from orchestrator.services.stops import budget_key, stopping
from orchestrator.services.store import Writing


def accept_stops(
    w: Writing, row: RolloutRow, accept: Sequence[str], reason: str | None, now: datetime
) -> tuple[RolloutRow, tuple[str, ...]]:
    """Close what a person accepts and begin it anew; refuse when something that stopped the rollout is left out."""
    if row.scope is None:
        return row, ()
    facts = w.facts(row, now=now)
    stopped = stopping(row.state, facts)
    unknown = [name for name in accept if name not in stopped]
    if unknown:
        raise InvalidInput(
            f"{unknown[0]} does not stop rollout {row.state.rollout}.",
            remedy=f"What does: {_listed(stopped)}." if stopped else "Nothing is left to accept: leave --accept out.",
        )
    missing = [name for name in stopped if name not in accept]
    if missing:
        said = " ".join(f"--accept {name}" for name in missing)
        raise Refused(
            f"Rollout {row.state.rollout} was stopped by {_listed(missing)}: {stopped[missing[0]]}",
            remedy=f"To go on all the same say so: `{said} --reason TEXT`.",
        )
    if stopped and not reason_given(reason):
        raise InvalidInput("Accepting what stopped a rollout needs a reason: `--reason TEXT`.")
    _begin_anew(w, row, facts, stopped, now)
    row = _clock_anew(row, stopped, now)
    if row.state.status is RolloutStatus.PAUSED:
        # Nobody was told of what went bad during the pause: resuming accepts nothing that did not stop it.
        return row, tuple(stopped)
    small = bad_in_small_waves(facts, rules_of(row))
    return replace(row, state=replace(row.state, first_bad_accepted=small)), tuple(stopped)


def _begin_anew(w: Writing, row: RolloutRow, facts: Facts, stopped: dict[str, str], now: datetime) -> None:
    crossed = {m.monitor for m in facts.monitors if m.monitor in stopped}
    specs = [m.spec for m in w.monitors(row.key) if m.accepted_at is None and m.spec.key in crossed]
    w.close_monitors(row.key, crossed, now=now)
    begin_monitors_anew(w, row, specs, facts)
    w.set_budgets(row.key, [_accepted(b) if budget_key(b) in stopped else b for b in facts.budgets])


def _clock_anew(row: RolloutRow, stopped: Collection[str], now: datetime) -> RolloutRow:
    """What the clock has seen is done with when a person accepts it, and when it was something else than the release:
    only devices that begin to install from the next minute on are evidence."""
    if CLOCK not in stopped and row.state.standing.reason.kind is not ReasonKind.ENVIRONMENT:
        return row
    return replace(row, state=replace(row.state, clock_from=minute_of(now) + 1))


def begin_monitors_anew(w: Writing, row: RolloutRow, specs: Sequence[MonitorSpec], facts: Facts) -> None:
    """Closed monitors once more, from the next slice on: places of the slices opened so far belong to the attempt that
    ended."""
    given = {**w.populations(row.key), **places_given(facts)}
    population = {s.key: s.segment or (wave_population(s.wave) if s.wave else ROLLOUT) for s in specs}
    w.add_monitors(row.key, specs, from_places={key: given.get(name, 0) for key, name in population.items()})


def places_given(facts: Facts) -> dict[str, int]:
    """Places given so far, in the rollout and in each wave."""
    given = {wave_population(wave.wave): wave.members for wave in facts.waves}
    return {ROLLOUT: sum(given.values()), **given}


def _accepted(budget: BudgetFacts) -> BudgetFacts:
    return replace(budget, base=budget.bad)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
