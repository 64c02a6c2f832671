"""Devices in memory between their check-ins: the latest as objects, the whole rest of the fleet packed.

A device that is packed takes about 300 bytes, one that has had an update about 400, and one that is open up to 1,500;
a fleet of a million thus fits, and none of it costs a look into the store when its turn comes. What many devices have
in common (hardware id, tag, what they run and say) is kept once. Nothing here is the truth: whatever is
forgotten is read again.

Answers for: memory and its bounds. Not for: whether what is remembered still holds (``devices``).
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import isnan, nan
from operator import attrgetter
from typing import Any, Final

import msgspec

from orchestrator.core.fleet import Device
from orchestrator.core.offers import Earlier
from orchestrator.core.protocols import Spoken
from orchestrator.core.update import Update
from orchestrator.services.board import Snapshot
from orchestrator.services.kept import Kept
from orchestrator.services.messages import CheckIn
from orchestrator.services.records import DeviceRow

MOST_OPEN: Final = 10_000
"""Devices kept as objects."""

_OPEN: Final = b""

_HEAD: Final = struct.Struct("<qIIdddddd32s?BII")
"""Key, what it has in common, snapshot of the verdict; then, in seconds: seen, usual gap, since, enrolled, until; its
part of the jitter; the digest of its token, and whether there is one; which labels it said of itself, and the lengths
of its labels and of those. Behind it stand both, as JSON, and its updates."""


_HAD: Final = struct.Struct("<ddddddqq")
"""Of each update that it has had, in seconds: deadline, started, installing, confirmed, recovered, offered; its two
places."""

_shared_of_course: Final = attrgetter("status", "resolved", "bad", "ended")


_NO_LABELS, _ITS_LABELS, _OTHER_LABELS = range(3)
"""What a device said of its labels: nothing, those that it has, or others."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, str]).decode


@dataclass(slots=True)
class _Alike:
    """What many devices have in common; of ``device`` only that counts. Labels are not among it: a serial number is
    nobody else's. ``uses``: how many packed devices name it."""

    name: object
    device: Device
    said: CheckIn | None
    register: object
    spoken: Spoken
    had: tuple[Any, ...]
    uses: int = 0


