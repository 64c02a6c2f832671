"""Every door that describes itself, over one world: for the description in docs, and for the fuzzing."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.gateway.aktualizr.door import AktualizrDoor
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.gateway.ddi.door import DdiDoor
from orchestrator.gateway.http import Door
from orchestrator.gateway.mender.door import MenderDoor
from orchestrator.gateway.openapi import describe
from orchestrator.gateway.own import OwnDoor
from orchestrator.services.aktualizr import Aktualizr
from orchestrator.services.catalogue import Catalogue
from orchestrator.services.ddi import Ddi
from orchestrator.services.delta_sizes import StatsFiles
from orchestrator.services.devices import MOST_KEPT
from orchestrator.services.editions import Editions
from orchestrator.services.mender.authentication import Authentication
from orchestrator.services.mender.conversation import Conversations
from orchestrator.services.tuf import Tuf
from tests.services.fleet_world import World

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"


def every_door(world: World) -> list[Door]:
    service = Ddi(world.devices, world.store, world.settings)
    files = ArtifactServer(Path("/nowhere"), None, world.clock)
    ddi = DdiDoor(world.devices, service, url=world.settings.url, tenant=world.settings.ddi_tenant, files=files)
    return [OwnDoor(world.devices), ddi, mender_door(world), aktualizr_door(world)]


def aktualizr_door(world: World, keys: Path = Path("/nowhere")) -> AktualizrDoor:
    """Without ``keys`` it has no repository."""
    tuf = Tuf(TufFolder(keys), world.clock)
    editions = Editions(world.store, world.devices.writer, tuf, world.clock, most_kept=MOST_KEPT)
    catalogue, stats = Catalogue(world.store, world.clock), StatsFiles(lambda pair: None)
    service = Aktualizr(world.store, world.devices, editions, catalogue, stats, world.clock)
    return AktualizrDoor(world.devices, service)


def mender_door(world: World) -> MenderDoor:
    authentication = Authentication(
        world.store, world.devices, world.clock, token_for=timedelta(days=7), most_pending=100
    )
    return MenderDoor(world.devices, authentication, Conversations(world.store, world.devices, world.clock))


def description() -> str:
    """What stands in ``docs/openapi.json``."""
    world = World()
    try:
        return json.dumps(describe(every_door(world)), indent=1, ensure_ascii=False) + "\n"
    finally:
        world.close()
