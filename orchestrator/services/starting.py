"""Beginning a rollout: what is fixed for good at its start — bounds, monitors, budgets, clock, the number of devices —
and that nobody else claims the same devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.core.evidence.allowance import (
    MOST_VALUES,
    SMALL_FLEET_BELOW,
    MonitorSpec,
    WaveSize,
    allot,
    allot_newcomer,
    allot_segments,
)
from orchestrator.core.evidence.budgets import default_budgets
from orchestrator.core.evidence.clock import Clock
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.facts import BudgetFacts
from orchestrator.core.fleet import Scope, Target
from orchestrator.core.membership import WaveSelector, spread_counts
from orchestrator.core.overlap import could_share
from orchestrator.core.policy import Policy
from orchestrator.core.position import bound_of_share, wave_salt
from orchestrator.core.rollout_file import RolloutFile, Wave
from orchestrator.core.slices import ROLLOUT, Slice, dimension_of
from orchestrator.core.states import LIVE_ROLLOUT, RolloutStatus
from orchestrator.errors import NotFound, Overlap, Refused, WrongState
from orchestrator.services.clocks import as_text, dark_of, learn_clock
from orchestrator.services.records import RolloutRow, WaveCount
from orchestrator.services.store import Reading, Writing


@dataclass(frozen=True, slots=True)
class Bound:
    """Everything that a start fixes. ``counts`` by wave, as of the look; ``devices``: eligible in all waves
    together."""

    scope: Scope
    counts: Mapping[str, WaveCount]
    devices: int
    monitors: tuple[MonitorSpec, ...]
    budgets: tuple[BudgetFacts, ...]
    clock: Clock | None = None


def check_names(r: Reading, spec: RolloutFile) -> None:
    """Raises NotFound when the version has no Target, nobody follows the tag, or a wave names a group that does not
    exist; Refused when the Target is for no hardware."""
    targets = r.targets(version=spec.target)
    if not targets:
        raise NotFound(
            f"There is no Target of version {spec.target}.", remedy="`wave target list` shows those there are."
        )
    tags = r.tags()
    if spec.tag not in tags:
        known = ", ".join(sorted(tags)) or "none"
        raise NotFound(f"No device follows the tag {spec.tag}.", remedy=f"Tags that devices follow: {known}.")
    groups = r.groups()
    for wave in spec.waves:
        group = wave.devices.group
        if group is not None and group not in groups:
            known = ", ".join(sorted(groups)) or "none"
            raise NotFound(
                f"Wave {wave.name} names the device group {group}, which does not exist.",
                remedy=f"Groups: {known}.",
            )
    if not commits_of(targets):
        raise Refused(f"No Target of version {spec.target} names a hardware id.")


def bind_to_fleet(r: Reading, spec: RolloutFile, policy: Policy, *, salt: str, now: datetime) -> Bound:
    """Work out scope, bounds, sizes, monitors, budgets and clock from the fleet as it is. Raises NotFound when the
    version has no Target."""
    targets = r.targets(version=spec.target)
    if not targets:
        raise NotFound(
            f"There is no Target of version {spec.target}.", remedy="Add it with `wave target add` or `target import`."
        )
    scope = Scope(
        rollout=spec.name,
        tag=spec.tag,
        version=spec.target,
        commits=commits_of(targets),
        selectors=(),
        from_versions=tuple(spec.running),
    )
    for wave in spec.waves:
        scope = replace(scope, selectors=(*scope.selectors, selector_of(r, scope, wave, salt)))
    counts = {wave.name: r.look(scope, wave.name, seen_since=now - policy.reach) for wave in spec.waves}
    devices = sum(count.eligible for count in counts.values())
    sizes = {wave: count.eligible for wave, count in counts.items()}
    clock = learn_clock(r, policy, devices, now=now)
    dark = None if clock is None else clock.dark
    monitors = monitors_of(spec, policy, sizes, devices, dark)
    monitors += segment_monitors(r, scope, policy, devices, dark)
    return Bound(scope, counts, devices, monitors, budgets_of(policy, devices, dark), clock)


def commits_of(targets: Iterable[Target]) -> dict[str, str]:
    """Each hardware id that has a Target, with its commit."""
    return {hardware_id: target.commit for target in targets for hardware_id in target.hardware_ids}


def begin(w: Writing, row: RolloutRow, *, now: datetime) -> tuple[RolloutRow, Mapping[str, int]]:
    """Fix what a start fixes, in the start's own transaction; the caller saves the row. Also the eligible devices of
    each wave, by which the allowance was shared out."""
    spec, policy = RolloutFile.from_canonical(row.spec), Policy.from_canonical(row.policy)
    bound = bind_to_fleet(w, spec, policy, salt=row.salt, now=now)
    w.add_monitors(row.key, bound.monitors, from_places={})
    w.set_budgets(row.key, bound.budgets)
    w.name_classes(row.key, (name for name, _ in policy.tolerate.codes))
    sizes = {wave: count.eligible for wave, count in bound.counts.items()}
    return replace(row, scope=bound.scope, devices=bound.devices, clock=as_text(bound.clock)), sizes


def preview(r: Reading, row: RolloutRow, *, now: datetime) -> RolloutRow:
    """The row as a start at ``now`` would bind it; nothing is written but what the caller saves of it."""
    spec, policy = RolloutFile.from_canonical(row.spec), Policy.from_canonical(row.policy)
    bound = bind_to_fleet(r, spec, policy, salt=row.salt, now=now)
    return replace(row, scope=bound.scope, devices=bound.devices)


def refuse_started(row: RolloutRow) -> None:
    """Raises WrongState for what is no draft."""
    if row.state.status is not RolloutStatus.DRAFT:
        raise WrongState(f"Rollout {row.state.rollout} is {row.state.status}: only a draft can be started.")


def refuse_overlap(w: Writing, row: RolloutRow, *, supersedes: str | None) -> None:
    """Raises Overlap when another live rollout could claim the same devices (RULES 7.1). Nobody else starts one on this
    tag until the transaction ends: of two starts at once the second sees the first."""
    w.lock_tag(row.tag)
    refuse_shared(w, row, supersedes=supersedes)


def refuse_shared(r: Reading, row: RolloutRow, *, supersedes: str | None) -> None:
    """The same, as of this look."""
    for other in r.rollouts(LIVE_ROLLOUT):
        if other.key == row.key or other.state.rollout == supersedes or other.scope is None or row.scope is None:
            continue
        if could_share(row.scope, other.scope):
            raise Overlap(
                f"Rollout {other.state.rollout} is {other.state.status} and could claim the same devices of tag"
                f" {row.tag}.",
                remedy=f"Cancel it first, or write `supersedes: {other.state.rollout}` into the rollout file.",
            )


def selector_of(r: Reading, scope: Scope, wave: Wave, salt: str) -> WaveSelector:
    """The wave's selector, its bounds fixed from the fleet as it is; ``scope`` has the waves above it."""
    devices, selector = wave.devices, unbounded_selector(wave, salt)
    if devices.share is not None:
        return replace(selector, bound=bound_of_share(devices.share))
    if devices.count is None:
        return selector
    unbounded = replace(scope, selectors=(*scope.selectors, selector))
    if devices.spread is None:
        return replace(selector, bound=r.bound(unbounded, wave.name, None, devices.count))
    available = r.strata(unbounded, wave.name)
    counts = spread_counts(available, devices.count)
    bounds = {name: r.bound(unbounded, wave.name, name, counts[name]) for name in sorted(counts)}
    # Hardware that had no device at the start is not in a wave of a fixed count; it comes with the waves after it.
    return replace(selector, bounds=tuple(bounds.items()))


