"""The clock test for silence: its counters, what earlier rollouts teach, and the look at untouched devices.

A cohort is one row, however many devices it has; a report moves one of its numbers. Cohorts that have passed the last
checkpoint are folded into the first row of their hardware id, so what a decision reads is a matter of minutes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from orchestrator.adapters.sql.codec import decode_state, update_key, update_keys
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import length, span, stored
from orchestrator.core.evidence.clock import (
    FLEET,
    LEFT,
    Clock,
    ClockFacts,
    Cohort,
    Delay,
    Mark,
    Untouched,
    clock_facts,
    minute_of,
    passed,
    passes_at,
    reading,
)
from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.outcomes import APART
from orchestrator.core.states import WATCHED_ROLLOUT, ReasonKind, RolloutStatus
from orchestrator.services.clocks import from_text
from orchestrator.services.records import RolloutRow

LOOKED_AT: Final = 20_000
"""Devices, spread evenly over all there are, that are looked at for whether the untouched have gone dark too."""

FOLDED_AT_ONCE: Final = 32
"""Cohorts that nobody is looked at in any more before they are folded."""

_HEARD: Final = tuple(f"heard_{number}" for number, _ in enumerate(LEFT, 1))
CLOCK_COUNTERS: Final = ("installed", *_HEARD)
_ADD: Final = (
    f"INSERT INTO cohort (rollout_key, hardware_id, minute, {', '.join(CLOCK_COUNTERS)}) "
    "{rows} ON CONFLICT (rollout_key, hardware_id, minute) DO UPDATE SET "
    + ", ".join(f"{name} = cohort.{name} + excluded.{name}" for name in CLOCK_COUNTERS)
)
_ADD_ROW: Final = _ADD.format(rows=f"VALUES ({', '.join('?' * (3 + len(CLOCK_COUNTERS)))})")
_ADD_SUM: Final = _ADD.format(
    rows=f"SELECT rollout_key, hardware_id, ?, {', '.join(f'sum({name})' for name in CLOCK_COUNTERS)} FROM cohort "
    "WHERE rollout_key = ? AND hardware_id = ? AND minute > ? AND minute < ? GROUP BY rollout_key, hardware_id"
)


class ClockReading(Session):
    def past_delays(self, *, rollouts: int, of_each: int, until: datetime) -> Sequence[Delay]:
        keys = self.link.rows(
            "SELECT key FROM rollout WHERE status = ? ORDER BY created_at DESC, key DESC LIMIT ?",
            (RolloutStatus.COMPLETED.value, rollouts),
        )
        found: list[Delay] = []
        for (key,) in keys:
            # From the newest outcomes, by their index, to the updates: as many as asked, however many there are.
            first, _ = update_keys(key)
            rows = self.link.rows(
                "SELECT o.from_key, e.device_key, min(CASE WHEN e.outcome <> 'silent' THEN e.received_at - "
                "u.installing_at END), max(e.seq) AS newest FROM (SELECT device_key, received_at, outcome, seq FROM "
                "evidence WHERE rollout_key = ? ORDER BY seq DESC LIMIT ?) e "
                "JOIN device_update u ON u.key = ? + e.device_key JOIN update_offer o ON o.key = u.key "
                "WHERE u.installing_at <= ? AND e.received_at >= u.installing_at "
                f"AND substr(e.outcome, 1, {len(APART)}) <> '{APART}' "
                "GROUP BY o.from_key, e.device_key ORDER BY newest DESC",
                (key, of_each, first, stored(until)),
            )
            self.learn_software({row[0] for row in rows})
            found += [
                Delay(self.software(software)[0], device, None if took is None else span(took))
                for software, device, took, _ in rows
            ]
        return found

    def cohorts(self, rollout_key: int) -> Sequence[Cohort]:
        rows = self.link.rows(
            f"SELECT hardware_id, minute, {', '.join(CLOCK_COUNTERS)} FROM cohort WHERE rollout_key = ? "
            "ORDER BY hardware_id, minute",
            (rollout_key,),
        )
        return [Cohort(hardware_id, minute, installed, list(heard)) for hardware_id, minute, installed, *heard in rows]

    def clock_facts(self, row: RolloutRow, *, now: datetime) -> ClockFacts | None:
        """One statement for each curve, added up in the database; one more when the clock has crossed."""
        if row.clock is None:
            return None
        clock = from_text(row.clock)
        since = row.state.clock_from
        counts: dict[tuple[int, str], tuple[int, int]] = {}
        times: list[datetime] = []
        for hardware_id, *sums in self._sums(row.key, clock, since, now):
            for number, point in enumerate(clock.of(hardware_id), 1):
                silent, reported, first = sums[3 * number - 3 : 3 * number]
                counts[number, hardware_id] = (int(silent), int(reported))
                if first is not None:
                    times.append(passes_at(first, point))
        facts = clock_facts(clock, counts, min(times, default=None))
        found = reading(facts)
        if found is None or not found.crossed or not _watched(row):
            return facts
        return replace(facts, untouched=self._untouched(row, found.minutes, now))

    def _sums(self, rollout_key: int, clock: Clock, since: int, now: datetime) -> Iterator[tuple[Any, ...]]:
        own = sorted(name for name in clock.learnt if name != FLEET)
        for name, learnt in clock.learnt.items():
            columns = []
            for number, point in enumerate(learnt.checkpoints, 1):
                heard = " + ".join(_HEARD[:number])
                last = passed(now, point)
                columns += [
                    f"sum(CASE WHEN minute <= {last:d} THEN installed - ({heard}) ELSE 0 END)",
                    f"sum(CASE WHEN minute <= {last:d} THEN {heard} ELSE 0 END)",
                    f"min(CASE WHEN minute > {last:d} AND installed > {heard} THEN minute END)",
                ]
            condition, parameters = "hardware_id = ?", [name]
            if name == FLEET:
                listed, values = self.link.within("hardware_id", own)
                condition, parameters = f"NOT ({listed})", [values]
            yield from self.link.rows(
                f"SELECT hardware_id, {', '.join(columns)} FROM cohort WHERE rollout_key = ? AND {condition} "
                "AND minute >= ? GROUP BY hardware_id ORDER BY hardware_id",
                (rollout_key, *parameters, since),
            )

    def _untouched(self, row: RolloutRow, minutes: int, now: datetime) -> Untouched:
        """Devices of the tag without an update in the rollout that are seen at least twice in so many minutes as a rule
        and were alive when these began."""
        began, gap = now - timedelta(minutes=minutes), timedelta(minutes=minutes) / 2
        last = self.link.one("SELECT max(key) FROM device", ())
        most = (last and last[0]) or 0
        keys = list(range(1, most + 1, max(1, -(-most // LOOKED_AT))))
        given = "unnest(?::bigint[]) AS k(value)" if self.link.postgres else "json_each(?) k"
        found = self.link.one(
            f"SELECT count(*), coalesce(sum(CASE WHEN d.last_seen_at < ? THEN 1 ELSE 0 END), 0) FROM {given} "
            "CROSS JOIN device d WHERE d.key = k.value AND d.tag = ? AND d.status = ? AND d.usual_gap > 0 "
            "AND d.usual_gap <= ? AND d.last_seen_at >= ? - 2 * d.usual_gap AND NOT EXISTS "
            "(SELECT 1 FROM device_update u WHERE u.key = ? + d.key)",
            (
                stored(began),
                keys if self.link.postgres else json.dumps(keys),
                row.tag,
                DeviceStatus.ACTIVE.value,
                length(gap),
                stored(began),
                update_keys(row.key)[0],
            ),
        )
        devices, dark = found or (0, 0)
        return Untouched(int(devices), int(dark), minutes)


def _watched(row: RolloutRow) -> bool:
    held = row.state.status is RolloutStatus.HELD and row.state.standing.reason.kind is ReasonKind.ENVIRONMENT
    return row.state.status in WATCHED_ROLLOUT and not held


class ClockWriting(ClockReading):
    def add_to_clock(self, rollout_key: int, began: Collection[int], heard: Collection[int], *, now: datetime) -> None:
        bound = self.link.one("SELECT clock, state FROM rollout WHERE key = ? AND clock IS NOT NULL", (rollout_key,))
        if bound is None:
            return
        clock, state = from_text(bound[0]), decode_state(bound[1])
        keys = sorted({update_key(rollout_key, device) for device in (*began, *heard)})
        condition, listed = self.link.within("o.key", keys)
        rows = self.link.rows(
            "SELECT o.key, o.from_key, m.mark FROM update_offer o LEFT JOIN clock_mark m ON m.key = o.key "
            f"WHERE {condition}",
            (listed,),
        )
        self.learn_software({row[1] for row in rows})
        starting = {update_key(rollout_key, device) for device in began}
        speaking = {update_key(rollout_key, device) for device in heard}
        added: Counter[tuple[str, int, str]] = Counter()
        marks: list[tuple[int, int]] = []
        for key, software, packed in sorted(rows):
            hardware_id = self.software(software)[0]
            before = None if packed is None else Mark.unpacked(packed)
            after = before
            if after is None and key in starting:
                after = Mark(minute_of(now))
                added[hardware_id, after.minute, "installed"] += 1
            if after is not None and not after.interval and key in speaking:
                after = after.heard(now, clock.of(hardware_id))
                if after.interval <= len(LEFT):
                    added[hardware_id, after.minute, _HEARD[after.interval - 1]] += 1
            if after is not None and after != before:
                marks.append((key, after.packed))
        self.link.many(
            "INSERT INTO clock_mark (key, mark) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET mark = excluded.mark",
            marks,
        )
        self._add(rollout_key, added)
        self._fold(rollout_key, {hardware_id for hardware_id, _, _ in added}, clock, state.clock_from, now)

    def _add(self, rollout_key: int, added: Mapping[tuple[str, int, str], int]) -> None:
        places = sorted({(hardware_id, minute) for hardware_id, minute, _ in added})
        self.link.many(
            _ADD_ROW,
            [(rollout_key, *place, *(added.get((*place, name), 0) for name in CLOCK_COUNTERS)) for place in places],
        )

    def _fold(self, rollout_key: int, hardware_ids: Collection[str], clock: Clock, since: int, now: datetime) -> None:
        """Cohorts that have passed every checkpoint become one with the first that counts."""
        last = minute_of(now) - clock.longest - 1
        for hardware_id in sorted(hardware_ids):
            where = (rollout_key, hardware_id, since, last)
            many = self.link.one(
                "SELECT minute FROM cohort WHERE rollout_key = ? AND hardware_id = ? AND minute > ? AND minute < ? "
                f"ORDER BY minute LIMIT 1 OFFSET {FOLDED_AT_ONCE - 1}",
                where,
            )
            if many is not None:
                self.link.run(_ADD_SUM, (since, *where))
                self.link.run(
                    "DELETE FROM cohort WHERE rollout_key = ? AND hardware_id = ? AND minute > ? AND minute < ?", where
                )

    def postpone_clocks(self, by: timedelta, *, now: datetime) -> None:
        """Devices that are still waited for, and have a checkpoint before them, begin so much later."""
        minutes = -(-by // timedelta(minutes=1))
        for key, text in self.link.rows("SELECT key, clock FROM rollout WHERE clock IS NOT NULL ORDER BY key", ()):
            first = minute_of(now - by) - from_text(text).longest
            rows = self.link.rows(
                f"SELECT hardware_id, minute, installed - ({' + '.join(_HEARD)}) FROM cohort WHERE rollout_key = ? "
                f"AND minute >= ? AND installed > {' + '.join(_HEARD)}",
                (key, first),
            )
            moved: Counter[tuple[str, int, str]] = Counter()
            for hardware_id, minute, waiting in rows:
                moved[hardware_id, minute, "installed"] -= waiting
                moved[hardware_id, minute + minutes, "installed"] += waiting
            self._add(key, moved)
            self.link.run(
                "UPDATE clock_mark SET mark = mark + ? WHERE key BETWEEN ? AND ? AND mark >= ? AND (mark & 15) = 0",
                (Mark(minutes).packed, *update_keys(key), Mark(first).packed),
            )
