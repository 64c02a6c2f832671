"""People, their tokens and their sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from orchestrator.adapters.sql.codec import as_json, decode_names
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.roles import Role, folded
from orchestrator.errors import NotFound
from orchestrator.services.people_store import PersonEvent, PersonRow, SessionRow, TokenRow

_PERSON: Final = "name, roles, password, subject, created_at, created_by, disabled_at"
_TOKEN: Final = (
    "SELECT t.name, p.name, t.roles, t.token_digest, t.created_at, t.created_by, t.until_at, t.revoked_at, t.used_at, "
    "t.tags "
    "FROM person_token t JOIN person p ON p.folded = t.person"
)
_SESSION: Final = (
    "SELECT s.token_digest, p.name, s.began_at, s.until_at, s.seen_at "
    "FROM person_session s JOIN person p ON p.folded = s.person WHERE s.token_digest = ?"
)


def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(each) for each in decode_names(text))


def _kept(roles: Iterable[Role]) -> str:
    return as_json(sorted(role.value for role in roles))


def _person(row: tuple[Any, ...]) -> PersonRow:
    name, roles, password, subject, at, by, disabled = row
    return PersonRow(
        name=name,
        roles=_roles(roles),
        created_at=moment(int(at)),
        created_by=by,
        password=password,
        subject=subject,
        disabled_at=moment(disabled),
    )


def _token(row: tuple[Any, ...]) -> TokenRow:
    name, person, roles, digest, at, by, until, revoked, used, tags = row
    return TokenRow(
        name=name,
        person=person,
        roles=_roles(roles),
        digest=bytes(digest),
        created_at=moment(int(at)),
        created_by=by,
        until=moment(int(until)),
        revoked_at=moment(revoked),
        used_at=moment(used),
        tags=() if tags is None else tuple(decode_names(tags)),
    )


class PeopleReading(Session):
    def people(self) -> Sequence[PersonRow]:
        return [_person(row) for row in self.link.rows(f"SELECT {_PERSON} FROM person ORDER BY folded")]

    def person(self, name: str) -> PersonRow | None:
        row = self.link.one(f"SELECT {_PERSON} FROM person WHERE folded = ?", (folded(name),))
        return None if row is None else _person(row)

    def person_by_subject(self, subject: str) -> PersonRow | None:
        row = self.link.one(f"SELECT {_PERSON} FROM person WHERE subject = ?", (subject,))
        return None if row is None else _person(row)

    def person_tokens(self) -> Sequence[TokenRow]:
        return [_token(row) for row in self.link.rows(f"{_TOKEN} ORDER BY t.key")]

    def person_token(self, digest: bytes) -> TokenRow | None:
        row = self.link.one(f"{_TOKEN} WHERE t.token_digest = ?", (digest,))
        return None if row is None else _token(row)

    def session(self, digest: bytes) -> SessionRow | None:
        row = self.link.one(_SESSION, (digest,))
        if row is None:
            return None
        found, person, began, until, seen = row
        return SessionRow(
            digest=bytes(found),
            person=person,
            began_at=moment(int(began)),
            until=moment(int(until)),
            seen_at=moment(int(seen)),
        )

    def person_events(self, *, after: int | None = None, limit: int = 100) -> Sequence[PersonEvent]:
        older, from_where = ("", ()) if after is None else ("WHERE key < ? ", (after,))
        rows = self.link.rows(
            f"SELECT at, by_name, event, whom, sentence, key FROM person_event {older}ORDER BY key DESC LIMIT ?",
            (*from_where, limit),
        )
        return [PersonEvent(moment(int(at)), *rest) for at, *rest in rows]


class PeopleWriting(PeopleReading):
    def lock_person(self, name: str) -> PersonRow | None:
        asked = self.link.locked(f"SELECT {_PERSON} FROM person WHERE folded = ?")
        row = self.link.one(asked, (folded(name),))
        return None if row is None else _person(row)

    def add_person(self, row: PersonRow) -> None:
        self.link.run(
            f"INSERT INTO person (folded, {_PERSON}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                folded(row.name),
                row.name,
                _kept(row.roles),
                row.password,
                row.subject,
                stored(row.created_at),
                row.created_by,
                stored(row.disabled_at),
            ),
        )

    def save_person(self, row: PersonRow) -> None:
        changed = self.link.run(
            "UPDATE person SET roles = ?, password = ?, subject = ?, disabled_at = ? WHERE folded = ?",
            (_kept(row.roles), row.password, row.subject, stored(row.disabled_at), folded(row.name)),
        )
        if not changed:
            raise NotFound(f"There is nobody called {row.name}.", remedy="`wave user list` shows who is there.")

    def add_person_token(self, row: TokenRow) -> None:
        self.link.run(
            "INSERT INTO person_token (name, person, roles, token_digest, created_at, created_by, until_at, tags) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.name,
                folded(row.person),
                _kept(row.roles),
                row.digest,
                stored(row.created_at),
                row.created_by,
                stored(row.until),
                as_json(sorted(row.tags)) if row.tags else None,
            ),
        )

    def revoke_person_token(self, name: str, *, now: datetime) -> bool:
        changed = self.link.run(
            "UPDATE person_token SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (stored(now), name)
        )
        if not changed and self.link.one("SELECT 1 FROM person_token WHERE name = ?", (name,)) is None:
            raise NotFound(f"There is no token {name}.", remedy="`wave token list` shows them.")
        return bool(changed)

    def use_person_token(self, digest: bytes, *, now: datetime) -> None:
        self.link.run("UPDATE person_token SET used_at = ? WHERE token_digest = ?", (stored(now), digest))

    def add_session(self, row: SessionRow) -> None:
        self.link.run(
            "INSERT INTO person_session (token_digest, person, began_at, until_at, seen_at) VALUES (?, ?, ?, ?, ?)",
            (row.digest, folded(row.person), stored(row.began_at), stored(row.until), stored(row.seen_at)),
        )

    def see_session(self, digest: bytes, *, now: datetime) -> None:
        self.link.run("UPDATE person_session SET seen_at = ? WHERE token_digest = ?", (stored(now), digest))

    def end_session(self, digest: bytes) -> bool:
        return bool(self.link.run("DELETE FROM person_session WHERE token_digest = ?", (digest,)))

    def end_sessions(self, person: str) -> int:
        return self.link.run("DELETE FROM person_session WHERE person = ?", (folded(person),))

    def drop_sessions(self, *, now: datetime, unseen_since: datetime) -> int:
        return self.link.run(
            "DELETE FROM person_session WHERE until_at <= ? OR seen_at <= ?", (stored(now), stored(unseen_since))
        )

    def log_person_event(self, event: PersonEvent) -> None:
        self.link.run(
            "INSERT INTO person_event (at, by_name, event, whom, sentence) VALUES (?, ?, ?, ?, ?)",
            (stored(event.at), event.by, event.event, event.whom, event.sentence),
        )