def unbounded_selector(wave: Wave, salt: str) -> WaveSelector:
    """The wave's selector without its bounds: whom it asks for, whatever the fleet is like."""
    devices = wave.devices
    return WaveSelector(
        wave=wave.name,
        salt=wave_salt(salt, wave.name),
        group=devices.group,
        labels=tuple(dict(devices.labels).items()),
    )


def monitors_of(
    spec: RolloutFile, policy: Policy, eligible: Mapping[str, int], devices: int, dark: Darkness | None
) -> tuple[MonitorSpec, ...]:
    """The monitors of a rollout that starts with so many eligible devices in each wave. ``dark``: of its clock; None
    where it has none."""
    sizes: list[WaveSize] = []
    before: dict[str, int] = {}
    for name in spec.topological_order:
        # Waves side by side open in an order nobody knows yet: only what surely comes before counts as before.
        ancestors = spec.ancestors(name)
        before[name] = sum(eligible[each] for each in ancestors)
        sizes.append(WaveSize(name, eligible[name], before[name]))
    return allot(
        tolerate=policy.tolerances_over(dark),
        false_halt=policy.false_halt,
        waves=sizes,
        devices=devices,
        clock=dark is not None,
    )


def segment_monitors(
    r: Reading, scope: Scope, policy: Policy, devices: int, dark: Darkness | None
) -> tuple[MonitorSpec, ...]:
    """The monitors of the segments that the fleet has now; of each dimension no more are asked for than are watched."""
    return allot_segments(
        tolerate=policy.tolerances_over(dark, segment=True),
        false_exclude=policy.false_exclude,
        sizes={name: r.segments(scope, name, limit=MOST_VALUES) for name in policy.segments},
        devices=devices,
    )


