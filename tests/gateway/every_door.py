"""Every door that describes itself, over one world: for the description in docs, and for the fuzzing."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.gateway.http import Door
from orchestrator.gateway.openapi import describe
from orchestrator.gateway.own import OwnDoor
from tests.services.fleet_world import World

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"


def every_door(world: World) -> list[Door]:
    return [OwnDoor(world.devices)]


def description() -> str:
    """What stands in ``docs/openapi.json``."""
    world = World()
    try:
        return json.dumps(describe(every_door(world)), indent=1, ensure_ascii=False) + "\n"
    finally:
        world.close()
