"""What people ordered outside rollouts."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.services.house_log_store import HouseEvent


class HouseLogReading(Session):
    def house_events(self, *, after: int | None = None, limit: int = 100) -> Sequence[HouseEvent]:
        before = "" if after is None else "WHERE key < ? "
        rows = self.link.rows(
            f"SELECT at, by_name, event, what, sentence, key FROM house_event {before}ORDER BY key DESC LIMIT ?",
            (limit,) if after is None else (after, limit),
        )
        return [HouseEvent(moment(int(at)), *rest) for at, *rest in rows]


class HouseLogWriting(HouseLogReading):
    def log_house_event(self, event: HouseEvent) -> None:
        self.link.run(
            "INSERT INTO house_event (at, by_name, event, what, sentence) VALUES (?, ?, ?, ?, ?)",
            (stored(event.at), event.by, event.event, event.what, event.sentence),
        )
