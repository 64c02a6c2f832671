"""What paces offers beside the tallies: until when rates are spent, and who shares a label's value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.codec import STATUS_NUMBER, update_key
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.offers import LabelLimit
from orchestrator.core.update import UpdateStatus

_OVER: Final = [STATUS_NUMBER[status] for status in (UpdateStatus.WITHDRAWN, UpdateStatus.LEFT, UpdateStatus.RETIRED)]
"""An update without an outcome that is in none of these is in flight: as the tallies of its slice count it."""


class PacingReading(Session):
    def spent(self, rollout_key: int) -> Mapping[str, datetime]:
        rows = self.link.rows("SELECT wave, spent_until FROM pace WHERE rollout_key = ?", (rollout_key,))
        return {wave: moment(at) for wave, at in rows}

    def flying_with(self, rollout_key: int, limit: LabelLimit) -> int:
        """From the label to the updates, by ``label_devices`` and the primary key: whatever the server believes about
        the size of a table that has just grown: CROSS JOIN keeps SQLite to that order."""
        parameters: list[Any] = [limit.label, limit.value, update_key(rollout_key, 0), *_OVER]
        wave = ""
        if limit.wave is not None:
            wave = " AND u.slice_key IN (SELECT k.key FROM slice_key k WHERE k.rollout_key = ? AND k.wave = ?)"
            parameters += [rollout_key, limit.wave]
        marks = ", ".join("?" * len(_OVER))
        found = self.link.one(
            "SELECT count(*) FROM (SELECT 1 FROM device_label l CROSS JOIN device_update u WHERE l.key = ? "
            f"AND l.value = ? AND u.key = ? + l.device_key AND u.resolved = 0 AND u.status NOT IN ({marks}){wave} "
            "LIMIT ?) x",
            (*parameters, limit.at_most),
        )
        return 0 if found is None else int(found[0])


class PacingWriting(PacingReading):
    def set_spent(self, rollout_key: int, spent: Mapping[str, datetime]) -> None:
        self.link.many(
            "INSERT INTO pace (rollout_key, wave, spent_until) VALUES (?, ?, ?) "
            "ON CONFLICT (rollout_key, wave) DO UPDATE SET spent_until = excluded.spent_until",
            [(rollout_key, wave, stored(at)) for wave, at in sorted(spent.items())],
        )
