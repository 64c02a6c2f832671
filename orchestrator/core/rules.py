"""The rules a rollout is bound to, as ``decide`` reads them: plain values out of the rollout and the policy file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from orchestrator.core.codes import NOT_TOLD_APART, Classes
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.gates import Gate
from orchestrator.core.outcomes import Outcome, Tolerance
from orchestrator.core.pace import Pace, Per, Rate
from orchestrator.core.policy import (
    Early,
    FromUnknown,
    OnSegment,
    Otherwise,
    Policy,
    Promotion,
    UnhealthyBefore,
)
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.wave_policy import policy_for
from orchestrator.core.window import Window

SEGMENTS: Final = ("hardware_id", "source_version")
"""Dimensions in which every rollout gives places from the start, so that nothing has to be filled in later."""

SLICE_OF_AT_ONCE: Final = 4
"""A slice has at most so many times the devices that may be at it at once."""


@dataclass(frozen=True, slots=True)
class WaveRules:
    """What one wave is bound to. ``after``: the waves that must be done before it opens. ``cover``, ``within``,
    ``otherwise``, ``from_unknown`` are its delta gate; ``at_least``, ``reports``, ``at_most``, ``early`` its bake;
    ``in_flight``, ``stake``, ``per``, ``rate`` its own pace, beside the rollout's. ``approvals``: so many other people
    must approve its opening; ``gates`` are asked before it."""

    wave: str
    after: tuple[str, ...] = ()
    awaits_promotion: bool = False
    approvals: int = 0
    window: Window | None = None
    cover: float = 1.0
    within: timedelta = timedelta(hours=6)
    otherwise: Otherwise = Otherwise.HOLD
    from_unknown: FromUnknown = FromUnknown.FULL
    at_least: timedelta = timedelta(hours=12)
    reports: float = 0.95
    at_most: timedelta = timedelta(hours=48)
    early: bool = False
    in_flight: int | None = None
    stake: int | None = None
    per: Per | None = None
    rate: Rate | None = None
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a rollout is bound to. ``waves`` in an order in which each stands after all it comes after.

    ``dimensions``: in which segments places are given: hardware id, source version, each label by which the rollout
    file tells its waves apart (``label:region``), and those that the policy watches: ``segments``.
    ``on_segment``, ``escalate_over`` and ``false_exclude`` as in the policy.
    ``classes``: in which class of ``tolerate`` a failure counts. ``unhealthy_apart``: devices that say that they are
    unhealthy at their offer are left out of what is counted. ``cancels``: a halt tells started devices to stop.
    ``approve_start``, ``approve_open``, ``approve_resume``: so many other people must approve.
    """

    waves: tuple[WaveRules, ...]
    tolerate: Mapping[Outcome, Tolerance] = field(default_factory=dict)
    first_slice: int = 20
    growth: float = 2.0
    slice_at_most: timedelta = timedelta(hours=24)
    open_at_most: timedelta = timedelta(days=7)
    reach: timedelta = timedelta(days=7)
    silent_after: timedelta = timedelta(hours=24)
    offer_window: Window | None = None
    in_flight: int | None = None
    stake: int | None = None
    per: Per | None = None
    rate: Rate | None = None
    dimensions: tuple[str, ...] = SEGMENTS
    segments: tuple[str, ...] = ()
    false_exclude: float = 0.05
    on_segment: OnSegment = OnSegment.EXCLUDE
    escalate_over: float = 0.2
    classes: Classes = NOT_TOLD_APART
    unhealthy_apart: bool = False
    cancels: bool = False
    approve_start: int = 0
    approve_open: int = 0
    approve_resume: int = 0

    def wave(self, name: str) -> WaveRules:
        return next(wave for wave in self.waves if wave.wave == name)

    def most_in_slice(self, name: str) -> int | None:
        """How many devices a slice of the wave may have at most under its fixed paces: so many as can be offered, and
        report, in the time that a slice is given. None: no pace limits it."""
        wave = self.wave(name)
        most = [SLICE_OF_AT_ONCE * each for each in (self.in_flight, wave.in_flight) if each is not None]
        half = self.slice_at_most / 2
        most += [max(1, half // each.every) for each in (self.rate, wave.rate) if each is not None]
        return min(most, default=None)


def bind(rollout: RolloutFile, policy: Policy, dark: Darkness | None = None) -> Rules:
    """The rules of a rollout file under a policy, each wave's own keys laid over it. ``dark``: of the rollout's clock;
    None where it has none.

    A wave that comes after nothing is let open by the start itself: a policy's ``promote: manual`` guards it only
    when the wave says so itself.
    """
    waves: list[WaveRules] = []
    for name in rollout.topological_order:
        wave = rollout.wave(name)
        own = wave.override
        bound = policy_for(policy, own)
        after = tuple(rollout.predecessors(name))
        guarded = bound.promote is Promotion.MANUAL
        waves.append(
            WaveRules(
                wave=name,
                after=after,
                awaits_promotion=guarded and (bool(after) or (own is not None and own.promote is not None)),
                approvals=bound.approvals.open,
                window=bound.window,
                cover=bound.deltas.cover,
                within=bound.deltas.within,
                otherwise=bound.deltas.otherwise,
                from_unknown=bound.deltas.from_unknown,
                at_least=bound.bake.at_least,
                reports=bound.bake.reports,
                at_most=bound.bake.at_most,
                early=bound.bake.early is Early.CONFIDENT,
                gates=bound.gates or (),
                **_pace(own.pace if own is not None else None),
            )
        )
    labels = {f"label:{key}" for wave in rollout.waves for key, _ in wave.devices.labels}
    labels |= {dimension for dimension in policy.segments if dimension not in SEGMENTS}
    return Rules(
        waves=tuple(waves),
        tolerate=policy.tolerances_over(dark),
        first_slice=policy.slices.first,
        growth=policy.slices.growth,
        slice_at_most=policy.slice_at_most,
        open_at_most=policy.open_at_most,
        reach=policy.reach,
        silent_after=policy.silent_after,
        offer_window=policy.offer_window,
        **_pace(policy.pace),
        dimensions=(*SEGMENTS, *sorted(labels)),
        segments=tuple(sorted(policy.segments)),
        false_exclude=policy.false_exclude,
        on_segment=policy.on_segment,
        escalate_over=policy.escalate_over,
        classes=policy.tolerate.classes,
        unhealthy_apart=policy.unhealthy_before is UnhealthyBefore.EXCLUDE,
        cancels=policy.cancels,
        approve_start=policy.approvals.start,
        approve_open=policy.approvals.open,
        approve_resume=policy.approvals.resume,
    )


def by_itself(rules: Rules) -> Rules:
    """The same where nobody needs to approve anything, and nobody outside is asked, for a simulation."""
    waves = tuple(replace(wave, approvals=0, gates=()) for wave in rules.waves)
    return replace(rules, waves=waves, approve_start=0, approve_open=0, approve_resume=0)


def _pace(pace: Pace | None) -> dict[str, Any]:
    """The keys of a pace as the fields of rules."""
    names = ("in_flight", "stake", "per", "rate")
    return {} if pace is None else {name: getattr(pace, name) for name in names}
