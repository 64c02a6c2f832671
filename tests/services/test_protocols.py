"""What a device's protocol means for rollouts: who cannot go back is refused at plan and start, and who never tries
again is said at a retry."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.policy import Policy
from orchestrator.core.protocols import DeviceProtocol, Spoken
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import Refused
from orchestrator.services.deltas import Deltas
from orchestrator.services.planning import Planner
from orchestrator.services.views import RolloutPlan
from tests.services.fake_provider import FakeProvider
from tests.services.fleet_world import TAG, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def check_in(world: World, device: str, runs: int, over: DeviceProtocol = DeviceProtocol.AKTUALIZR) -> None:
    found = world.devices.check_in(device, world.tokens[device], world.said(runs), over=over)
    if isinstance(found, Future):
        found.result(10)


def plan(world: World, folder: Path) -> RolloutPlan:
    """Of the rollout that ``World.apply`` makes."""
    with world.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None
    provider = FakeProvider(folder)
    planner = Planner(world.store, provider, Deltas(world.store, provider, world.clock), world.clock)
    return planner.plan(RolloutFile.from_canonical(row.spec), Policy.from_canonical(row.policy))


def spoken(world: World, device: str) -> Spoken | None:
    with world.store.reading() as r:
        row = r.device(device)
        assert row is not None
        return r.spoken([row.key]).get(row.key)


def test_a_check_in_over_another_protocol_is_noted_once(world: World) -> None:
    (device,) = world.fleet(1)
    assert spoken(world, device) is None
    check_in(world, device, 41)
    assert spoken(world, device) == Spoken(DeviceProtocol.AKTUALIZR, 41)
    written = world.devices.writer.items
    check_in(world, device, 41)
    assert world.devices.writer.items == written
    check_in(world, device, 41, DeviceProtocol.OWN)
    assert spoken(world, device) == Spoken(DeviceProtocol.OWN, 41)


def test_a_rollout_that_takes_back_devices_that_cannot_is_refused_with_their_names(world: World) -> None:
    devices = world.fleet(5, 43)
    for device in devices[:2]:
        check_in(world, device, 43)
    waves = [{"wave": "all", "devices": "all"}]
    world.apply(waves=waves, start=False, allow_older=True, running=[43])
    with pytest.raises(Refused, match=r"2 devices of the rollout \(dev-0001, dev-0002\) take no version below"):
        world.rollouts.start("lmp-42", by="anna")
    check_in(world, devices[0], 43, DeviceProtocol.DDI)
    with pytest.raises(Refused, match=r"1 device of the rollout \(dev-0002\) takes no version below"):
        world.rollouts.start("lmp-42", by="anna", dry_run=True)
    check_in(world, devices[1], 43, DeviceProtocol.OWN)
    assert f"of tag {TAG}" in world.rollouts.start("lmp-42", by="anna").sentence


def test_a_rollout_below_what_a_device_fell_back_from_is_refused_with_its_name(world: World, tmp_path: Path) -> None:
    """It ran 43, went back to 41 by itself, and would take 42 for a downgrade."""
    devices = world.fleet(3)
    for runs in (43, 41):
        check_in(world, devices[0], runs)
        check_in(world, devices[1], runs, DeviceProtocol.DDI)
    spec = world.apply(start=False)
    with pytest.raises(
        Refused, match=r"1 device of the rollout \(dev-0001\) takes no version below the highest it has"
    ):
        world.rollouts.start(spec, by="anna")
    with pytest.raises(Refused, match=r"dev-0001"):
        plan(world, tmp_path)
    world.devices.set_status([devices[0]], DeviceStatus.HELD, "it fell back")
    assert plan(world, tmp_path).devices == 2
    assert f"of tag {TAG}" in world.rollouts.start(spec, by="anna").sentence


def test_a_retry_says_who_will_not_try_again(world: World) -> None:
    (device,) = world.fleet(1)
    world.apply()
    check_in(world, device, 41)
    world.report(device, world.event("failed"))
    said = world.rollouts.retry("lmp-42", by="anna").sentence
    assert "may try again. 1 of them speaks aktualizr-lite, which never tries again a Target that failed" in said
