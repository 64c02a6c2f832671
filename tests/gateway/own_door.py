"""The gateway's own protocol, asked as a device asks, and what its errors look like."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.http import KINDS
from orchestrator.gateway.own import OwnDoor
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of


class Door:
    """The gateway over the real services and store, asked as a device asks."""

    def __init__(self, world: World, gateway: Gateway | None = None) -> None:
        self.world = world
        self.gateway = gateway or Gateway([OwnDoor(world.devices)])

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **more)

        return asyncio.run(once())

    def post(self, device: str, what: str, body: Any, *, token: str | None = None) -> httpx.Response:
        token = self.world.tokens[device] if token is None else token
        headers = {"authorization": f"Bearer {token}"}
        known = {"content": body} if isinstance(body, bytes) or callable(getattr(body, "__aiter__", None)) else {}
        return self.ask("POST", f"/v1/devices/{device}/{what}", headers=headers, **(known or {"json": body}))

    def check_in(self, device: str, version: int = 41) -> httpx.Response:
        return self.post(device, "check-in", body_of(version))


def body_of(version: int) -> dict[str, Any]:
    commit = commit_of(version)
    return {"commit": commit, "version": version, "hardware_id": HARDWARE, "tag": TAG, "labels": {}}


def error(response: httpx.Response) -> tuple[int, str]:
    """Status and kind; the envelope is the same everywhere and has nothing else in it."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"kind", "message"}
    assert body["error"]["kind"] in KINDS
    assert body["error"]["message"].endswith((".", ". "))
    return response.status_code, body["error"]["kind"]
