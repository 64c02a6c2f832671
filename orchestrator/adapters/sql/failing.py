"""What failed, for people who ask what it has in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from orchestrator.adapters.sql.updates import WHOLE, UpdateReading
from orchestrator.services.records import UpdateRow


class FailingReading(UpdateReading):
    def some_bad(self, rollout_key: int, *, limit: int) -> Sequence[tuple[str, UpdateRow]]:
        # Along the index of the bad ones and no further than the limit: nothing is sorted.
        few = self.link.by_index("update_bad")
        rows = self.link.rows(
            f"SELECT {WHOLE}, d.id FROM device_update u{few} CROSS JOIN update_offer o CROSS JOIN device d "
            "WHERE u.rollout_key = ? AND u.bad > 0 AND o.key = u.key AND d.key = u.device_key LIMIT ?",
            (rollout_key, limit),
        )
        return [(row[-1], update) for row, update in zip(rows, self._updates(rows), strict=True)]

    def last_codes(self, rollout_key: int, device_keys: Collection[int]) -> Mapping[int, str]:
        condition, listed = self.link.within("device_key", sorted(device_keys))
        rows = self.link.rows(
            f"SELECT device_key, code FROM event{self.link.by_index('event_is')} WHERE {condition} "
            "AND rollout_key = ? AND code IS NOT NULL ORDER BY seq",
            (listed, rollout_key),
        )
        return dict(rows)
