"""What the console asks for: pages of lists, tallies of many rollouts at once, failed devices by place, and the
census."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestrator.adapters.sql.codec import BAD_COLUMNS, ROLLOUT_COLUMNS, outcomes_of, rollout_of
from orchestrator.adapters.sql.columns import NO_VERSION
from orchestrator.adapters.sql.delta_lists import DeltaListReading
from orchestrator.adapters.sql.devices import DeviceReading
from orchestrator.adapters.sql.evidence import EvidenceReading
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.evidence.left_out import Seat
from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.outcomes import Outcome, in_order
from orchestrator.core.position import DeviceHash, position
from orchestrator.core.states import RolloutStatus
from orchestrator.services.console_store import QUIETEST, SILENT_FOR, Census, JournalLine, Running, Stain, Tallied
from orchestrator.services.records import DeviceRow, RolloutRow, decode_places

_LAST: Final = "\U0010ffff"
"""Sorts after every other character."""

_ALL_KEPT_FOR: Final = timedelta(days=2)
_DAY: Final = 86_400_000_000


class ConsoleReading(DeviceReading, DeltaListReading, EvidenceReading):
    def rollout_page(
        self, statuses: Collection[RolloutStatus] | None, *, offset: int, limit: int
    ) -> Sequence[RolloutRow]:
        condition, parameters = self.link.of_status(statuses)
        if statuses is not None and len(statuses) == 1:
            # Along the index, in its order: no more is read than is asked for.
            condition, parameters = "status = ?", tuple(status.value for status in statuses)
        rows = self.link.rows(
            f"SELECT {ROLLOUT_COLUMNS} FROM rollout WHERE {condition} ORDER BY created_at DESC, key DESC "
            "LIMIT ? OFFSET ?",
            (*parameters, limit, offset),
        )
        return [rollout_of(row) for row in rows]

    def rollout_statuses(self) -> Mapping[RolloutStatus, int]:
        rows = self.link.rows("SELECT status, count(*) FROM rollout GROUP BY status")
        counted = {RolloutStatus(status): many for status, many in rows}
        return {status: counted[status] for status in RolloutStatus if status in counted}

    def tallied(self, rollout_keys: Collection[int]) -> Mapping[int, Tallied]:
        if not rollout_keys:
            return {}
        condition, keys = self.link.within("rollout_key", sorted(rollout_keys))
        bad = " + ".join(f"sum({column})" for column in BAD_COLUMNS)
        rows = self.link.rows(
            "SELECT rollout_key, sum(members - excluded), sum(offered), sum(resolved), sum(confirmed), "
            f"{bad} FROM slice WHERE {condition} GROUP BY rollout_key",
            (keys,),
        )
        return {key: Tallied(*map(int, counts)) for key, *counts in rows}

    def stains(self, row: RolloutRow, *, limit: int) -> Sequence[Stain]:
        left_out = self.left_out(row)
        open_ones = self.stained_and_open(row.key)
        placing = [(each.spec, left_out.placing(each.spec, each.from_place)) for each in open_ones]
        kinds: dict[int, tuple[tuple[Outcome, ...], list[tuple[str, Callable[[Seat], int | None]]]]] = {}
        salts = {} if row.scope is None else {each.wave: each.salt for each in row.scope.selectors}
        found: list[Stain] = []
        for device, bad, slice_key, rollout_place, wave_place, segments, high, low in self.link.rows(
            "SELECT d.id, u.bad, u.slice_key, o.rollout_place, o.wave_place, o.segment_places, d.hash_high, d.hash_low "
            f"FROM device_update u{self.link.by_index('update_bad')} JOIN update_offer o ON o.key = u.key "
            "JOIN device d ON d.key = u.device_key WHERE u.rollout_key = ? AND u.bad > 0 LIMIT ?",
            (row.key, limit),
        ):
            _, wave, number, _, apart = self.slice_name(slice_key)
            if bad not in kinds:
                outcomes = outcomes_of(bad, self.own_classes, row.key)
                watching = [(spec.key, placed) for spec, placed in placing if not outcomes.isdisjoint(spec.outcomes)]
                kinds[bad] = in_order(outcomes), watching
            classes, watching = kinds[bad]
            if apart or not classes:
                continue
            at = position(DeviceHash(high, low), salts[wave]) if wave in salts else 0
            seat = Seat(wave, number, at, rollout_place, wave_place, decode_places(segments))
            places = {name: place for name, placed in watching if (place := placed(seat)) is not None}
            found.append(Stain(device, classes, wave, number, places))
        return found

    def journal_lines(self, rollout_key: int, *, after: int, limit: int) -> Sequence[JournalLine]:
        rows = self.link.rows(
            "SELECT seq, at, event, by, sentence, wave FROM journal WHERE rollout_key = ? AND seq > ? ORDER BY seq "
            "LIMIT ?",
            (rollout_key, after, limit),
        )
        return [JournalLine(seq, moment(at), *rest) for seq, at, *rest in rows]

    def segments_placed(self, rollout_key: int, *, limit: int) -> Sequence[tuple[str, int]]:
        # Of a segment's population the name has an equals sign, and of no other.
        found = "strpos(name, '=') > 0" if self.link.postgres else "instr(name, '=') > 0"
        rows = self.link.rows(
            f"SELECT name, places FROM population WHERE rollout_key = ? AND {found} ORDER BY places DESC, name LIMIT ?",
            (rollout_key, limit),
        )
        return [(name, places) for name, places in rows]

    def device_ids(self, prefix: str, *, after: str | None, limit: int) -> Sequence[DeviceRow]:
        along = self.link.by_index("device_is")
        first = prefix if after is None else max(prefix, after)
        compared = ">=" if after is None else ">"
        return self._devices(
            f"{along} WHERE d.id {compared} ? AND d.id < ? ORDER BY d.id LIMIT ?", (first, prefix + _LAST, limit)
        )

    def in_group(self, group: str, *, after: int, limit: int) -> Sequence[DeviceRow]:
        along = self.link.by_index("device_in_group")
        return self._devices(
            f"{along} WHERE d.group_name = ? AND d.key > ? ORDER BY d.key LIMIT ?", (group, after, limit)
        )

    def devices_at(self, keys: Collection[int]) -> Sequence[DeviceRow]:
        condition, listed = self.link.within("d.key", sorted(keys))
        return self._devices(f"WHERE {condition} ORDER BY d.key", (listed,))

    def census_at(self) -> datetime | None:
        row = self.link.one("SELECT max(taken_at) FROM census")
        return None if row is None else moment(row[0])

    def census(self) -> Census | None:
        row = self.link.one(
            "SELECT taken_at, running, statuses, groups, silent, quietest FROM census ORDER BY taken_at DESC LIMIT 1"
        )
        if row is None:
            return None
        at, running, statuses, groups, silent, quietest = row
        return Census(
            at=moment(at),
            running=tuple(Running(*each) for each in json.loads(running)),
            statuses=json.loads(statuses),
            groups=json.loads(groups),
            silent={timedelta(seconds=int(each)): many for each, many in json.loads(silent).items()},
            quietest=tuple((key, moment(seen)) for key, seen in json.loads(quietest)),
        )

    def versions_since(self, since: datetime) -> Sequence[tuple[datetime, Mapping[int | None, int]]]:
        rows = self.link.rows(
            "SELECT taken_at, versions FROM census WHERE taken_at >= ? ORDER BY taken_at", (stored(since),)
        )
        return [
            (moment(at), {int(each) if each else None: many for each, many in json.loads(versions).items()})
            for at, versions in rows
        ]

    def count_fleet(self, now: datetime) -> Census:
        counted = self.link.rows(
            "SELECT tag, status, software_key, count(*) FROM device"
            f"{self.link.by_index('device_runs')} GROUP BY tag, status, software_key"
        )
        self.learn_software({key for _, _, key, _ in counted})
        statuses: Counter[str] = Counter()
        running = []
        for tag, status, key, many in counted:
            statuses[status] += many
            if status == DeviceStatus.ACTIVE.value:
                hardware_id, commit, version = self.software(key)
                known = None if version == NO_VERSION else version
                running.append(Running(tag, hardware_id, commit or None, known, many))
        before = [stored(now - each) for each in SILENT_FOR]
        sums = ", ".join("sum(CASE WHEN last_seen_at < ? THEN 1 ELSE 0 END)" for _ in before)
        active = DeviceStatus.ACTIVE.value
        silent = self.link.one(f"SELECT {sums} FROM device WHERE status = ?", (*before, active))
        quietest = self.link.rows(
            "SELECT key, last_seen_at FROM device WHERE status = ? AND last_seen_at < ? ORDER BY last_seen_at, key "
            "LIMIT ?",
            (active, before[0], QUIETEST),
        )
        return Census(
            at=now,
            running=tuple(
                sorted(running, key=lambda one: (-one.devices, one.tag, one.hardware_id, -(one.version or 0)))
            ),
            statuses=dict(sorted(statuses.items())),
            groups=self.groups(),
            silent={each: int(many or 0) for each, many in zip(SILENT_FOR, silent or (), strict=False)},
            quietest=tuple((key, moment(seen)) for key, seen in quietest),
        )


class ConsoleWriting(ConsoleReading):
    def keep_census(self, found: Census, *, every: timedelta) -> bool:
        at = stored(found.at)
        if self.link.one("SELECT 1 FROM census WHERE taken_at > ? LIMIT 1", (stored(found.at - every),)):
            return False
        versions: Counter[str] = Counter()
        for one in found.running:
            versions["" if one.version is None else str(one.version)] += one.devices
        self.link.run(
            "UPDATE census SET running = '[]', groups = '{}', quietest = '[]' WHERE taken_at = "
            "(SELECT max(taken_at) FROM census)"
        )
        self.link.run(
            "INSERT INTO census (taken_at, versions, statuses, silent, running, groups, quietest) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                at,
                json.dumps(versions),
                json.dumps(dict(found.statuses)),
                json.dumps({int(each.total_seconds()): many for each, many in found.silent.items()}),
                json.dumps([list(one) for one in found.running]),
                json.dumps(dict(found.groups)),
                json.dumps([[key, None if seen is None else stored(seen)] for key, seen in found.quietest]),
            ),
        )
        # Of every day before the last two its first census stays.
        day = datetime.combine((found.at - _ALL_KEPT_FOR).date(), datetime.min.time(), UTC)
        self.link.run(
            "DELETE FROM census WHERE taken_at < ? AND taken_at NOT IN "
            "(SELECT min(taken_at) FROM census GROUP BY taken_at / ?)",
            (stored(day), _DAY),
        )
        return True
