"""Giving offers inside the transaction that writes them: everything is looked at again, locked (RULES 1.4).

A desk belongs to one batch. It counts who is at it while it gives offers, so that a cap holds within the batch too;
between processes a cap holds because only one of them at a time has the rollout locked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import msgspec

from orchestrator.core.admission import admit
from orchestrator.core.facts import RolloutState
from orchestrator.core.fleet import Device
from orchestrator.core.offers import (
    Earlier,
    LabelLimit,
    NoOffer,
    Offerable,
    Way,
    label_limits,
    may_offer,
    outstanding,
    unfit,
    way,
)
from orchestrator.core.protocols import DeviceProtocol, takes_whole
from orchestrator.core.states import Reason
from orchestrator.core.update import Patience, Update, UpdateStatus, counted, offer, offer_again, withdraw
from orchestrator.services.board import (
    WHOLE,
    Listed,
    Snapshot,
    artifacts_of,
    begun_of,
    candidates,
    known_of,
    names_of,
    offers_since,
    slices_by_wave,
    terms_of,
)
from orchestrator.services.chronicle import rules_of
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.downloads import Downloads
from orchestrator.services.installable import installs
from orchestrator.services.messages import Offer, OfferedDelta, OfferedTarget
from orchestrator.services.records import DeviceRow, RolloutRow, UpdateRow
from orchestrator.services.tallies import Tallies
from orchestrator.services.writer import Batch

LATE_WEIGHT: Final = 1.0
"""What a delta weighs in the queue when only a device that came by asked for it: less than what a wave requires."""

STANDS: Final = frozenset({UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING})
"""An update in one of these is told its offer again."""


def earlier_of(row: UpdateRow | None, state: RolloutState | None) -> Earlier | None:
    """What the device has had, for a rollout in this state; its segments are asked for only where some are excluded."""
    if row is None:
        return None
    segments = tuple(row.segments) if state is not None and state.excluded else ()
    return Earlier(row.update, row.wave, row.slice, row.places, segments)


def frozen(
    rollout_key: int,
    person: DeviceRow,
    update: Update,
    place: Offerable,
    *,
    unhealthy_apart: bool,
    by_delta: bool | None = None,
) -> UpdateRow:
    """An update with what its first offer freezes (RULES 3.6). ``unhealthy_apart``: the rules leave out whom they find
    unhealthy now."""
    device = person.device
    return UpdateRow(
        rollout_key=rollout_key,
        device_key=person.key,
        update=update,
        wave=place.wave,
        slice=place.slice,
        places=place.places,
        segment_places=msgspec.json.encode(dict(place.segments)).decode(),
        hardware_id=device.hardware_id,
        from_version=device.version,
        unhealthy_before=not device.healthy,
        apart=unhealthy_apart and not device.healthy,
        by_delta=by_delta,
        usual_gap=device.usual_gap,
    )


@dataclass(slots=True)
class Desk:
    """The rollouts as they are inside one transaction. ``knows``: whether the repository has a commit."""

    batch: Batch
    snapshot: Snapshot
    tallies: Tallies
    knows: Callable[[str, str], bool]
    downloads: Downloads
    given: int = 0
    _rollouts: dict[int, Listed | None] = field(default_factory=dict)
    _by_tag: dict[str, list[Listed]] = field(default_factory=dict)
    _deltas: dict[DeltaPair, DeltaRecord | None] = field(default_factory=dict)
    _wanted: dict[DeltaPair, float] = field(default_factory=dict)
    _begins: dict[tuple[int, str, DeltaPair], datetime | None] = field(default_factory=dict)
    _sharing: dict[tuple[int, str | None, str, str], int] = field(default_factory=dict)
    _spent: dict[int, dict[str, datetime]] = field(default_factory=dict)
    _frozen: tuple[Reason | None] | None = None

    def candidates(self, tag: str) -> list[Listed]:
        """Whom to ask for a device of this tag, as it is inside the transaction."""
        found = self._by_tag.get(tag)
        if found is None:
            listed = [self.rollout(each.key) for each in sorted(self.snapshot.by_tag.get(tag, ()), key=lambda e: e.key)]
            by_key = {each.key: each for each in listed if each is not None}
            found = [by_key[row.key] for row in candidates((each.row for each in by_key.values()), tag)]
            self._by_tag[tag] = found
        return found

    def rollout(self, key: int) -> Listed | None:
        """Read inside the transaction; None when it has not begun, and when the batch has not locked it: it is new on
        the board, and the next batch will."""
        if key not in self.batch.locked:
            return None
        if key not in self._rollouts:
            row = self.batch.w.rollout_by_key(key)
            self._rollouts[key] = None if row is None or row.scope is None else self._list(row)
        return self._rollouts[key]

    def forget(self, key: int) -> None:
        """It was stopped in this transaction: read it again."""
        self._rollouts.pop(key, None)
        self._by_tag.clear()

    def _list(self, row: RolloutRow) -> Listed:
        w = self.batch.w
        if self._frozen is None:
            self._frozen = (w.frozen(),)
        rules = rules_of(row)
        before = self.snapshot.listed.get(row.key)
        if before is not None and before.row.version == row.version:
            slices, names, artifacts = before.terms.slices, before.names, before.artifacts
        else:
            slices, names = slices_by_wave(w.slices(row.key)), names_of(w, row)
            artifacts = artifacts_of(w, row.target_version)
        terms = terms_of(row, rules=rules, slices=slices, r=w, frozen=self._frozen[0])
        return Listed(row, terms, names, known_of(w, row), artifacts, offers_since(row, before))

    def ask(
        self, person: DeviceRow, updates: dict[int, UpdateRow], over: DeviceProtocol = DeviceProtocol.OWN
    ) -> Offer | None:
        """The offer for this device, written into the transaction; or None. ``updates``: its own, by rollout, changed
        as offers are given and withdrawn. ``over``: the protocol it asks by."""
        busy = next((key for key, row in updates.items() if row.update.under_way), None)
        for listed in self.candidates(person.device.tag):
            if busy is not None and busy != listed.key:
                continue
            verdict = self.verdict(listed, person.device, updates.get(listed.key), over)
            if not isinstance(verdict, NoOffer):
                return self._give(listed, person, updates, *verdict)
        return None

    def verdict(
        self, listed: Listed, device: Device, update: UpdateRow | None, over: DeviceProtocol
    ) -> NoOffer | tuple[Offerable, Way, DeltaRecord | None]:
        """Whether it may be offered, and how it gets the content."""
        earlier = earlier_of(update, listed.row.state)
        found = may_offer(listed.terms, device, earlier, self.batch.now)
        if isinstance(found, NoOffer):
            return found
        for limit in () if outstanding(earlier) else label_limits(listed.terms, found.wave, device):
            if (full := limit.reached(self._flying(listed.key, limit))) is not None:
                return full
        to_commit = listed.terms.scope.commits[device.hardware_id]
        if (no := unfit(over, file=listed.format_of(to_commit))) is not None:
            return no
        record = self._delta(DeltaPair(device.commit, to_commit)) if device.commit not in (None, to_commit) else None
        known = self._known(listed, found.wave, device)
        as_it_is = installs(record, makes_artifacts=self.downloads.makes_artifacts)
        waits = record is None and known and device.commit != to_commit
        late = waits and not takes_whole(over, installs=as_it_is)
        pair = DeltaPair(device.commit, to_commit)
        how = way(
            listed.terms,
            found.wave,
            from_commit=device.commit,
            to_commit=to_commit,
            ready=record is not None,
            known=known,
            now=self.batch.now,
            begun_at=self._begun(listed, found.wave, pair) if late else None,
            over=over,
            installs=as_it_is,
        )
        if late and (how is not Way.WHOLE or device.commit not in listed.known.get(found.wave, {})):
            # Whom a look found and left out is served whole on purpose: `cover` asks for no more.
            self._wanted[pair] = LATE_WEIGHT
        return how if isinstance(how, NoOffer) else (found, how, record)

    def _flying(self, rollout_key: int, limit: LabelLimit) -> int:
        """How many that share the label's value are at it. Counted before the first of them is given an offer here, and
        from then on with what is given."""
        key = (rollout_key, limit.wave, limit.label, limit.value)
        if key not in self._sharing:
            self._sharing[key] = self.batch.w.flying_with(rollout_key, limit)
        return self._sharing[key]

    def finish(self) -> None:
        """Queue the deltas that were missed, and note what is spent of the rates: with the offers, or not at all."""
        for key, spent in sorted(self._spent.items()):
            self.batch.w.set_spent(key, spent)
        self._spent = {}
        if self._wanted:
            self.batch.w.queue_builds(self._wanted, now=self.batch.now)
            self._wanted = {}

    def _begun(self, listed: Listed, wave: str, pair: DeltaPair) -> datetime | None:
        key = (listed.key, wave, pair)
        if key not in self._begins:
            state, needs = listed.row.state.wave(wave), listed.known.get(wave, {})
            self._begins[key] = begun_of(self.batch.w, state, needs, pair, self.batch.now)
        return self._begins[key]

    def _delta(self, pair: DeltaPair) -> DeltaRecord | None:
        if pair not in self._deltas:
            self._deltas[pair] = self.batch.w.delta(pair)
        return self._deltas[pair]

    def _known(self, listed: Listed, wave: str, device: Device) -> bool:
        if device.commit is None:
            return False
        found = listed.known.get(wave, {}).get(device.commit)
        return self.knows(device.hardware_id, device.commit) if not found else True

    def _give(
        self,
        listed: Listed,
        person: DeviceRow,
        updates: dict[int, UpdateRow],
        place: Offerable,
        how: Way,
        record: DeltaRecord | None,
    ) -> Offer | None:
        device, before = person.device, updates.get(listed.key)
        if record is not None and (how is not Way.DELTA or record.whole):
            record = None
        by_delta = None if how is Way.SAME else record is not None
        if before is not None and before.update.status in STANDS:
            if before.by_delta != by_delta:
                before.by_delta = by_delta
                self.tallies.change(before)
        else:
            if before is not None:
                self._renew(listed, device, before, by_delta)
            else:
                row = self._row(listed, person, place, by_delta)
                if not self.batch.w.add_update(row):
                    return None  # another process was faster; the next check-in will tell
                self.tallies.count(row, counted(row.update))
                updates[listed.key] = row
            self._admitted(listed, place.wave, device)
        for key, row in updates.items():
            # One offer at a time: the device takes this one.
            if key != listed.key and row.update.status is UpdateStatus.OFFERED:
                self.tallies.step(row, withdraw(row.update))
        self.given += 1
        return self._offer(listed, device, record)

    def _renew(self, listed: Listed, device: Device, row: UpdateRow, by_delta: bool | None) -> None:
        """The offer once more; wave, slice and places stay."""
        patience = Patience(listed.rules.silent_after, device.usual_gap)
        to_commit = listed.terms.scope.commits[device.hardware_id]
        step = offer_again(
            row.update, from_commit=device.commit, to_commit=to_commit, patience=patience, now=self.batch.now
        )
        row.by_delta, row.usual_gap = by_delta, device.usual_gap
        row.hardware_id, row.from_version = device.hardware_id, device.version
        self.tallies.step(row, step)

    def _row(self, listed: Listed, person: DeviceRow, place: Offerable, by_delta: bool | None) -> UpdateRow:
        """The update of a first offer."""
        device, now = person.device, self.batch.now
        to_commit = listed.terms.scope.commits[device.hardware_id]
        patience = Patience(listed.rules.silent_after, device.usual_gap)
        step = offer(from_commit=device.commit, to_commit=to_commit, patience=patience, now=now)
        apart = listed.rules.unhealthy_apart
        return frozen(listed.key, person, step.update, place, unhealthy_apart=apart, by_delta=by_delta)

    def _admitted(self, listed: Listed, wave: str, device: Device) -> None:
        terms, own, now = listed.terms, listed.rules.wave(wave), self.batch.now
        flows = dict(terms.wave_flows)
        if wave in flows:
            flows[wave] = admit(flows[wave], own, now)
        after = replace(terms, flow=admit(terms.flow, terms.rules, now), wave_flows=flows)
        for name, paced, flow in ((WHOLE, terms.rules, after.flow), (wave, own, flows.get(wave))):
            if paced.rate is not None and flow is not None and flow.spent_until is not None:
                self._spent.setdefault(listed.key, {})[name] = flow.spent_until
        for limit in label_limits(terms, wave, device):
            self._sharing[listed.key, limit.wave, limit.label, limit.value] = self._flying(listed.key, limit) + 1
        changed = replace(listed, terms=after)
        self._rollouts[listed.key] = changed
        for tag, found in self._by_tag.items():
            self._by_tag[tag] = [changed if each.key == listed.key else each for each in found]

    def _offer(self, listed: Listed, device: Device, record: DeltaRecord | None) -> Offer:
        scope = listed.terms.scope
        delta = None
        if record is not None and record.pair.from_commit is not None:
            delta = OfferedDelta(record.pair.from_commit, record.path, record.bytes + record.fallback_bytes)
        name = listed.names.get(device.hardware_id, f"{scope.version}")
        target = OfferedTarget(name, scope.version, scope.commits[device.hardware_id])
        artifact = listed.artifacts.get(target.commit)
        if artifact is not None:
            return self.downloads.offer(scope.rollout, target, artifact, delta, now=self.batch.now)
        return Offer(scope.rollout, target, self.downloads.repository, delta)