def newcomers(r: Reading, row: RolloutRow) -> int:
    """How many have been paid from a reserve since the start, by an edit or as segments that came later. Each has a
    number of its own, so that no part of a reserve is spent twice."""
    later = {each.spec.segment for each in r.monitors(row.key) if each.spec.segment and not each.spec.devices}
    return row.state.newcomers + len(later)


def watch_newcomers(w: Writing, row: RolloutRow, opened: Slice) -> bool:
    """Segments without a monitor that have devices in this slice are watched from it on, once they have so many places
    that they could ever be found, and are not all there is; in the order of their names, each paid from the reserve.
    Whether there are any."""
    policy = Policy.from_canonical(row.policy)
    if row.devices < SMALL_FLEET_BELOW or not policy.segments:
        return False
    places = {name: opened.before.get(name, 0) + ranks.members for name, ranks in opened.ranks.items()}
    found = [
        name
        for name, many in sorted(places.items())
        if 1 < many < places[ROLLOUT] and dimension_of(name) in policy.segments
    ]
    if not found:
        return False
    known = {monitor.spec.segment for monitor in w.monitors(row.key)}
    number = before_now = newcomers(w, row)
    dark = dark_of(row.clock)
    for segment in found:
        if segment in known:
            continue
        before = opened.before.get(segment, 0)
        specs = allot_newcomer(
            segment,
            tolerate=policy.tolerances_over(dark, segment=True),
            false_exclude=policy.false_exclude,
            newcomer=number + 1,
            places=places[segment],
        )
        if specs:
            number += 1
            w.add_monitors(row.key, specs, from_places={spec.key: before for spec in specs})
    return number > before_now


def budgets_of(policy: Policy, devices: int, dark: Darkness | None) -> tuple[BudgetFacts, ...]:
    """The operator's own stops, and the computed ones for the classes he named none for."""
    own = policy.budget.limits
    budgets = [BudgetFacts((outcome,), limit.devices(devices), 0) for outcome, limit in own.items()]
    tolerate = policy.tolerances_over(dark)
    for default in default_budgets(tolerate=tolerate, devices=devices):
        if len(default.outcomes) == 1 and default.outcomes[0] in own:
            continue
        budgets.append(BudgetFacts(default.outcomes, default.count, 0, answer=default.answer))
    return tuple(budgets)
