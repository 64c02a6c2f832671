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

from orchestrator.adapters.sql.codec import (
    BITS,
    PROGRESS_COLUMNS,
    UPDATE_COLUMNS,
    packed_id,
    software_after,
    software_before,
    stored_progress,
    stored_update,
    unpacked_id,
    update_of,
)
from orchestrator.adapters.sql.link import Link
from orchestrator.adapters.sql.rollouts import BAD_COLUMNS, TALLIES
from orchestrator.adapters.sql.session import Session, SoftwareNames
from orchestrator.adapters.sql.times import length, moment, stored
from orchestrator.core.update import Counts, UpdateStatus
from orchestrator.services.records import EventRow, LoggedEvent, UpdateRow

_ALL: Final = ", ".join(UPDATE_COLUMNS)
_U: Final = ", ".join(f"u.{column}" for column in UPDATE_COLUMNS)

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

_DEADLINE: Final = UPDATE_COLUMNS.index("deadline_at")
_DEADLINE_NOW: Final = PROGRESS_COLUMNS.index("deadline_at")
_TEXTS: Final = frozenset({"status", "wave", "segment_places"})
_MOST_REARMED: Final = 20_000
"""Updates whose look is moved to their deadline in one call."""

_COUNTED: Final = ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "retired", "left")
"""The fields of ``Counts`` in the order of ``TALLIES``."""


