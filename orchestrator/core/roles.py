"""Who may do what: the roles of people and of their tokens; and when two names are one person's."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from orchestrator.errors import InvalidInput

MOST_NAME: Final = 128
"""Characters of a person's name."""


class Role(StrEnum):
    """What a person, or a token of theirs, may do."""

    __hash__ = str.__hash__

    VIEWER = "viewer"
    RELEASER = "releaser"
    APPROVER = "approver"
    ADMIN = "admin"


ROLE_MEANING: Final[Mapping[Role, str]] = {
    Role.VIEWER: "sees everything, changes nothing",
    Role.RELEASER: "writes and drives rollouts",
    Role.APPROVER: "gives the word that a policy asks of a second person",
    Role.ADMIN: "does all of it, and lets people and devices in",
}

_IMPLIED: Final[Mapping[Role, frozenset[Role]]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.RELEASER: frozenset({Role.VIEWER, Role.RELEASER}),
    Role.APPROVER: frozenset({Role.VIEWER, Role.APPROVER}),
    Role.ADMIN: frozenset(Role),
}


def may(roles: Collection[Role], needed: Role) -> bool:
    """Whether one of the roles is, or contains, the one that is needed."""
    return any(needed in _IMPLIED[role] for role in roles)


def shared(of_person: Collection[Role], of_token: Collection[Role]) -> frozenset[Role]:
    """What a token may: what it was made for, as far as its person may still do it."""
    return _reach(of_person) & _reach(of_token)


def _reach(roles: Collection[Role]) -> frozenset[Role]:
    return frozenset[Role]().union(*(_IMPLIED[role] for role in roles))


def parse_roles(words: Collection[str]) -> frozenset[Role]:
    """Raises InvalidInput, naming those that there are."""
    unknown = [word for word in words if word not in set(Role)]
    if unknown:
        raise InvalidInput(f"{unknown[0][:40]!r} is no role; there are {', '.join(Role)}.")
    if not words:
        raise InvalidInput(f"Without a role nobody may do anything: give one of {', '.join(Role)}.")
    return frozenset(Role(word) for word in words)


def folded(name: str) -> str:
    """By which names are compared: two that differ in case, or in how Unicode writes them, are one person's."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def check_person(name: str) -> str:
    """The name as it is kept. Raises InvalidInput."""
    name = name.strip()
    if not name or not name.isprintable() or len(name) > MOST_NAME or len(folded(name)) > MOST_NAME:
        raise InvalidInput(f"A person's name is printable and {MOST_NAME} characters long at most.")
    return name
