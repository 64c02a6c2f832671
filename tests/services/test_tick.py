"""The tick: what fails for one rollout is that one's problem, and what fails on and on does not starve the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.decide import decide
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import UpdateStatus
from orchestrator.errors import ContentUnavailable
from orchestrator.services import tick
from orchestrator.services.records import Effect, EffectKind
from tests.services.fleet_world import World


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def waiting(world: World) -> list[Effect]:
    with world.store.reading() as r:
        return list(r.effects())


class Gone:
    """A repository that is not there; ``looks`` counts how often it was asked."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, row: Any, wave: str, *, now: Any) -> None:
        self.looks += 1
        raise ContentUnavailable("The repository is not there.")


def test_a_repository_that_is_gone_does_not_keep_offers_from_being_withdrawn(world: World) -> None:
    """A hundred and fifty looks cannot be done. The halt behind them withdraws the offer at the next tick."""
    (device,) = world.fleet(1)
    name = world.apply()
    world.devices.refresh()
    assert world.check_in(device) is not None
    world.ticker.ensure = Gone()
    with world.store.writing() as w:
        w.add_effects([Effect(EffectKind.ENSURE_DELTAS, name, f"wave {n}") for n in range(150)])
    world.rollouts.halt(name, by="anna")
    assert waiting(world)[0].kind is EffectKind.WITHDRAW
    world.later(timedelta(seconds=1))
    assert world.status(device) is UpdateStatus.WITHDRAWN


def test_looks_that_fail_do_not_pile_up_and_are_tried_less_and_less_often(world: World) -> None:
    """An hour without the repository: one look waits for the wave, not one for each quarter of an hour, and it was
    tried some fifteen times. When the repository is back it is done within five minutes."""
    world.fleet(3)
    gone = Gone()
    there, world.ticker.ensure = world.ticker.ensure, gone
    world.apply()
    for _ in range(720):
        world.later(timedelta(seconds=5))
    assert [effect.wave for effect in waiting(world)] == ["all"]
    assert 10 <= gone.looks <= 20
    world.ticker.ensure = there
    world.later(timedelta(minutes=5))
    assert not waiting(world)


def test_a_failed_look_is_told_until_it_is_done(world: World) -> None:
    """Also by the ticks that do not try it again."""
    world.fleet(3)
    world.ticker.ensure = Gone()
    name = world.apply()
    for _ in range(3):
        world.now += timedelta(seconds=1)
        ticked = world.ticker.tick(world.now)
        assert ticked.problems == ((name, "The repository is not there."),)
        assert ticked.wake_at is not None and ticked.wake_at <= world.now + timedelta(seconds=10)


def test_nobody_looks_for_a_rollout_that_was_cancelled(world: World) -> None:
    world.fleet(3)
    gone = world.ticker.ensure = Gone()
    name = world.apply()
    world.rollouts.cancel(name, by="anna")
    before = gone.looks
    world.later(timedelta(minutes=5))
    assert not waiting(world) and gone.looks == before


def test_a_fault_in_one_rollout_leaves_the_others_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Deciding for one rollout meets a fault of the program. The one looked at after it goes on, and the log says where
    it was."""
    world.fleet(3)
    world.enroll(3, tag="attic")
    first = world.apply(name="older", tag="attic", start=False)
    second = world.apply(name="newer", start=False)

    def faulty(state: Any, *others: Any) -> Any:
        if state.rollout == second:
            raise ZeroDivisionError("a fault")
        return decide(state, *others)

    monkeypatch.setattr(tick, "decide", faulty)
    for name in (first, second):
        world.rollouts.start(name, by="anna")
    ticked = world.ticker.tick(world.now)
    assert dict(ticked.problems) == {second: "ZeroDivisionError: a fault"}
    assert world.row(first).state.status is RolloutStatus.RUNNING and ticked.decided > 0
    assert any(record.exc_info for record in caplog.records)
