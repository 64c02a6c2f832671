"""Bad outcomes into budgets and monitors: the crossing tree of ``core.evidence.crossing``, kept as rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from orchestrator.adapters.sql.codec import outcomes_of, update_key, update_keys
from orchestrator.adapters.sql.monitors import MONITOR_COLUMNS, OVER_THE_WHOLE, monitor_of
from orchestrator.adapters.sql.nodes import NodeReading
from orchestrator.adapters.sql.times import stored
from orchestrator.core.evidence.allowance import BESIDE, ROLLOUT, SEGMENT, WAVE, MonitorSpec
from orchestrator.core.evidence.crossing import Node, NodeKey, add, buckets_of, first_crossing, paths
from orchestrator.core.evidence.left_out import NOBODY, LeftOut, Seat
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import Outcome
from orchestrator.core.position import DeviceHash, position
from orchestrator.services.records import BadOutcome, CountedOutcome, MonitorRow, RolloutRow, decode_places


class Bad(NamedTuple):
    """An update with a bad outcome, as it stands."""

    outcomes: frozenset[Outcome]
    seat: Seat


def counts_now(spec: MonitorSpec, outcome: BadOutcome) -> bool:
    """Whether it is of the monitor's class, and the device has not been counted by it before."""
    return outcome.outcome in spec.outcomes and not outcome.earlier.intersection(spec.outcomes)


class EvidenceReading(NodeReading):
    def left_out(self, row: RolloutRow) -> LeftOut:
        """What the rollout's excluded segments leave out. Slices are only added, so their ranks are decoded once for
        as long as their number stays: by the transactions that have committed, and once in each that has not."""
        if not row.state.excluded:
            return NOBODY
        out = row.state.excluded_segments
        ((slices,),) = self.link.rows("SELECT count(*) FROM slice WHERE rollout_key = ?", (row.key,))
        for known in (self._left_out, self._known.left_out):
            many, found = known.get((row.key, row.salt), (0, NOBODY))
            if many == slices and found.excluded == out:
                return found
        found = LeftOut(self.slices(row.key), out)
        self._left_out[row.key, row.salt] = (slices, found)
        return found

    def members_left_out(self, row: RolloutRow) -> dict[tuple[str, int], int]:
        """By wave and number of each slice the members that are certainly left out: those with an offer that froze an
        excluded segment or, where its opening tells of more, those that were in one then and come no more."""
        offered, left_out = self.offers_left_out(row.key), LeftOut((), row.state.excluded_segments)
        return {
            (piece.wave, piece.number): max(left_out.members(piece), offered[piece.wave, piece.number])
            for piece in self.slices(row.key)
        }

    def offers_left_out(self, rollout_key: int) -> Counter[tuple[str, int]]:
        """By wave and number of the slice, the updates marked as left out."""
        found: Counter[tuple[str, int]] = Counter()
        for slice_key, many in self.link.rows(
            "SELECT slice_key, count(*) FROM device_update WHERE key BETWEEN ? AND ? GROUP BY slice_key",
            update_keys(rollout_key),
        ):
            _, wave, number, excluded, _ = self.slice_name(slice_key)
            found[wave, number] += many if excluded else 0
        return found

    def seats(self, row: RolloutRow, device_keys: Collection[int]) -> dict[int, Seat]:
        keys = {update_key(row.key, device): device for device in device_keys}
        condition, listed = self.link.within("u.key", sorted(keys))
        return {keys[key]: seat for key, _, seat in self._seated(row, "", condition, (listed,))}

    def bad_updates(self, row: RolloutRow) -> Iterator[Bad]:
        """All of a rollout with a bad outcome that counts: few, by ``update_bad``."""
        few = self.link.by_index("update_bad")
        for _, bad, seat in self._seated(row, few, "u.rollout_key = ? AND u.bad > 0", (row.key,)):
            yield Bad(outcomes_of(bad, self.own_classes, row.key), seat)

    def _seated(
        self, row: RolloutRow, by: str, condition: str, parameters: Sequence[Any]
    ) -> Iterator[tuple[int, int, Seat]]:
        """Key, bad classes and seat of these updates, but those apart."""
        salts = {} if row.scope is None else {each.wave: each.salt for each in row.scope.selectors}
        for key, bad, slice_key, rollout_place, wave_place, places, high, low in self.link.rows(
            "SELECT u.key, u.bad, u.slice_key, o.rollout_place, o.wave_place, o.segment_places, d.hash_high, "
            f"d.hash_low FROM device_update u{by} JOIN update_offer o ON o.key = u.key "
            f"JOIN device d ON d.key = u.device_key WHERE {condition}",
            parameters,
        ):
            _, wave, number, _, apart = self.slice_name(slice_key)
            if apart:
                continue
            at = position(DeviceHash(high, low), salts[wave]) if wave in salts else 0
            yield key, bad, Seat(wave, number, at, rollout_place, wave_place, decode_places(places))

    def bad_places(self, row: RolloutRow, monitors: Sequence[MonitorRow]) -> dict[int, list[int]]:
        """The places of all that is bad in each monitor, by its key, in one pass; what the tree must hold."""
        left_out = self.left_out(row)
        by_scope: dict[str, list[_Counting]] = defaultdict(list)
        found: dict[int, list[int]] = {monitor.key: [] for monitor in monitors}
        for monitor in monitors:
            placing = left_out.placing(monitor.spec, monitor.from_place)
            by_scope[monitor.spec.scope].append((frozenset(monitor.spec.outcomes), placing, found[monitor.key]))
        everybody = by_scope.get(ROLLOUT, [])
        in_wave = {scope.removeprefix(WAVE): these for scope, these in by_scope.items() if scope.startswith(WAVE)}
        in_segment = {s.removeprefix(SEGMENT): these for s, these in by_scope.items() if s.startswith(SEGMENT)}
        for outcomes, seat in self.bad_updates(row):
            counting = [everybody, in_wave.get(seat.wave, ())]
            counting += [in_segment[segment] for segment in seat.segments if segment in in_segment]
            for classes, placing, places in chain.from_iterable(counting):
                if not outcomes.isdisjoint(classes) and (place := placing(seat)) is not None:
                    places.append(place)
        return found


