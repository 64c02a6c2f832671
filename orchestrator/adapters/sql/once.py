"""Requests that are carried out once."""

from __future__ import annotations

from datetime import datetime

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.services.once import Kept


class OnceWriting(Session):
    def begin_once(self, person: str, key: str, digest: bytes, *, now: datetime) -> Kept | None:
        # On PostgreSQL this waits for another transaction that inserts the same, and then finds its row.
        if self.link.run(
            "INSERT INTO kept_answer (person, key, digest, begun_at, status, answer) VALUES (?, ?, ?, ?, NULL, NULL) "
            "ON CONFLICT DO NOTHING",
            (person, key, digest, stored(now)),
        ):
            return None
        row = self.link.one(
            "SELECT digest, begun_at, status, answer FROM kept_answer WHERE person = ? AND key = ?", (person, key)
        )
        if row is None:
            # Whoever began it has just dropped it.
            return self.begin_once(person, key, digest, now=now)
        known, begun_at, status, answer = row
        return Kept(bytes(known), moment(int(begun_at)), status, None if answer is None else bytes(answer))

    def end_once(self, person: str, key: str, status: int, answer: bytes | None) -> None:
        self.link.run(
            "UPDATE kept_answer SET status = ?, answer = ? WHERE person = ? AND key = ?", (status, answer, person, key)
        )

    def drop_once(self, person: str, key: str) -> None:
        self.link.run("DELETE FROM kept_answer WHERE person = ? AND key = ?", (person, key))

    def sweep_once(self, before: datetime) -> int:
        return self.link.run("DELETE FROM kept_answer WHERE begun_at < ?", (stored(before),))
