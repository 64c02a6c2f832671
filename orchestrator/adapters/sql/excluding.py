"""Excluded segments in the store: which updates are left out of their slices' tallies, and who comes back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from orchestrator.adapters.sql.check import COUNTED, of_segments
from orchestrator.adapters.sql.evidence import EvidenceReading
from orchestrator.adapters.sql.fleet import FleetReading
from orchestrator.adapters.sql.members import Piece, all_of, covered, in_segment, member, without_update
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.adapters.sql.updates import UpdateWriting
from orchestrator.core import slices as core_slices
from orchestrator.services.records import RolloutRow

_TAKEN_BACK: Final = (
    "status = CASE WHEN status = 'offered' THEN 'withdrawn' ELSE status END, "
    "deadline_at = CASE WHEN status = 'offered' THEN NULL ELSE deadline_at END, "
    "look_at = CASE WHEN status = 'offered' THEN NULL ELSE look_at END"
)
"""As ``core.update.withdraw`` for each. The right-hand sides see the row as it was."""


class ExcludingWriting(FleetReading, UpdateWriting, EvidenceReading):
    def leave_out(self, row: RolloutRow) -> int:
        withdrawn = 0
        inside = of_segments(row.state.excluded_segments, postgres=self.link.postgres)
        for mark, which in ((1, inside), (0, ~inside)):
            found = all_of(Piece("rollout_key = ?", (row.key,)), Piece(f"excluded = {1 - mark}"), which)
            withdrawn += self._mark(row.key, found, mark)
        self._looks.clear()
        left_out = self.left_out(row)
        self.link.many(
            "UPDATE slice SET excluded = ? WHERE rollout_key = ? AND wave = ? AND number = ?",
            [(left_out.members(piece), row.key, piece.wave, piece.number) for piece in self.slices(row.key)],
        )
        return withdrawn

    def _mark(self, rollout_key: int, found: Piece, mark: int) -> int:
        """Mark updates, or take the mark from them, and their part from the tallies, or back; the offers withdrawn."""
        if self.link.postgres:
            self.link.rows(
                f"SELECT 1 FROM device_update WHERE {found.sql} ORDER BY rollout_key, device_key FOR UPDATE",
                found.parameters,
            )
        sums = self.link.rows(
            f"SELECT wave, slice_number, sum(CASE WHEN status = 'offered' THEN 1 ELSE 0 END), "
            f"{', '.join(COUNTED.values())} FROM device_update WHERE {found.sql} GROUP BY wave, slice_number",
            found.parameters,
        )
        if not sums:
            return 0
        taken_back = f", {_TAKEN_BACK}" if mark else ""
        self.link.run(f"UPDATE device_update SET excluded = {mark}{taken_back} WHERE {found.sql}", found.parameters)
        sign = "-" if mark else "+"
        self.link.many(
            f"UPDATE slice SET {', '.join(f'{column} = {column} {sign} ?' for column in COUNTED)} "
            "WHERE rollout_key = ? AND wave = ? AND number = ?",
            [(*map(int, numbers), rollout_key, wave, number) for wave, number, _, *numbers in sums],
        )
        return sum(int(offered) for _, _, offered, *_ in sums) if mark else 0

    def let_back_in(self, row: RolloutRow, segment: str, *, since: datetime, now: datetime) -> int:
        if row.scope is None:
            return 0
        opened: dict[str, list[tuple[int, int]]] = {}
        for wave, at, upto in self.link.rows(
            "SELECT wave, opened_at, upto FROM slice WHERE rollout_key = ? ORDER BY wave, number", (row.key,)
        ):
            opened.setdefault(wave, []).append((at, upto))
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
            moved += self.link.run(
                f"UPDATE device AS d SET since_at = ? WHERE {asked.sql}", (stored(now), *asked.parameters)
            )
        return moved
