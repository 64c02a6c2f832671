"""The description of the routes: it stands in docs as the doors give it, and the doors really take what it says."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.openapi import describe
from tests.gateway.every_door import DESCRIPTION, description, every_door
from tests.services.fleet_world import World


def test_docs_have_it_as_the_doors_give_it() -> None:
    assert DESCRIPTION.read_text(encoding="utf-8") == description(), "run python -m tests.docs.generate"


def test_it_is_openapi_to_another_reader() -> None:
    schema = from_dict(json.loads(description()))
    wrong = [operation for operation in schema.get_all_operations() if not isinstance(operation, Ok)]
    assert not wrong


def test_every_described_route_is_there_and_says_405_to_another_method() -> None:
    world = World()
    gateway = Gateway(every_door(world))

    async def ask(method: str, path: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
            return (await client.request(method, path)).status_code

    try:
        for path, methods in describe(every_door(world))["paths"].items():
            real = re.sub(r"\{\w+\}", "1", path)
            assert asyncio.run(ask("PATCH", real)) in (401, 405), path
            for method in methods:
                assert asyncio.run(ask(method, real)) not in (405, 500), (method, path)
    finally:
        world.close()