class UpdateReading(Session):
    def update(self, rollout_key: int, device_key: int) -> UpdateRow | None:
        row = self.link.one(
            f"SELECT {_ALL} FROM device_update WHERE rollout_key = ? AND device_key = ?", (rollout_key, device_key)
        )
        return None if row is None else self._update(row)

    def updates_of_device(self, device_key: int, *, limit: int = 20) -> Sequence[tuple[str, UpdateRow]]:
        # Rollouts are few, and each leads to at most one update by the primary key: updates need no index by device.
        rows = self.link.rows(
            f"SELECT r.name, {_U} FROM rollout r CROSS JOIN device_update u WHERE u.rollout_key = r.key AND "
            f"u.device_key = ? "
            "ORDER BY u.offered_at DESC, r.key DESC LIMIT ?",
            (device_key, limit),
        )
        return [(row[0], self._update(row[1:])) for row in rows]

    def list_updates(
        self, rollout_key: int, *, statuses: Collection[UpdateStatus] | None = None, bad: bool = False, limit: int = 100
    ) -> Sequence[tuple[str, UpdateRow]]:
        condition, parameters = "", [rollout_key]
        if statuses is not None:
            asked, listed = self.link.within("u.status", sorted(status.value for status in statuses))
            condition, parameters = f" AND {asked}", [rollout_key, listed]
        few = self.link.by_index("update_bad") if bad else ""
        rows = self.link.rows(
            f"SELECT d.id, {_U} FROM device_update u{few} JOIN device d ON d.key = u.device_key WHERE u.rollout_key = "
            f"?{condition}"
            f"{' AND u.bad > 0' if bad else ''} ORDER BY u.offered_at DESC, u.device_key LIMIT ?",
            (*parameters, limit),
        )
        return [(row[0], self._update(row[1:])) for row in rows]

    def count_updates(self, rollout_key: int) -> Mapping[str, Mapping[UpdateStatus, int]]:
        found: dict[str, dict[UpdateStatus, int]] = defaultdict(dict)
        for wave, status, many in self.link.rows(
            "SELECT wave, status, count(*) FROM device_update WHERE rollout_key = ? GROUP BY wave, status ORDER BY "
            "wave, status",
            (rollout_key,),
        ):
            found[wave][UpdateStatus(status)] = many
        return dict(found)

    def events(
        self, *, device: str | None = None, rollout: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[LoggedEvent]:
        condition: str = "e.seq > ?"
        parameters: list[Any] = [after]
        for sql, value in (
            ("e.device_key = (SELECT key FROM device WHERE id = ?)", device),
            ("e.rollout_key = (SELECT key FROM rollout WHERE name = ?)", rollout),
        ):
            if value is not None:
                condition, parameters = f"{condition} AND {sql}", [*parameters, value]
        rows = self.link.rows(
            "SELECT e.seq, d.id, r.name, e.event_id, e.kind, e.received_at, e.device_at, e.code, e.message FROM "
            "event e "
            f"LEFT JOIN device d ON d.key = e.device_key LEFT JOIN rollout r ON r.key = e.rollout_key WHERE "
            f"{condition} "
            "ORDER BY e.seq LIMIT ?",
            (*parameters, limit),
        )
        return [
            LoggedEvent(seq, name or "", of, unpacked_id(event), kind, moment(at), said, code, message)
            for seq, name, of, event, kind, at, said, code, message in rows
        ]

    def _update(self, row: Sequence[Any]) -> UpdateRow:
        return update_of(tuple(row), self.software(row[13]), self.software(row[14]))

    def _updates(self, rows: Sequence[tuple[Any, ...]]) -> list[UpdateRow]:
        self.learn_software({row[13] for row in rows} | {row[14] for row in rows})
        name = self.software
        return [update_of(row, name(row[13]), name(row[14])) for row in rows]


class UpdateWriting(UpdateReading):
    def __init__(self, link: Link, names: SoftwareNames) -> None:
        super().__init__(link, names)
        self._looks: dict[tuple[int, int], int | None] = {}
        """``look_at`` as stored of the updates that this session has loaded."""

    def offered_to(self, rollout_key: int, device_key: int) -> UpdateRow | None:
        row = self.link.one(
            self.link.locked(f"SELECT {_ALL} FROM device_update WHERE rollout_key = ? AND device_key = ?"),
            (rollout_key, device_key),
        )
        return None if row is None else self._update(row)

    def add_update(self, row: UpdateRow) -> bool:
        return bool(
            self.link.run(
                f"INSERT INTO device_update ({_ALL}, look_at) VALUES ({', '.join('?' * len(UPDATE_COLUMNS))}, ?) "
                "ON CONFLICT DO NOTHING",
                (*(values := self._stored(row)), values[_DEADLINE]),
            )
        )

    def _stored(self, row: UpdateRow) -> tuple[Any, ...]:
        return stored_update(row, self.software_key(software_before(row)), self.software_key(software_after(row)))

    # ------------------------------------------------------------------------------------------- reports

    def log_events(self, events: Sequence[EventRow]) -> Sequence[bool]:
        at, received_at = 0, None
        rows = []
        for device, event, rollout, kind, received, said, code, message in events:
            if received is not received_at:  # what came together has one time
                at, received_at = stored(received), received
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
        devices: dict[int, list[int]] = defaultdict(list)
        for rollout, device in keys:
            devices[rollout].append(device)
        rows: list[tuple[Any, ...]] = []
        for rollout, these in sorted(devices.items()):
            these.sort()
            if self.link.postgres:
                # One look into the primary key for each, in the order of the list, whatever the server believes about
                # the size of a table that has just grown; LIMIT keeps it from another way.
                rows += self.link.rows(
                    f"SELECT {_U}, u.look_at FROM unnest(?::bigint[]) AS k(device) CROSS JOIN LATERAL "
                    "(SELECT * FROM device_update WHERE rollout_key = ? AND device_key = k.device "
                    "LIMIT 1 FOR UPDATE) u",
                    (these, rollout),
                )
            else:
                # From the list to the rows: IN would first make a table of it.
                rows += self.link.rows(
                    f"SELECT {_U}, u.look_at FROM json_each(?) k CROSS JOIN device_update u "
                    "WHERE u.rollout_key = ? AND u.device_key = k.value",
                    (json.dumps(these), rollout),
                )
        found: dict[tuple[int, int], UpdateRow] = {}
        for row, update in zip(rows, self._updates(rows), strict=True):
            key = (row[0], row[1])
            found[key] = update
            self._looks[key] = row[-1]
        return found

    def save_updates(self, rows: Iterable[UpdateRow]) -> None:
        found = [(*values, values[_DEADLINE]) for values in map(self._stored, rows)]
        self._looks.update((values[:2], values[-1]) for values in found)
        self._save((*UPDATE_COLUMNS, "look_at"), found)

    def save_progress(self, rows: Iterable[UpdateRow]) -> None:
        looks = self._looks
        early: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for values in map(stored_progress, rows):
            look, deadline = looks.get(values[:2]), values[_DEADLINE_NOW]
            if look is not None and deadline is not None and look <= deadline:
                early.append(values)
            else:
                moved.append((*values, deadline))
        looks.update((values[:2], values[-1]) for values in moved)
        self._save(PROGRESS_COLUMNS, early)
        self._save((*PROGRESS_COLUMNS, "look_at"), moved)

    def _save(self, columns: Sequence[str], found: list[tuple[Any, ...]]) -> None:
        """Rows of these columns, of which the first two are the key."""
        if not found:
            return
        # In the order of keys: on PostgreSQL no two writers wait in a circle, on SQLite neighbours share a page.
        found.sort()
        if self.link.postgres:
            arrays = ", ".join(f"?::{'text' if name in _TEXTS else 'bigint'}[]" for name in columns)
            self.link.run(
                f"UPDATE device_update u SET {', '.join(f'{name} = n.{name}' for name in columns[2:])} "
                f"FROM unnest({arrays}) AS n({', '.join(columns)}) "
                "WHERE u.rollout_key = n.rollout_key AND u.device_key = n.device_key",
                [list(column) for column in zip(*found, strict=True)],
            )
            return
        self.link.many(
            f"UPDATE device_update SET {', '.join(f'{name} = ?{n}' for n, name in enumerate(columns[2:], 3))} "
            "WHERE rollout_key = ?1 AND device_key = ?2",
            found,
        )

    def add_counts(self, counts: Mapping[tuple[int, str, int], Counts]) -> None:
        for (rollout, wave, number), these in sorted(counts.items()):
            changes = {
                column: value for column, name in zip(TALLIES, _COUNTED, strict=True) if (value := getattr(these, name))
            }
            for outcome in these.bad:
                column = BAD_COLUMNS[outcome]
                changes[column] = changes.get(column, 0) + 1
            if changes:
                self.link.run(
                    f"UPDATE slice SET {', '.join(f'{column} = {column} + ?' for column in changes)} "
                    "WHERE rollout_key = ? AND wave = ? AND number = ?",
                    (*changes.values(), rollout, wave, number),
                )

    # ------------------------------------------------------------------------------------------- the clock

    def due(self, rollout_key: int, *, now: datetime, limit: int = 1000) -> Sequence[tuple[UpdateRow, datetime | None]]:
        at = stored(now)
        self._look_later(rollout_key, at)
        rows = self.link.rows(
            f"SELECT {_U}, d.last_seen_at FROM device_update u JOIN device d ON d.key = u.device_key "
            "WHERE u.rollout_key = ? AND u.look_at <= ? AND u.deadline_at <= ? "
            "ORDER BY u.look_at, u.device_key LIMIT ?",
            (rollout_key, at, at, limit),
        )
        seen = {row[1]: row[-1] for row in rows}
        if self.link.postgres:
            # Found first, then locked in the order of keys like everywhere; who moved on meanwhile is due no more.
            locked = self.load_updates([(row[0], row[1]) for row in rows]).values()
            found = [row for row in locked if row.update.deadline_at is not None and row.update.deadline_at <= now]
            found.sort(key=lambda row: (row.update.deadline_at, row.device_key))
        else:
            found = self._updates([row[:-1] for row in rows])
        return [(row, moment(seen[row.device_key])) for row in found]

    def _look_later(self, rollout_key: int, at: int) -> None:
        """Of updates that are to be looked at, but whose deadline has moved on, the look moves after it: once in a
        patience for each, so that the next deadline comes to be true."""
        keys = self.link.rows(
            "SELECT device_key FROM device_update WHERE rollout_key = ? AND look_at <= ? AND deadline_at > ? "
            "ORDER BY look_at LIMIT ?",
            (rollout_key, at, at, _MOST_REARMED),
        )
        if not keys:
            return
        condition, listed = self.link.within("device_key", sorted(key for (key,) in keys))
        if self.link.postgres:
            self.link.rows(
                f"SELECT 1 FROM device_update WHERE rollout_key = ? AND {condition} ORDER BY device_key FOR UPDATE",
                (rollout_key, listed),
            )
        self.link.run(
            f"UPDATE device_update SET look_at = deadline_at WHERE rollout_key = ? AND {condition}",
            (rollout_key, listed),
        )
        self._looks.clear()

    def withdraw(self, rollout_key: int, wave: str | None = None) -> int:
        """As ``core.update.withdraw`` for each; a retry that is taken back is in the tallies with its outcome."""
        condition = "rollout_key = ? AND status = 'offered'" + ("" if wave is None else " AND wave = ?")
        parameters = (rollout_key,) if wave is None else (rollout_key, wave)
        if self.link.postgres:
            self.link.rows(
                f"SELECT 1 FROM device_update WHERE {condition} ORDER BY rollout_key, device_key FOR UPDATE", parameters
            )
        counts = self.link.rows(
            "SELECT wave, slice_number, count(*), sum(1 - resolved) FROM device_update "
            f"WHERE {condition} GROUP BY wave, slice_number",
            parameters,
        )
        if not counts:
            return 0
        self.link.run(
            f"UPDATE device_update SET status = 'withdrawn', deadline_at = NULL, look_at = NULL WHERE {condition}",
            parameters,
        )
        self._looks.clear()
        self.add_counts({(rollout_key, of, number): Counts(withdrawn=int(fresh)) for of, number, _, fresh in counts})
        return sum(int(many) for _, _, many, _ in counts)

    def postpone_deadlines(self, by: timedelta) -> int:
        """Deadlines that depend on when the device was seen last, which could not be seen meanwhile, also leave it time
        to come back."""
        self._looks.clear()
        self.link.rows(self.link.locked("SELECT 1 FROM rollout ORDER BY key", "FOR NO KEY UPDATE"))
        waits = "? + CASE WHEN status IN ('offered', 'confirmed') THEN 3 * usual_gap ELSE 0 END"
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


def bits_of(outcomes: Iterable[Any]) -> int:
    """The bits of some classes in ``device_update.bad``."""
    return sum(BITS[outcome] for outcome in outcomes)
