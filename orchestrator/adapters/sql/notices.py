"""Messages to people, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.notices import Notice
from orchestrator.services.notice_store import NoticeRow, Post, Unsent, Wanted

_COLUMNS: Final = (
    "key, destination, body, status, attempts, queued_at, next_at, give_up_at, lease_until, ended_at, error"
)


def _row(row: tuple[Any, ...]) -> NoticeRow:
    key, destination, body, status, attempts, queued, following, give_up, lease, ended, error = row
    return NoticeRow(
        key=key,
        destination=destination,
        notice=Notice.from_text(body),
        status=Post(status),
        attempts=attempts,
        queued_at=moment(queued),
        next_at=moment(following),
        give_up_at=moment(give_up),
        lease_until=moment(lease),
        ended_at=moment(ended),
        error=error,
    )


class NoticeReading(Session):
    def notices(
        self,
        *,
        statuses: Collection[Post] | None = None,
        rollout: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Sequence[NoticeRow]:
        condition, listed = self.link.of_status(statuses)
        conditions, parameters = [condition], [*listed]
        if rollout is not None:
            conditions.append("rollout_key = (SELECT key FROM rollout WHERE name = ?)")
            parameters.append(rollout)
        if after is not None:
            conditions.append("key < ?")
            parameters.append(after)
        where = " AND ".join(conditions)
        rows = self.link.rows(
            f"SELECT {_COLUMNS} FROM notice WHERE {where} ORDER BY key DESC LIMIT ?", (*parameters, limit)
        )
        return [_row(row) for row in rows]

    def next_notice_at(self) -> datetime | None:
        row = self.link.one(
            "SELECT min(CASE WHEN lease_until > next_at THEN lease_until ELSE next_at END) FROM notice "
            "WHERE status = 'waiting'"
        )
        return None if row is None or row[0] is None else moment(int(row[0]))

    def count_notices(self) -> dict[Post, int]:
        found = {Post(status): int(count) for status, count in self.link.rows(_COUNTED)}
        return {post: found.get(post, 0) for post in Post}

    def unsent_notices(self, *, most: int) -> Unsent:
        waiting, failing, dead = (
            self.link.rows(f"SELECT count(*) FROM (SELECT 1 FROM notice WHERE {which} LIMIT ?) AS found", (most,))[0][0]
            for which in ("status = 'waiting'", "status = 'waiting' AND error IS NOT NULL", "status = 'dead'")
        )
        return Unsent(waiting, failing, dead)


_COUNTED: Final = "SELECT status, count(*) FROM notice GROUP BY status"


class NoticeWriting(NoticeReading):
    def add_notices(self, wanted: Wanted, destinations: Iterable[str]) -> None:
        at = stored(wanted.at)
        same = (wanted.notice.as_text(), at, at, stored(wanted.give_up_at))
        self.link.many(
            "INSERT INTO notice (rollout_key, occasion, destination, body, status, attempts, queued_at, next_at, "
            "give_up_at) VALUES (?, ?, ?, ?, 'waiting', 0, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(wanted.rollout_key, wanted.occasion, destination, *same) for destination in destinations],
        )

    def lease_notices(self, *, now: datetime, until: datetime, limit: int) -> Sequence[NoticeRow]:
        at, taken = stored(now), []
        due = "status = 'waiting' AND next_at <= ? AND (lease_until IS NULL OR lease_until <= ?)"
        found = self.link.rows(
            f"SELECT min(key) FROM notice WHERE {due} GROUP BY destination ORDER BY min(key) LIMIT ?", (at, at, limit)
        )
        for (key,) in found:
            # Two that found the same message follow each other here, and the second finds it taken.
            if self.link.run(
                f"UPDATE notice SET lease_until = ?, attempts = attempts + 1 WHERE key = ? AND {due}",
                (stored(until), key, at, at),
            ):
                taken.append(_row(self.link.rows(f"SELECT {_COLUMNS} FROM notice WHERE key = ?", (key,))[0]))
        return taken

    def end_notice(self, key: int, attempts: int, status: Post, error: str | None, *, at: datetime) -> bool:
        column = "next_at" if status is Post.WAITING else "ended_at"
        return bool(
            self.link.run(
                f"UPDATE notice SET status = ?, error = ?, {column} = ?, lease_until = NULL "
                "WHERE key = ? AND attempts = ? AND status = 'waiting'",
                (status.value, error, stored(at), key, attempts),
            )
        )

    def revive_notices(self, keys: Collection[int] | None, *, now: datetime, give_up_at: datetime) -> int:
        which, parameters = "1 = 1", []
        if keys is not None:
            which, listed = self.link.within("key", sorted(keys))
            parameters.append(listed)
        return self.link.run(
            "UPDATE notice SET status = 'waiting', next_at = ?, give_up_at = ?, ended_at = NULL "
            f"WHERE status IN ('dead', 'waiting') AND lease_until IS NULL AND {which}",
            (stored(now), stored(give_up_at), *parameters),
        )
