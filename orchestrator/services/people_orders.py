"""Orders about people and their tokens: add, change, disable, hand out, revoke. Each is written down with who.

Answers for: who there is and what they may be given. Not for: who asks (``people_door``), nor for whether the one who
orders may (``core.roles``; on the host, who can read the database can do anything).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.fleet import check_name
from orchestrator.core.roles import Role, check_person, folded, shared
from orchestrator.core.states import POLICY
from orchestrator.errors import Conflict, InvalidInput, NotFound, Refused
from orchestrator.services.approving import withdraw_approvals
from orchestrator.services.credentials import digest_of
from orchestrator.services.passwords import Passwords
from orchestrator.services.people_store import PersonEvent, PersonRow, TokenRow
from orchestrator.services.store import Store, Writing

TOKEN_SIGN: Final = "wave_"
"""How every token begins, so that one in a log or a repository is recognised for what it is."""

TOKEN_AT_MOST: Final = timedelta(days=400)
"""A token that nobody has to renew is one that nobody remembers."""


class People:
    """Who there is."""

    def __init__(self, store: Store, clock: Callable[[], datetime], passwords: Passwords | None = None) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords or Passwords()

    def digest(self, secret: bytes, *, salt: bytes) -> bytes:
        """Of what holds a password; see ``Passwords.digest``."""
        return self._passwords.digest(secret, salt)

    def add(
        self,
        name: str,
        roles: Collection[Role],
        *,
        by: str,
        password: str | None = None,
        subject: str | None = None,
    ) -> PersonRow:
        """Somebody new. Raises InvalidInput, Conflict when there is somebody of that name."""
        name = check_person(name)
        if folded(name) == POLICY:
            raise InvalidInput(f"{POLICY} is who the journal names when nobody gave an order: take another name.")
        if not roles:
            raise InvalidInput("Without a role nobody may do anything.")
        kept = None if password is None else self._passwords.hashed(password)
        row = PersonRow(
            name=name,
            roles=frozenset(roles),
            created_at=self._clock(),
            created_by=by,
            password=kept,
            subject=subject,
        )
        with self._store.writing() as w:
            if (known := w.person(name)) is not None:
                raise Conflict(f"There is {known.name} already.", remedy="`wave user roles` changes what they may do.")
            w.add_person(row)
            self._note(w, by, "added", name, f"{by} added {name} as {_said(roles)}.")
        return row

    def all(self) -> Sequence[PersonRow]:
        """By name."""
        with self._store.reading() as r:
            return r.people()

    def get(self, name: str) -> PersonRow:
        """Raises NotFound."""
        with self._store.reading() as r:
            found = r.person(name)
        if found is None:
            raise _nobody(name)
        return found

    def set_roles(self, name: str, roles: Collection[Role], *, by: str) -> PersonRow:
        """What they may do from the next request on, by their tokens too. Raises NotFound, InvalidInput."""
        if not roles:
            raise InvalidInput("Without a role nobody may do anything.", remedy="`wave user disable` shuts them out.")
        return self._change(
            name,
            lambda row: replace(row, roles=frozenset(roles)),
            by=by,
            event="roles",
            sentence=f"{by} made {{name}} {_said(roles)}.",
        )

    def set_password(self, name: str, password: str, *, by: str) -> PersonRow:
        """Ends all sessions that they have. Raises NotFound, InvalidInput."""
        kept = self._passwords.hashed(password)
        return self._change(
            name,
            lambda row: replace(row, password=kept),
            by=by,
            event="password",
            sentence=f"{by} set a new password for {{name}}.",
            ends=True,
        )

    def disable(self, name: str, *, by: str) -> PersonRow:
        """Shut out at once: sessions end, tokens are worth nothing until they are enabled. Raises NotFound."""
        now = self._clock()
        return self._change(
            name,
            lambda row: row if row.disabled_at else replace(row, disabled_at=now),
            by=by,
            event="disabled",
            sentence=f"{by} disabled {{name}}.",
            ends=True,
        )

    def enable(self, name: str, *, by: str) -> PersonRow:
        """Raises NotFound."""
        return self._change(
            name,
            lambda row: replace(row, disabled_at=None),
            by=by,
            event="enabled",
            sentence=f"{by} enabled {{name}} again.",
        )

    # --------------------------------------------------------------------------------------------- tokens

    def add_token(
        self, person: str, roles: Collection[Role], *, until: datetime, by: str, tags: Collection[str] = ()
    ) -> tuple[TokenRow, str]:
        """A token and its text, which is known nowhere else. It may what these roles and its person's both allow, and
        with ``tags`` orders about nothing but rollouts of those. Raises NotFound, InvalidInput, Refused for a role that
        the person does not have."""
        within = tuple(sorted({check_name(each, "tag") for each in tags}))
        now = self._clock()
        if not roles:
            raise InvalidInput("A token without a role may do nothing.")
        if until <= now:
            raise InvalidInput("The token would be over before it is used.", remedy="Give a later end.")
        if until > now + TOKEN_AT_MOST:
            raise InvalidInput(f"A token is good for {TOKEN_AT_MOST.days} days at most.", remedy="Give an earlier end.")
        token = f"{TOKEN_SIGN}{secrets.token_urlsafe(32)}"
        with self._store.writing() as w:
            owner = w.lock_person(person)
            if owner is None:
                raise _nobody(person)
            lacking = sorted(frozenset(roles) - shared(owner.roles, frozenset(Role)))
            if lacking:
                raise Refused(f"{owner.name} is no {lacking[0]}: no token of theirs can be.")
            row = TokenRow(
                name=f"tok-{secrets.token_hex(4)}",
                person=owner.name,
                roles=frozenset(roles),
                digest=digest_of(token),
                created_at=now,
                created_by=by,
                until=until,
                tags=within,
            )
            w.add_person_token(row)
            made = f"{by} made {row.name} for {owner.name} as {_said(roles)}{_only(within)}"
            self._note(w, by, "token_added", owner.name, f"{made}, until {until:%Y-%m-%d %H:%M} UTC.")
        return row, token

    def tokens(self) -> Sequence[TokenRow]:
        """All that were ever made, the oldest first."""
        with self._store.reading() as r:
            return r.person_tokens()

    def revoke_token(self, name: str, *, by: str) -> bool:
        """Worth nothing from the next request on; False when it was revoked before. Raises NotFound."""
        with self._store.writing() as w:
            fresh = w.revoke_person_token(name, now=self._clock())
            if fresh:
                owner = next(each.person for each in w.person_tokens() if each.name == name)
                self._note(w, by, "token_revoked", owner, f"{by} revoked {name} of {owner}.")
        return fresh

    def events(self, *, after: int | None = None, limit: int = 100) -> Sequence[PersonEvent]:
        """What happened around people, the newest first; what follows the one with the number ``after``."""
        with self._store.reading() as r:
            return r.person_events(after=after, limit=limit)

    # --------------------------------------------------------------------------------------------- inside

    def _change(
        self,
        name: str,
        change: Callable[[PersonRow], PersonRow],
        *,
        by: str,
        event: str,
        sentence: str,
        ends: bool = False,
    ) -> PersonRow:
        with self._store.writing() as w:
            row = w.lock_person(name)
            if row is None:
                raise _nobody(name)
            after = change(row)
            if ends:
                w.end_sessions(row.name)
            if after != row:
                w.save_person(after)
                withdraw_approvals(w, row, after, by=by, now=self._clock())
                self._note(w, by, event, row.name, sentence.replace("{name}", row.name))
        return after

    def _note(self, w: Writing, by: str, event: str, whom: str, sentence: str) -> None:
        w.log_person_event(PersonEvent(self._clock(), by, event, whom, sentence))


def _nobody(name: str) -> NotFound:
    return NotFound(f"There is nobody called {name[:128]}.", remedy="`wave user list` shows who is there.")


def _only(tags: Collection[str]) -> str:
    return f" for rollouts of {', '.join(tags)} alone" if tags else ""


def _said(roles: Collection[Role]) -> str:
    return " and ".join(sorted(roles))
