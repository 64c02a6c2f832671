"""Excluded segments in the store: which updates are left out of their slices' tallies, and who comes back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from orchestrator.adapters.sql.check import COUNTED, of_segments
from orchestrator.adapters.sql.codec import STATUS_NUMBER, update_keys
from orchestrator.adapters.sql.evidence import EvidenceReading
from orchestrator.adapters.sql.fleet import FleetReading
from orchestrator.adapters.sql.members import Piece, all_of, covered, in_segment, member, without_update
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.adapters.sql.updates import UpdateWriting
from orchestrator.core import slices as core_slices
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import RolloutRow

_OFFERED, _WITHDRAWN = STATUS_NUMBER[UpdateStatus.OFFERED], STATUS_NUMBER[UpdateStatus.WITHDRAWN]

_TAKEN_BACK: Final = (
    f", status = CASE WHEN status = {_OFFERED} THEN {_WITHDRAWN} ELSE status END, "
    f"deadline_at = CASE WHEN status = {_OFFERED} THEN NULL ELSE deadline_at END, "
    f"look_at = CASE WHEN status = {_OFFERED} THEN NULL ELSE look_at END"
)
"""As ``core.update.withdraw`` for each. The right-hand sides see the row as it was."""


class ExcludingWriting(FleetReading, UpdateWriting, EvidenceReading):
    def leave_out(self, row: RolloutRow) -> int:
        inside = of_segments(row.state.excluded_segments, postgres=self.link.postgres)
        withdrawn = self._move(row.key, inside, excluded=True)
        self._move(row.key, ~inside, excluded=False)
        left_out = self.left_out(row)
        self.link.many(
            "UPDATE slice SET excluded = ? WHERE rollout_key = ? AND wave = ? AND number = ?",
            [(left_out.members(piece), row.key, piece.wave, piece.number) for piece in self.slices(row.key)],
        )
        return withdrawn

    def _move(self, rollout_key: int, which: Piece, *, excluded: bool) -> int:
        """Updates from their slice to the part of it that is left out, or back, and their part of its tallies; how many
        offers that withdrew."""
        keys = update_keys(rollout_key)
        sums = self.link.rows(
            f"SELECT s.key, sum(CASE WHEN u.status = {_OFFERED} THEN 1 ELSE 0 END), {', '.join(COUNTED.values())} "
            "FROM device_update u JOIN update_offer o ON o.key = u.key JOIN slice_key s ON s.key = u.slice_key "
            f"WHERE u.key BETWEEN ? AND ? AND s.excluded = {int(not excluded)} AND ({which.sql}) GROUP BY s.key",
            (*keys, *which.parameters),
        )
        if not sums:
            return 0
        names = {key: self.slice_name(key) for key, *_ in sums}
        moves = {
            key: self.slice_key(rollout_key, wave, number, excluded=excluded, apart=apart == 1)
            for key, (_, wave, number, _, apart) in names.items()
        }
        condition = (
            f"key BETWEEN ? AND ? AND slice_key IN ({', '.join(map(str, moves))}) "
            f"AND key IN (SELECT o.key FROM update_offer o WHERE o.key BETWEEN ? AND ? AND ({which.sql}))"
        )
        parameters = (*keys, *keys, *which.parameters)
        self._lock_in_order(condition, parameters)
        cases = " ".join(f"WHEN {old} THEN {new}" for old, new in moves.items())
        self.link.run(
            f"UPDATE device_update SET slice_key = CASE slice_key {cases} ELSE slice_key END"
            f"{_TAKEN_BACK if excluded else ''} WHERE {condition}",
            parameters,
        )
        self._looks.clear()
        sign = "-" if excluded else "+"
        for apart, table in enumerate(("slice", "slice_apart")):
            self.link.many(
                f"UPDATE {table} SET {', '.join(f'{column} = {column} {sign} ?' for column in COUNTED)} "
                "WHERE rollout_key = ? AND wave = ? AND number = ?",
                [
                    (*map(int, numbers), rollout_key, *names[key][1:3])
                    for key, _, *numbers in sums
                    if names[key][4] == apart
                ],
            )
        return sum(int(offered) for _, offered, *_ in sums)

    def let_back_in(self, row: RolloutRow, segment: str, *, since: datetime, now: datetime) -> int:
        if row.scope is None:
            return 0
        opened: dict[str, list[tuple[int, int]]] = {}
        for wave, at, upto in self.link.rows(
            "SELECT wave, opened_at, upto FROM slice WHERE rollout_key = ? ORDER BY wave, number", (row.key,)
        ):
            opened.setdefault(wave, []).append((at, upto))
        # A slice that opened at this very moment did not count them either.
        after = max([stored(now), *(at + 1 for slices in opened.values() for at, _ in slices)])
        moved = 0
        for selector in row.scope.selectors:
            slices = opened.get(selector.wave, [])
            before = [(moment(at), upto) for at, upto in slices if at <= stored(since)]
            if len(before) == len(slices):
                continue  # nobody of it was passed over
            asked = all_of(
                Piece("d.tag = ?", (row.scope.tag,)),
                Piece("d.since_at IS NOT NULL"),
                in_segment(segment),
                member(row.scope, selector.wave),
                ~covered(core_slices.covered(before), selector.salt),
                without_update(row.key),
            )
            moved += self.link.run(f"UPDATE device AS d SET since_at = ? WHERE {asked.sql}", (after, *asked.parameters))
        return moved
