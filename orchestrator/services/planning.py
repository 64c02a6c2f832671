"""``wave plan``: what a rollout would do, worked out from the fleet as it is. It changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.calendar import Due, Work, calendar, habits_sentence, whole
from orchestrator.core.delta_plan import NOTHING, Build, Required, merge
from orchestrator.core.durations import duration_text
from orchestrator.core.evidence.allowance import SMALL_FLEET_BELOW, MonitorSpec
from orchestrator.core.evidence.budgets import WARN_ABOVE, chance_of_reaching
from orchestrator.core.evidence.detect import detectable_rate, plain_word
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.gates import Gate
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass
from orchestrator.core.overlap import could_share
from orchestrator.core.policy import FromUnknown, OnSegment, Policy
from orchestrator.core.protocols import ONLY_FORWARD
from orchestrator.core.reasons import clock_plan, devices, percent, words
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, WaveRules, bind
from orchestrator.core.slices import dimension_of, sizes
from orchestrator.core.states import LIVE_ROLLOUT
from orchestrator.services import pacing
from orchestrator.services.board import artifacts_of
from orchestrator.services.delta_provider import DeltaPair, DeltaProvider
from orchestrator.services.delta_stock import pair_of
from orchestrator.services.deltas import Deltas, Preview
from orchestrator.services.gatekeeping import SourceKind, check_sources, gates_of
from orchestrator.services.protocols import refuse_going_back
from orchestrator.services.records import DeviceFilter, JobStatus, WaveCount
from orchestrator.services.starting import Bound, bind_to_fleet, check_names
from orchestrator.services.store import Reading, Store
from orchestrator.services.views import (
    PlannedBudget,
    PlannedDelta,
    PlannedGate,
    PlannedHalt,
    PlannedMonitor,
    PlannedWave,
    RolloutPlan,
)
from orchestrator.services.whole import served_whole

PLAN_SALT: Final = "plan"
"""A plan's positions are not those of the rollout: who is in which wave is drawn when it is applied."""

