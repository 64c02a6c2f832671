"""Why a device is offered what, or not yet: the checks that give offers, asked without giving any."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from orchestrator.core.artifact import FILES
from orchestrator.core.decide import decide
from orchestrator.core.membership import wave_of, why_in
from orchestrator.core.offers import (
    NoOffer,
    Offerable,
    Terms,
    Way,
    awaited,
    elsewhere,
    label_limits,
    may_offer,
    outstanding,
    unfit,
    way,
)
from orchestrator.core.position import SPACE, position
from orchestrator.core.protocols import NOTHING_SPOKEN, DeviceProtocol
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import NotFound
from orchestrator.services.board import begun_of, candidates, known_of, slices_by_wave, terms_of
from orchestrator.services.chronicle import rules_of
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.installable import installs
from orchestrator.services.offering import earlier_of
from orchestrator.services.records import DeviceRow, RolloutRow, UpdateRow
from orchestrator.services.store import Reading
from orchestrator.services.views import WhyNot

_WAYS = {
    Way.SAME: "It is offered the Target, and has its content already.",
    Way.DELTA: "It is offered the Target, by delta.",
    Way.WHOLE: "It is offered the Target, whole.",
}


def reasons_of(
    r: Reading, device_id: str, *, now: datetime, knows: Callable[[str, str], bool], makes_artifacts: bool = False
) -> tuple[WhyNot, ...]:
    """One answer for each rollout that is asked for the device, in the order of asking. ``makes_artifacts``: deltas
    between files are artifacts themselves. Raises NotFound."""
    person = r.device(device_id)
    if person is None:
        raise NotFound(f"There is no device {device_id}.", remedy="`wave device list` shows them.")
    rows = [row for row in candidates(r.offering(person.device.tag), person.device.tag) if row.scope is not None]
    busy = next(((name, row) for name, row in r.updates_of_device(person.key) if row.update.under_way), None)
    asked = _Asked(r, now, knows, makes_artifacts)
    return tuple(_why(asked, row, person, busy) for row in rows)


class _Asked(NamedTuple):
    """The world that is asked."""

    r: Reading
    now: datetime
    knows: Callable[[str, str], bool]
    makes_artifacts: bool


def _why(asked: _Asked, row: RolloutRow, person: DeviceRow, busy: tuple[str, UpdateRow] | None) -> WhyNot:
    r, now, device = asked.r, asked.now, person.device
    rules = rules_of(row)
    slices = slices_by_wave(r.slices(row.key))
    facts = r.facts(row, now=now)
    terms = terms_of(row, rules=rules, slices=slices, r=r, frozen=facts.frozen, facts=facts)
    update = r.update(row.key, person.key)
    earlier = earlier_of(update, row.state)
    protocol = r.spoken([person.key]).get(person.key, NOTHING_SPOKEN).protocol
    found = may_offer(terms, device, earlier, now)
    if isinstance(found, NoOffer) and update is not None and update.update.status is UpdateStatus.APPLIED:
        found = awaited(protocol, found, device)
    if isinstance(found, Offerable):
        targets = {target.commit: target.provider for target in r.targets(version=row.target_version)}
        commit = terms.scope.commits[device.hardware_id]
        artifact = r.artifact(commit) if targets.get(commit) == FILES else None
        found = unfit(protocol, file=None if artifact is None else artifact.format) or found
    if isinstance(found, Offerable) and not outstanding(earlier):
        reached = (each.reached(r.flying_with(row.key, each)) for each in label_limits(terms, found.wave, device))
        found = next((no for no in reached if no is not None), found)
    if busy is not None and busy[1].rollout_key != row.key and isinstance(found, Offerable):
        found = elsewhere(busy[0])
    answer = found if isinstance(found, NoOffer) else _way(asked, row, terms, found, person, protocol)
    selector = wave_of(device.member, terms.scope.selectors)
    wave = update.wave if update is not None else selector.wave if selector is not None else None
    own = next((each for each in terms.scope.selectors if each.wave == wave), None)
    number, place = (update.slice, update.places[0]) if update is not None else (None, None)
    if isinstance(found, Offerable):
        number, place = found.slice, found.places[0]
    plan = decide(row.state, facts, rules, now)
    return WhyNot(
        rollout=row.state.rollout,
        status=row.state.status,
        wave=wave,
        wave_status=row.state.wave(wave).status if wave is not None else None,
        position=position(device.member.hash, own.salt) / SPACE if own is not None else None,
        slice=number,
        place=place,
        kind=answer.kind if isinstance(answer, NoOffer) else "offered",
        sentence=answer.sentence if isinstance(answer, NoOffer) else _WAYS[answer],
        why_wave=_why_wave(update, why_in(device.member, terms.scope.selectors)),
        waits=tuple(each.reason.sentence for each in plan.reasons if each.wave is not None and each.wave == wave),
        update=update,
    )


def _why_wave(update: UpdateRow | None, now: tuple[str, ...]) -> tuple[str, ...]:
    return now if update is None else (f"{update.wave}: its offer said so, whatever has changed since.",)


def _way(
    asked: _Asked, row: RolloutRow, terms: Terms, found: Offerable, person: DeviceRow, protocol: DeviceProtocol
) -> Way | NoOffer:
    r, now, device = asked.r, asked.now, person.device
    to_commit = terms.scope.commits[device.hardware_id]
    commit = device.commit
    record, known, begun_at = None, False, None
    if commit is not None:
        record = r.delta(DeltaPair(commit, to_commit)) if commit != to_commit else None
        needs = known_of(r, row).get(found.wave, {})
        known = needs.get(commit) or asked.knows(device.hardware_id, commit)
        begun_at = begun_of(r, row.state.wave(found.wave), needs, DeltaPair(commit, to_commit), now)
    return way(
        terms,
        found.wave,
        from_commit=commit,
        to_commit=to_commit,
        ready=record is not None,
        known=known,
        now=now,
        begun_at=begun_at,
        over=protocol,
        installs=installs(record, makes_artifacts=asked.makes_artifacts),
    )
