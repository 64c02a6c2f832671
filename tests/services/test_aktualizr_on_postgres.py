"""Two gateways on one PostgreSQL serve one device's requests in turn: what it fetches from both fits together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.update import UpdateStatus
from tests.gateway.aktualizr.client import Client, monotone
from tests.gateway.aktualizr.house import House, software
from tests.services.fleet_world import HARDWARE
from tests.services.test_on_postgres import Gateways

pytestmark = pytest.mark.postgres


@pytest.fixture
def houses(postgres_url: str, tmp_path: Path) -> Iterator[tuple[House, House]]:
    world = Gateways(postgres_url)
    one = House(tmp_path / "tuf", world, most_kept=0)
    one.tuf.init()
    one.begin(world.devices)
    other = House(tmp_path / "tuf", world, most_kept=0)
    other.begin(world.other)
    yield one, other
    world.close()


def in_turn(houses: tuple[House, House], device: str) -> Client:
    """Every request goes to the other gateway than the one before."""
    client = houses[0].client(device)
    asks = [house.client(device).ask for house in houses]
    turn = iter(range(1_000_000))
    client.ask = lambda *asked: asks[next(turn) % 2](*asked)
    return client


def test_a_device_that_is_served_by_both_in_turn(houses: tuple[House, House]) -> None:
    world = houses[0].world
    devices = world.fleet(3)
    clients = [in_turn(houses, device) for device in devices]
    for client in clients:
        assert client.check() is None
    world.apply()
    for client in clients[:2]:
        assert client.cycle() == software(42)
        client.check()
        assert world.status(client.device) is UpdateStatus.CONFIRMED
    world.rollouts.halt("lmp-42", by="anna", reason="smoke")
    world.later(timedelta(seconds=2))
    assert clients[2].check() is None
    for client in clients:
        monotone(client)
        client.check()
    shown = {frozenset({f"{HARDWARE}-41"}), frozenset({f"{HARDWARE}-41", f"{HARDWARE}-42"})}
    assert {each for client in clients for each in client.seen_targets} <= shown
    assert not any(f"{HARDWARE}-42" in each for each in clients[2].seen_targets)
    written = sum(house.devices.writer.items for house in houses)
    for client in clients:
        client.check()
    assert sum(house.devices.writer.items for house in houses) == written
