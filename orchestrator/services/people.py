"""Who asks on the operators' side, and what they may do there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.roles import Role, may
from orchestrator.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Person:
    """A person, or a program by a token of theirs; ``name`` is what the journal says. ``token``: the name of the token
    that was shown, None for somebody who signed in; ``tags``: of which rollouts it may order, None for everything."""

    name: str
    roles: frozenset[Role]
    token: str | None = None
    tags: frozenset[str] | None = None

    def needs(self, role: Role) -> None:
        """Raises Forbidden."""
        if not may(self.roles, role):
            raise Forbidden(f"{self.name} is no {role}: this needs somebody who is.")

    def orders_about(self, tags: Collection[str]) -> None:
        """What is ordered is about rollouts of these tags alone; without any, about something else. Raises
        Forbidden."""
        if self.tags is not None and (not tags or not self.tags.issuperset(tags)):
            raise Forbidden(
                f"The token {self.token} orders about rollouts of {', '.join(sorted(self.tags))} alone.",
                remedy="Another token of yours may do it, or you yourself.",
            )


class Doorkeeper(Protocol):
    """Knows who asks. ``looks``: somebody is there; False where it is only asked whether they may still, which keeps no
    session alive. Raises Unauthorized, TooMany."""

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        """``token`` as in ``Authorization: Bearer``."""

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        """``session`` as in the console's cookie."""
