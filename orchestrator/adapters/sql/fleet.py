"""The fleet as a rollout sees it: counting a wave's devices, bounds, and the cut of the next slice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.codec import as_json
from orchestrator.adapters.sql.devices import DeviceReading
from orchestrator.adapters.sql.members import (
    Piece,
    all_of,
    covered,
    eligible,
    follows,
    in_some_wave,
    member,
    position,
    without_update,
)
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.tables import NO_VERSION
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core import slices as core_slices
from orchestrator.core.fleet import Device, Scope
from orchestrator.core.membership import WaveSelector
from orchestrator.core.position import SPACE
from orchestrator.core.slices import BINS, EXACT_RANKS, Ranks, Slice, coarse_ranks, exact_ranks, segment_population
from orchestrator.errors import Conflict, InvalidInput
from orchestrator.services.store import RolloutRow, WaveCount

_LABEL: Final = "label:"


def _selector(scope: Scope, wave: str) -> WaveSelector:
    return next(selector for selector in scope.selectors if selector.wave == wave)


class FleetReading(DeviceReading):
    def look(self, scope: Scope, wave: str, *, seen_since: datetime) -> WaveCount:
        """One pass: members by what they run. Which of that is eligible is then asked of ``Scope`` itself, once for
        each."""
        asked = all_of(follows(scope), member(scope, wave))
        rows = self.link.rows(
            f"SELECT d.software_key, count(*), sum(CASE WHEN d.last_seen_at >= {stored(seen_since):d} THEN 1 ELSE 0 "
            f"END) "
            f"FROM device d WHERE {asked.sql} GROUP BY d.software_key",
            asked.parameters,
        )
        self.learn_software(row[0] for row in rows)
        able = there = 0
        reachable: dict[int, int] = {}
        for key, devices, seen in rows:
            hardware_id, commit, version = self.software(key)
            like = Device(
                "", hardware_id, scope.tag, commit=commit or None, version=None if version == NO_VERSION else version
            )
            if scope.already_there(like):
                there += devices
            if scope.eligible(like):
                able += devices
                if seen:
                    reachable[key] = int(seen)
        return WaveCount(able, sum(reachable.values()), there, self._running(reachable.items()))

    def strata(self, scope: Scope, wave: str) -> Mapping[str, int]:
        asked = all_of(eligible(scope), member(scope, wave, own_bounds=False))
        rows = self.link.rows(
            f"SELECT d.software_key, count(*) FROM device d WHERE {asked.sql} GROUP BY d.software_key", asked.parameters
        )
        self.learn_software(row[0] for row in rows)
        found: Counter[str] = Counter()
        for key, devices in rows:
            found[self.software(key)[0]] += devices
        return dict(sorted(found.items()))

    def bound(self, scope: Scope, wave: str, hardware_id: str | None, count: int) -> int:
        if count <= 0:
            return 0
        asked = all_of(eligible(scope), member(scope, wave, own_bounds=False))
        if hardware_id is not None:
            one = Piece("d.software_key IN (SELECT s.key FROM software s WHERE s.hardware_id = ?)", (hardware_id,))
            asked = all_of(asked, one)
        row = self.link.one(
            f"SELECT {position(_selector(scope, wave).salt).sql} AS place FROM device d WHERE {asked.sql} "
            "ORDER BY place LIMIT 1 OFFSET ?",
            (*asked.parameters, count - 1),
        )
        return SPACE if row is None else int(row[0]) + 1

    def eligible_keys(self, scope: Scope, *, limit: int) -> Sequence[int]:
        asked = all_of(eligible(scope), in_some_wave(scope))
        rows = self.link.rows(f"SELECT d.key FROM device d WHERE {asked.sql} LIMIT ?", (*asked.parameters, limit))
        return [row[0] for row in rows]


class SliceWriting(Session):
    """Opening slices. Two kinds: up to EXACT_RANKS members their positions are listed; above, they are counted by
    stretch of position."""

    def open_slice(
        self,
        row: RolloutRow,
        scope: Scope,
        wave: str,
        *,
        size: int | None,
        seen_since: datetime,
        dimensions: Sequence[str],
        now: datetime,
    ) -> Slice | None:
        opened = self.link.rows(
            "SELECT opened_at, upto, number FROM slice WHERE rollout_key = ? AND wave = ? ORDER BY number",
            (row.key, wave),
        )
        if opened and stored(now) < opened[-1][0]:
            raise InvalidInput("A slice cannot be opened before the one before it.")
        salt = _selector(scope, wave).salt
        steps = core_slices.covered((moment(at), upto) for at, upto, _ in opened)
        waiting = all_of(
            eligible(scope),
            Piece(f"d.last_seen_at >= {stored(seen_since):d} AND d.since_at <= {stored(now):d}"),
            member(scope, wave),
            ~covered(steps, salt),
            without_update(row.key),
        )
        where = position(salt).sql
        stretches = {
            int(stretch): int(devices)
            for stretch, devices in self.link.rows(
                # Positions are uniform, so 256 stretches say how many wait and, above EXACT_RANKS, where to cut.
                f"SELECT {where} * {BINS} / {SPACE} AS stretch, count(*) FROM device d WHERE {waiting.sql} GROUP BY "
                f"stretch",
                waiting.parameters,
            )
        }
        total = sum(stretches.values())
        if not total:
            if opened:
                self.link.run(
                    "UPDATE slice SET waiting = 0 WHERE rollout_key = ? AND wave = ? AND number = ?",
                    (row.key, wave, opened[-1][2]),
                )
            else:
                self._store(row.key, Slice(wave, 1, SPACE, now, self._given(row.key), {}), waiting=0)
            return None
        wanted = total if size is None else min(size, total)
        if wanted <= EXACT_RANKS:
            upto, ranks = self._exact(waiting, where, wave, wanted, total, stretches, dimensions)
        else:
            upto = SPACE if wanted == total else core_slices.cut(stretches, wanted)
            ranks = self._coarse(waiting, where, wave, upto, dimensions)
        piece = Slice(wave, len(opened) + 1, upto, now, self._given(row.key), ranks)
        self._store(row.key, piece, waiting=total - piece.members)
        return piece

    def _exact(
        self,
        waiting: Piece,
        where: str,
        wave: str,
        wanted: int,
        total: int,
        stretches: Mapping[int, int],
        dimensions: Sequence[str],
    ) -> tuple[int, dict[str, Ranks]]:
        """The ``wanted`` lowest positions. The stretches already tell a bound below which they all stand, which keeps
        the sort short."""
        enough, below = 0, SPACE
        for stretch in sorted(stretches):
            enough += stretches[stretch]
            if enough >= wanted:
                below = min(SPACE, (stretch + 1) * SPACE // BINS + 1)
                break
        columns, joins, values = _dimensions(dimensions)
        rows = self.link.rows(
            f"SELECT {where} AS place, d.software_key{columns} FROM device d{joins} WHERE {where} < {below} AND "
            f"{waiting.sql} "
            "ORDER BY place LIMIT ?",
            (*values, *waiting.parameters, wanted),
        )
        upto = SPACE if wanted == total else rows[-1][0] + 1
        self.learn_software(row[1] for row in rows)
        members: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            for population in self._populations(wave, row[1:], dimensions):
                members[population].append(row[0])
        return upto, {population: exact_ranks(places) for population, places in sorted(members.items())}

    def _coarse(self, waiting: Piece, where: str, wave: str, upto: int, dimensions: Sequence[str]) -> dict[str, Ranks]:
        columns, joins, values = _dimensions(dimensions)
        groups = ", ".join(str(number + 1) for number in range(2 + columns.count(",")))
        rows = self.link.rows(
            f"SELECT {where} * {BINS} / {SPACE}, d.software_key{columns}, count(*) FROM device d{joins} "
            f"WHERE {where} < {upto} AND {waiting.sql} GROUP BY {groups}",
            (*values, *waiting.parameters),
        )
        self.learn_software(row[1] for row in rows)
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for row in rows:
            for population in self._populations(wave, row[1:-1], dimensions):
                counts[population][row[0]] += row[-1]
        return {population: coarse_ranks(found) for population, found in sorted(counts.items())}

    def _populations(self, wave: str, row: Sequence[Any], dimensions: Sequence[str]) -> list[str]:
        """Where a member counts. A device without a value in a dimension is in no population of it."""
        hardware_id, _, version = self.software(row[0])
        found = [core_slices.ROLLOUT, core_slices.wave_population(wave)]
        labels = iter(row[1:])
        for dimension in dimensions:
            if dimension == "hardware_id":
                found.append(segment_population(dimension, hardware_id))
            elif dimension == "source_version":
                if version != NO_VERSION:
                    found.append(segment_population(dimension, str(version)))
            elif (value := next(labels)) is not None:
                found.append(segment_population(dimension, value))
        return found

    def _given(self, rollout_key: int) -> dict[str, int]:
        """Places given so far, by population."""
        rows = self.link.rows("SELECT name, places FROM population WHERE rollout_key = ? ORDER BY name", (rollout_key,))
        return dict(rows)

    def _store(self, rollout_key: int, piece: Slice, *, waiting: int) -> None:
        if not self.link.run(
            "INSERT INTO slice (rollout_key, wave, number, ordinal, upto, opened_at, members, waiting) "
            "SELECT ?, ?, ?, coalesce(max(ordinal), 0) + 1, ?, ?, ?, ? FROM slice WHERE rollout_key = ? ON CONFLICT "
            "DO NOTHING",
            (
                rollout_key,
                piece.wave,
                piece.number,
                piece.upto,
                stored(piece.opened_at),
                piece.members,
                waiting,
                rollout_key,
            ),
        ):
            raise Conflict(f"Slice {piece.number} of wave {piece.wave} was opened by somebody else.")
        self.link.run(
            "INSERT INTO slice_ranks (rollout_key, wave, number, given, ranks) VALUES (?, ?, ?, ?, ?)",
            (rollout_key, piece.wave, piece.number, as_json(piece.before), as_json(piece.ranks)),
        )
        self.link.many(
            "INSERT INTO population (rollout_key, name, places) VALUES (?, ?, ?) "
            "ON CONFLICT (rollout_key, name) DO UPDATE SET places = population.places + excluded.places",
            [(rollout_key, name, ranks.members) for name, ranks in sorted(piece.ranks.items())],
        )


def _dimensions(dimensions: Sequence[str]) -> tuple[str, str, tuple[Any, ...]]:
    """Columns and joins for the labels among them; the rest follows from what the device runs."""
    labels = [dimension.removeprefix(_LABEL) for dimension in dimensions if dimension.startswith(_LABEL)]
    columns = "".join(f", l{number}.value" for number in range(len(labels)))
    joins = "".join(
        f" LEFT JOIN device_label l{number} ON l{number}.device_key = d.key AND l{number}.key = ?"
        for number in range(len(labels))
    )
    return columns, joins, tuple(labels)
