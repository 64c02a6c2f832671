"""Who may do what: the roles of people and of their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final


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
