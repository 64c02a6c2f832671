"""Devices that make themselves known: with an enrolment token, or by asking through a gateway token that may.

Many at once are one transaction of the ``Writer``: uses are counted where the token is locked, so however many come
together, a token makes as many devices known as it may. Grants are locked before devices (see ``IdentityWriting``), so
this work comes before all others of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.core.fleet import Device, check_label, check_name
from orchestrator.errors import Forbidden, InvalidReport, Refused, Unauthorized, WaveError
from orchestrator.services.credentials import Grant
from orchestrator.services.messages import MOST_LABELS
from orchestrator.services.register import mark
from orchestrator.services.store import Store, Writing
from orchestrator.services.writer import Batch


class Wish(NamedTuple):
    """A device that wants to be known. ``grant``: the digest of what lets it. ``token``: the digest of its own token;
    None where it goes through a gateway and has none. ``hardware_id`` None: the only one that the grant names."""

    grant: bytes
    device_id: str
    hardware_id: str | None
    labels: Mapping[str, str] = MappingProxyType({})
    token: bytes | None = None

    def check(self) -> None:
        """Raises InvalidInput when something in it cannot be."""
        check_name(self.device_id, "device id")
        if self.hardware_id is not None:
            check_name(self.hardware_id, "hardware id")
        if len(self.labels) > MOST_LABELS:
            raise InvalidReport(f"The device says {len(self.labels)} labels; at most {MOST_LABELS} are taken.")
        for key, value in self.labels.items():
            check_label(key, value)


@dataclass(slots=True)
class Enrolments:
    """Runs batches. ``changed`` is told after the commit which devices are new or have a new token, ``spent`` which
    grant was found to have no uses left."""

    store: Store
    changed: Callable[[Sequence[str]], None]
    spent: Callable[[bytes], None] = lambda digest: None

    def run(self, batch: Batch, wishes: Sequence[Wish]) -> list[Device | WaveError]:
        w = batch.w
        grants = w.lock_grants({wish.grant for wish in wishes})
        rows = {wish.device_id: w.device(wish.device_id) for wish in wishes}
        known = {device_id: row.device for device_id, row in rows.items() if row is not None}
        left = {digest: grant.left for digest, grant in grants.items()}
        used = dict.fromkeys(grants, 0)
        made: dict[str, Device] = {}
        tokens = {device_id: None if row is None else row.token_digest for device_id, row in rows.items()}
        answers: list[Device | WaveError] = []
        for wish in wishes:
            there = made.get(wish.device_id) or known.get(wish.device_id)
            grant = grants.get(wish.grant)
            good = grant is not None and grant.stands(batch.now)
            if good and there is not None and (wish.token is None or wish.token == tokens[wish.device_id]):
                # Two first requests of one device came together, or the answer was lost. What a gateway token speaks
                # for is judged afterwards.
                answers.append(there)
                continue
            if grant is None or not good or left[wish.grant] == 0:
                self.spent(wish.grant)
                answers.append(Unauthorized("The token is wrong, or it is over."))
                continue
            found = _made(wish, grant, there, again=wish.device_id in made)
            answers.append(found)
            if isinstance(found, Device):
                made[wish.device_id], tokens[wish.device_id] = found, wish.token
                used[wish.grant] += 1
                remaining = left[wish.grant]
                left[wish.grant] = None if remaining is None else remaining - 1
        for digest, count in used.items():
            if count:
                w.use_grant(digest, count)
        # In the order of ids, so that two writers on PostgreSQL never wait for each other in a circle.
        w.enroll(((made[device_id], tokens[device_id]) for device_id in sorted(made)), now=batch.now)
        for wish, answer in zip(wishes, answers, strict=True):
            if isinstance(answer, Device) and wish.labels:
                _say(w, wish)
        if made:
            replaced = not known.keys().isdisjoint(made)
            batch.after.append(lambda: self._committed(tuple(made), replaced=replaced, now=batch.now))
        return answers

    def _committed(self, made: Sequence[str], *, replaced: bool, now: datetime) -> None:
        self.changed(made)
        if replaced:
            # Elsewhere the old token may be in memory; the mark is a lock that comes last, so it has a commit of its
            # own.
            with self.store.writing() as w:
                mark(w, now)


def _made(wish: Wish, grant: Grant, there: Device | None, *, again: bool) -> Device | WaveError:
    """The device as it is made known, or why it is not. ``there``: as it is known already; ``again``: since just
    now."""
    hardware_id = wish.hardware_id or (grant.hardware_ids[0] if grant.hardware_ids else None)
    if hardware_id is None:
        return InvalidReport("The device has to say its hardware id.")
    if grant.hardware_ids and hardware_id not in grant.hardware_ids:
        return Forbidden(f"This token is not for the hardware id {hardware_id}.")
    if there is not None and (again or not grant.may_replace):
        return Refused(f"Device {wish.device_id} is enrolled already.")
    if there is not None and not grant.covers(there):
        return Forbidden(f"Device {wish.device_id} is enrolled already, and this token is not for devices like it.")
    assert grant.tag is not None
    return Device(wish.device_id, hardware_id, grant.tag, group=grant.group, labels=dict(grant.labels))


def _say(w: Writing, wish: Wish) -> None:
    """The device's labels are its own word: those of the token, which are the operator's, stay."""
    row = w.device(wish.device_id)
    assert row is not None
    w.save_device(row.key, replace(row.device, labels=dict(wish.labels)))
