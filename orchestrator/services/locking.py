"""How orders and ticks find their place among all that write: they lock what they change before they look at it, by
rising key. An order is given again when it gave way to another writer all the same."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from orchestrator.core.states import LIVE_ROLLOUT, RolloutStatus
from orchestrator.errors import Conflict
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Writing

Asked = ParamSpec("Asked")
Done = TypeVar("Done")

CONFLICT_TRIES: Final = 5
"""How often an order is tried when other writers keep getting in its way."""


def again(order: Callable[Asked, Done]) -> Callable[Asked, Done]:
    """The whole order once more after a Conflict: nothing of it was written, and whoever gave it could only give it
    again. Its last Conflict is raised."""

    @wraps(order)
    def given(*asked: Asked.args, **more: Asked.kwargs) -> Done:
        for _ in range(CONFLICT_TRIES - 1):
            try:
                return order(*asked, **more)
            except Conflict:
                continue
        return order(*asked, **more)

    return given


def locked(w: Writing, name: str) -> RolloutRow | None:
    """The rollout, and nobody else changes it until the transaction ends."""
    row = w.rollout(name)
    if row is None:
        return None
    w.lock_rollout(row.key)
    return w.rollout_by_key(row.key)


def locked_by_key(w: Writing, key: int) -> RolloutRow | None:
    """The rollout for the machine's decisions, and nobody else changes it until the transaction ends. One that waits
    for its start may end another by it, so that takes all live ones, in their order."""
    row = w.rollout_by_key(key)
    if row is None:
        return None
    if row.state.status is RolloutStatus.SCHEDULED:
        lock_all(w, LIVE_ROLLOUT)
    else:
        w.lock_rollout(key)
    return w.rollout_by_key(key)


def lock_all(w: Writing, statuses: Collection[RolloutStatus]) -> None:
    """Lock all that are in these statuses, by rising key as everybody does."""
    for key in sorted(row.key for row in w.rollouts(statuses)):
        w.lock_rollout(key)
