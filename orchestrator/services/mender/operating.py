"""What people decide about Mender devices: accept, reject, preauthorise, decommission.

Each order leaves the register's mark, so that every process that keeps devices in memory reads them again within a
second, and a token that was taken away is worth nothing with the next check-in that writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.fleet import Device, DeviceStatus, check_name
from orchestrator.errors import InvalidInput, NotFound, Refused, WrongState
from orchestrator.services.house_log import note
from orchestrator.services.mender.sets import AuthSet, SetStatus, identity_digest, set_id
from orchestrator.services.mender.signatures import canonical, canonical_key
from orchestrator.services.register import Register, check_device, mark
from orchestrator.services.store import Reading, Store, Writing

FEWEST_DIGITS: Final = 6
"""Of a set's id, by which it may be named."""

REJECTED_AT_ONCE: Final = 500
"""Sets in one transaction: devices that are let in meanwhile wait for it."""

_HEX: Final = frozenset("0123456789abcdef")
_SHOWN: Final = 12
_MOST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Placing:
    """As what a set is let in. ``device_id`` None: what its identity says, or as before; hardware id and tag are needed
    for a device that is not enrolled yet."""

    device_id: str | None = None
    hardware_id: str | None = None
    tag: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of an order: the set as it is now, its device, whether that is new in the fleet, and the set of the
    same identity that was accepted until now."""

    one: AuthSet
    device_id: str | None
    enrolled: bool = False
    instead_of: AuthSet | None = None


def _rejected(one: AuthSet, now: datetime, by: str) -> Decided:
    return Decided(replace(one, status=SetStatus.REJECTED, decided_at=now, decided_by=by), one.device_id)


@dataclass(frozen=True, slots=True)
class Operating:
    """The orders. ``register`` retires who is decommissioned."""

    store: Store
    register: Register
    clock: Callable[[], datetime]

    # ------------------------------------------------------------------------------------------ showing

    def sets(
        self, statuses: Collection[SetStatus] | None = None, *, after: str | None = None, limit: int = 100
    ) -> Sequence[AuthSet]:
        with self.store.reading() as r:
            return r.auth_sets(statuses, after=after, limit=limit)

    def waiting(self, *, asked_within: timedelta | None = None, limit: int = 100) -> Sequence[AuthSet]:
        """Who waits for a person, who asked last coming first; ``asked_within``: only who asked first within that."""
        since = None if asked_within is None else self.clock() - asked_within
        with self.store.reading() as r:
            return r.auth_sets_waiting(asked_since=since, limit=limit)

    # ------------------------------------------------------------------------------------------ deciding

    def accept(self, which: str, placing: Placing, *, by: str, dry_run: bool = False) -> Decided:
        """Let a set in. Another one of its identity that was accepted is rejected with that, and its token is worth
        nothing.

        Raises NotFound; Refused when its device is another identity's or was enrolled by other means and ``placing``
        does not name it; InvalidInput when hardware id or tag are missing or cannot be."""
        return self._place(
            lambda r, now: _one(r, which, SetStatus.PENDING), placing, SetStatus.ACCEPTED, by=by, dry_run=dry_run
        )

    def preauthorize(
        self, identity: str, public_key: str, placing: Placing, *, by: str, dry_run: bool = False
    ) -> Decided:
        """Enrol a device before it asks for the first time; it is accepted by itself when it does, with this key.

        Raises as ``accept``, and WrongState when exactly this set is accepted already."""
        identity, key = canonical(identity), canonical_key(public_key)
        name = set_id(identity, key)

        def find(r: Reading, now: datetime) -> AuthSet:
            known = r.auth_set(name)
            if known is not None and known.status is SetStatus.ACCEPTED:
                raise WrongState(f"This key is accepted already, as device {known.device_id}.")
            status = SetStatus.PREAUTHORIZED
            return known or AuthSet(
                id=name, identity=identity, public_key=key, status=status, asked_at=now, seen_at=now
            )

        return self._place(find, placing, SetStatus.PREAUTHORIZED, by=by, dry_run=dry_run)

    def reject(self, which: str, *, by: str, dry_run: bool = False) -> Decided:
        """Let a set in no more. Its device stays enrolled. Raises NotFound."""
        now = self.clock()
        if dry_run:
            with self.store.reading() as r:
                one = _one(r, which)
            return _rejected(one, now, by)
        with self.store.writing() as w:
            w.lock_auth_sets([_one(w, which).identity])
            one = _one(w, which)
            decided = _rejected(one, now, by)
            w.save_auth_set(decided.one)
            note(w, now, "mender_rejected", one.id, f"rejected the Mender set {one.id[:_SHOWN]}", by=by)
            if one.status is SetStatus.ACCEPTED:
                _lock_out(w, one.device_id)
            mark(w, now)
        self.register.changed()
        return decided

    def reject_waiting(
        self, *, asked_within: timedelta | None = None, by: str, dry_run: bool = False
    ) -> Sequence[Decided]:
        """The same for all who wait, or who asked first within that time: made-up ones, which hold the places of who
        would come now. Who was decided on meanwhile stays as it is."""
        found = self.waiting(asked_within=asked_within, limit=_MOST)
        rejected: list[Decided] = []
        for begin in range(0, len(found), REJECTED_AT_ONCE):
            some = {one.id: one for one in found[begin : begin + REJECTED_AT_ONCE]}
            now = self.clock()
            if dry_run:
                rejected += [_rejected(one, now, by) for one in some.values()]
                continue
            with self.store.writing() as w:
                for one in w.lock_auth_sets({each.identity for each in some.values()}):
                    if one.id in some and one.status is SetStatus.PENDING:
                        rejected.append(_rejected(one, now, by))
                        w.save_auth_set(rejected[-1].one)
                        note(w, now, "mender_rejected", one.id, f"rejected the Mender set {one.id[:_SHOWN]}", by=by)
        return rejected

    def decommission(self, which: str, *, by: str, dry_run: bool = False) -> Decided:
        """Forget every set of the identity, lock its device out and retire it. If it asks again, it is a stranger.
        Raises NotFound.

        First the device is retired, then the sets go: after a kill between the two the same order is given again."""
        with self.store.reading() as r:
            one = _one(r, which, SetStatus.ACCEPTED)
            named = dict.fromkeys(each.device_id for each in r.auth_sets_of(identity=one.identity))
            enrolled = [each for each in named if each is not None and r.device(each) is not None]
        if not dry_run:
            if enrolled:
                self.register.set_status(enrolled, DeviceStatus.RETIRED, f"decommissioned by {by}", by=by)
            with self.store.writing() as w:
                now = self.clock()
                note(w, now, "mender_decommissioned", one.id, f"decommissioned the Mender set {one.id[:_SHOWN]}", by=by)
                w.remove_auth_sets([each.id for each in w.lock_auth_sets([one.identity])])
                for device_id in enrolled:
                    _lock_out(w, device_id)
                mark(w, now)
            self.register.changed()
        return Decided(one, enrolled[0] if enrolled else None)

    def _place(
        self,
        find: Callable[[Reading, datetime], AuthSet],
        placing: Placing,
        status: SetStatus,
        *,
        by: str,
        dry_run: bool,
    ) -> Decided:
        now = self.clock()
        if dry_run:
            with self.store.reading() as r:
                return _plan(r, find(r, now), placing, status, by=by, now=now).decided
        with self.store.writing() as w:
            w.lock_auth_sets([find(w, now).identity])
            plan = _plan(w, find(w, now), placing, status, by=by, now=now)
            _carry_out(w, plan, now)
            deed = f"{status} the Mender set {plan.decided.one.id[:_SHOWN]} as device {plan.decided.device_id}"
            note(w, now, f"mender_{status}", plan.decided.one.id, deed, by=by)
            mark(w, now)
        self.register.changed()
        return plan.decided


@dataclass(frozen=True, slots=True)
class _Plan:
    """What letting a set in will write. ``known``: the device as it is enrolled now."""

    decided: Decided
    device: Device
    known: Device | None


def _plan(r: Reading, one: AuthSet, placing: Placing, status: SetStatus, *, by: str, now: datetime) -> _Plan:
    mine = r.auth_sets_of(identity=one.identity)
    before = next((each for each in mine if each.status is SetStatus.ACCEPTED and each.id != one.id), None)
    earlier = next((each.device_id for each in (before, one, *mine) if each is not None and each.device_id), None)
    device_id = check_name(placing.device_id or earlier or suggested_id(one.identity), "device id")
    for other in r.auth_sets_of(device_id=device_id):
        if other.identity != one.identity and other.status in (SetStatus.ACCEPTED, SetStatus.PREAUTHORIZED):
            raise Refused(
                f"Device {device_id} is the one with the identity {other.identity}.",
                remedy="Name another id with --device.",
            )
    row = r.device(device_id)
    known = None if row is None else row.device
    if known is not None and device_id not in (placing.device_id, earlier):
        raise Refused(
            f"There is a device {device_id} already, and nobody said that this is the same.",
            remedy=f"Say so with `--device {device_id}`, or name another id.",
        )
    after = replace(one, status=status, device_id=device_id, decided_at=now, decided_by=by)
    instead_of = before if status is SetStatus.ACCEPTED else None
    return _Plan(Decided(after, device_id, known is None, instead_of), _placed(device_id, placing, known), known)


def _carry_out(w: Writing, plan: _Plan, now: datetime) -> None:
    one, before, device = plan.decided.one, plan.decided.instead_of, plan.device
    if before is not None:
        over = replace(before, status=SetStatus.REJECTED, decided_at=one.decided_at, decided_by=one.decided_by)
        w.save_auth_set(over)
    w.save_auth_set(one)
    w.enroll([(device, None)], now=now)
    if plan.known is None:
        return
    if plan.known.status is DeviceStatus.RETIRED:
        w.set_device_status([device.id], DeviceStatus.ACTIVE, None, now=now)
    if one.status is SetStatus.ACCEPTED:
        _lock_out(w, device.id)  # until the new key asks


def _placed(device_id: str, placing: Placing, known: Device | None) -> Device:
    hardware_id = placing.hardware_id or (None if known is None else known.hardware_id)
    tag = placing.tag or (None if known is None else known.tag)
    if hardware_id is None or tag is None:
        raise InvalidInput(f"Device {device_id} is not enrolled yet.", remedy="Give --hardware-id and --tag.")
    device = Device(device_id, hardware_id, tag, group=placing.group, labels=dict(placing.labels))
    check_device(device)
    return device


def suggested_id(identity: str) -> str:
    """The device id for an identity: its only value where that can be one, else one made of its digest."""
    values = list(json.loads(identity).values())
    if len(values) == 1 and isinstance(values[0], str):
        try:
            return check_name(values[0], "device id")
        except InvalidInput:
            pass
    return f"mender-{identity_digest(identity)[:_SHOWN]}"


def _lock_out(w: Writing, device_id: str | None) -> None:
    if device_id is not None and w.device(device_id) is not None:
        w.set_token(device_id, None)


def _one(r: Reading, which: str, prefer: SetStatus | None = None) -> AuthSet:
    """The set that is meant: by the beginning of its id, or by its device or one value of its identity where only one
    set can be meant, or only one that is as ``prefer``."""
    text = which.strip()
    found: list[AuthSet] = []
    if len(text) >= FEWEST_DIGITS and set(text.lower()) <= _HEX:
        found = list(r.auth_sets_like(text.lower(), limit=9))
    if not found:
        identities = {one.identity for one in r.auth_sets_of(device_id=text)}
        identities = identities or {one.identity for one in r.auth_sets(limit=_MOST) if _speaks_of(one, text)}
        found = [one for identity in sorted(identities) for one in r.auth_sets_of(identity=identity)]
    if len(found) > 1 and len(preferred := [one for one in found if one.status is prefer]) == 1:
        found = preferred
    if not found:
        raise NotFound(f"There is no authentication set {text[:80]!r}.", remedy="`wave mender list` shows them.")
    if len(found) > 1:
        shown = ", ".join(f"{one.id[:_SHOWN]} ({one.status})" for one in found[:8])
        raise Refused(f"{text[:80]!r} may be {len(found)} sets: {shown}.", remedy="Give the set's id.")
    return found[0]


def _speaks_of(one: AuthSet, text: str) -> bool:
    return suggested_id(one.identity) == text or text in json.loads(one.identity).values()