SHOWN_LIMITS: Final = 40
"""Steps of a staircase; people are shown the first few."""
HABITS: Final = 1_000
"""Devices, and updates, by which the likely times are judged."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans. ``builders``: deltas built at once; ``sources``: what gates may ask, by name."""

    store: Store
    provider: DeltaProvider
    deltas: Deltas
    clock: Callable[[], datetime]
    builders: int = 2
    sources: Callable[[], Mapping[str, SourceKind]] = dict

    def plan(self, spec: RolloutFile, policy: Policy) -> RolloutPlan:
        """Raises NotFound for a version without Target, a tag that nobody follows, a group or a gate's source that does
        not exist, as ``apply`` does, Refused when devices cannot go back so far, as ``start`` does, and
        ContentUnavailable without repository."""
        now = self.clock()
        gates = gates_of(spec, policy)
        sources = self.sources() if gates else {}
        check_sources(gates, lambda: sources)
        with self.store.reading() as r:
            check_names(r, spec)
            bound = bind_to_fleet(r, spec, policy, salt=PLAN_SALT, now=now)
            refuse_going_back(r, bound.scope, ONLY_FORWARD)
            in_no_wave = self._in_no_wave(r, spec, bound)
        rules = bind(spec, policy, None if bound.clock is None else bound.clock.dark)
        # The provider is asked outside of any session of the store.
        preview = self.deltas.preview(bound.scope, bound.counts, rules, now=now, builders=self.builders)
        lacking = {commit for commit in bound.scope.commits.values() if not self.provider.has_commit(commit)}
        deltas = {wave.name: _deltas(preview, bound, wave.name, lacking) for wave in spec.waves}
        with self.store.reading() as r:
            warnings = (*self._warnings(r, spec, policy, rules, bound, deltas, lacking), *_too_slow(rules, bound))
            habits = r.habits(spec.tag, sample=HABITS)
            files = artifacts_of(r, spec.target)
        unknown = {(name, n.from_commit, n.to_commit) for name, plan in preview.waves.items() for n in plan.unknown}
        counts = {} if self.deltas.makes_artifacts else bound.counts  # else whom files alone reach get those whole
        whole_ones = served_whole(bound.scope, counts, files, unknown)
        work = {each.wave: _work(each, rules, bound.counts[each.wave], preview) for each in rules.waves}
        due = calendar(rules, work, max(now, spec.start_at) if spec.start_at else now, habits)
        ends = whole(due)
        return RolloutPlan(
            rollout=spec.name,
            target_version=spec.target,
            tag=spec.tag,
            policy=policy.name,
            hardware_ids=tuple(sorted(bound.scope.commits)),
            devices=bound.devices,
            in_no_wave=in_no_wave,
            waves=_waves(spec, rules, bound, deltas, work, due, sources),
            monitors=tuple(_monitor(m, bound) for m in bound.monitors),
            budgets=tuple(_budget(b, rules, bound.devices) for b in bound.budgets),
            build_minutes=preview.seconds / 60,
            bytes_with=sum(plan.bytes_with for plan in preview.waves.values()) + whole_ones.bytes,
            bytes_without=sum(plan.bytes_without for plan in preview.waves.values()) + whole_ones.bytes,
            in_flight_risk=min(rules.in_flight or bound.devices, bound.devices),
            earliest_end=ends.earliest,
            likely_end=ends.likely,
            latest_end=ends.latest,
            assumes=habits_sentence(habits),
            warnings=warnings,
            notes=(*whole_ones.notes, *_notes(policy, rules, bound)),
            pace=pacing.planned(rules),
        )

    # ------------------------------------------------------------------------------------------ warnings

    def _in_no_wave(self, r: Reading, spec: RolloutFile, bound: Bound) -> int:
        followers = r.count_devices(DeviceFilter(tag=spec.tag))
        members = sum(count.eligible + count.already_there for count in bound.counts.values())
        return max(0, followers - members)

    def _warnings(
        self,
        r: Reading,
        spec: RolloutFile,
        policy: Policy,
        rules: Rules,
        bound: Bound,
        deltas: Mapping[str, Sequence[PlannedDelta]],
        lacking: Collection[str],
    ) -> tuple[str, ...]:
        found: list[str] = []
        for hardware_id, commit in sorted(bound.scope.commits.items()):
            if commit in lacking:
                found.append(
                    f"The Target's commit {commit[:12]} for {hardware_id} is not in the repository: no wave can open."
                )
        for row in r.rollouts(LIVE_ROLLOUT):
            if (
                row.state.rollout not in (spec.name, spec.supersedes)
                and row.scope
                and could_share(row.scope, bound.scope)
            ):
                found.append(
                    f"Rollout {row.state.rollout} is {row.state.status} and could claim the same devices:"
                    " start refuses."
                )
        if bound.devices == 0:
            found.append("No device would be offered the Target: all run it or a newer version, or none is eligible.")
        unknown = sum(d.devices for found_ in deltas.values() for d in found_ if d.state == "unknown")
        if unknown:
            what = policy.deltas.from_unknown
            served = "served whole" if what is FromUnknown.FULL else "not offered it"
            one = unknown == 1
            found.append(
                f"{devices(unknown)} {'runs' if one else 'run'} a commit that the repository does not have:"
                f" {'it is' if one else 'they are'} {served}."
            )
        newer = sum(c.devices for c in r.running(tag=spec.tag) if (c.version or 0) > spec.target)
        if newer and not spec.allow_older:
            one = newer == 1
            found.append(
                f"{devices(newer)} of the tag {'runs' if one else 'run'} a newer version than {spec.target}:"
                f" {'it is' if one else 'they are'} left alone."
            )
        for wave in spec.waves:
            count = bound.counts[wave.name]
            if count.eligible == 0 and bound.devices:
                found.append(f"Wave {wave.name} has no eligible device now: it would wait as empty.")
        for budget in bound.budgets:
            planned = _budget(budget, rules, bound.devices)
            if planned.chance_at_tolerance > WARN_ABOVE:
                chance = f"{100 * planned.chance_at_tolerance:.2g} %"
                found.append(
                    f"The budget of {budget.limit} {words(budget.outcomes)} stops {chance} of releases that are"
                    " just tolerable."
                )
        halting = [m for m in bound.monitors if m.answer is Answer.HALT and m.wave is None and m.segment is None]
        for monitor in halting:
            if detectable_rate(staircase(monitor.tolerance, monitor.alpha), bound.devices) is None:
                found.append(
                    f"{devices(bound.devices)} {'is' if bound.devices == 1 else 'are'} too few to detect any rate of"
                    f" {words(monitor.outcomes)}."
                )
        return tuple(found)


