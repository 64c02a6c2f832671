"""Orders are given again when another writer got in their way, and never half of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.core.states import RolloutStatus
from orchestrator.errors import Conflict
from orchestrator.services.locking import CONFLICT_TRIES
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.store import Writing
from tests.behind import Behind
from tests.services.fleet_world import World


class InTheWay(Behind):
    """A store in which others get in the way of the first ``times`` transactions, when all of each is done."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(world.store)
        self.times = times

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        with self.inner.writing() as w:
            yield w
            self.times -= 1
            if self.times >= 0:
                raise Conflict("Two writers met.")


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.fleet(3)
    world.apply()
    yield world
    world.close()


def paused(world: World) -> int:
    key = world.row().key
    with world.store.reading() as r:
        return sum(1 for entry in r.journal(key) if entry.event == "paused")


def test_an_order_is_given_again(world: World) -> None:
    orders = Rollouts(InTheWay(world, CONFLICT_TRIES - 1), world.clock)
    assert orders.pause("lmp-42", by="anna").status is RolloutStatus.PAUSED
    assert paused(world) == 1


def test_a_freeze_is_given_again(world: World) -> None:
    orders = Rollouts(InTheWay(world, CONFLICT_TRIES - 1), world.clock)
    orders.freeze(by="anna", reason="to look")
    with world.store.reading() as r:
        assert r.frozen() is not None


def test_but_not_for_ever(world: World) -> None:
    orders = Rollouts(InTheWay(world, CONFLICT_TRIES), world.clock)
    with pytest.raises(Conflict):
        orders.pause("lmp-42", by="anna")
    assert paused(world) == 0


def test_a_dry_run_is_taken_back_whole(world: World) -> None:
    orders = Rollouts(InTheWay(world, 0), world.clock)
    assert orders.pause("lmp-42", by="anna", dry_run=True).status is RolloutStatus.PAUSED
    assert world.row().state.status is RolloutStatus.RUNNING
