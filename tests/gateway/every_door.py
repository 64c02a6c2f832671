"""Every door that describes itself, over one world: for the description in docs, and for the fuzzing."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.gateway.ddi.door import DdiDoor
from orchestrator.gateway.http import Door
from orchestrator.gateway.openapi import describe
from orchestrator.gateway.own import OwnDoor
from orchestrator.services.ddi import Ddi
from tests.services.fleet_world import World

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"


def every_door(world: World) -> list[Door]:
    service = Ddi(world.devices, world.store, world.settings)
    files = ArtifactServer(Path("/nowhere"), None, world.clock)
    ddi = DdiDoor(world.devices, service, url=world.settings.url, tenant=world.settings.ddi_tenant, files=files)
    return [OwnDoor(world.devices), ddi]


def description() -> str:
    """What stands in ``docs/openapi.json``."""
    world = World()
    try:
        return json.dumps(describe(every_door(world)), indent=1, ensure_ascii=False) + "\n"
    finally:
        world.close()
