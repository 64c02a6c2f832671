"""Updates, the evidence log and the tallies: the path that every report takes, in a few statements for a thousand
events.

Locks on PostgreSQL are taken in one order everywhere, so that two writers never wait for each other in a circle: the
rollouts by key (``lock_rollout``, by whoever calls, before anything else), the house, updates by key, slices, budgets,
monitors, devices by key. Whoever changes updates or tallies of a rollout holds its lock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from orchestrator.adapters.sql.clocks import ClockWriting
from orchestrator.adapters.sql.codec import (
    COURSE_COLUMNS,
    OFFER_COLUMNS,
    STATUS_NUMBER,
    course_row,
    packed_id,
    software_after,
    software_before,
    stored_bad,
    stored_course,
    stored_offer,
    unpacked_id,
    update_key,
    update_keys,
    update_of,
)
from orchestrator.adapters.sql.link import Link
from orchestrator.adapters.sql.session import Known, Session
from orchestrator.adapters.sql.tallies import TallyWriting
from orchestrator.adapters.sql.times import length, moment, stored, stored_at
from orchestrator.core.update import Counts, UpdateStatus
from orchestrator.services.records import CourseRow, EventRow, LoggedEvent, Places, UpdateRow

_COURSE: Final = ", ".join(f"u.{column}" for column in COURSE_COLUMNS)
WHOLE: Final = f"{_COURSE}, {', '.join(f'o.{column}' for column in OFFER_COLUMNS)}"
_MANY: Final = len(COURSE_COLUMNS)
_ALL: Final = _MANY + len(OFFER_COLUMNS)
_FROM, _TO = (_MANY + OFFER_COLUMNS.index(column) for column in ("from_key", "to_key"))
_SLICE: Final = COURSE_COLUMNS.index("slice_key")

_PROGRESS_COLUMNS: Final = COURSE_COLUMNS[:5]
"""Of a course whose other columns are still what they were at the offer, which only ever leave that."""
_DEADLINE: Final = COURSE_COLUMNS.index("deadline_at")
_MOVED_COLUMNS: Final = (*(column for column in COURSE_COLUMNS if column not in {"slice_key", "usual_gap"}), "look_at")

_EVENT_TYPES: Final = ("bigint", "bytea", "bigint", "text", "bigint", "text", "text", "text")
_EVENT_COLUMNS: Final = "device_key, event_id, rollout_key, kind, received_at, device_at, code, message"
_EVENT_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?)"
_LOG_STATEMENTS: Final = tuple(
    (
        size,
        f"INSERT OR FAIL INTO event ({_EVENT_COLUMNS}) VALUES {', '.join([_EVENT_ROW] * size)} "
        "ON CONFLICT (device_key, event_id) DO NOTHING",
    )
    for size in (20, 1)
)
"""Events in one INSERT: as quick as two hundred, and where one was not new few others are looked at. OR FAIL: an error
ends the whole transaction anyway, so SQLite need not keep each page as it was before the statement, which takes as long
as the insert."""

_DROPPED_AT_ONCE: Final = 500

_MOST_REARMED: Final = 20_000
"""Updates whose look is moved to their deadline in one call."""


class UpdateReading(Session):
    def update(self, rollout_key: int, device_key: int) -> UpdateRow | None:
        rows = self.link.rows(
            f"SELECT {WHOLE} FROM device_update u JOIN update_offer o ON o.key = u.key WHERE u.key = ?",
            (update_key(rollout_key, device_key),),
        )
        return self._updates(rows)[0] if rows else None

    def updates_of_device(self, device_key: int, *, limit: int = 20) -> Sequence[tuple[str, UpdateRow]]:
        # Rollouts are few, and each leads to at most one update by its key: updates need no index by device.
        keys = [(name, update_key(key, device_key)) for key, name in self.link.rows("SELECT key, name FROM rollout")]
        names = {key: name for name, key in keys}
        condition, listed = self.link.within("u.key", names)
        rows = self.link.rows(
            f"SELECT {WHOLE} FROM device_update u CROSS JOIN update_offer o WHERE {condition} AND o.key = u.key "
            "ORDER BY o.offered_at DESC, u.key DESC LIMIT ?",
            (listed, limit),
        )
        return [(names[row[0]], update) for row, update in zip(rows, self._updates(rows), strict=True)]

    def updates_of_devices(self, device_keys: Collection[int], *, limit: int = 20) -> Mapping[int, Sequence[UpdateRow]]:
        found: dict[int, list[UpdateRow]] = defaultdict(list)
        for (rollout,) in self.link.rows("SELECT key FROM rollout ORDER BY key DESC"):
            condition, listed = self.link.within("u.key", [update_key(rollout, key) for key in device_keys])
            rows = self.link.rows(
                f"SELECT {WHOLE} FROM device_update u CROSS JOIN update_offer o WHERE {condition} AND o.key = u.key",
                (listed,),
            )
            for update in self._updates(rows):
                found[update.device_key].append(update)
        for mine in found.values():
            mine.sort(key=lambda row: (row.update.offered_at, row.rollout_key), reverse=True)
            del mine[limit:]
        return found

    def list_updates(
        self, rollout_key: int, *, statuses: Collection[UpdateStatus] | None = None, bad: bool = False, limit: int = 100
    ) -> Sequence[tuple[str, UpdateRow]]:
        condition, parameters = "u.key BETWEEN ? AND ?", [*update_keys(rollout_key)]
        if bad:
            condition, parameters = "u.rollout_key = ? AND u.bad > 0", [rollout_key]
        if statuses is not None:
            asked, listed = self.link.within("u.status", sorted(STATUS_NUMBER[status] for status in statuses))
            condition, parameters = f"{condition} AND {asked}", [*parameters, listed]
        few = self.link.by_index("update_bad") if bad else ""
        rows = self.link.rows(
            f"SELECT {WHOLE}, d.id FROM device_update u{few} JOIN update_offer o ON o.key = u.key "
            f"JOIN device d ON d.key = u.device_key WHERE {condition} "
            "ORDER BY o.offered_at DESC, u.device_key LIMIT ?",
            (*parameters, limit),
        )
        return [(row[-1], update) for row, update in zip(rows, self._updates(rows), strict=True)]

    def places(self, rollout_key: int, device_keys: Collection[int]) -> Mapping[int, Places]:
        keys = {update_key(rollout_key, device): device for device in device_keys}
        condition, listed = self.link.within("key", sorted(keys))
        rows = self.link.rows(
            f"SELECT key, rollout_place, wave_place, segment_places FROM update_offer WHERE {condition}", (listed,)
        )
        return {keys[key]: Places(*where) for key, *where in rows}

    def events(
        self,
        *,
        device: str | None = None,
        rollout: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest: bool = False,
    ) -> Sequence[LoggedEvent]:
        # Of a device few are kept: all are looked at by the device, and no other index is of use, whatever a planner
        # would hope to find first in the order of receipt.
        plain, along = (" + 0", self.link.by_index("event_is")) if device is not None else ("", "")
        condition: str = f"e.seq{plain} > ?"
        parameters: list[Any] = [after]
        for sql, value in (
            ("e.device_key = (SELECT key FROM device WHERE id = ?)", device),
            (f"e.rollout_key{plain} = (SELECT key FROM rollout WHERE name = ?)", rollout),
        ):
            if value is not None:
                condition, parameters = f"{condition} AND {sql}", [*parameters, value]
        rows = self.link.rows(
            "SELECT e.seq, d.id, r.name, e.event_id, e.kind, e.received_at, e.device_at, e.code, e.message FROM "
            f"event e{along} "
            f"LEFT JOIN device d ON d.key = e.device_key LEFT JOIN rollout r ON r.key = e.rollout_key WHERE "
            f"{condition} "
            f"ORDER BY e.seq{plain} {'DESC' if newest else ''} LIMIT ?",
            (*parameters, limit),
        )
        if newest:
            rows.reverse()
        return [
            LoggedEvent(seq, name or "", of, unpacked_id(event), kind, moment(at), said, code, message)
            for seq, name, of, event, kind, at, said, code, message in rows
        ]

    def event_ids(self, device_key: int, prefix: str, *, limit: int) -> Sequence[str]:
        low = prefix.encode()
        rows = self.link.rows(
            f"SELECT event_id FROM event{self.link.by_index('event_is')} "
            "WHERE device_key = ? AND event_id >= ? AND event_id < ? ORDER BY seq DESC LIMIT ?",
            (device_key, low, low[:-1] + bytes([low[-1] + 1]), limit),
        )
        return [unpacked_id(bytes(row[0])) for row in reversed(rows)]

    def _updates(self, rows: Sequence[tuple[Any, ...]]) -> list[UpdateRow]:
        """Of rows that begin with both tables' columns."""
        self.learn_software({row[_FROM] for row in rows} | {row[_TO] for row in rows})
        name, slices, own = self.software, self._slices_of(rows), self.own_classes
        return [
            update_of(course_row(row, slices, own), row[_MANY:_ALL], name(row[_FROM]), name(row[_TO])) for row in rows
        ]

    def _slices_of(self, rows: Sequence[tuple[Any, ...]]) -> dict[int, tuple[str, int, int, int]]:
        """Wave, number, whether left out and whether apart of the slices in rows that begin with a course's columns, by
        their keys."""
        return {key: self.slice_name(key)[1:] for key in {row[_SLICE] for row in rows}}


