"""Rollouts, their journal, their slices and the facts a decision is made from."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from orchestrator.adapters.sql.clocks import ClockReading
from orchestrator.adapters.sql.codec import (
    ROLLOUT_COLUMNS,
    as_json,
    decode_reason,
    rollout_of,
    slice_of_row,
)
from orchestrator.adapters.sql.gates import GateReading, has_gates
from orchestrator.adapters.sql.house_tables import FROZEN
from orchestrator.adapters.sql.members import Piece, all_of, any_of, eligible, wave_number, without_update
from orchestrator.adapters.sql.monitors import MonitorReading, facts_of
from orchestrator.adapters.sql.tallies import TallyReading
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.clock import ClockFacts, reading
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, MonitorFacts, SliceFacts, WaveFacts
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import Policy
from orchestrator.core.slices import Slice
from orchestrator.core.states import LIVE_ROLLOUT, OFFERING_WAVE, Reason, RolloutStatus
from orchestrator.errors import Conflict, Refused
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.records import DeltaNeed, RolloutRow, WaveCount

_LATE_AFTER: Final = timedelta(hours=1)
"""A wave whose last slice is younger is not asked about devices that came since."""


@lru_cache(maxsize=256)
def _reach(policy: str) -> timedelta:
    """How long ago a device may have been seen to be counted on, by the rollout's own copy of its policy."""
    return Policy.from_canonical(policy).reach


