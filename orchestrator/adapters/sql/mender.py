"""Authentication sets of Mender devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.services.mender.sets import AuthSet, SetStatus, identity_digest

_COLUMNS: Final = "id, identity, public_key, status, device_id, asked_at, seen_at, decided_at, decided_by"


def _set(row: tuple[Any, ...]) -> AuthSet:
    name, identity, public_key, status, device_id, asked, seen, decided, by = row
    return AuthSet(
        id=name,
        identity=identity,
        public_key=public_key,
        status=SetStatus(status),
        device_id=device_id,
        asked_at=moment(int(asked)),
        seen_at=moment(int(seen)),
        decided_at=moment(decided),
        decided_by=by,
    )


class AuthSetReading(Session):
    def auth_set(self, set_id: str) -> AuthSet | None:
        row = self.link.one(f"SELECT {_COLUMNS} FROM auth_set WHERE id = ?", (set_id,))
        return None if row is None else _set(row)

    def auth_sets(
        self, statuses: Collection[SetStatus] | None = None, *, after: str | None = None, limit: int = 1000
    ) -> Sequence[AuthSet]:
        wanted = sorted(status.value for status in (SetStatus if statuses is None else statuses))
        condition, parameter = self.link.within("status", wanted)
        return self._sets(f"WHERE {condition} AND id > ? ORDER BY id LIMIT ?", (parameter, after or "", limit))

    def auth_sets_waiting(self, *, asked_since: datetime | None = None, limit: int) -> Sequence[AuthSet]:
        since = 0 if asked_since is None else stored(asked_since)
        return self._sets(
            "WHERE status = ? AND asked_at >= ? ORDER BY asked_at DESC, id LIMIT ?",
            (SetStatus.PENDING.value, since, limit),
        )

    def auth_sets_like(self, prefix: str, *, limit: int) -> Sequence[AuthSet]:
        # "g" comes after every hex digit
        return self._sets("WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (prefix, prefix + "g", limit))

    def auth_sets_of(self, *, identity: str | None = None, device_id: str | None = None) -> Sequence[AuthSet]:
        if identity is not None:
            return self._sets("WHERE identity_digest = ? ORDER BY asked_at, id", (identity_digest(identity),))
        if device_id is None or "\0" in device_id:
            return []
        return self._sets("WHERE device_id = ? ORDER BY asked_at, id", (device_id,))

    def _sets(self, rest: str, parameters: tuple[Any, ...]) -> list[AuthSet]:
        return [_set(row) for row in self.link.rows(f"SELECT {_COLUMNS} FROM auth_set {rest}", parameters)]


class AuthSetWriting(AuthSetReading):
    def lock_auth_sets(self, identities: Collection[str]) -> Sequence[AuthSet]:
        condition, parameter = self.link.within("identity_digest", sorted(identity_digest(each) for each in identities))
        # In one order: two that lock the same sets wait for each other, never in a circle.
        rows = self.link.rows(
            self.link.locked(
                f"SELECT {_COLUMNS} FROM auth_set WHERE {condition} ORDER BY identity_digest, asked_at, id"
            ),
            (parameter,),
        )
        return [_set(row) for row in rows]

    def save_auth_set(self, one: AuthSet) -> None:
        changing = (one.status.value, one.device_id, stored(one.seen_at), stored(one.decided_at), one.decided_by)
        changed = self.link.run(
            "UPDATE auth_set SET status = ?, device_id = ?, seen_at = ?, decided_at = ?, decided_by = ? WHERE id = ?",
            (*changing, one.id),
        )
        if not changed:
            self.link.run(
                "INSERT INTO auth_set (status, device_id, seen_at, decided_at, decided_by, id, identity_digest, "
                "identity, public_key, asked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *changing,
                    one.id,
                    identity_digest(one.identity),
                    one.identity,
                    one.public_key,
                    stored(one.asked_at),
                ),
            )

    def remove_auth_sets(self, set_ids: Collection[str]) -> int:
        condition, parameter = self.link.within("id", sorted(set_ids))
        return self.link.run(f"DELETE FROM auth_set WHERE {condition}", (parameter,))

    def drop_pending(self, *, keep: int, unseen_since: datetime) -> int:
        row = self.link.one("SELECT count(*) FROM auth_set WHERE status = ?", (SetStatus.PENDING.value,))
        pending = 0 if row is None else int(row[0])
        if pending <= keep:
            return pending
        return pending - self.link.run(
            "DELETE FROM auth_set WHERE id IN (SELECT id FROM auth_set WHERE status = ? AND seen_at < ? "
            "ORDER BY seen_at, id LIMIT ?)",
            (SetStatus.PENDING.value, stored(unseen_since), pending - keep),
        )
