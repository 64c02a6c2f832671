"""A world for each test, and devices of two protocols before its gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.ddi_world import DdiWorld
from tests.gateway.own_door import Door
from tests.services.fleet_world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def door(world: World) -> Door:
    return Door(world)


@pytest.fixture
def ddi(tmp_path: Path) -> Iterator[DdiWorld]:
    made = DdiWorld(tmp_path)
    yield made
    made.close()
