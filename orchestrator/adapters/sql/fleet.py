"""The fleet as a rollout sees it: counting a wave's devices, bounds, and the cut of the next slice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.codec import as_json, update_keys
from orchestrator.adapters.sql.columns import NO_VERSION
from orchestrator.adapters.sql.devices import DeviceReading
from orchestrator.adapters.sql.members import (
    ALWAYS,
    Piece,
    all_of,
    any_of,
    covered,
    eligible,
    follows,
    in_segment,
    in_some_wave,
    listed,
    member,
    position,
    without_update,
)
from orchestrator.adapters.sql.rollouts import RolloutReading
from orchestrator.adapters.sql.times import moment, span, stored
from orchestrator.core import slices as core_slices
from orchestrator.core.calendar import Habits
from orchestrator.core.fleet import Device, Scope
from orchestrator.core.membership import WaveSelector
from orchestrator.core.position import SPACE
from orchestrator.core.protocols import TAKES_WHOLE, DeviceProtocol
from orchestrator.core.slices import BINS, EXACT_RANKS, Ranks, Slice, coarse_ranks, exact_ranks, segment_population
from orchestrator.errors import Conflict, InvalidInput
from orchestrator.services.records import RolloutRow, RunningCount, WaveCount

_LABEL: Final = "label:"


def _selector(scope: Scope, wave: str) -> WaveSelector:
    return next(selector for selector in scope.selectors if selector.wave == wave)


class FleetReading(DeviceReading):
    def _devices_of(self, scope: Scope, wave: str) -> str:
        """``device d`` with the way to go through a wave's devices, which SQLite must be told: it keeps no statistics.

        A group is few devices; so are those of a tag that a tenth of the fleet follows at most. To look up more by
        an index takes four times as long as to read the whole table.
        """
        if self.link.postgres:
            return "device d"
        if _selector(scope, wave).group is not None:
            return "device d INDEXED BY device_in_group"
        return "device d" if self._few(scope.tag) else "device d NOT INDEXED"

    def look(self, scope: Scope, wave: str, *, seen_since: datetime) -> WaveCount:
        """One pass: members by what they run. Of that it is asked once for each whether it is eligible, of
        ``Scope``."""
        asked = all_of(follows(scope), member(scope, wave))
        # Which labels a device has does not follow from what it runs: those of excluded segments are asked for here.
        labels = any_of(*(in_segment(each) for each in scope.excluded if each.startswith(_LABEL)))
        out = f"CASE WHEN {labels.sql} THEN 1 ELSE 0 END"
        recent = f"CASE WHEN d.last_seen_at >= {stored(seen_since):d} THEN 1 ELSE 0 END"
        found = self.link.counted(
            ("d.software_key", recent, out),
            f"FROM {self._devices_of(scope, wave)} WHERE {asked.sql}",
            (*labels.parameters, *asked.parameters),
        )
        keys = sorted({key for key, *_ in found})
        self.learn_software(keys)
        able = there = 0
        reachable: dict[int, int] = {}
        for key in keys:
            seen, left_in = found[key, 1, 0], found[key, 0, 0] + found[key, 1, 0]
            hardware_id, commit, version = self.software(key)
            like = Device(
                "", hardware_id, scope.tag, commit=commit or None, version=None if version == NO_VERSION else version
            )
            if scope.already_there(like):
                there += left_in + found[key, 0, 1] + found[key, 1, 1]
            if scope.eligible(like):
                able += left_in
                if seen:
                    reachable[key] = int(seen)
        whole = self._served_whole(all_of(asked, ~labels, Piece(f"{recent} = 1")), reachable)
        return WaveCount(able, sum(reachable.values()), there, self._running(reachable.items()), whole)

    def _served_whole(
        self, asked: Piece, reachable: Mapping[int, int]
    ) -> Mapping[DeviceProtocol, tuple[RunningCount, ...]]:
        """Of the reachable those whose protocol has no deltas. Begins with the few that are noted for another protocol
        (CROSS JOIN says so to SQLite), so that a fleet without them pays nothing."""
        spoken = listed(sorted(TAKES_WHOLE))
        found = self.link.counted(
            ("p.protocol", "d.software_key"),
            f"FROM device_protocol p CROSS JOIN device d WHERE d.key = p.device_key AND p.protocol IN ({spoken.sql}) "
            f"AND {asked.sql}",
            (*spoken.parameters, *asked.parameters),
        )
        by: dict[DeviceProtocol, list[tuple[int, int]]] = defaultdict(list)
        for (protocol, key), devices in found.items():
            if key in reachable:
                by[DeviceProtocol(protocol)].append((key, int(devices)))
        return {protocol: self._running(counted) for protocol, counted in sorted(by.items())}

    def habits(self, tag: str, *, sample: int) -> Habits:
        gaps = self.link.rows(
            "SELECT usual_gap FROM device WHERE tag = ? AND status = 'active' AND usual_gap > 0 LIMIT ?", (tag, sample)
        )
        times: list[int] = []
        for (rollout_key,) in self.link.rows("SELECT key FROM rollout WHERE tag = ? ORDER BY key DESC LIMIT 5", (tag,)):
            found = self.link.rows(
                "SELECT u.confirmed_at - o.offered_at FROM device_update u JOIN update_offer o ON o.key = u.key "
                "WHERE u.key BETWEEN ? AND ? AND u.confirmed_at IS NOT NULL LIMIT ?",
                (*update_keys(rollout_key), sample - len(times)),
            )
            times += [time for (time,) in found]
        return Habits(tuple(span(gap) for (gap,) in gaps), tuple(span(time) for time in times))

    def strata(self, scope: Scope, wave: str) -> Mapping[str, int]:
        asked = all_of(eligible(scope), member(scope, wave, own_bounds=False))
        counted = self.link.counted(
            ("d.software_key",), f"FROM {self._devices_of(scope, wave)} WHERE {asked.sql}", asked.parameters
        )
        self.learn_software(key for (key,) in counted)
        found: Counter[str] = Counter()
        for (key,), devices in counted.items():
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
            f"SELECT {position(_selector(scope, wave).salt).sql} AS place FROM {self._devices_of(scope, wave)} "
            f"WHERE {asked.sql} ORDER BY place LIMIT 1 OFFSET ?",
            (*asked.parameters, count - 1),
        )
        return SPACE if row is None else int(row[0]) + 1

    def segments(self, scope: Scope, dimension: str, *, limit: int) -> Mapping[str, int]:
        asked = all_of(eligible(scope), in_some_wave(scope))
        if dimension.startswith(_LABEL):
            rows = self.link.rows(
                "SELECT l.value, count(*) AS many FROM device d JOIN device_label l ON l.device_key = d.key AND "
                f"l.key = ? WHERE {asked.sql} GROUP BY l.value ORDER BY many DESC, l.value LIMIT ?",
                (dimension.removeprefix(_LABEL), *asked.parameters, limit),
            )
            return {segment_population(dimension, value): int(many) for value, many in rows}
        counted = self.link.counted(("d.software_key",), f"FROM device d WHERE {asked.sql}", asked.parameters)
        self.learn_software(key for (key,) in counted)
        found: Counter[str] = Counter()
        for (key,), devices in counted.items():
            hardware_id, _, version = self.software(key)
            value = hardware_id if dimension == "hardware_id" else None if version == NO_VERSION else str(version)
            if value is not None:
                found[segment_population(dimension, value)] += devices
        return dict(sorted(found.items(), key=lambda each: (-each[1], each[0]))[:limit])

    def in_segment(self, scope: Scope, segment: str) -> int:
        whole = replace(scope, excluded=())
        asked = all_of(eligible(whole), in_some_wave(whole), in_segment(segment))
        row = self.link.one(f"SELECT count(*) FROM device d WHERE {asked.sql}", asked.parameters)
        return 0 if row is None else int(row[0])


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who waits for a slice: where they are found, their position, above which most of them stand, the condition, and
    the dimensions of their places."""

    source: str
    place: str
    above: int
    condition: Piece
    dimensions: tuple[str, ...]