class RolloutReading(TallyReading, MonitorReading, ClockReading, GateReading):
    def rollout(self, name: str) -> RolloutRow | None:
        row = self.link.one(f"SELECT {ROLLOUT_COLUMNS} FROM rollout WHERE name = ?", (name,))
        return None if row is None else rollout_of(row)

    def rollout_by_key(self, key: int) -> RolloutRow | None:
        row = self.link.one(f"SELECT {ROLLOUT_COLUMNS} FROM rollout WHERE key = ?", (key,))
        return None if row is None else rollout_of(row)

    def rollouts(self, statuses: Collection[RolloutStatus] | None = None) -> Sequence[RolloutRow]:
        condition, parameters = self.link.of_status(statuses)
        rows = self.link.rows(
            f"SELECT {ROLLOUT_COLUMNS} FROM rollout WHERE {condition} ORDER BY created_at DESC, key DESC", parameters
        )
        return [rollout_of(row) for row in rows]

    def deadlines(self) -> dict[int, datetime]:
        """One look into ``update_deadline`` for each rollout."""
        rows = self.link.rows(
            "SELECT r.key, (SELECT min(u.look_at) FROM device_update u WHERE u.rollout_key = r.key "
            "AND u.look_at IS NOT NULL) FROM rollout r ORDER BY r.key"
        )
        return {key: moment(at) for key, at in rows if at is not None}

    def offering(self, tag: str | None = None) -> Sequence[RolloutRow]:
        condition, parameters = self.offering_condition(tag)
        rows = self.link.rows(
            f"SELECT {ROLLOUT_COLUMNS} FROM rollout WHERE {condition} ORDER BY created_at DESC, key DESC", parameters
        )
        return [rollout_of(row) for row in rows]

    def offering_condition(self, tag: str | None = None) -> tuple[str, tuple[Any, ...]]:
        """Which rows of ``rollout`` are live, or the newest completed one of their tag; of one tag, or of all."""
        # When it was completed stands in its state, as ISO 8601 in UTC: without the Z it sorts as text.
        since = (
            """replace(state::json #>> '{standing,since}', 'Z', '') COLLATE "C\""""
            if self.link.postgres
            else "replace(json_extract(state, '$.standing.since'), 'Z', '')"
        )
        live, listed = self.link.within("status", sorted(status.value for status in LIVE_ROLLOUT))
        of_tag = "" if tag is None else " AND tag = ?"
        newest = (
            f"SELECT key FROM (SELECT key, row_number() OVER (PARTITION BY tag ORDER BY {since} DESC, created_at DESC, "
            f"key DESC) AS newest FROM rollout WHERE status = ?{of_tag}) x WHERE newest = 1"
        )
        tags = () if tag is None else (tag, tag)
        return f"({live} OR key IN ({newest})){of_tag}", (listed, RolloutStatus.COMPLETED.value, *tags)

    def slices(self, rollout_key: int, wave: str | None = None) -> Sequence[Slice]:
        rows = self.link.rows(
            "SELECT s.wave, s.number, s.upto, s.opened_at, r.given, r.ranks FROM slice s JOIN slice_ranks r "
            "ON r.rollout_key = s.rollout_key AND r.wave = s.wave AND r.number = s.number WHERE s.rollout_key = ?"
            + ("" if wave is None else " AND s.wave = ?")
            + " ORDER BY s.ordinal",
            (rollout_key,) if wave is None else (rollout_key, wave),
        )
        return [slice_of_row(row) for row in rows]

    def slice_bounds(self, rollout_key: int, wave: str) -> list[tuple[int, int, int]]:
        """Number, opening and bound of a wave's slices, as stored, in the order of their opening."""
        return self.link.rows(
            "SELECT number, opened_at, upto FROM slice WHERE rollout_key = ? AND wave = ? ORDER BY number",
            (rollout_key, wave),
        )

    def needs(self, rollout_key: int, wave: str) -> Sequence[DeltaNeed]:
        rows = self.link.rows(
            "SELECT from_commit, to_commit, devices, known FROM need WHERE rollout_key = ? AND wave = ? "
            "ORDER BY devices DESC, from_commit, to_commit",
            (rollout_key, wave),
        )
        return [DeltaNeed(DeltaPair(start or None, end), devices, known == 1) for start, end, devices, known in rows]

    def budgets(self, rollout_key: int) -> Sequence[BudgetFacts]:
        rows = self.link.rows(
            "SELECT outcomes, bad_limit, bad, base, answer FROM budget WHERE rollout_key = ? ORDER BY outcomes",
            (rollout_key,),
        )
        return [
            BudgetFacts(tuple(names.split("+")), limit, bad, base, Answer(answer))
            for names, limit, bad, base, answer in rows
        ]

    def halted_at(self, rollout_key: int) -> datetime | None:
        row = self.link.one("SELECT max(at) FROM journal WHERE rollout_key = ? AND event = 'halted'", (rollout_key,))
        return None if row is None else moment(row[0])

    def journal(self, rollout_key: int, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        return self._entries("rollout_key = ? AND seq > ? ORDER BY seq LIMIT ?", (rollout_key, after, limit))

    def journal_of(self, rollout_key: int, event: str) -> Sequence[Entry]:
        return self._entries("rollout_key = ? AND event = ? ORDER BY seq", (rollout_key, event))

    def _entries(self, where: str, parameters: tuple[Any, ...]) -> list[Entry]:
        columns = "seq, at, event, by, sentence, wave, facts, policy_digest, evidence_seq, before, hash"
        rows = self.link.rows(f"SELECT {columns} FROM journal WHERE {where}", parameters)
        return [
            Entry(seq, moment(at), event, by, sentence, wave, json.loads(facts), digest, evidence, before, own)
            for seq, at, event, by, sentence, wave, facts, digest, evidence, before, own in rows
        ]

    def frozen(self) -> Reason | None:
        """In a writing session nobody freezes until it ends: an offer that found no frost commits before it."""
        row = self.link.one(self._frozen_query(), (FROZEN,))
        return None if row is None or row[0] is None else decode_reason(row[0])

    def _frozen_query(self) -> str:
        return "SELECT note FROM house WHERE name = ?"

    def pulse(self) -> str:
        """Every change of a rollout raises its version; a build that ends says when."""
        row = self.link.one(
            "SELECT (SELECT coalesce(sum(version), 0) FROM rollout), (SELECT max(ended_at) FROM build)", ()
        )
        return "" if row is None else f"{row[0]}:{row[1]}"

    # ------------------------------------------------------------------------------------------- facts

    def facts(self, row: RolloutRow, *, now: datetime, listened: datetime | None = None) -> Facts:
        """Ten statements at most, whatever the number of waves, and one for each curve of its clock; none of them reads
        an update or, but for newcomers and for devices that a clock which has crossed might excuse, a device. One more
        names the operator's own classes, where something of theirs was counted, and one the answers of gates, where
        there are any."""
        opened = self.slice_facts(row.key)
        slices: dict[str, list[SliceFacts]] = defaultdict(list)
        for wave, piece in opened:
            slices[wave].append(piece)
        deltas = self._delta_facts(row.key)
        late = self._late(row, slices, now)
        gates = self.gates(row.key) if has_gates(row) else {}
        waves = []
        for state in row.state.waves:
            eligible_there, found = deltas.get(state.wave, ((None, 0), None))
            waves.append(
                WaveFacts(
                    wave=state.wave,
                    eligible=eligible_there[0],
                    already_there=eligible_there[1],
                    deltas=found,
                    slices=tuple(slices.get(state.wave, ())),
                    late=state.wave in late,
                    gates=tuple(gates.get(state.wave, ())),
                )
            )
        deadline = self.link.one(
            "SELECT min(look_at) FROM device_update WHERE rollout_key = ? AND look_at IS NOT NULL", (row.key,)
        )
        return Facts(
            devices=row.devices,
            waves=tuple(waves),
            monitors=tuple(self.monitor_facts(row.key, opened)),
            budgets=tuple(self.budgets(row.key)),
            next_deadline=moment(deadline[0]) if deadline else None,
            frozen=self.frozen(),
            clock=self._clock_of(row, now if listened is None else min(now, listened)),
        )

    def _clock_of(self, row: RolloutRow, now: datetime) -> ClockFacts | None:
        """The clock, and once it has crossed the boards that are watched as segments: one of them may carry it."""
        clock = self.clock_facts(row, now=now)
        found = None if clock is None else reading(clock)
        if clock is None or found is None or not found.crossed:
            return clock
        return replace(clock, boards=tuple(sorted(self.watched_values(row.key, "hardware_id").items())))

    def _delta_facts(self, rollout_key: int) -> dict[str, tuple[tuple[int, int], DeltaFacts]]:
        """By wave. A need is ready when its delta is recorded; failed when it is not, and the pair's newest job
        failed."""
        counted = {
            wave: numbers
            for wave, *numbers in self.link.rows(
                "SELECT n.wave, "
                "sum(CASE WHEN n.known = 1 THEN n.devices ELSE 0 END), "
                "sum(CASE WHEN n.known = 1 AND t.to_commit IS NOT NULL THEN n.devices ELSE 0 END), "
                "sum(CASE WHEN n.known = 0 THEN n.devices ELSE 0 END), "
                "sum(n.known), "
                "sum(CASE WHEN n.known = 1 AND t.to_commit IS NOT NULL THEN 1 ELSE 0 END), "
                "sum(CASE WHEN n.known = 1 AND t.to_commit IS NULL AND 'failed' = (SELECT b.status FROM build b "
                "    WHERE b.from_commit = n.from_commit AND b.to_commit = n.to_commit ORDER BY b.key DESC LIMIT 1) "
                "THEN 1 ELSE 0 END) "
                "FROM need n LEFT JOIN delta t ON t.from_commit = n.from_commit AND t.to_commit = n.to_commit "
                "WHERE n.rollout_key = ? AND n.from_commit <> n.to_commit GROUP BY n.wave",
                (rollout_key,),
            )
        }
        found = {}
        for wave, looked_at, able, there in self.link.rows(
            "SELECT wave, looked_at, eligible, already_there FROM look WHERE rollout_key = ?", (rollout_key,)
        ):
            found[wave] = ((able, there), DeltaFacts(moment(looked_at), *map(int, counted.get(wave, ()))))
        return found

    def flowing(self, row: RolloutRow, *, counted: bool) -> tuple[Sequence[WaveFacts], Sequence[MonitorFacts]]:
        stained = self.stained_monitors(row.key)
        if not stained and not counted:
            return (), ()
        opened = self.slice_facts(row.key)
        waves = [
            WaveFacts(each.wave, slices=tuple(piece for wave, piece in opened if wave == each.wave))
            for each in row.state.waves
        ]
        return waves, list(facts_of(stained, opened))

    def _late(self, row: RolloutRow, slices: Mapping[str, Sequence[SliceFacts]], now: datetime) -> set[str]:
        """Waves with an eligible, reachable device that came after their last slice: one that a slice opened now would
        hold, else a tick would open slices for nobody. One statement over the newcomers of the tag, by
        ``device_since``."""
        scope = row.scope
        if scope is None:
            return set()
        status = {state.wave: state.status for state in row.state.waves}
        asked = []
        oldest: list[int] = []
        for number, selector in enumerate(scope.selectors):
            pieces = slices.get(selector.wave)
            if pieces and status.get(selector.wave) in OFFERING_WAVE and pieces[-1].opened_at + _LATE_AFTER <= now:
                opened = stored(pieces[-1].opened_at)
                oldest.append(opened)
                asked.append(Piece("wave = ? AND since_at > ?", (number, opened)))
        if not asked:
            return set()
        # A plus sign before `tag` would keep SQLite from `device_since`: the newcomers are few, the tag's devices many.
        newcomers = all_of(
            Piece("d.since_at > ? AND d.last_seen_at >= ?", (min(oldest), stored(now - _reach(row.policy)))),
            eligible(scope),
            without_update(row.key),
        )
        wave = wave_number(scope)
        either = any_of(*asked)
        rows = self.link.rows(
            f"SELECT DISTINCT wave FROM (SELECT {wave.sql} AS wave, d.since_at AS since_at FROM device d WHERE "
            f"{newcomers.sql}) x "
            f"WHERE {either.sql}",
            (*wave.parameters, *newcomers.parameters, *either.parameters),
        )
        return {scope.selectors[number].wave for (number,) in rows}


class RolloutWriting(RolloutReading):
    def _frozen_query(self) -> str:
        return self.link.locked("SELECT note FROM house WHERE name = ?", "FOR SHARE")

    def add_rollout(self, row: RolloutRow) -> RolloutRow:
        columns = ROLLOUT_COLUMNS.removeprefix("key, ")
        found = self.link.rows(
            f"INSERT INTO rollout (name, status, epoch, {columns}) VALUES ({', '.join('?' * 18)}) ON CONFLICT DO "
            f"NOTHING RETURNING key",
            (row.state.rollout, row.state.status.value, row.state.epoch, *self._values(row, 1)),
        )
        if not found:
            raise Refused(
                f"There is a rollout {row.state.rollout} already.",
                remedy="Give this one another name in its rollout file.",
            )
        return replace(row, key=found[0][0], version=1)

    def lock_rollout(self, key: int) -> tuple[RolloutStatus, int]:
        # Not FOR SHARE: who counts may have to halt, and two that share a row and both want to change it wait for each
        # other; and those that share let one that wants it alone wait for as long as more of them come.
        sql = self.link.locked("SELECT status, epoch FROM rollout WHERE key = ?", "FOR NO KEY UPDATE")
        row = self.link.one(sql, (key,))
        if row is None:
            raise Conflict("The rollout is not there any more.")
        return RolloutStatus(row[0]), row[1]

    def lock_tag(self, tag: str) -> None:
        if self.link.postgres:
            self.link.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"wave tag {tag}",))

    def save_rollout(self, row: RolloutRow) -> RolloutRow:
        columns = [f"{name} = ?" for name in ("status", "epoch", *ROLLOUT_COLUMNS.split(", ")[1:])]
        version = row.version + 1
        if not self.link.run(
            f"UPDATE rollout SET {', '.join(columns)} WHERE key = ? AND version = ?",
            (row.state.status.value, row.state.epoch, *self._values(row, version), row.key, row.version),
        ):
            raise Conflict(f"Rollout {row.state.rollout} was changed by somebody else meanwhile.")
        return replace(row, version=version)

    def _values(self, row: RolloutRow, version: int) -> tuple[Any, ...]:
        return (
            version,
            as_json(row.state),
            row.spec,
            row.policy,
            row.spec_digest,
            row.policy_digest,
            row.salt,
            row.tag,
            row.target_version,
            stored(row.created_at),
            None if row.scope is None else as_json(row.scope),
            row.clock,
            row.devices,
            row.journal_seq,
            row.journal_hash,
        )

    def append_journal(self, row: RolloutRow, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if not self.link.run(
                "INSERT INTO journal (rollout_key, seq, at, event, by, sentence, wave, facts, policy_digest, "
                "evidence_seq, before, hash) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    row.key,
                    entry.seq,
                    stored(entry.at),
                    entry.event,
                    entry.by,
                    entry.sentence,
                    entry.wave,
                    json.dumps(entry.facts, sort_keys=True),
                    entry.policy_digest,
                    entry.evidence_seq,
                    entry.before,
                    entry.hash,
                ),
            ):
                raise Conflict(
                    f"Entry {entry.seq} of the journal of {row.state.rollout} was written by somebody else meanwhile."
                )
            self.appended.append((row.key, entry.seq))

    def add_monitors(self, rollout_key: int, specs: Iterable[MonitorSpec], *, from_places: Mapping[str, int]) -> None:
        for spec in specs:
            attempts, running = self.link.rows(
                "SELECT coalesce(max(attempt), 0), coalesce(sum(CASE WHEN accepted_at IS NULL THEN 1 ELSE 0 END), 0) "
                "FROM monitor "
                "WHERE rollout_key = ? AND name = ?",
                (rollout_key, spec.key),
            )[0]
            if running:
                raise Conflict(f"Monitor {spec.key} is running already.")
            self.link.run(
                "INSERT INTO monitor (rollout_key, name, attempt, spec, from_place, bad) VALUES (?, ?, ?, ?, ?, 0)",
                (rollout_key, spec.key, attempts + 1, as_json(spec), from_places.get(spec.key, 0)),
            )

    def close_monitors(self, rollout_key: int, keys: Collection[str], *, now: datetime) -> None:
        condition, listed = self.link.within("name", sorted(keys))
        self.link.run(
            f"UPDATE monitor SET accepted_at = ? WHERE rollout_key = ? AND accepted_at IS NULL AND {condition}",
            (stored(now), rollout_key, listed),
        )

    def set_budgets(self, rollout_key: int, budgets: Sequence[BudgetFacts]) -> None:
        """What a budget has counted stays; only a new one takes the count it comes with."""
        kept = {budget.name for budget in budgets}
        for (name,) in self.link.rows("SELECT outcomes FROM budget WHERE rollout_key = ?", (rollout_key,)):
            if name not in kept:
                self.link.run("DELETE FROM budget WHERE rollout_key = ? AND outcomes = ?", (rollout_key, name))
        self.link.many(
            "INSERT INTO budget (rollout_key, outcomes, bad_limit, bad, base, answer) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (rollout_key, outcomes) DO UPDATE SET bad_limit = excluded.bad_limit, base = excluded.base, "
            "answer = excluded.answer",
            [(rollout_key, one.name, one.limit, one.bad, one.base, one.answer.value) for one in budgets],
        )

    def set_needs(
        self, rollout_key: int, wave: str, count: WaveCount, needs: Sequence[DeltaNeed], *, now: datetime
    ) -> None:
        self.link.run(
            "INSERT INTO look (rollout_key, wave, looked_at, eligible, reachable, already_there) VALUES (?, ?, ?, ?, "
            "?, ?) "
            "ON CONFLICT (rollout_key, wave) DO UPDATE SET looked_at = excluded.looked_at, eligible = "
            "excluded.eligible, "
            "reachable = excluded.reachable, already_there = excluded.already_there",
            (rollout_key, wave, stored(now), count.eligible, count.reachable, count.already_there),
        )
        self.link.run("DELETE FROM need WHERE rollout_key = ? AND wave = ?", (rollout_key, wave))
        self.link.many(
            "INSERT INTO need (rollout_key, wave, from_commit, to_commit, devices, known) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (rollout_key, wave, need.pair.from_commit or "", need.pair.to_commit, need.devices, int(need.known))
                for need in needs
            ],
        )
