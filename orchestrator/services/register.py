"""The register of devices: what people do with them. Each order stands in the house's log (``house_log``) with who gave
it, and leaves a mark, so that every process that keeps devices in memory reads them again within a second."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, TypeVar

from orchestrator.core.fleet import Device, DeviceStatus, check_label, check_name
from orchestrator.core.harmless import on_one_line
from orchestrator.core.membership import wave_of
from orchestrator.core.offers import place_in
from orchestrator.core.slices import Slice
from orchestrator.core.states import POLICY
from orchestrator.core.update import counted, retire, retired, withdraw
from orchestrator.errors import NotFound, Refused
from orchestrator.services.board import LISTED, REGISTER, slices_by_wave
from orchestrator.services.chronicle import rules_of
from orchestrator.services.credentials import new_secret
from orchestrator.services.house_log import note, several
from orchestrator.services.offering import frozen
from orchestrator.services.records import DeviceRow, RolloutRow, UpdateRow
from orchestrator.services.store import Store, Writing
from orchestrator.services.tallies import Tallies

_AT_ONCE: Final = 2_000

Done = TypeVar("Done")


def mark(w: Writing, now: datetime) -> None:
    """Tell every process that devices changed. (A lease that is over at once: its owner is what is looked at.)"""
    w.take_lease(REGISTER, secrets.token_hex(8), now=now, until=now)


@dataclass(frozen=True, slots=True)
class Register:
    """Thin methods over the store; names are checked here. ``changed`` is called after each change in this process."""

    store: Store
    clock: Callable[[], datetime]
    changed: Callable[[], None] = lambda: None

    def enroll(
        self, devices: Iterable[Device], *, tokens: bool, renew: bool = False, by: str = POLICY
    ) -> Iterator[tuple[str, str | None]]:
        """Add devices, or bring known ones up to date; each id with its new token. With ``tokens`` new devices get one;
        known ones keep theirs (None), unless ``renew``: a fleet file that is read again locks nobody out. Works in
        steps of two thousand: what was yielded is stored. Raises InvalidInput before anything of a step is stored."""
        source = iter(devices)
        while some := list(islice(source, _AT_ONCE)):
            for device in some:
                check_device(device)
            now = self.clock()
            with self.store.writing() as w:
                known = frozenset() if renew else w.enrolled([device.id for device in some])
                secrets_of = {
                    device.id: new_secret() if tokens and device.id not in known else (None, None) for device in some
                }
                w.enroll(((device, secrets_of[device.id][1]) for device in some), now=now)
                whom = several([device.id for device in some])
                note(w, now, "devices_enrolled", whom, f"enrolled {whom}", by=by)
                mark(w, now)
            self.changed()
            yield from ((device_id, secret) for device_id, (secret, _) in secrets_of.items())

    def new_token(self, device_id: str, *, by: str = POLICY) -> str:
        """A new token; the one before is worth nothing from now on. Raises NotFound."""
        secret, digest = new_secret()

        def change(w: Writing, now: datetime) -> None:
            w.set_token(device_id, digest)
            note(w, now, "device_token_made", device_id, f"gave {device_id} a new token", by=by)

        self._change(change)
        return secret

    def revoke(self, device_id: str, *, by: str = POLICY) -> None:
        """No token is good for this device until it gets a new one. Raises NotFound."""

        def change(w: Writing, now: datetime) -> None:
            w.set_token(device_id, None)
            note(w, now, "device_token_revoked", device_id, f"took the token of {device_id} away", by=by)

        self._change(change)

    def set_group(self, device_ids: Sequence[str], group: str | None, *, by: str = POLICY) -> int:
        """Put devices into a group, or into none; how many changed. Raises NotFound."""
        if group is not None:
            check_name(group, "group")
        return self._each(
            device_ids,
            lambda w, now: w.set_group(device_ids, group, now=now),
            "devices_grouped",
            lambda whom: f"took {whom} out of their groups" if group is None else f"put {whom} into group {group}",
            by,
        )

    def add_group(self, group: str, *, by: str = POLICY) -> None:
        """A group may exist before it has devices."""
        check_name(group, "group")

        def change(w: Writing, now: datetime) -> None:
            w.add_group(group)
            note(w, now, "group_added", group, f"made group {group}", by=by)

        self._change(change)

    def set_label(self, device_ids: Sequence[str], key: str, value: str | None, *, by: str = POLICY) -> int:
        """Set or remove a label as a person's word, which the device's own cannot change; how many changed. Raises
        NotFound."""
        check_label(key, value)
        said = f"took label {key} off" if value is None else f"set label {key}={value} on"
        return self._each(
            device_ids,
            lambda w, now: w.set_label(device_ids, key, value, now=now),
            "devices_labelled",
            lambda whom: f"{said} {whom}",
            by,
        )

    def set_status(
        self, device_ids: Sequence[str], status: DeviceStatus, because: str | None = None, *, by: str = POLICY
    ) -> int:
        """Hold, retire or take back; how many changed. Raises NotFound.

        Who is held loses an offer that it has not started, and may finish one that it has. Who is retired leaves all
        denominators: its updates without an outcome are over, and a place that was kept for it waits for nobody."""

        def change(w: Writing, now: datetime) -> int:
            if status is not DeviceStatus.ACTIVE:
                for start in range(0, len(device_ids), _AT_ONCE):
                    _leave(w, device_ids[start : start + _AT_ONCE], status, now)
            return w.set_device_status(device_ids, status, because, now=now)

        said = f"{status}: {on_one_line(because)}" if because else status.value
        return self._each(device_ids, change, f"devices_{status}", lambda whom: f"made {whom} {said}", by)

    def replace(self, old_id: str, new_id: str, *, by: str = POLICY) -> str:
        """Another machine in the place of an old one: the old is retired, the new takes its hardware id, tag, group and
        labels; the new one's token. Its hash is its own, so it may stand in another wave. Raises NotFound, Refused when
        the new one is known already, InvalidInput.

        First the old goes, then the new comes: after a kill between the two the same order is given again."""
        check_name(new_id, "device id")
        with self.store.reading() as r:
            person, known = r.device(old_id), r.device(new_id)
        if person is None:
            raise NotFound(f"There is no device {old_id}.", remedy="`wave device list` shows them.")
        if known is not None:
            raise Refused(f"Device {new_id} is enrolled already.", remedy="The new device needs an id of its own.")
        self.set_status([old_id], DeviceStatus.RETIRED, f"replaced by {new_id}", by=by)
        old = person.device
        new = Device(new_id, old.hardware_id, old.tag, group=old.group, labels=dict(old.labels))
        ((_, token),) = self.enroll([new], tokens=True, by=by)
        assert token is not None
        return token

    def _each(
        self,
        device_ids: Sequence[str],
        work: Callable[[Writing, datetime], int],
        event: str,
        deed: Callable[[str], str],
        by: str,
    ) -> int:
        """``deed``: in words, of whom it is about. What changes nothing is not written down."""

        def checked(w: Writing, now: datetime) -> int:
            for device_id in device_ids:
                if w.device(device_id) is None:
                    raise NotFound(f"There is no device {device_id}.", remedy="`wave device list` shows them.")
            changed = work(w, now)
            if changed:
                whom = several(device_ids)
                note(w, now, event, whom, deed(whom), by=by)
            return changed

        return self._change(checked)

    def _change(self, work: Callable[[Writing, datetime], Done]) -> Done:
        now = self.clock()
        with self.store.writing() as w:
            done = work(w, now)
            mark(w, now)
        self.changed()
        return done


def _leave(w: Writing, device_ids: Sequence[str], status: DeviceStatus, now: datetime) -> None:
    """What a hold or a retirement does to the updates of devices, before their status changes."""
    people = [person for device_id in dict.fromkeys(device_ids) if (person := w.device(device_id)) is not None]
    tallies = Tallies(now)
    rollouts = sorted((row for row in w.rollouts(LISTED) if row.scope is not None), key=lambda row: row.key)
    for row in rollouts:
        w.lock_rollout(row.key)
    updates = w.load_updates([(row.key, person.key) for row in rollouts for person in people])
    for row in rollouts:
        slices = slices_by_wave(w.slices(row.key)) if status is DeviceStatus.RETIRED else {}
        for person in people:
            update = updates.get((row.key, person.key))
            if update is not None:
                end = retire if status is DeviceStatus.RETIRED else withdraw
                tallies.step(update, end(update.update))
            elif (unoffered := _unoffered(row, slices, person, now)) is not None and w.add_update(unoffered):
                tallies.count(unoffered, counted(unoffered.update))
    tallies.write(w)


def _unoffered(
    row: RolloutRow, slices: Mapping[str, Sequence[Slice]], person: DeviceRow, now: datetime
) -> UpdateRow | None:
    """The update, over before it began, of a retired device that has a place in the rollout and had no offer yet."""
    device, scope = person.device, row.scope
    if scope is None or not scope.eligible(device):
        return None
    selector = wave_of(device.member, scope.selectors)
    place = selector and place_in(slices.get(selector.wave, ()), selector, device, rules_of(row).dimensions)
    if not place:
        return None
    over = retired(from_commit=device.commit, to_commit=scope.commits[device.hardware_id], now=now)
    return frozen(row.key, person, over.update, place, unhealthy_apart=rules_of(row).unhealthy_apart)


def check_device(device: Device) -> None:
    """Raises InvalidInput when something in it cannot be."""
    check_name(device.id, "device id")
    check_name(device.hardware_id, "hardware id")
    check_name(device.tag, "tag")
    if device.group is not None:
        check_name(device.group, "group")
    for key, value in device.labels.items():
        check_label(key, value)
