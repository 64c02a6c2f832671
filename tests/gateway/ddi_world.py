"""Devices of hawkBit's protocol before the gateway, over the real services and store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from orchestrator.core.artifact import FILES, Artifact, Digests, Format
from orchestrator.core.fleet import Target
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.gateway.ddi.door import DdiDoor
from orchestrator.services.ddi import Ddi
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from orchestrator.services.installable import name_of, smaller_file
from tests.services.fleet_world import HARDWARE, TAG, World

BASE = "http://gateway/DEFAULT/controller/v1"
CANCEL = {"on_halt": ["withdraw", "cancel"]}
LENIENT = {"tolerate": {name: {"at_most": "90%", "then": "count"} for name in ("failed", "rolled_back")}}
NAMES = {"sha1": hashlib.sha1, "md5": hashlib.md5, "sha256": hashlib.sha256}


def content_of(version: int) -> bytes:
    return f"image {version} ".encode() * 100


def artifact_of(version: int) -> Artifact:
    """An image of that version; a device that runs it says ``1.VERSION.0``."""
    content = content_of(version)
    sums = {name: made(content).hexdigest() for name, made in NAMES.items()}
    digests = Digests(sums["sha256"], sums["sha1"], sums["md5"], len(content))
    return Artifact(digests, Format.SWU, "image.swu", "demo", f"1.{version}.0", (HARDWARE,))


@dataclass
class DdiWorld:
    """``root``: where artifacts lie, if they are to be fetched."""

    root: Path = Path("/nowhere")
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        world = self.world
        self.service = service = Ddi(world.devices, world.store, world.settings)
        files = ArtifactServer(self.root, None, world.clock)
        door = DdiDoor(world.devices, service, url="http://gateway", tenant="DEFAULT", files=files)
        self.gateway = Gateway([door], read_seconds=1)

    # ------------------------------------------------------------------------------------- the operator

    def delta(self, before: int, after: int, content: bytes) -> Artifact:
        """A delta that is an artifact itself is recorded, and lies in the store; as the device sees it."""
        pair = DeltaPair(artifact_of(before).sha256, artifact_of(after).sha256)
        sums = {name: made(content).hexdigest() for name, made in NAMES.items()}
        digests = Digests(sums["sha256"], sums["sha1"], sums["md5"], len(content))
        path = f"deltas/{pair.from_commit}/{pair.to_commit}/{name_of(digests, 'swu-delta')}"
        record = DeltaRecord(pair, path, 1, len(content), 0, 0)
        with self.world.store.writing() as w:
            w.record_delta(record, now=self.world.now)
        (self.root / path).parent.mkdir(parents=True)
        (self.root / path).write_bytes(content)
        self.world.devices.refresh()
        found = smaller_file(record, artifact_of(after))
        assert found is not None
        return found.artifact

    def artifact(self, version: int) -> Artifact:
        """An artifact with its Target."""
        artifact = artifact_of(version)
        with self.world.store.writing() as w:
            w.add_artifact(artifact)
            name = f"{HARDWARE}-{version}"
            target = Target(name, version, artifact.sha256, (HARDWARE,), (TAG,), provider=FILES)
            w.add_target(target, now=self.world.now)
        if self.root.is_dir():
            place = self.root / artifact.sha256[:2] / artifact.sha256
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content_of(version))
        return artifact

    def fleet(self, count: int, **rollout: Any) -> list[str]:
        """Devices that run 1.41.0 and have said so, and a rollout of 42 to all of them."""
        self.artifact(41)
        self.artifact(42)
        found = self.world.enroll(count)
        for device in found:
            self.configure(device, "1.41.0")
        self.world.apply(**rollout)
        return found

    # ------------------------------------------------------------------------------------- a device

    def ask(self, method: str, url: str, device: str | None = None, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if device is not None:
            headers = {"authorization": f"TargetToken {self.world.tokens[device]}", **headers}

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, url, headers=headers, **more)

        return asyncio.run(once())

    def get(self, device: str, path: str, **more: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"{BASE}/{device}{path and '/'}{path}"
        return self.ask("GET", url, device, **more)

    def poll(self, device: str) -> dict[str, Any]:
        answer = self.get(device, "")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def links(self, device: str) -> dict[str, str]:
        return {name: link["href"] for name, link in self.poll(device)["_links"].items()}

    def action(self, device: str) -> int:
        """The number of the action that the device is shown."""
        links = self.links(device)
        href = links.get("deploymentBase") or links["cancelAction"]
        return int(href.rpartition("/")[2].partition("?")[0])

    def configure(self, device: str, version: str | None, mode: str | None = None, **more: str) -> httpx.Response:
        data = {**({} if version is None else {"swVersion": version}), **more}
        body = {"id": "", "time": "20261122T035027", "data": data, **({} if mode is None else {"mode": mode})}
        return self.ask("PUT", f"{BASE}/{device}/configData", device, json=body)

    def say(
        self, device: str, action: int, execution: str, finished: str = "none", *details: str, **more: Any
    ) -> httpx.Response:
        return self.post(device, f"deploymentBase/{action}/feedback", body_of(execution, finished, *details, **more))

    def post(self, device: str, path: str, body: Any) -> httpx.Response:
        known = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.ask("POST", f"{BASE}/{device}/{path}", device, **known)

    # ------------------------------------------------------------------------------------- time

    def later(self, by: timedelta) -> None:
        self.world.later(by)

    def close(self) -> None:
        self.world.close()


def body_of(execution: str, finished: str = "none", *details: str, **more: Any) -> Mapping[str, Any]:
    result = {"finished": finished, **({"progress": more.pop("progress")} if "progress" in more else {})}
    status = {"execution": execution, "result": result, "details": list(details), **more.pop("status", {})}
    return {"id": "1", "status": status, **more}
