"""What a device comes to that says it has stopped: whether anybody told it to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.stopping import STOPPED
from orchestrator.core.update import UpdateStatus
from tests.services.fleet_world import World

MINUTE = timedelta(minutes=1)


def test_who_stops_though_nobody_told_it_to_does_not_get_round_an_outcome(world: World) -> None:
    started, told = world.fleet(2)
    world.apply(policy={"on_halt": ["withdraw", "cancel"], "tolerate": {"ignored": {"at_most": "90%", "then": "hold"}}})
    for device in (started, told):
        world.check_in(device, 41)
        world.report(device, "installing")
    world.report(started, "cancelled")
    assert world.status(started) is UpdateStatus.IGNORED
    assert world.update(started).update.bad == {OutcomeClass.IGNORED}
    world.rollouts.halt("lmp-42", by="anna", reason="bad")
    world.tick()
    world.report(told, "cancelled")
    assert world.status(told) is UpdateStatus.WITHDRAWN
    assert not world.update(told).update.bad


def test_who_was_told_to_stop_and_says_so_after_a_person_resumed_has_come_to_no_outcome(world: World) -> None:
    """09:00 one device downloads, another is offered it. 09:01 a halt, 09:02 a person resumes, 09:03 the first says
    that it stopped: it was told to, and is offered it again. It starts and stops once more: that nobody told it."""
    told, other = world.fleet(2)
    world.apply(policy={"on_halt": ["withdraw", "cancel"], "tolerate": {"ignored": {"at_most": "90%", "then": "hold"}}})
    world.check_in(told, 41)
    world.report(told, "downloading")
    world.later(MINUTE)
    world.rollouts.halt("lmp-42", by="anna", reason="smoke")
    world.later(MINUTE)
    world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
    world.later(MINUTE)
    world.check_in(other, 41)
    world.report(other, "downloading", "cancelled")
    assert world.status(other) is UpdateStatus.IGNORED, "it was offered it after the halt"
    world.report(told, "cancelled")
    assert (world.status(told), world.update(told).update.bad) == (UpdateStatus.WITHDRAWN, frozenset())
    world.later(MINUTE)
    assert world.check_in(told, 41) is not None
    world.report(told, "downloading", "cancelled")
    assert world.status(told) is UpdateStatus.IGNORED


def test_who_stops_in_the_moment_of_the_order_has_come_to_no_outcome(world: World) -> None:
    """It is stopped by another process; this one's look at the rollout is as old as it may be."""
    (told,) = world.fleet(1)
    world.apply(policy={"on_halt": ["withdraw", "cancel"]})
    world.check_in(told, 41)
    world.report(told, "downloading")
    world.rollouts.cancel("lmp-42", by="anna", reason="bad")
    assert world.devices.board.snapshot.by_name["lmp-42"].state.status not in STOPPED
    world.report(told, "cancelled")
    assert world.status(told) is UpdateStatus.WITHDRAWN
    assert not world.update(told).update.bad


@pytest.mark.parametrize("order", ["halt", "cancel"])
def test_where_the_policy_tells_nobody_to_stop_who_stops_has_refused(world: World, order: str) -> None:
    """A halt lets who has started finish (RULES 1.2): whoever stops does it of its own will, before the halt, after it,
    or after a person has resumed."""
    before, after, later = world.fleet(3)
    world.apply(policy={"tolerate": {"ignored": {"at_most": "90%", "then": "hold"}}})
    for device in (before, after, later):
        world.check_in(device, 41)
        world.report(device, "installing")
    world.report(before, "cancelled")
    world.later(MINUTE)
    getattr(world.rollouts, order)("lmp-42", by="anna", reason="smoke")
    world.tick()
    world.report(after, "cancelled")
    if order == "halt":
        world.rollouts.resume("lmp-42", by="anna", reason="a false alarm")
        world.later(MINUTE)
    world.report(later, "cancelled")
    found = {(world.status(each), world.update(each).update.bad) for each in (before, after, later)}
    assert found == {(UpdateStatus.IGNORED, frozenset({OutcomeClass.IGNORED}))}
