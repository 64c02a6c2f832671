"""Signing in with OpenID Connect: authorization code, PKCE, state and nonce.

Whoever begins gets one secret into a cookie, and state, nonce and verifier are derived from that: nothing is kept here,
so any replica can finish, and a code that comes without the cookie is worth nothing.

Answers for: who may come in by what the provider says, and as whom. Not for: HTTP to the provider and signatures
(``Provider``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from orchestrator.core.roles import Role, check_person, folded, parse_roles
from orchestrator.errors import Conflict, Forbidden, InvalidInput, Unauthorized
from orchestrator.services.approving import withdraw_approvals
from orchestrator.services.people_door import Door
from orchestrator.services.people_store import PersonEvent, PersonRow
from orchestrator.services.store import Store


class Provider(Protocol):
    """Who vouches for people. Raises Unavailable when it does not answer, or not as it should."""

    def authorize(self, *, redirect: str, state: str, nonce: str, challenge: str) -> str:
        """The address to which a browser is sent."""

    def claims(self, code: str, *, redirect: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        """What it says of the person, verified: signature, issuer, audience, times, nonce. Raises Unauthorized when it
        says nothing that counts."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is believed. ``roles``: by values of the claim ``groups``; ``name``: the claim that names a person;
    ``domains``: those that a verified address must be of, empty for any."""

    issuer: str
    name: str = "email"
    groups: str = "groups"
    roles: tuple[tuple[str, Role], ...] = ()
    domains: tuple[str, ...] = ()


def parse_mapping(words: Sequence[str]) -> tuple[tuple[str, Role], ...]:
    """``GROUP=ROLE`` each. Raises InvalidInput."""
    found = []
    for word in words:
        group, _, role = word.rpartition("=")
        if not group:
            raise InvalidInput(f"{word[:80]!r} is no GROUP=ROLE.")
        found += [(group, each) for each in parse_roles([role])]
    return tuple(found)


class OpenId:
    """Signs people in by the word of one provider."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        door: Door,
        *,
        provider: Provider,
        trusted: Trusted,
        console: str,
    ) -> None:
        """``console``: where people reach the operators' side."""
        self._store = store
        self._clock = clock
        self._door = door
        self._provider = provider
        self._trusted = trusted
        self._redirect = f"{console}/sign-in/oidc/callback"
        self.name = trusted.issuer.partition("://")[2].partition("/")[0]

    def begin(self, secret: str) -> str:
        """Where the browser goes, which holds ``secret`` from now on."""
        return self._provider.authorize(
            redirect=self._redirect,
            state=_derived(secret, "state"),
            nonce=_derived(secret, "nonce"),
            challenge=_encoded(hashlib.sha256(_derived(secret, "verifier").encode()).digest()),
        )

    def finish(
        self, secret: str, *, state: str, code: str, issuer: str | None, address: str, before: str | None = None
    ) -> str:
        """A session for who came back. Raises Unauthorized, Forbidden, Unavailable."""
        if not secret or not hmac.compare_digest(state.encode("utf-8", "replace"), _derived(secret, "state").encode()):
            raise Forbidden("This sign-in was not begun in this browser, or too long ago: begin again.")
        if issuer is not None and issuer != self._trusted.issuer:
            raise Forbidden("Another provider answered than was asked.")
        claims = self._provider.claims(
            code, redirect=self._redirect, nonce=_derived(secret, "nonce"), verifier=_derived(secret, "verifier")
        )
        return self._door.let_in(self._person(claims), address=address, before=before)

    def _person(self, claims: Mapping[str, Any]) -> PersonRow:
        """Who that is here: made known at the first time, with the roles that the provider's groups give now."""
        subject = f"{self._trusted.issuer} {claims['sub']}"
        name, roles = self._name(claims), self._roles(claims)
        if not roles:
            raise Forbidden(f"{name} is in no group that may do anything here.")
        now = self._clock()
        with self._store.writing() as w:
            known = w.person_by_subject(subject)
            if known is not None:
                if known.roles != roles:
                    before, known = known, replace(known, roles=roles)
                    w.save_person(known)
                    withdraw_approvals(w, before, known, by=self.name, now=now)
                    sentence = f"{self.name} made {known.name} {' and '.join(sorted(roles))}."
                    w.log_person_event(PersonEvent(now, self.name, "roles", known.name, sentence))
                return known
            if w.person(name) is not None:
                # Who has a name here is not whoever a provider calls so.
                raise Forbidden(f"There is somebody called {name} here who does not sign in with {self.name}.")
            row = PersonRow(name=name, roles=roles, created_at=now, created_by=self.name, subject=subject)
            try:
                w.add_person(row)
            except Conflict:
                raise Forbidden("Somebody of that name came first: begin again.") from None
            sentence = f"{self.name} made {name} known as {' and '.join(sorted(roles))}."
            w.log_person_event(PersonEvent(now, self.name, "added", name, sentence))
        return row

    def _name(self, claims: Mapping[str, Any]) -> str:
        found = claims.get(self._trusted.name)
        if not isinstance(found, str) or not found.strip():
            raise Unauthorized(f"{self.name} does not say who you are: there is no {self._trusted.name}.")
        if self._trusted.domains or self._trusted.name == "email":
            self._check_address(claims)
        try:
            name = check_person(found)
        except InvalidInput as error:
            raise Unauthorized(error.message) from None
        if folded(name) == "policy":
            raise Forbidden(f"{name} is nobody's name here.")
        return name

    def _check_address(self, claims: Mapping[str, Any]) -> None:
        """An address that nobody has verified is what anybody could write."""
        email = claims.get("email")
        if not isinstance(email, str) or claims.get("email_verified") is not True:
            raise Forbidden(f"{self.name} has not verified your address.")
        domain = email.rpartition("@")[2].casefold()
        if self._trusted.domains and domain not in {each.casefold() for each in self._trusted.domains}:
            raise Forbidden(f"Nobody of {domain} signs in here.")

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        told = claims.get(self._trusted.groups)
        groups = {told} if isinstance(told, str) else set(map(str, told)) if isinstance(told, list) else set()
        return frozenset(role for group, role in self._trusted.roles if group in groups)


def _derived(secret: str, what: str) -> str:
    return _encoded(hmac.new(secret.encode("utf-8", "replace"), what.encode(), hashlib.sha256).digest())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
