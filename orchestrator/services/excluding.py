"""Leaving a segment out of a rollout by a person's order, and taking it back in (RULES 4.4).

What the machine does by itself when a segment's monitor crosses is decided in ``core.safety`` and written down by
``chronicle``; here is the same on a person's word, whatever the evidence.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from orchestrator.core import transitions
from orchestrator.core.harmless import reason_given
from orchestrator.core.policy import DIMENSION
from orchestrator.core.rules import Rules
from orchestrator.core.safety import bad_in_small_waves
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus
from orchestrator.errors import InvalidInput, NotFound, Refused
from orchestrator.services.accepting import begin_monitors_anew
from orchestrator.services.chronicle import order, rules_of, watching
from orchestrator.services.records import Effect, EffectKind, RolloutRow
from orchestrator.services.register import mark
from orchestrator.services.stops import stopping
from orchestrator.services.store import Writing

SHOWN: Final = 8
"""Segments that a refusal names."""


def exclude_segment(w: Writing, row: RolloutRow, segment: str, *, by: str, reason: str | None, now: datetime) -> str:
    """Leave it out; one sentence about what that does. Raises InvalidInput for what is no segment of the rollout,
    NotFound for one without devices, WrongState when it is left out already or the rollout cannot."""
    devices = _devices(w, row, segment)
    sentence = f"Segment {segment} excluded by {by}: {_because(reason)}"
    state = transitions.exclude(row.state, segment, devices, Reason(ReasonKind.ORDERED, sentence), now, by)
    before = _bad_in_small_waves(w, row, now)
    withdrawn = counted(w.unstarted(row.key, segment), "offer")
    _leave_out(w, replace(row, state=state))
    # The bad devices that leave with it were accepted with it, or never: the next one is a first one again.
    gone = before - _bad_in_small_waves(w, row, now)
    state = replace(state, first_bad_accepted=max(0, state.first_bad_accepted - gone))
    facts = {"excluded": {"segment": segment, "devices": devices}}
    order(w, row, state, event="excluded", by=by, sentence=sentence, now=now, facts=facts)
    goes_on = "goes on" if row.state.status is RolloutStatus.RUNNING else f"stays {row.state.status}"
    return (
        f"Segment {segment} of rollout {row.state.rollout} is excluded: its {counted(devices, 'device')} will be"
        f" offered nothing more, {withdrawn} not started will be withdrawn, and the rest {goes_on} without."
    )


def include_segment(w: Writing, row: RolloutRow, segment: str, *, by: str, reason: str | None, now: datetime) -> str:
    """Take it back in: a new attempt, so every monitor that is open begins anew with the next slice. One sentence
    about what that does. Raises WrongState when it is not excluded, Refused while something stands against the rollout
    that nobody has accepted: beginning anew would let it go."""
    state = transitions.include(row.state, segment)
    left_out = next(each for each in row.state.excluded if each.segment == segment)
    sentence = f"Segment {segment} included by {by}: {_because(reason)}"
    facts = w.facts(row, now=now)
    if stopped := stopping(row.state, facts):
        name, why = next(iter(stopped.items()))
        raise Refused(
            f"Taking {segment} back in would un-stop {row.state.rollout}: {name} stands against it"
            f" ({why.rstrip('.')}).",
            remedy=f"Accept it first, by name: `wave resume {row.state.rollout} --accept {name} --reason TEXT`.",
        )
    specs = [monitor.spec for monitor in w.monitors(row.key) if monitor.accepted_at is None]
    w.close_monitors(row.key, {spec.key for spec in specs}, now=now)
    begin_monitors_anew(w, row, specs, facts)
    waiting = w.let_back_in(row, segment, since=left_out.standing.since, now=now)
    mark(w, now)  # what is kept in memory of these devices is read again
    about = {"included": segment, "attempt": state.attempt, **watching(w, row)}
    _leave_out(w, order(w, row, state, event="included", by=by, sentence=sentence, now=now, facts=about))
    return (
        f"Segment {segment} of rollout {row.state.rollout} is taken back in: its devices with a place may be offered"
        f" again, {counted(waiting, 'device')} more in a later slice, and {counted(len(specs), 'monitor')} will begin"
        " anew with the next slice. Until that opens only budgets, and the clock of silence where there is one, watch"
        " who has a place."
    )


def _leave_out(w: Writing, row: RolloutRow) -> None:
    """At once as far as one step goes, which is all of a small fleet; the outbox does the rest."""
    if w.leave_out(row).after is not None:
        w.add_effects([Effect(EffectKind.LEAVE_OUT, row.state.rollout)])


def _bad_in_small_waves(w: Writing, row: RolloutRow, now: datetime) -> int:
    return bad_in_small_waves(w.facts(row, now=now), rules_of(row))


def _devices(w: Writing, row: RolloutRow, segment: str) -> int:
    """How many devices the rollout has of it: at its start, with a place, or still to come."""
    dimension, _, _ = segment.partition("=")
    refuse_no_segment(row, rules_of(row), segment)
    if row.scope is None:
        return 0  # not begun: the state tables refuse it with their own words
    at_start = (monitor.spec.devices for monitor in w.monitors(row.key) if monitor.spec.segment == segment)
    devices = max(w.in_segment(row.scope, segment), w.populations(row.key).get(segment, 0), *at_start, 0)
    if not devices:
        there = ", ".join(w.segments(row.scope, dimension, limit=SHOWN)) or "none"
        raise NotFound(f"Rollout {row.state.rollout} has no device in {segment}.", remedy=f"There are: {there}.")
    return devices


def refuse_no_segment(row: RolloutRow, rules: Rules, segment: str) -> None:
    """Raises InvalidInput for what can be no segment of the rollout."""
    dimension, _, value = segment.partition("=")
    if not DIMENSION.fullmatch(dimension) or not value or dimension not in rules.dimensions:
        known = ", ".join(f"{each}=…" for each in rules.dimensions)
        raise InvalidInput(
            f"{segment[:80]!r} is no segment of rollout {row.state.rollout}.",
            remedy=f"Write DIMENSION=VALUE, such as hardware_id=rpi4; places are kept of {known}.",
        )


def counted(many: int, what: str) -> str:
    return f"{many} {what}" if many == 1 else f"{many} {what}s"


def _because(reason: str | None) -> str:
    said = reason_given(reason)
    if not said:
        raise InvalidInput("Excluding a segment, or taking it back in, needs a reason: `--reason TEXT`.")
    return said if said[-1] in ".!?" else f"{said}."