def _waves(
    spec: RolloutFile,
    rules: Rules,
    bound: Bound,
    deltas: Mapping[str, Sequence[PlannedDelta]],
    work: Mapping[str, Work],
    due: Mapping[str, Due],
    sources: Mapping[str, SourceKind],
) -> tuple[PlannedWave, ...]:
    planned: list[PlannedWave] = []
    before = 0
    for wave in spec.waves:
        count, own = bound.counts[wave.name], rules.wave(wave.name)
        whole_rollout = [m for m in bound.monitors if m.segment is None and m.answer is Answer.HALT]
        specs = [m for m in whole_rollout if m.wave in (None, wave.name)]
        pieces = work[wave.name].slices
        halts = _halts(specs, pieces, before)
        before += count.eligible
        planned.append(
            PlannedWave(
                wave=wave.name,
                after=own.after,
                devices=str(wave.devices),
                eligible=count.eligible,
                reachable=count.reachable,
                already_there=count.already_there,
                share=count.eligible / bound.devices if bound.devices else 0.0,
                cumulative=before / bound.devices if bound.devices else 0.0,
                slices=pieces,
                deltas=tuple(deltas[wave.name]),
                detectable=_detectable(specs, count),
                halts=halts,
                word=_word(specs, count),
                opens=due[wave.name].opens,
                ends=due[wave.name].ends,
                promotion=own.awaits_promotion,
                approvals=max(own.approvals, rules.approve_start),
                early=pacing.early(own, rules, count.eligible),
                gates=tuple(_gate(gate, sources[gate.asks]) for gate in own.gates),
            )
        )
    return tuple(planned)


def _gate(gate: Gate, kind: SourceKind) -> PlannedGate:
    return PlannedGate(
        gate=gate.gate,
        asks=gate.asks,
        kind=kind.value,
        query=gate.query,
        bounds=gate.bounds,
        timeout=duration_text(gate.timeout),
        at_most=duration_text(gate.at_most),
        otherwise=gate.otherwise.value,
    )


def _work(wave: WaveRules, rules: Rules, count: WaveCount, preview: Preview) -> Work:
    return Work(
        slices=sizes(
            count.eligible, first=rules.first_slice, growth=rules.growth, at_most=rules.most_in_slice(wave.wave)
        ),
        building=timedelta(seconds=preview.waves[wave.wave].seconds),
        offering=pacing.offering(wave, rules, count.reachable),
        quickest=pacing.quickest(wave, rules, count.reachable),
    )


def _too_slow(rules: Rules, bound: Bound) -> list[str]:
    """Waves whose bake would begin before their rate has let enough devices come."""
    found = []
    for each in rules.waves:
        needed = pacing.offering(each, rules, bound.counts[each.wave].reachable)
        if needed > rules.open_at_most:
            days, most = (f"{span / timedelta(days=1):.3g} days" for span in (needed, rules.open_at_most))
            found.append(
                f"Wave {each.wave} needs {days} at its rate; after {most} (`open_at_most`) it bakes with whom it has."
            )
    return found


def _deltas(preview: Preview, bound: Bound, wave: str, lacking: Collection[str]) -> tuple[PlannedDelta, ...]:
    """What a wave's plan says of each pair, with the versions and hardware ids that people know it by. ``lacking``:
    Targets' commits that the repository does not have."""
    plan = preview.waves[wave]
    seconds = {(b.from_commit, b.to_commit): b.seconds for b in plan.builds}
    state = {
        (need.from_commit, need.to_commit): "whole" if pair_of(need) in preview.whole else "ready"
        for need in plan.ready
    }
    state |= {(need.from_commit, need.to_commit): "failed" for need in plan.failed}
    state |= {
        (need.from_commit, need.to_commit): "no target" if need.to_commit in lacking else "unknown"
        for need in plan.unknown
    }
    state |= {(need.from_commit, need.to_commit): "left out" for need in plan.left_out}
    found: list[PlannedDelta] = []
    for need in merge([*plan.ready, *plan.failed, *plan.unknown, *plan.left_out, *map(_need, plan.builds)]):
        pair = need.from_commit, need.to_commit
        of = [
            c for c in bound.counts[wave].running if (c.commit or NOTHING, bound.scope.commits[c.hardware_id]) == pair
        ]
        whole = preview.graph.whole(*pair) or preview.graph.whole(NOTHING, need.to_commit)
        delta = preview.graph.delta(*pair)
        loose = whole.bytes if whole else 0
        found.append(
            PlannedDelta(
                from_commit=None if need.from_commit == NOTHING else need.from_commit,
                to_commit=need.to_commit,
                from_version=max((c.version for c in of if c.version is not None), default=None),
                hardware_ids=tuple(sorted({c.hardware_id for c in of})),
                devices=need.devices,
                bytes=delta.bytes if delta and state.get(pair) not in ("unknown", "left out") else loose,
                loose_bytes=loose,
                build_seconds=seconds.get(pair, 0.0),
                state=state.get(pair) or _under_way(preview.jobs.get(DeltaPair(*pair))),
            )
        )
    return tuple(sorted(found, key=lambda d: (-d.devices, d.from_commit or "")))


