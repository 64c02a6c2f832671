"""Devices, groups, labels and Targets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from orchestrator.adapters.sql.codec import Software, as_json, decode_names
from orchestrator.adapters.sql.columns import NO_COMMIT, NO_VERSION
from orchestrator.adapters.sql.members import Piece, all_of
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import length, moment, span, stored
from orchestrator.core.fleet import Device, DeviceStatus, Target
from orchestrator.core.position import device_hash
from orchestrator.errors import NotFound, Refused
from orchestrator.services.records import DeviceFilter, DeviceRow, RunningCount

_BATCH: Final = 2_000
"""Devices enrolled at a time: what is held in memory, whatever the number of devices."""

_COLUMNS: Final = (
    "d.key, d.id, d.tag, d.status, d.software_key, d.since_at, d.last_seen_at, d.group_name, d.usual_gap, d.healthy, "
    "d.held_because, "
    "d.enrolled_at, d.token_digest"
)
_ACTIVE: Final = DeviceStatus.ACTIVE.value


def software_of(device: Device) -> Software:
    """What the device runs, as ``software`` names it."""
    version = NO_VERSION if device.version is None else device.version
    return (device.hardware_id, device.commit or NO_COMMIT, version)


class DeviceReading(Session):
    # Targets
    def after_slices(self, now: datetime) -> datetime:
        row = self.link.one("SELECT max(opened_at) FROM slice", ())
        return now if row is None or row[0] is None or row[0] < stored(now) else moment(row[0] + 1)

    def targets(self, *, version: int | None = None, tag: str | None = None) -> Sequence[Target]:
        rows = self.link.rows(
            "SELECT name, version, commit_id, hardware_ids, tags, provider, added_at FROM target"
            + ("" if version is None else " WHERE version = ?"),
            () if version is None else (version,),
        )
        found = [
            Target(name, number, commit, decode_names(hardware), decode_names(tags), provider, moment(added))
            for name, number, commit, hardware, tags, provider, added in rows
        ]
        return sorted(
            (target for target in found if tag is None or tag in target.tags),
            key=lambda target: (-target.version, target.name),
        )

    def known_version(self, hardware_id: str, commit: str) -> int | None:
        row = self.link.one(
            "SELECT max(version) FROM release WHERE hardware_id = ? AND commit_id = ?", (hardware_id, commit)
        )
        return row[0] if row else None

    # Devices
    def device(self, device_id: str) -> DeviceRow | None:
        if "\0" in device_id:
            return None  # PostgreSQL takes no text with it, and nobody is called so
        found = self._devices("WHERE d.id = ?", (device_id,))
        return found[0] if found else None

    def devices_called(self, device_ids: Collection[str]) -> Sequence[DeviceRow]:
        return self._by_ids([each for each in device_ids if "\0" not in each])

    def device_by_key(self, key: int) -> DeviceRow | None:
        found = self._devices("WHERE d.key = ?", (key,))
        return found[0] if found else None

    def devices(self, which: DeviceFilter, *, after: str | None = None, limit: int = 100) -> Sequence[DeviceRow]:
        condition = self._condition(which)
        if after is not None:
            condition = all_of(condition, Piece("d.id > ?", (after,)))
        # A page is found soonest along the ids, unless the filter leaves so few that they are better found first.
        narrow = which.group is not None or which.label is not None or (which.tag is not None and self._few(which.tag))
        along = "" if narrow else self.link.by_index("device_is")
        return self._devices(f"{along} WHERE {condition.sql} ORDER BY d.id LIMIT ?", (*condition.parameters, limit))

    def _few(self, tag: str) -> bool:
        """Whether at most a tenth of the fleet follows the tag."""
        row = self.link.one(
            "SELECT NOT EXISTS (SELECT 1 FROM device WHERE tag = ? AND status = ? "
            "LIMIT 1 OFFSET (SELECT coalesce(max(key), 0) / 10 FROM device))",
            (tag, _ACTIVE),
        )
        return row is not None and bool(row[0])

    def count_devices(self, which: DeviceFilter) -> int:
        condition = self._condition(which)
        row = self.link.one(f"SELECT count(*) FROM device d WHERE {condition.sql}", condition.parameters)
        return int(row[0]) if row else 0

    def running(self, *, tag: str | None = None) -> Sequence[RunningCount]:
        # Answered by the index `device_runs` alone.
        rows = self.link.rows(
            "SELECT software_key, count(*) FROM device WHERE status = ?"
            + ("" if tag is None else " AND tag = ?")
            + " GROUP BY 1",
            (_ACTIVE,) if tag is None else (_ACTIVE, tag),
        )
        return self._running(rows)

    def tags(self) -> Mapping[str, int]:
        rows = self.link.rows("SELECT tag, count(*) FROM device WHERE status = ? GROUP BY tag ORDER BY tag", (_ACTIVE,))
        return dict(rows)

    def groups(self) -> Mapping[str, int]:
        rows = self.link.rows(
            "SELECT g.name, (SELECT count(*) FROM device d WHERE d.group_name = g.name AND d.status = ?) FROM "
            "device_group g",
            (_ACTIVE,),
        )
        return dict(sorted(rows))

    def _running(self, rows: Iterable[tuple[Any, ...]]) -> tuple[RunningCount, ...]:
        """From software keys with numbers of devices, most devices first."""
        counted = list(rows)
        self.learn_software(key for key, _ in counted)
        found = []
        for key, devices in counted:
            hardware_id, commit, version = self.software(key)
            found.append(RunningCount(hardware_id, commit or None, None if version == NO_VERSION else version, devices))
        return tuple(
            sorted(found, key=lambda one: (-one.devices, one.hardware_id, one.commit or "", one.version or -1))
        )

    def _condition(self, which: DeviceFilter) -> Piece:
        find = "strpos(d.id, ?) > 0" if self.link.postgres else "instr(d.id, ?) > 0"
        asked = (
            ("d.tag = ?", which.tag),
            ("d.group_name = ?", which.group),
            ("d.software_key IN (SELECT s.key FROM software s WHERE s.hardware_id = ?)", which.hardware_id),
            ("d.software_key IN (SELECT s.key FROM software s WHERE s.version = ?)", which.version),
            ("d.status = ?", None if which.status is None else which.status.value),
            (find, which.text or None),
        )
        pieces = [Piece(sql, (value,)) for sql, value in asked if value is not None]
        if which.label is not None:
            pieces.append(
                Piece("d.key IN (SELECT l.device_key FROM device_label l WHERE l.key = ? AND l.value = ?)", which.label)
            )
        return all_of(*pieces)

    def _by_ids(self, ids: Iterable[str]) -> list[DeviceRow]:
        condition, parameter = self.link.within("d.id", ids)
        return self._devices(f"WHERE {condition} ORDER BY d.key", (parameter,))

    def _devices(self, rest: str, parameters: Sequence[Any]) -> list[DeviceRow]:
        rows = self.link.rows(f"SELECT {_COLUMNS} FROM device d {rest}", parameters)
        if not rows:
            return []
        self.learn_software(row[4] for row in rows)
        labels: dict[int, dict[str, str]] = {row[0]: {} for row in rows}
        condition, keys = self.link.within("device_key", labels)
        for key, name, value in self.link.rows(
            f"SELECT device_key, key, value FROM device_label WHERE {condition} ORDER BY key", (keys,)
        ):
            labels[key][name] = value
        return [self._device(row, labels[row[0]]) for row in rows]

    def _device(self, row: tuple[Any, ...], labels: Mapping[str, str]) -> DeviceRow:
        key, device_id, tag, status, software, since, seen, group, gap, healthy, because, enrolled, token = row
        hardware_id, commit, version = self.software(software)
        device = Device(
            id=device_id,
            hardware_id=hardware_id,
            tag=tag,
            group=group,
            labels=labels,
            commit=commit or None,
            version=None if version == NO_VERSION else version,
            status=DeviceStatus(status),
            held_because=because,
            healthy=healthy == 1,
            enrolled_at=moment(enrolled),
            last_seen_at=moment(seen),
            since_at=moment(since),
            usual_gap=span(gap),
        )
        return DeviceRow(key, device, token)


class DeviceWriting(DeviceReading):
    # Targets
    def add_target(self, target: Target, *, now: datetime) -> bool:
        content = (target.version, target.commit, as_json(sorted(target.hardware_ids)), target.provider)
        known = self.link.one(
            "SELECT version, commit_id, hardware_ids, provider FROM target WHERE name = ?", (target.name,)
        )
        if known is not None:
            if known == content:
                return False
            raise Refused(
                f"Target {target.name} is there already, as version {known[0]} with commit {known[1][:12]}.",
                remedy="A Target never changes: add this content under another name.",
            )
        for hardware_id in target.hardware_ids:
            self.link.run(
                "INSERT INTO release (hardware_id, version, commit_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (hardware_id, target.version, target.commit),
            )
            there = self.link.one(
                "SELECT commit_id FROM release WHERE hardware_id = ? AND version = ?", (hardware_id, target.version)
            )
            if there is not None and there[0] != target.commit:
                raise Refused(
                    f"Version {target.version} for {hardware_id} is commit {there[0][:12]} already, not "
                    f"{target.commit[:12]}.",
                    remedy="One version has one commit on one hardware: give this content another version.",
                )
        self.link.run(
            "INSERT INTO target (name, version, commit_id, hardware_ids, provider, tags, added_at) VALUES (?, ?, ?, "
            "?, ?, ?, ?)",
            (target.name, *content, as_json(target.tags), stored(target.added_at or now)),
        )
        return True

    def tag_target(self, name: str, tags: Sequence[str]) -> None:
        if not self.link.run("UPDATE target SET tags = ? WHERE name = ?", (as_json(list(tags)), name)):
            raise NotFound(f"There is no Target {name}.", remedy="`wave target list` shows those there are.")

    # Devices
    def enroll(self, devices: Iterable[tuple[Device, bytes | None]], *, now: datetime) -> int:
        added = 0
        source = iter(devices)
        while batch := {device.id: (device, token) for device, token in islice(source, _BATCH)}:
            added += self._enroll(batch, now)
        return added

    def _enroll(self, batch: Mapping[str, tuple[Device, bytes | None]], now: datetime) -> int:
        known = {row.device.id: row for row in self._by_ids(batch)}
        for group in {device.group for device, _ in batch.values() if device.group is not None}:
            self.add_group(group)
        at = stored(now)
        new = []
        for device_id, (device, token) in batch.items():
            if device_id not in known:
                halves = device_hash(device_id)
                new.append(
                    (
                        device_id,
                        device.tag,
                        device.status.value,
                        self.software_key(software_of(device)),
                        halves.high,
                        halves.low,
                        stored(device.since_at),
                        stored(device.last_seen_at),
                        device.group,
                        length(device.usual_gap),
                        int(device.healthy),
                        device.held_because,
                        at if device.enrolled_at is None else stored(device.enrolled_at),
                        token,
                    )
                )
        self.link.many(
            "INSERT INTO device (id, tag, status, software_key, hash_high, hash_low, since_at, last_seen_at, "
            "group_name, usual_gap, "
            "healthy, held_because, enrolled_at, token_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            new,
        )
        for device_id, row in known.items():
            self._enroll_again(row, *batch[device_id], now=now)
        labelled = {device_id: device.labels for device_id, (device, _) in batch.items() if device.labels}
        if labelled:
            keys = dict(self._keys(labelled))
            self.link.many(
                "INSERT INTO device_label (device_key, key, value, by_operator) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (device_key, key) DO UPDATE SET value = excluded.value, by_operator = 1",
                sorted((keys[name], key, value) for name, labels in labelled.items() for key, value in labels.items()),
            )
        return len(new)

    def _enroll_again(self, row: DeviceRow, device: Device, token: bytes | None, *, now: datetime) -> None:
        """What is None stays. A device that moved is "as it is" only from now on."""
        old = row.device
        software = (device.hardware_id, old.commit or NO_COMMIT, NO_VERSION if old.version is None else old.version)
        group = old.group if device.group is None else device.group
        moved = (old.hardware_id, old.tag, old.group, dict(old.labels)) != (
            device.hardware_id,
            device.tag,
            group,
            {**old.labels, **device.labels},
        )
        since = self.after_slices(now) if moved and old.since_at is not None else old.since_at
        self.link.run(
            "UPDATE device SET tag = ?, software_key = ?, group_name = ?, since_at = ?, token_digest = ? WHERE key = ?",
            (device.tag, self.software_key(software), group, stored(since), token or row.token_digest, row.key),
        )

    def enrolled(self, device_ids: Collection[str]) -> frozenset[str]:
        return frozenset(name for name, _ in self._keys(device_ids))

    def set_group(self, device_ids: Sequence[str], group: str | None, *, now: datetime) -> int:
        if group is not None:
            self.add_group(group)
        changed = 0
        for condition, parameter in self._ids(device_ids):
            changed += self.link.run(
                "UPDATE device SET group_name = ?, since_at = CASE WHEN since_at IS NULL THEN NULL ELSE ? END "
                f"WHERE {condition} AND coalesce(group_name, '') <> ?",
                (group, stored(now), parameter, group or ""),
            )
        return changed

    def add_group(self, group: str) -> None:
        self.link.run("INSERT INTO device_group (name) VALUES (?) ON CONFLICT DO NOTHING", (group,))

    def set_label(self, device_ids: Sequence[str], key: str, value: str | None, *, now: datetime) -> int:
        before = {row.key: row.device.labels.get(key) for batch in _batches(device_ids) for row in self._by_ids(batch)}
        changed = sorted(device for device, old in before.items() if old != value)
        if value is None:
            condition, parameter = self.link.within("device_key", sorted(before))
            self.link.run(f"DELETE FROM device_label WHERE {condition} AND key = ?", (parameter, key))
        else:
            self.link.many(
                "INSERT INTO device_label (device_key, key, value, by_operator) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (device_key, key) DO UPDATE SET value = excluded.value, by_operator = 1",
                [(device, key, value) for device in sorted(before)],
            )
        condition, parameter = self.link.within("key", changed)
        self.link.run(
            f"UPDATE device SET since_at = ? WHERE {condition} AND since_at IS NOT NULL",
            (stored(self.after_slices(now)), parameter),
        )
        return len(changed)

    def set_device_status(
        self, device_ids: Sequence[str], status: DeviceStatus, because: str | None, *, now: datetime
    ) -> int:
        changed = 0
        for condition, parameter in self._ids(device_ids):
            # Back among the active, it is a newcomer to the slices.
            changed += self.link.run(
                "UPDATE device SET held_because = ?, since_at = CASE WHEN since_at IS NULL OR status = ? THEN "
                "since_at ELSE ? END, "
                f"status = ? WHERE {condition} AND (status <> ? OR coalesce(held_because, '') <> ?)",
                (because, status.value, stored(now), status.value, parameter, status.value, because or ""),
            )
        return changed

    def set_token(self, device_id: str, digest: bytes | None) -> None:
        if not self.link.run("UPDATE device SET token_digest = ? WHERE id = ?", (digest, device_id)):
            raise NotFound(f"There is no device {device_id}.", remedy="`wave device list` shows those there are.")

    def save_device(self, key: int, device: Device) -> None:
        self.link.run(
            "UPDATE device SET software_key = ?, tag = ?, healthy = ?, since_at = ?, last_seen_at = ?, usual_gap = ? "
            "WHERE key = ?",
            (
                self.software_key(software_of(device)),
                device.tag,
                int(device.healthy),
                stored(device.since_at),
                stored(device.last_seen_at),
                length(device.usual_gap),
                key,
            ),
        )
        before: dict[str, str] = dict(
            self.link.rows("SELECT key, value FROM device_label WHERE device_key = ? AND by_operator = 0", (key,))
        )
        for name, value in sorted(device.labels.items()):
            if before.pop(name, None) != value:
                self.link.run(
                    "INSERT INTO device_label (device_key, key, value, by_operator) VALUES (?, ?, ?, 0) ON CONFLICT "
                    "(device_key, key) "
                    "DO UPDATE SET value = excluded.value WHERE device_label.by_operator = 0",
                    (key, name, value),
                )
        for name in sorted(before):
            self.link.run("DELETE FROM device_label WHERE device_key = ? AND key = ? AND by_operator = 0", (key, name))

    def touch(self, seen: Mapping[int, tuple[datetime, timedelta]]) -> None:
        # In the order of keys, so that two writers on PostgreSQL never wait for each other in a circle.
        self.link.many(
            "UPDATE device SET last_seen_at = ?, usual_gap = ? WHERE key = ?",
            [(stored(at), length(gap), key) for key, (at, gap) in sorted(seen.items())],
        )

    def _keys(self, ids: Iterable[str]) -> list[tuple[str, int]]:
        condition, parameter = self.link.within("id", ids)
        return [
            (name, key) for name, key in self.link.rows(f"SELECT id, key FROM device WHERE {condition}", (parameter,))
        ]

    def _ids(self, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for batch in _batches(ids):
            yield self.link.within("id", batch)


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
