"""Excluded segments in the store: which updates are left out of their slices' tallies, and who comes back."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final

from orchestrator.adapters.sql.check import COUNTED, of_segments
from orchestrator.adapters.sql.codec import STATUS_NUMBER, update_keys
from orchestrator.adapters.sql.evidence import EvidenceReading
from orchestrator.adapters.sql.fleet import FleetReading
from orchestrator.adapters.sql.members import (
    Piece,
    all_of,
    any_of,
    covered,
    in_segment,
    member,
    position,
    without_update,
)
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.adapters.sql.updates import UpdateWriting
from orchestrator.core import slices as core_slices
from orchestrator.core.slices import settled
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import MOVED_AT_ONCE, Moved, RolloutRow

_OFFERED, _WITHDRAWN = STATUS_NUMBER[UpdateStatus.OFFERED], STATUS_NUMBER[UpdateStatus.WITHDRAWN]

_TAKEN_BACK: Final = (
    f", status = CASE WHEN status = {_OFFERED} THEN {_WITHDRAWN} ELSE status END, "
    f"deadline_at = CASE WHEN status = {_OFFERED} THEN NULL ELSE deadline_at END, "
    f"look_at = CASE WHEN status = {_OFFERED} THEN NULL ELSE look_at END"
)
"""As ``core.update.withdraw`` for each. The right-hand sides see the row as it was."""


class ExcludingWriting(FleetReading, UpdateWriting, EvidenceReading):
    def leave_out(self, row: RolloutRow, *, after: int = 0, limit: int = MOVED_AT_ONCE) -> Moved:
        first, last = update_keys(row.key)
        keys = (max(first, after + 1), last)
        upto = self.link.one(
            "SELECT key FROM device_update WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1 OFFSET ?", (*keys, limit - 1)
        )
        keys = (keys[0], last if upto is None else upto[0])
        inside = of_segments(row.state.excluded_segments, postgres=self.link.postgres)
        withdrawn = self._move(row.key, keys, inside, excluded=True)
        self._move(row.key, keys, ~inside, excluded=False)
        if upto is not None:
            return Moved(withdrawn, upto[0])
        self._note_members(row)
        return Moved(withdrawn, None)

    def unstarted(self, rollout_key: int, segment: str) -> int:
        inside = of_segments((segment,), postgres=self.link.postgres)
        row = self.link.one(
            "SELECT count(*) FROM device_update u JOIN update_offer o ON o.key = u.key "
            f"WHERE u.key BETWEEN ? AND ? AND u.status = ? AND ({inside.sql})",
            (*update_keys(rollout_key), _OFFERED, *inside.parameters),
        )
        return 0 if row is None else int(row[0])

    def _move(self, rollout_key: int, keys: tuple[int, int], which: Piece, *, excluded: bool) -> int:
        """Updates with these keys from their slice to the part of it that is left out, or back, and their part of its
        tallies; how many offers that withdrew."""
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

    def _note_members(self, row: RolloutRow) -> None:
        """Each slice learns how many of its members are left out, as of now."""
        known, gone = self.members_left_out(row), self._gone(row)
        found = {piece: max(many, gone[piece]) for piece, many in known.items()}
        self.link.many(
            "UPDATE slice SET excluded = CASE WHEN members < ? THEN members ELSE ? END "
            "WHERE rollout_key = ? AND wave = ? AND number = ?",
            [(many, many, row.key, *piece) for piece, many in sorted(found.items())],
        )

    def _gone(self, row: RolloutRow) -> Counter[tuple[str, int]]:
        """Where a slice's opening cannot tell: by slice the members left out, with an offer or without, as the devices
        are now."""
        found: Counter[tuple[str, int]] = Counter()
        out = row.state.excluded_segments
        if row.scope is None or all(map(settled, out)):
            return found
        for selector in row.scope.selectors:
            opened = self.slice_bounds(row.key, selector.wave)
            where = position(selector.salt).sql
            cases = " ".join(
                f"WHEN d.since_at <= {at:d} AND {where} < {upto:d} THEN {number:d}" for number, at, upto in opened
            )
            if not opened:
                continue
            asked = all_of(
                Piece("d.tag = ?", (row.scope.tag,)),
                any_of(*(in_segment(segment) for segment in sorted(out))),
                member(row.scope, selector.wave),
                without_update(row.key),
            )
            counted = self.link.counted((f"CASE {cases} END",), f"FROM device d WHERE {asked.sql}", asked.parameters)
            for (number,), many in counted.items():
                if number is not None:
                    found[selector.wave, number] += many
        for piece, many in self.offers_left_out(row.key).items():
            found[piece] += many
        return found

    def let_back_in(self, row: RolloutRow, segment: str, *, since: datetime, now: datetime) -> int:
        if row.scope is None:
            return 0
        waves = [selector.wave for selector in row.scope.selectors]
        opened = {wave: [(at, upto) for _, at, upto in self.slice_bounds(row.key, wave)] for wave in waves}
        after = stored(self.after_slices(now))
        moved = 0
        for selector in row.scope.selectors:
            slices = opened[selector.wave]
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