_Counting = tuple[frozenset[Outcome], Callable[[Seat], int | None], list[int]]
"""Of a monitor: its classes, the place of a device in it, and the places so far."""


class EvidenceWriting(EvidenceReading):
    def log_outcomes(self, outcomes: Sequence[CountedOutcome]) -> None:
        self.link.many(
            "INSERT INTO evidence (rollout_key, device_key, received_at, outcome, wave, slice_number, rollout_place, "
            "wave_place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(one[0], one[1], stored(one[2]), *one[3:]) for one in outcomes],
        )

    def add_bad(self, rollout_key: int, outcomes: Sequence[BadOutcome]) -> None:
        if not outcomes:
            return
        self._add_to_budgets(rollout_key, outcomes)
        row = self.rollout_by_key(rollout_key)
        if row is None:
            return
        left_out = self.left_out(row)
        seats = self._seats(row, outcomes, located=bool(left_out.excluded))
        for monitor in self._monitors_of(rollout_key, outcomes):
            found = (
                left_out.place(monitor.spec, monitor.from_place, seat)
                for outcome, seat in zip(outcomes, seats, strict=True)
                if counts_now(monitor.spec, outcome)
            )
            places = [place for place in found if place is not None]
            if places:
                self._add_to_monitor(row, monitor, places)

    def count_again(self, row: RolloutRow) -> None:
        monitors = [monitor for monitor in self.monitors(row.key) if monitor.accepted_at is None]
        specs = {monitor.key: monitor.spec for monitor in monitors}
        for key, places in self.bad_places(row, monitors).items():
            spec = specs[key]
            places.sort()
            added = add({}, buckets_of(places, staircase(spec.tolerance, spec.alpha)).elements())
            bad = first_crossing(added.changed.get) if added.crossed else None
            self.link.run("DELETE FROM monitor_node WHERE monitor_key = ?", (key,))
            self._save_nodes(key, added.changed)
            self.link.run(
                "UPDATE monitor SET bad = ?, crossed_bad = ?, crossed_place = ? WHERE key = ?",
                (len(places), bad, None if bad is None else places[bad - 1], key),
            )

    def _monitors_of(self, rollout_key: int, outcomes: Sequence[BadOutcome]) -> list[MonitorRow]:
        """The open monitors over the rollout and its waves, and over the segments of these outcomes; locked, by key.
        Those that began beside another after an edit are all read: their names say more than segment and class."""
        classes = {str(outcome.outcome) for outcome in outcomes}
        segments = {segment for outcome in outcomes for segment in outcome.segments}
        keys = sorted(f"{SEGMENT}{segment}/{one}" for segment in segments for one in classes)
        condition, listed = self.link.within("name", keys)
        rows = self.link.rows(
            self.link.locked(
                f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? AND accepted_at IS NULL AND "
                f"({OVER_THE_WHOLE} OR {condition} OR name LIKE ?) ORDER BY key"
            ),
            (rollout_key, listed, f"%{BESIDE}%"),
        )
        return [monitor_of(row) for row in rows]

    def _seats(self, row: RolloutRow, outcomes: Sequence[BadOutcome], *, located: bool) -> list[Seat]:
        """Where they stand; their positions are looked up only where something is excluded (``located``)."""
        hashes: dict[int, DeviceHash] = {}
        if located:
            condition, listed = self.link.within("key", sorted({one.device_key for one in outcomes}))
            hashes = {
                key: DeviceHash(high, low)
                for key, high, low in self.link.rows(
                    f"SELECT key, hash_high, hash_low FROM device WHERE {condition}", (listed,)
                )
            }
        salts = {} if row.scope is None else {each.wave: each.salt for each in row.scope.selectors}
        return [
            Seat(
                one.wave,
                one.slice,
                position(hashes[one.device_key], salts[one.wave]) if one.device_key in hashes else 0,
                one.rollout_place,
                one.wave_place,
                one.segments,
            )
            for one in outcomes
        ]

    def _add_to_budgets(self, rollout_key: int, outcomes: Sequence[BadOutcome]) -> None:
        names = self.link.rows("SELECT outcomes FROM budget WHERE rollout_key = ? ORDER BY outcomes", (rollout_key,))
        added: Counter[str] = Counter()
        for (name,) in names:
            classes = set(name.split("+"))
            added[name] = sum(1 for one in outcomes if one.outcome in classes and not one.earlier & classes)
        self.link.many(
            "UPDATE budget SET bad = bad + ? WHERE rollout_key = ? AND outcomes = ?",
            [(many, rollout_key, name) for name, many in sorted(added.items()) if many],
        )

    def _add_to_monitor(self, row: RolloutRow, monitor: MonitorRow, places: Sequence[int]) -> None:
        stairs = staircase(monitor.spec.tolerance, monitor.spec.alpha)
        buckets = [stairs.need(place) for place in places]
        added = add(self.nodes(monitor.key, paths(buckets)), buckets)
        self._save_nodes(monitor.key, added.changed)
        crossed = monitor.crossed_at
        if crossed is None and added.crossed:
            bad = first_crossing(lambda key: self.nodes(monitor.key, (key,)).get(key))
            assert bad is not None
            crossed = (bad, self._place_of(row, monitor, bad, places))
        self.link.run(
            "UPDATE monitor SET bad = ?, crossed_bad = ?, crossed_place = ? WHERE key = ?",
            (added.bad, *(crossed or (None, None)), monitor.key),
        )

    def _save_nodes(self, monitor_key: int, nodes: Mapping[NodeKey, Node]) -> None:
        self.link.many(
            "INSERT INTO monitor_node (monitor_key, level, number, content) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (monitor_key, level, number) DO UPDATE SET content = excluded.content",
            [(monitor_key, key.level, key.number, node.to_bytes()) for key, node in sorted(nodes.items())],
        )

    def _place_of(self, row: RolloutRow, monitor: MonitorRow, bad: int, places: Sequence[int]) -> int:
        """The place of the ``bad``-th bad device, once in a monitor's life: from the updates.

        ``places`` are the ones that come just now; they stand in the updates already when they were saved first."""
        found = sorted(self.bad_places(row, [monitor])[monitor.key])
        return found[bad - 1] if len(found) >= bad else max(places)