class SliceWriting(FleetReading, RolloutReading):
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
        above = max((upto for _, upto in steps.steps), default=0)
        source = self._devices_of(scope, wave)
        waits = _Waiting(source, position(salt).sql, above, waiting, tuple(dimensions))
        number = len(opened) + 1
        if size is not None and size <= EXACT_RANKS:
            row_of = self.link.one(f"SELECT count(*) FROM {waits.source} WHERE {waiting.sql}", waiting.parameters)
            total = int(row_of[0]) if row_of else 0
            counted: Counter[tuple[Any, ...]] = Counter()
        else:
            counted = self._by_stretch(waits)
            total = counted.total()
        if not total:
            self._none_waits(row.key, wave, number, now)
            return None
        wanted = total if size is None else min(size, total)
        if wanted <= EXACT_RANKS:
            upto, ranks = self._exact(waits, wave, wanted, total)
        else:
            upto, ranks = self._coarse(waits, wave, wanted, counted)
        piece = Slice(wave, number, upto, now, self.populations(row.key), ranks)
        self._store(row.key, piece, waiting=total - piece.members)
        return piece

    def _none_waits(self, rollout_key: int, wave: str, number: int, now: datetime) -> None:
        if number == 1:
            self._store(rollout_key, Slice(wave, 1, SPACE, now, self.populations(rollout_key), {}), waiting=0)
        else:
            self.link.run(
                "UPDATE slice SET waiting = 0 WHERE rollout_key = ? AND wave = ? AND number = ?",
                (rollout_key, wave, number - 1),
            )

    def _exact(self, waits: _Waiting, wave: str, wanted: int, total: int) -> tuple[int, dict[str, Ranks]]:
        """The ``wanted`` lowest positions. They stand just above the slices before: first only a stretch there is
        searched, half as long again as it should need, which leaves out nearly all before anything else is asked.
        """
        columns, joins, values = _dimensions(waits.dimensions)
        share = min(1.0, (wanted * 1.5 + 50) / total)
        likely = waits.above + int((SPACE - waits.above) * share)
        rows: list[tuple[Any, ...]] = []
        for below in (likely, SPACE):
            if len(rows) < wanted:
                rows = self.link.rows(
                    f"SELECT {waits.place} AS place, {', '.join(columns)} FROM {waits.source}{joins} "
                    f"WHERE {waits.place} < {below} AND {waits.condition.sql} ORDER BY place LIMIT ?",
                    (*values, *waits.condition.parameters, wanted),
                )
        upto = SPACE if wanted == total else int(rows[-1][0]) + 1
        self.learn_software(row[1] for row in rows)
        members: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            for population in self._populations(wave, row[1:], waits.dimensions):
                members[population].append(row[0])
        return upto, {population: exact_ranks(places) for population, places in sorted(members.items())}

    def _coarse(
        self, waits: _Waiting, wave: str, wanted: int, counted: Counter[tuple[Any, ...]]
    ) -> tuple[int, dict[str, Ranks]]:
        """Cut by the counts, which then need to be taken again only for the stretch that the cut goes through."""
        stretches: Counter[int] = Counter()
        for (stretch, *_), devices in counted.items():
            stretches[stretch] += devices
        upto = core_slices.cut(stretches, wanted)
        through = upto * BINS // SPACE
        within = {key: devices for key, devices in counted.items() if key[0] < through}
        if upto < SPACE:
            # From a position just below the stretch on, so that rounding cannot leave one out.
            some = Piece(f"{waits.place} >= {max(0, through * SPACE // BINS - 1)} AND {waits.place} < {upto}")
            for key, devices in self._by_stretch(waits, some).items():
                if key[0] >= through:
                    within[key] = devices
        self.learn_software({key[1] for key in within})
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for (stretch, *kind), devices in within.items():
            for population in self._populations(wave, kind, waits.dimensions):
                counts[population][stretch] += devices
        return upto, {population: coarse_ranks(found) for population, found in sorted(counts.items())}

    def _by_stretch(self, waits: _Waiting, only: Piece = ALWAYS) -> Counter[tuple[Any, ...]]:
        """Who waits, by stretch of position, software, and the labels among the dimensions."""
        columns, joins, values = _dimensions(waits.dimensions)
        asked = all_of(only, waits.condition)
        return self.link.counted(
            (f"{waits.place} * {BINS} / {SPACE}", *columns),
            f"FROM {waits.source}{joins} WHERE {asked.sql}",
            (*values, *asked.parameters),
        )

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


def _dimensions(dimensions: Sequence[str]) -> tuple[tuple[str, ...], str, tuple[Any, ...]]:
    """Columns, joins and their parameters: the labels among them; the rest follows from what the device runs."""
    labels = [dimension.removeprefix(_LABEL) for dimension in dimensions if dimension.startswith(_LABEL)]
    columns = ("d.software_key", *(f"l{number}.value" for number in range(len(labels))))
    joins = "".join(
        f" LEFT JOIN device_label l{number} ON l{number}.device_key = d.key AND l{number}.key = ?"
        for number in range(len(labels))
    )
    return columns, joins, tuple(labels)