def _need(build: Build) -> Required:
    return Required(build.from_commit, build.to_commit, build.devices)


def _under_way(status: JobStatus | None) -> str:
    return {JobStatus.QUEUED: "queued", JobStatus.RUNNING: "building"}.get(status, "missing") if status else "missing"


def _detectable(specs: Sequence[MonitorSpec], count: WaveCount) -> dict[Outcome, float | None]:
    """The smallest rate that any monitor finds within this wave's devices alone, by class."""
    found: dict[Outcome, float | None] = {}
    for monitor in specs:
        rate = detectable_rate(staircase(monitor.tolerance, monitor.alpha), count.eligible)
        for outcome in monitor.outcomes:
            best = found.get(outcome)
            found[outcome] = rate if best is None else best if rate is None else min(best, rate)
    return found


def _halts(specs: Sequence[MonitorSpec], pieces: Sequence[int], before: int) -> tuple[PlannedHalt, ...]:
    """Places of any order: so many bad devices halt wherever they stand among those given."""
    found: list[PlannedHalt] = []
    for monitor in specs if pieces else ():
        steps = staircase(monitor.tolerance, monitor.alpha)
        given = before if monitor.wave is None else 0
        ends = (given + pieces[0], given + sum(pieces))
        first, last = (steps.need(end) if end >= steps.first else 0 for end in ends)
        found.append(PlannedHalt(monitor.outcomes, monitor.wave is not None, first, last))
    return tuple(found)


def _word(specs: Sequence[MonitorSpec], count: WaveCount) -> str:
    whole = [m for m in specs if m.wave is None]
    return plain_word(staircase(whole[0].tolerance, whole[0].alpha), count.eligible) if whole and count.eligible else ""


def _monitor(spec: MonitorSpec, bound: Bound) -> PlannedMonitor:
    steps = staircase(spec.tolerance, spec.alpha)
    if spec.segment is not None:
        population = spec.devices
    else:
        population = bound.devices if spec.wave is None else bound.counts[spec.wave].eligible
    limits: list[tuple[int, int]] = []
    for bad in range(steps.first, steps.first + SHOWN_LIMITS):
        limits.append((bad, steps.limit(bad)))
        if steps.limit(bad) >= population:
            break
    return PlannedMonitor(
        spec.key, spec.outcomes, spec.scope, spec.tolerance, spec.alpha, spec.answer.value, tuple(limits)
    )


def _budget(budget: BudgetFacts, rules: Rules, devices: int) -> PlannedBudget:
    tolerance = min(0.999, sum(rules.tolerate[outcome].at_most for outcome in budget.outcomes))
    return PlannedBudget(
        budget=budget.name,
        limit=budget.limit,
        answer=budget.answer.value,
        chance_at_tolerance=chance_of_reaching(devices, tolerance, budget.limit),
        chance_at_half=chance_of_reaching(devices, tolerance / 2, budget.limit),
    )


def _notes(policy: Policy, rules: Rules, bound: Bound) -> tuple[str, ...]:
    notes = [
        f"False halts by monitors: at most {100 * policy.false_halt:g} % of rollouts within tolerance, if devices fail"
        " independently of each other; failures clustered by site weaken it."
    ]
    if policy.segments:
        notes.append(_segments(policy, bound))
    silent = rules.tolerate[OutcomeClass.SILENT]
    if silent.then is not Answer.COUNT:
        notes.append(clock_plan(bound.clock, silent, policy.silent_after, small=bound.devices < SMALL_FLEET_BELOW))
    if bound.devices < SMALL_FLEET_BELOW:
        notes.append(
            f"A fleet of {bound.devices} is small: one monitor for all that is bad, and the first bad device in a"
            " wave of fewer than 10 holds. Advancing rests on you."
        )
    return tuple(notes)


def _segments(policy: Policy, bound: Bound) -> str:
    """Which segments are watched, and what becomes of one that fails."""
    watched = Counter(dimension_of(name) for name in {m.segment for m in bound.monitors if m.segment is not None})
    if not watched:
        return "No segment has devices enough to be watched by itself; newcomers may have later."
    counted = ", ".join(f"{many} of {dimension}" for dimension, many in sorted(watched.items()))
    does = (
        "halts the rollout"
        if policy.on_segment is OnSegment.HALT
        else f"is excluded, above {percent(policy.escalate_over)} of the devices together the rollout halts"
    )
    return (
        f"Segments watched by themselves: {counted}; one that fails {does}. Excluded by mistake: at most"
        f" {percent(policy.false_exclude)} of rollouts within tolerance."
    )
