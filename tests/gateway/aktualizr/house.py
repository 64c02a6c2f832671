"""A small world whose gateway has the door for aktualizr-lite, and clients of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.core.editions import Lifetimes
from orchestrator.gateway.aktualizr.door import AktualizrDoor
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import OwnDoor
from orchestrator.gateway.tls import CERTIFICATE
from orchestrator.services.aktualizr import Aktualizr
from orchestrator.services.catalogue import Catalogue
from orchestrator.services.credentials import Certificate
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.delta_sizes import DeltaSizes, StatsFiles
from orchestrator.services.devices import MOST_KEPT, Devices
from orchestrator.services.editions import Editions
from orchestrator.services.tuf import Tuf
from tests.gateway.aktualizr.client import Ask, Client, Software
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of


def software(version: int) -> Software:
    return Software(f"{HARDWARE}-{version}", version, commit_of(version))


@dataclass
class House:
    """``begin`` opens the gateway; again, as after a restart or in another process."""

    folder: Path
    world: World
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    most_kept: int = MOST_KEPT
    sizes: dict[DeltaPair, DeltaSizes] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self.tuf = Tuf(TufFolder(self.folder), self.world.clock, lifetimes=self.lifetimes)
        self.begin()

    def begin(self, devices: Devices | None = None, *, most_kept: int | None = None) -> None:
        self.devices = devices or self.world.devices
        tuf = Tuf(TufFolder(self.folder), self.world.clock, lifetimes=self.lifetimes)
        kept = self.most_kept if most_kept is None else most_kept
        self.editions = Editions(self.world.store, self.devices.writer, tuf, self.world.clock, most_kept=kept)
        catalogue = Catalogue(self.world.store, self.world.clock)
        stats = StatsFiles(self.sizes.get)
        service = Aktualizr(self.world.store, self.devices, self.editions, catalogue, stats, self.world.clock)
        self.gateway = Gateway([OwnDoor(self.devices), AktualizrDoor(self.devices, service)])

    def tuf_again(self) -> Tuf:
        """As another process would have it."""
        return Tuf(TufFolder(self.folder), self.world.clock, lifetimes=self.lifetimes)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", **more: Any
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, headers=headers, content=body, **more)

        found = asyncio.run(once())
        self.asked.append((method, path, found.status_code))
        return found

    async def _call(
        self, method: str, path: str, headers: dict[str, str], body: bytes, extensions: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """One request without a library between."""
        sent: list[Any] = []
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": named,
        }
        scope["extensions"] = extensions or {}

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        self.asked.append((method, path, sent[0]["status"]))
        return sent[0]["status"], sent[1]["body"]

    def client(self, device: str, version: int = 41, *, tags: str = TAG) -> Client:
        base = f"/d/{device}/{self.world.tokens[device]}"

        def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
            return asyncio.run(self._call(method, f"{base}{path}", headers, body))

        return self._client(device, version, tags, ask)

    def certified(self, device: str, version: int = 41) -> Client:
        """Known by the certificate of its connection."""
        shown = Certificate(
            device, "0a", "f" * 64, self.world.now - timedelta(days=1), self.world.now + timedelta(days=9)
        )

        def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
            return asyncio.run(self._call(method, path, headers, body, {CERTIFICATE: shown}))

        return self._client(device, version, TAG, ask)

    def _client(self, device: str, version: int, tags: str, ask: Ask) -> Client:
        return Client(device, HARDWARE, tags, software(version), ask, self.world.clock)
