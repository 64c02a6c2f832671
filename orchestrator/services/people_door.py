"""The door for people: signs in and out, and knows who shows a session or a token.

* A session is a random id in a cookie; its digest is kept. It is made at sign-in, never taken from who signs in, so one
  that somebody planted beforehand is worth nothing. It ends at sign-out, when nobody was seen for ``idle``, and after
  ``at_most`` in any case.
* Who is asked about is read from the store each time: who is disabled, or loses a role, does so with the next request.
* A stranger's name costs a hash like a known one, and is answered alike.
* Whoever guesses a name slows down everybody who tries it, but for its owner at places from which they signed in of
  late: those are counted apart, so that nobody is shut out by who only knows their name.

Not for: what a role may do (``core.roles``), cookies (``web``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.roles import MOST_NAME, folded, shared
from orchestrator.errors import Unauthorized, WaveError
from orchestrator.services.credentials import digest_of, new_secret
from orchestrator.services.passwords import Passwords
from orchestrator.services.people import Person
from orchestrator.services.people_store import PersonEvent, PersonRow, SessionRow
from orchestrator.services.store import Store, Writing
from orchestrator.services.throttle import Homes, Throttle

SEEN_EVERY: Final = timedelta(minutes=1)
"""How often it is written down that a session or a token was used."""

WRONG: Final = "The name or the password is wrong."


class Door:
    """``spared`` says which addresses are not counted: behind loopback stands a proxy, and everybody behind that.
    ``site``: what is counted as one address; who has a network of them has one."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        *,
        idle: timedelta,
        at_most: timedelta,
        passwords: Passwords | None = None,
        spared: Callable[[str], bool] = lambda address: False,
        site: Callable[[str], str] = lambda address: address,
    ) -> None:
        self._store = store
        self._clock = clock
        self._idle = idle
        self.at_most = at_most
        self._passwords = passwords or Passwords()
        self._spared = spared
        self._site = site
        self._homes = Homes()
        forgotten = timedelta(hours=1)
        # The name's wait is short: who only knows a name must not be able to lock its owner out.
        self._names = Throttle(free=5, first=timedelta(seconds=1), at_most=timedelta(minutes=1), forgotten=forgotten)
        self._addresses = Throttle(
            free=20, first=timedelta(seconds=1), at_most=timedelta(minutes=15), forgotten=forgotten
        )

    # --------------------------------------------------------------------------------------------- who asks

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        """Raises Unauthorized, saying why to who holds a token that was good once."""
        # Nobody counts how often one was wrong: 256 random bits are not guessed, and looking costs one row.
        now = self._clock()
        digest = digest_of(token)
        with self._store.reading() as r:
            found = r.person_token(digest)
            owner = None if found is None else r.person(found.person)
        if found is None or owner is None:
            raise Unauthorized("The token is not known here.", remedy="`wave token add` makes one.")
        if found.revoked_at is not None:
            raise Unauthorized(f"The token {found.name} was revoked.", remedy="Ask for another.")
        if found.until <= now:
            raise Unauthorized(
                f"The token {found.name} was good until {found.until:%Y-%m-%d %H:%M} UTC.",
                remedy="`wave token add` makes another.",
            )
        if owner.disabled_at is not None:
            raise Unauthorized(f"{owner.name}, whose token this is, is disabled.")
        if looks and (found.used_at is None or now - found.used_at >= SEEN_EVERY):
            self._note(lambda w: w.use_person_token(digest, now=now))
        return Person(owner.name, shared(owner.roles, found.roles), found.name, frozenset(found.tags) or None)

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        """Raises Unauthorized."""
        now = self._clock()
        digest = digest_of(session)
        with self._store.reading() as r:
            found = r.session(digest)
            owner = None if found is None else r.person(found.person)
        if (
            found is None
            or owner is None
            or owner.disabled_at is not None
            or now >= found.until
            or now - found.seen_at >= self._idle
        ):
            raise Unauthorized("The session is over: sign in again.")
        if looks and now - found.seen_at >= min(SEEN_EVERY, self._idle / 10):
            self._note(lambda w: w.see_session(digest, now=now))
        return Person(owner.name, owner.roles)

    # --------------------------------------------------------------------------------------------- in and out

    def sign_in(self, name: str, password: str, *, address: str, before: str | None = None) -> str:
        """A fresh session; the one that this browser had ``before`` is over. Raises Unauthorized, alike for an unknown
        name, a wrong password and somebody who is disabled; TooMany."""
        now = self._clock()
        key = folded(name[: 4 * MOST_NAME])[:MOST_NAME]
        counted = "" if self._spared(address) else self._site(address)
        if counted:
            self._addresses.attempt(counted, now)
        named = self._homes.key(key, counted, now)
        self._names.attempt(named, now)
        with self._store.reading() as r:
            found = r.person(name) if len(name) <= MOST_NAME else None
        good = self._passwords.good(None if found is None else found.password, password)
        if not good or found is None or found.disabled_at is not None:
            raise Unauthorized(WRONG)
        self._names.right(named, all_of_them=True)
        if counted:
            self._addresses.right(counted, all_of_them=False)
            self._homes.add(key, counted, now)
        kept = found.password
        assert kept is not None
        fresh = self._passwords.hashed(password) if self._passwords.outdated(kept) else None
        return self.let_in(found, address=address, before=before, rehashed=fresh)

    def let_in(self, person: PersonRow, *, address: str, before: str | None = None, rehashed: str | None = None) -> str:
        """A fresh session for somebody who has proven who they are. Raises Unauthorized when they were disabled, or
        their password was changed, meanwhile."""
        now = self._clock()
        session, digest = new_secret()
        with self._store.writing() as w:
            found = w.lock_person(person.name)
            if found is None or found.disabled_at is not None or found.password != person.password:
                raise Unauthorized(WRONG if person.subject is None else f"{person.name} is disabled here.")
            if rehashed is not None:
                w.save_person(replace(found, password=rehashed))
            if before is not None:
                w.end_session(digest_of(before))
            w.drop_sessions(now=now, unseen_since=now - self._idle)
            w.add_session(SessionRow(digest, found.name, now, now + self.at_most, now))
            w.log_person_event(
                PersonEvent(now, found.name, "signed_in", found.name, f"{found.name} signed in from {address}.")
            )
        return session

    def sign_out(self, session: str) -> bool:
        """The session is worth nothing from now on; False when it was over before."""
        now = self._clock()
        digest = digest_of(session)
        with self._store.writing() as w:
            found = w.session(digest)
            if found is None or not w.end_session(digest):
                return False
            w.log_person_event(
                PersonEvent(now, found.person, "signed_out", found.person, f"{found.person} signed out.")
            )
        return True

    def is_empty(self) -> bool:
        """Whether there is nobody who could sign in."""
        with self._store.reading() as r:
            return not r.people()

    @staticmethod
    def new_secret() -> str:
        """Something that nobody can guess, for a cookie."""
        return new_secret()[0]

    def prepare(self) -> None:
        """What makes the first answer as quick as all others."""
        self._passwords.prepare()

    def _note(self, work: Callable[[Writing], None]) -> None:
        """Written when it can be: that nobody wrote down the last use shuts nobody out."""
        try:
            with self._store.writing() as w:
                work(w)
        except WaveError:
            pass
