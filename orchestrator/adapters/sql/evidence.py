"""Bad outcomes into budgets and monitors: the crossing tree of ``core.evidence.crossing``, kept as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.adapters.sql.nodes import NodeReading
from orchestrator.adapters.sql.rollouts import MONITOR_COLUMNS, monitor_of
from orchestrator.adapters.sql.times import stored
from orchestrator.adapters.sql.updates import bits_of
from orchestrator.core.evidence.allowance import ROLLOUT, MonitorSpec
from orchestrator.core.evidence.crossing import add, first_crossing, paths, place_since
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.services.records import BadOutcome, CountedOutcome, MonitorRow


def place_in(spec: MonitorSpec, outcome: BadOutcome) -> int | None:
    """Its place in the monitor's population; None when it is not in it, or not of its class, or was counted before."""
    if outcome.outcome not in spec.outcomes or outcome.earlier.intersection(spec.outcomes):
        return None
    if spec.scope == ROLLOUT:
        return outcome.rollout_place
    return outcome.wave_place if spec.wave == outcome.wave else None


class EvidenceWriting(NodeReading):
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
        rows = self.link.rows(
            self.link.locked(
                f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? AND accepted_at IS NULL ORDER BY key"
            ),
            (rollout_key,),
        )
        for row in map(monitor_of, rows):
            found = (place_in(row.spec, outcome) for outcome in outcomes)
            since = [place_since(place, row.from_place) for place in found if place is not None]
            places = [place for place in since if place is not None]
            if places:
                self._add_to_monitor(rollout_key, row, places)

    def _add_to_budgets(self, rollout_key: int, outcomes: Sequence[BadOutcome]) -> None:
        names = self.link.rows("SELECT outcomes FROM budget WHERE rollout_key = ? ORDER BY outcomes", (rollout_key,))
        added: Counter[str] = Counter()
        for (name,) in names:
            classes = {OutcomeClass(part) for part in name.split("+")}
            added[name] = sum(1 for one in outcomes if one.outcome in classes and not one.earlier & classes)
        self.link.many(
            "UPDATE budget SET bad = bad + ? WHERE rollout_key = ? AND outcomes = ?",
            [(many, rollout_key, name) for name, many in sorted(added.items()) if many],
        )

    def _add_to_monitor(self, rollout_key: int, row: MonitorRow, places: Sequence[int]) -> None:
        stairs = staircase(row.spec.tolerance, row.spec.alpha)
        buckets = [stairs.need(place) for place in places]
        added = add(self.nodes(row.key, paths(buckets)), buckets)
        self.link.many(
            "INSERT INTO monitor_node (monitor_key, level, number, content) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (monitor_key, level, number) DO UPDATE SET content = excluded.content",
            [(row.key, key.level, key.number, node.to_bytes()) for key, node in sorted(added.changed.items())],
        )
        crossed = row.crossed_at
        if crossed is None and added.crossed:
            bad = first_crossing(lambda key: self.nodes(row.key, (key,)).get(key))
            assert bad is not None
            crossed = (bad, self._place_of(rollout_key, row, bad, places))
        self.link.run(
            "UPDATE monitor SET bad = ?, crossed_bad = ?, crossed_place = ? WHERE key = ?",
            (added.bad, *(crossed or (None, None)), row.key),
        )

    def _place_of(self, rollout_key: int, row: MonitorRow, bad: int, places: Sequence[int]) -> int:
        """The place of the ``bad``-th bad device, once in a monitor's life: from the updates, of which few are bad
        (``update_bad``).

        ``places`` are the ones that come just now; they stand in the updates already when they were saved
        first."""
        spec = row.spec
        column = "rollout_place" if spec.scope == ROLLOUT else "wave_place"
        where = ""
        parameters: list[Any] = [row.from_place, rollout_key, row.from_place, bits_of(spec.outcomes)]
        if spec.wave is not None:
            where, parameters = " AND s.wave = ?", [*parameters, spec.wave]
        found = self.link.one(
            f"SELECT o.{column} - ? AS place FROM device_update u{self.link.by_index('update_bad')} "
            "JOIN update_offer o ON o.key = u.key JOIN slice_key s ON s.key = u.slice_key "
            f"WHERE u.rollout_key = ? AND u.bad > 0 AND o.{column} > ? AND (u.bad & ?) <> 0{where} "
            "ORDER BY place LIMIT 1 OFFSET ?",
            (*parameters, bad - 1),
        )
        return max(places) if found is None else int(found[0])
