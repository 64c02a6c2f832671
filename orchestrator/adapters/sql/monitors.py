"""Monitors as they are stored, what decisions see of them, and the places given in each population."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from orchestrator.adapters.sql.codec import decode_spec
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment
from orchestrator.core.evidence.allowance import SEGMENT
from orchestrator.core.facts import MonitorFacts, SliceFacts
from orchestrator.core.monitors import monitor_facts
from orchestrator.core.slices import segment_population
from orchestrator.services.records import MonitorRow

MONITOR_COLUMNS: Final = "key, attempt, spec, from_place, bad, crossed_bad, crossed_place, accepted_at"

NO_SEGMENTS: Final[Mapping[str, int]] = {}

OVER_THE_WHOLE: Final = f"substr(name, 1, {len(SEGMENT)}) <> '{SEGMENT}'"
"""A monitor over the rollout or a wave, not over a segment."""


def monitor_of(row: tuple[Any, ...]) -> MonitorRow:
    key, attempt, spec, from_place, bad, crossed_bad, crossed_place, accepted = row
    crossed = None if crossed_bad is None else (crossed_bad, crossed_place)
    return MonitorRow(key, attempt, decode_spec(spec), from_place, bad, crossed, moment(accepted))


class MonitorReading(Session):
    def monitors(self, rollout_key: int) -> Sequence[MonitorRow]:
        rows = self.link.rows(
            f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? ORDER BY key", (rollout_key,)
        )
        return [monitor_of(row) for row in rows]

    def populations(self, rollout_key: int) -> dict[str, int]:
        rows = self.link.rows("SELECT name, places FROM population WHERE rollout_key = ? ORDER BY name", (rollout_key,))
        return dict(rows)

    def monitor_facts(self, rollout_key: int, opened: Sequence[tuple[str, SliceFacts]]) -> Iterable[MonitorFacts]:
        """What a decision sees of the monitors, given the slices in the order of their opening, with their waves."""
        # Segments have many monitors, and nearly all of them nothing to say.
        rows = [
            monitor_of(row)
            for row in self.link.rows(
                f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? AND (bad > 0 OR "
                f"{OVER_THE_WHOLE}) ORDER BY key",
                (rollout_key,),
            )
        ]
        segments = self._places_of(rollout_key, {row.spec.segment for row in rows if row.spec.segment is not None})
        return facts_of(rows, opened, segments)

    def stained_monitors(self, rollout_key: int) -> list[MonitorRow]:
        """Of those over the rollout or a wave that nobody has accepted those that have counted something bad."""
        rows = self.link.rows(
            f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? AND bad > 0 AND accepted_at IS NULL AND "
            f"{OVER_THE_WHOLE} ORDER BY key",
            (rollout_key,),
        )
        return [monitor_of(row) for row in rows]

    def stained_and_open(self, rollout_key: int) -> list[MonitorRow]:
        """Of all that nobody has accepted those that have counted something bad, segments included."""
        rows = self.link.rows(
            f"SELECT {MONITOR_COLUMNS} FROM monitor WHERE rollout_key = ? AND bad > 0 AND accepted_at IS NULL "
            "ORDER BY key",
            (rollout_key,),
        )
        return [monitor_of(row) for row in rows]

    def watched_values(self, rollout_key: int, dimension: str) -> dict[str, int]:
        """Of a dimension the values that are watched, with their devices: those at the start, or with a place since."""
        begins = f"{SEGMENT}{segment_population(dimension, '')}"
        found: dict[str, int] = {}
        for (spec,) in self.link.rows(
            "SELECT spec FROM monitor WHERE rollout_key = ? AND accepted_at IS NULL AND substr(name, 1, ?) = ?",
            (rollout_key, len(begins), begins),
        ):
            watched = decode_spec(spec)
            assert watched.segment is not None
            found[watched.segment] = max(watched.devices, found.get(watched.segment, 0))
        given = self._places_of(rollout_key, found)
        return {each.partition("=")[2]: max(many, given.get(each, 0)) for each, many in found.items()}

    def _places_of(self, rollout_key: int, populations: Collection[str]) -> dict[str, int]:
        if not populations:
            return {}
        condition, listed = self.link.within("name", sorted(populations))
        return dict(
            self.link.rows(
                f"SELECT name, places FROM population WHERE rollout_key = ? AND {condition}", (rollout_key, listed)
            )
        )


def facts_of(
    rows: Iterable[MonitorRow], opened: Sequence[tuple[str, SliceFacts]], segments: Mapping[str, int] = NO_SEGMENTS
) -> Iterable[MonitorFacts]:
    """What is seen of monitors, given the slices in the order of their opening, with their waves, and the places given
    in the segments."""
    for row in rows:
        yield monitor_facts(
            row.spec,
            bad=row.bad,
            crossed_at=row.crossed_at,
            opened=opened,
            segments=segments,
            from_place=row.from_place,
            accepted=row.accepted_at is not None,
        )
