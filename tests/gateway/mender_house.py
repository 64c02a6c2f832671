"""A house with the door for Mender devices, and clients that speak to it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from orchestrator.core.artifact import FILES, Artifact, Digests, Format
from orchestrator.core.fleet import Target
from orchestrator.core.update import UpdateStatus
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.limits import Limits
from orchestrator.services.mender.operating import Operating, Placing
from orchestrator.services.settings import Settings
from tests.gateway.every_door import mender_door
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of
from tests.services.mender.keys import request_of

V1, V2 = "/api/devices/v1", "/api/devices/v2"
AUTH = f"{V1}/authentication/auth_requests"
INVENTORY = f"{V1}/inventory/device/attributes"
NEXT = f"{V2}/deployments/device/deployments/next"
NEXT_V1 = f"{V1}/deployments/device/deployments/next"
DEPLOYMENTS = f"{V1}/deployments/device/deployments"


class Client:
    """What a Mender client does, one request at a time."""

    def __init__(self, house: House, name: str) -> None:
        self.house = house
        self.name = name
        self.token = ""
        self.runs = "app-41"

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.house.ask(method, path, headers={"authorization": f"Bearer {self.token}"}, **more)

    def join(self) -> Client:
        body, signature = request_of(self.name)
        assert self.house.auth(body, signature).status_code == 401
        self.house.person.accept(self.name, Placing(hardware_id=HARDWARE, tag=TAG), by="ann")
        self.authenticate()
        return self

    def authenticate(self) -> None:
        answer = self.house.auth(*request_of(self.name))
        assert answer.status_code == 200
        self.token = answer.text

    def tell(self, *more: dict[str, Any], method: str = "PUT") -> int:
        known = [{"name": "device_type", "value": HARDWARE}, {"name": "artifact_name", "value": self.runs}]
        return self.ask(method, INVENTORY, json=[*known, *more]).status_code

    def next(self) -> dict[str, Any] | None:
        provides = {"artifact_name": self.runs, "device_type": HARDWARE}
        answer = self.ask("POST", NEXT, json={"device_provides": provides, "update_control_map": True})
        if answer.status_code == 204:
            assert answer.content == b""
            return None
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def offered(self) -> str:
        found = self.next()
        assert found is not None
        return str(found["id"])

    def says(self, deployment: str, status: str, **more: Any) -> int:
        answer = self.ask("PUT", f"{DEPLOYMENTS}/{deployment}/status", json={"status": status, **more})
        return answer.status_code

    def log(self, deployment: str, *messages: str, level: str = "error") -> int:
        lines = [{"timestamp": "2026-11-02T09:00:00Z", "level": level, "message": each} for each in messages]
        return self.ask("PUT", f"{DEPLOYMENTS}/{deployment}/log", json={"messages": lines}).status_code


class House:
    def __init__(self, limits: Limits | None = None, settings: Settings | None = None) -> None:
        self.world = World(settings=settings or Settings())
        world = self.world
        self.limits = limits
        self.gateway = Gateway([mender_door(world)], limits=limits)
        self.person = Operating(world.store, world.devices.register, world.clock)
        for version in (41, 42):
            self.artifact(version)

    def restart(self) -> None:
        """Another process over the same store."""
        self.world.devices.close()
        self.world.devices = self.world.another()
        self.gateway = Gateway([mender_door(self.world)], limits=self.limits)

    def artifact(self, version: int) -> None:
        digests = Digests(commit_of(version), "0" * 40, "0" * 32, 1000)
        artifact = Artifact(
            digests, Format.MENDER, f"app-{version}.mender", f"app-{version}", f"1.{version}", (HARDWARE,), (HARDWARE,)
        )
        with self.world.store.writing() as w:
            w.add_artifact(artifact)
            w.add_target(
                Target(f"app-{version}", version, commit_of(version), (HARDWARE,), (TAG,), FILES), now=self.world.now
            )

    def ask(self, method: str, path: str, *, address: str = "127.0.0.1", **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway, client=(address, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **more)

        return asyncio.run(once())

    def auth(self, body: bytes, signature: bytes, *, address: str = "127.0.0.1") -> httpx.Response:
        headers = {"x-men-signature": signature.decode("latin-1")}
        return self.ask("POST", AUTH, address=address, content=body, headers=headers)

    def fleet(self, count: int) -> list[Client]:
        found = [Client(self, f"m{number}").join() for number in range(count)]
        for each in found:
            assert each.tell() == 200
        return found

    def status(self, client: Client) -> UpdateStatus:
        return self.world.status(client.name)

    def bad(self, client: Client) -> frozenset[str]:
        return frozenset(self.world.update(client.name).update.bad)

    def events(self, client: Client) -> list[tuple[str, str | None, str | None]]:
        with self.world.store.reading() as r:
            return [(event.kind, event.code, event.message) for event in r.events(device=client.name, limit=100)]