class Shelf:
    """Kept devices by id. ``most``: of all, 0 for none; who comes when that is full is not remembered. Whoever changes
    a Kept that it did not just get holds ``lock``."""

    def __init__(self, most: int, most_open: int = MOST_OPEN) -> None:
        self.lock = threading.RLock()
        self._most = most
        self._most_open = most_open
        self._open: OrderedDict[str, Kept] = OrderedDict()
        # Every id has its place here, empty while it is open: a table that is only overwritten never has to grow anew.
        self._packed: dict[str, bytes] = {}
        self._alike: dict[int, _Alike] = {}
        self._numbers: dict[object, int] = {}
        self._next_number = 0
        self._snapshot: Snapshot | None = None
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, device_id: str) -> Kept | None:
        """The device as it is remembered, open from now on."""
        kept = self._open.get(device_id)
        if kept is not None or device_id not in self._packed:
            return kept
        with self.lock:
            packed = self._packed.get(device_id)
            if not packed:
                return self._open.get(device_id)
            kept = self._unpack(device_id, packed)
            self._packed[device_id] = _OPEN
            self._keep_open(device_id, kept)
            return kept

    def put(self, device_id: str, kept: Kept) -> None:
        """Remember it, instead of what is remembered."""
        with self.lock:
            packed = self._packed.get(device_id)
            if packed is None and len(self._packed) >= self._most:
                return
            if packed:
                self._release(_HEAD.unpack_from(packed)[1])
            self._packed[device_id] = _OPEN
            self._keep_open(device_id, kept)

    def drop(self, device_id: str) -> None:
        """Forget it."""
        with self.lock:
            self._open.pop(device_id, None)
            packed = self._packed.pop(device_id, None)
            if packed:
                self._release(_HEAD.unpack_from(packed)[1])

    def _keep_open(self, device_id: str, kept: Kept) -> None:
        self._open[device_id] = kept
        while len(self._open) > self._most_open:
            other, oldest = self._open.popitem(last=False)
            self._packed[other] = self._pack(oldest)

    def _pack(self, kept: Kept) -> bytes:
        device = kept.person.device
        if kept.snapshot is not None and kept.snapshot is not self._snapshot:
            self._snapshot = kept.snapshot
            self._epoch += 1
        labels = _encode(device.labels) if device.labels else b""
        said, other = _NO_LABELS, b""
        if kept.said is not None and kept.said.labels is not None:
            said = _ITS_LABELS if kept.said.labels == device.labels else _OTHER_LABELS
            other = _encode(kept.said.labels) if said == _OTHER_LABELS else b""
        head = _HEAD.pack(
            kept.person.key,
            self._number(kept),
            0 if kept.snapshot is None else self._epoch,
            _seconds(kept.seen_at),
            kept.usual_gap.total_seconds(),
            _seconds(device.since_at),
            _seconds(device.enrolled_at),
            _seconds(kept.until),
            kept.spread,
            kept.person.token_digest or b"",
            kept.person.token_digest is not None,
            said,
            len(labels),
            len(other),
        )
        return b"".join((head, labels, other, *(_packed_times(earlier) for earlier, _ in kept.had.values())))

    def _unpack(self, device_id: str, packed: bytes) -> Kept:
        key, number, epoch, *times, digest, known, which, length, other = _HEAD.unpack_from(packed)
        seen, gap, since, enrolled, until, spread = times
        labels_end = _HEAD.size + length
        labels = _decode(packed[_HEAD.size : labels_end]) if length else {}
        alike = self._alike[number]
        self._release(number)
        seen_at, usual_gap = _moment(seen), timedelta(seconds=gap)
        device = replace(
            alike.device,
            id=device_id,
            labels=labels,
            enrolled_at=_moment(enrolled),
            last_seen_at=seen_at,
            since_at=_moment(since),
            usual_gap=usual_gap,
        )
        said = alike.said
        if said is not None and which != _NO_LABELS:
            own = dict(labels) if which == _ITS_LABELS else _decode(packed[labels_end : labels_end + other])
            said = msgspec.structs.replace(said, labels=own)
        return Kept(
            DeviceRow(key, device, digest if known else None),
            alike.register,
            said,
            _unpacked_had(alike.had, packed, labels_end + other) if alike.had else {},
            seen_at,
            usual_gap,
            self._snapshot if epoch and epoch == self._epoch else None,
            _moment(until),
            alike.spoken,
            spread,
        )

    def _number(self, kept: Kept) -> int:
        """The number of what it has in common with others, used once more."""
        device, said = kept.person.device, kept.said
        had = tuple(_shared(key, *each) for key, each in kept.had.items()) if kept.had else ()
        name = (
            device.hardware_id,
            device.tag,
            device.group,
            device.commit,
            device.version,
            device.status,
            device.held_because,
            device.healthy,
            kept.register,
            kept.spoken,
            had,
            None if said is None else (said.commit, said.version, said.hardware_id, said.tag, said.healthy),
        )
        number = self._numbers.get(name)
        if number is None:
            number = self._next_number = (self._next_number + 1) % 2**32
            self._numbers[name] = number
            self._alike[number] = _Alike(
                name,
                replace(device, labels={}),
                None if said is None else msgspec.structs.replace(said, labels=None),
                kept.register,
                kept.spoken,
                had,
            )
        self._alike[number].uses += 1
        return number

    def _release(self, number: int) -> None:
        alike = self._alike[number]
        alike.uses -= 1
        if not alike.uses:
            del self._alike[number], self._numbers[alike.name]


def _shared(key: int, earlier: Earlier, version: int) -> tuple[Any, ...]:
    """What of an update many devices have in common."""
    update = earlier.update
    said = (update.from_commit, update.to_commit, update.check_ins, update.tries)
    return (key, version, (earlier.wave, earlier.slice), earlier.segments, _shared_of_course(update), said)


def _packed_times(earlier: Earlier) -> bytes:
    update = earlier.update
    return _HAD.pack(
        _seconds(update.deadline_at),
        _seconds(update.started_at),
        _seconds(update.installing_at),
        _seconds(update.confirmed_at),
        _seconds(update.recovered_at),
        update.offered_at.timestamp(),
        *earlier.places,
    )


def _unpacked_had(shared: tuple[Any, ...], packed: bytes, begin: int) -> dict[int, tuple[Earlier, int]]:
    found: dict[int, tuple[Earlier, int]] = {}
    for number, (key, version, where, segments, course, said) in enumerate(shared):
        *times, place, other = _HAD.unpack_from(packed, begin + number * _HAD.size)
        deadline, started, installing, confirmed, recovered, offered = times
        status, resolved, bad, ended = course
        from_commit, to_commit, check_ins, tries = said
        update = Update(
            status,
            _moment(deadline),
            started_at=_moment(started),
            installing_at=_moment(installing),
            confirmed_at=_moment(confirmed),
            resolved=resolved,
            recovered_at=_moment(recovered),
            bad=bad,
            ended=ended,
            offered_at=datetime.fromtimestamp(offered, UTC),
            from_commit=from_commit,
            to_commit=to_commit,
            check_ins=check_ins,
            tries=tries,
        )
        found[key] = (Earlier(update, where[0], where[1], (place, other), segments), version)
    return found


def _seconds(at: datetime | None) -> float:
    return nan if at is None else at.timestamp()


def _moment(seconds: float) -> datetime | None:
    return None if isnan(seconds) else datetime.fromtimestamp(seconds, UTC)
