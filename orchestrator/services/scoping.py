"""What an order is about, for tokens that order about rollouts of some tags alone. What is about no rollout is about
none of their tags: such a token may look at everything and order nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.roles import Role
from orchestrator.errors import NotFound
from orchestrator.services import remotely
from orchestrator.services.application import Application
from orchestrator.services.operations import Operation
from orchestrator.services.people import Person


def check_scope(app: Application, person: Person, operation: Operation, given: Mapping[str, Any]) -> None:
    """Raises Forbidden for what lies outside the person's tags, NotFound for a rollout that is not there."""
    if person.tags is None or not operation.writes or operation.role is Role.VIEWER:
        return
    if operation.call is remotely.apply:
        spec, _ = app.files.said(given["rollout"], given.get("policy"))
        person.orders_about({spec.tag, *_tag_of(app, spec.name)})
    elif operation.path.startswith("/rollouts/{name}/"):
        check_rollout(app, person, given["name"])
    else:
        person.orders_about(())


def check_rollout(app: Application, person: Person, name: str) -> None:
    """The same for an order about the rollout of that name."""
    if person.tags is not None:
        tags = _tag_of(app, name)
        if not tags:
            raise NotFound(f"There is no rollout {name}.", remedy="`wave list` shows them all.")
        person.orders_about(tags)


def _tag_of(app: Application, name: str) -> tuple[str, ...]:
    with app.store.reading() as r:
        row = r.rollout(name)
    return () if row is None else (row.tag,)