class UpdateWriting(UpdateReading, TallyWriting, ClockWriting):
    def __init__(self, link: Link, known: Known) -> None:
        super().__init__(link, known)
        self._looks: dict[int, int | None] = {}
        """``look_at`` as stored of the updates that this session has loaded, by their keys."""

    def add_update(self, row: UpdateRow) -> bool:
        course = self._stored_course(row)
        columns = (*COURSE_COLUMNS, "look_at", "rollout_key", "device_key")
        added = self.link.run(
            f"INSERT INTO device_update ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
            "ON CONFLICT DO NOTHING",
            (*course, course[_DEADLINE], row.rollout_key, row.device_key),
        )
        if added:
            self.link.run(
                f"INSERT INTO update_offer ({', '.join(OFFER_COLUMNS)}) VALUES ({', '.join('?' * len(OFFER_COLUMNS))})",
                self._stored_offer(row),
            )
        return bool(added)

    def _stored_course(self, row: CourseRow) -> tuple[Any, ...]:
        key = self.slice_key(row.rollout_key, row.wave, row.slice, excluded=row.excluded, apart=row.apart)
        return stored_course(row, key, self.own_classes)

    def _stored_offer(self, row: UpdateRow) -> tuple[Any, ...]:
        return stored_offer(row, self.software_key(software_before(row)), self.software_key(software_after(row)))

    # ------------------------------------------------------------------------------------------- reports

    def log_events(self, events: Sequence[EventRow]) -> Sequence[bool]:
        at, received_at = 0, None
        rows = []
        for device, event, rollout, kind, received, said, code, message in events:
            if received is not received_at:  # what came together has one time
                at, received_at = stored_at(received), received
            rows.append((device, packed_id(event), rollout, kind, at, said, code, message))
        if self.link.postgres:
            return _first_of_each(rows, self._log_by_arrays(rows))
        fresh: list[bool] = []
        for size, sql in _LOG_STATEMENTS:
            while len(rows) - len(fresh) >= size:
                some = rows[len(fresh) : len(fresh) + size]
                added = self.link.run(sql, list(chain.from_iterable(some)))
                # The writer is alone: what came in are the last rows. Read only where some were not new.
                fresh += [True] * size if added == size else _first_of_each(some, self._last_events(added))
        return fresh

    def count_events(self, device_key: int, rollout_key: int | None, *, most: int) -> int:
        about, values = ("IS NULL", ()) if rollout_key is None else ("= ?", (rollout_key,))
        row = self.link.one(
            f"SELECT count(*) FROM (SELECT 1 FROM event{self.link.by_index('event_is')} "
            f"WHERE device_key = ? AND rollout_key {about} LIMIT ?) AS those",
            (device_key, *values, most),
        )
        return 0 if row is None else int(row[0])

    def drop_events(self, device_key: int, event_ids: Collection[str]) -> None:
        ids = [packed_id(each) for each in event_ids]
        for start in range(0, len(ids), _DROPPED_AT_ONCE):
            some = ids[start : start + _DROPPED_AT_ONCE]
            self.link.run(
                f"DELETE FROM event WHERE device_key = ? AND event_id IN ({', '.join('?' * len(some))})",
                (device_key, *some),
            )

    def _last_events(self, many: int) -> set[tuple[Any, ...]]:
        return set(self.link.rows("SELECT device_key, event_id FROM event ORDER BY seq DESC LIMIT ?", (many,)))

    def _log_by_arrays(self, rows: Sequence[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
        if not rows:
            return set()
        arrays = ", ".join(f"?::{kind}[]" for kind in _EVENT_TYPES)
        return set(
            self.link.rows(
                f"INSERT INTO event ({_EVENT_COLUMNS}) SELECT * FROM unnest({arrays}) "
                "ON CONFLICT (device_key, event_id) DO NOTHING RETURNING device_key, event_id",
                [list(column) for column in zip(*rows, strict=True)],
            )
        )

    def load_updates(self, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], UpdateRow]:
        rows = self._load(sorted(update_key(*key) for key in keys), f"{WHOLE}, u.look_at", offers=True)
        self._looks.update((row[0], row[-1]) for row in rows)
        return {(row.rollout_key, row.device_key): row for row in self._updates(rows)}

    def load_courses(self, rollout_key: int, device_keys: Collection[int]) -> dict[int, CourseRow]:
        rows = self._load(sorted(update_key(rollout_key, key) for key in device_keys), f"{_COURSE}, u.look_at")
        return {row.device_key: row for row in self._courses(rows)}

    def _load(self, keys: list[int], columns: str, *, offers: bool = False) -> list[tuple[Any, ...]]:
        if self.link.postgres:
            # One look into the primary key for each, in the order of the list, whatever the server believes about
            # the size of a table that has just grown; LIMIT keeps it from another way.
            offer = (
                " CROSS JOIN LATERAL (SELECT * FROM update_offer WHERE key = k.key LIMIT 1 FOR UPDATE) o"
                if offers
                else ""
            )
            return self.link.rows(
                f"SELECT {columns} FROM unnest(?::bigint[]) AS k(key) CROSS JOIN LATERAL "
                f"(SELECT * FROM device_update WHERE key = k.key LIMIT 1 FOR UPDATE) u{offer}",
                (keys,),
            )
        # From the list to the rows: IN would first make a table of it.
        offer, same = (" CROSS JOIN update_offer o", " AND o.key = k.value") if offers else ("", "")
        return self.link.rows(
            f"SELECT {columns} FROM json_each(?) k CROSS JOIN device_update u{offer} WHERE u.key = k.value{same}",
            (json.dumps(keys),),
        )

    def _courses(self, rows: Sequence[tuple[Any, ...]]) -> list[CourseRow]:
        """Of rows of a course and its look."""
        self._looks.update((row[0], row[-1]) for row in rows)
        slices = self._slices_of(rows)
        return [course_row(row, slices, self.own_classes) for row in rows]

    def save_updates(self, rows: Iterable[UpdateRow]) -> None:
        rows = list(rows)
        courses = [(*(values := self._stored_course(row)), values[_DEADLINE]) for row in rows]
        self._looks.update((values[0], values[-1]) for values in courses)
        self._save("device_update", (*COURSE_COLUMNS, "look_at"), courses)
        self._save("update_offer", OFFER_COLUMNS, [self._stored_offer(row) for row in rows])

    def save_courses(self, rows: Iterable[CourseRow]) -> None:
        looks = self._looks
        progress: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for row in rows:
            course = row.update
            key = update_key(row.rollout_key, row.device_key)
            deadline, started, installing = course.deadline_at, course.started_at, course.installing_at
            values = (
                key,
                STATUS_NUMBER[course.status],
                until := None if deadline is None else stored_at(deadline),
                None if started is None else stored_at(started),
                None if installing is None else stored_at(installing),
            )
            look = looks.get(key)
            early = look is not None and until is not None and look <= until
            if early and not (course.resolved or course.bad or course.confirmed_at):
                progress.append(values)
                continue
            bad = stored_bad(row, self.own_classes)
            rest = (stored(course.confirmed_at), int(course.resolved), stored(course.recovered_at), bad)
            looks[key] = look if early else until
            moved.append((*values, *rest, looks[key]))
        self._save("device_update", _PROGRESS_COLUMNS, progress)
        self._save("device_update", _MOVED_COLUMNS, moved)

    def _save(self, table: str, columns: Sequence[str], found: list[tuple[Any, ...]]) -> None:
        """Rows of these columns, of which the first is the key."""
        if not found:
            return
        # In the order of keys: on PostgreSQL no two writers wait in a circle, on SQLite neighbours share a page.
        found.sort()
        if self.link.postgres:
            arrays = ", ".join(f"?::{'text' if name == 'segment_places' else 'bigint'}[]" for name in columns)
            self.link.run(
                f"UPDATE {table} u SET {', '.join(f'{name} = n.{name}' for name in columns[1:])} "
                f"FROM unnest({arrays}) AS n({', '.join(columns)}) WHERE u.key = n.key",
                [list(column) for column in zip(*found, strict=True)],
            )
            return
        self.link.many(
            f"UPDATE {table} SET {', '.join(f'{name} = ?{n}' for n, name in enumerate(columns[1:], 2))} WHERE key = ?1",
            found,
        )

    # ------------------------------------------------------------------------------------------- the clock

    def due(self, rollout_key: int, *, now: datetime, limit: int = 1000) -> Sequence[tuple[CourseRow, datetime | None]]:
        at = stored(now)
        self._look_later(rollout_key, at)
        rows = self.link.rows(
            f"SELECT {_COURSE}, d.last_seen_at, u.look_at FROM device_update u JOIN device d ON d.key = u.device_key "
            "WHERE u.rollout_key = ? AND u.look_at <= ? AND u.deadline_at <= ? "
            "ORDER BY u.look_at, u.device_key LIMIT ?",
            (rollout_key, at, at, limit),
        )
        found = self._courses(rows)
        seen = {course.device_key: row[-2] for course, row in zip(found, rows, strict=True)}
        if self.link.postgres:
            # Found first, then locked in the order of keys like everywhere; who moved on meanwhile is due no more.
            locked = self.load_courses(rollout_key, list(seen)).values()
            found = [row for row in locked if row.update.deadline_at is not None and row.update.deadline_at <= now]
            found.sort(key=lambda row: (row.update.deadline_at, row.device_key))
        return [(row, moment(seen[row.device_key])) for row in found]

    def _look_later(self, rollout_key: int, at: int) -> None:
        """Of updates that are to be looked at, but whose deadline has moved on, the look moves after it: once in a
        patience for each, so that the next deadline comes to be true."""
        keys = self.link.rows(
            "SELECT key FROM device_update WHERE rollout_key = ? AND look_at <= ? AND deadline_at > ? "
            "ORDER BY look_at LIMIT ?",
            (rollout_key, at, at, _MOST_REARMED),
        )
        if not keys:
            return
        condition, listed = self.link.within("key", sorted(key for (key,) in keys))
        self._lock_in_order(condition, (listed,))
        self.link.run(f"UPDATE device_update SET look_at = deadline_at WHERE {condition}", (listed,))
        self._looks.clear()

    def withdraw(self, rollout_key: int, wave: str | None = None) -> int:
        """As ``core.update.withdraw`` for each; a retry that is taken back is in the tallies with its outcome."""
        condition = "key BETWEEN ? AND ? AND status = ?"
        parameters: tuple[Any, ...] = (*update_keys(rollout_key), STATUS_NUMBER[UpdateStatus.OFFERED])
        if wave is not None:
            condition += " AND slice_key IN (SELECT key FROM slice_key WHERE rollout_key = ? AND wave = ?)"
            parameters = (*parameters, rollout_key, wave)
        self._lock_in_order(condition, parameters)
        counts = self.link.rows(
            f"SELECT slice_key, count(*), sum(1 - resolved) FROM device_update WHERE {condition} GROUP BY slice_key",
            parameters,
        )
        if not counts:
            return 0
        self.link.run(
            f"UPDATE device_update SET status = ?, deadline_at = NULL, look_at = NULL WHERE {condition}",
            (STATUS_NUMBER[UpdateStatus.WITHDRAWN], *parameters),
        )
        self._looks.clear()
        fresh = {self.slice_name(key): Counts(withdrawn=int(many)) for key, _, many in counts}
        self.add_counts({(*name[:3], name[4] == 1): these for name, these in fresh.items() if not name[3]})
        return sum(int(many) for _, many, _ in counts)

    def _lock_in_order(self, condition: str, parameters: Sequence[Any]) -> None:
        if self.link.postgres:
            self.link.rows(f"SELECT 1 FROM device_update WHERE {condition} ORDER BY key FOR UPDATE", parameters)

    def postpone_deadlines(self, by: timedelta, *, now: datetime) -> int:
        """Deadlines that depend on when the device was seen last, which could not be seen meanwhile, also leave it time
        to come back."""
        self._looks.clear()
        self.link.rows(self.link.locked("SELECT 1 FROM rollout ORDER BY key", "FOR NO KEY UPDATE"))
        self.postpone_clocks(by, now=now)
        back = ", ".join(str(STATUS_NUMBER[status]) for status in (UpdateStatus.OFFERED, UpdateStatus.CONFIRMED))
        waits = f"? + CASE WHEN status IN ({back}) THEN 3 * usual_gap ELSE 0 END"
        return self.link.run(
            f"UPDATE device_update SET deadline_at = deadline_at + {waits}, look_at = look_at + {waits} "
            "WHERE deadline_at IS NOT NULL",
            (length(by), length(by)),
        )


def _first_of_each(rows: Sequence[tuple[Any, ...]], added: set[tuple[Any, ...]]) -> list[bool]:
    """Which of the rows of events were added: of equal ones only the first can be."""
    fresh = []
    for row in rows:
        key = row[:2]
        fresh.append(key in added)
        added.discard(key)
    return fresh
