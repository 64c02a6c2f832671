"""Simulated devices: the reference device's protocol without its disk. They ask, fetch nothing, wait and tell.

All of them live in one event loop in one thread. Each has its own token and its own connection, which stays open as a
device's would; a connection that broke is made again.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from examples.demo.fleet import TAG, Member, Notes
from examples.demo.trees import BAD

ANSWER_WITHIN: Final = 20.0
"""Seconds until a device gives an answer up."""

DOWNLOADS: Final = (0.3, 1.6)
INSTALLS: Final = (0.3, 0.9)
REBOOTS: Final = (0.4, 1.2)
"""Seconds that a simulated device takes for each, at least and at most."""


class SimulatedFleet:
    """Starts with ``start`` and ends with ``stop``; between them the devices run in a thread of their own."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        server: str,
        tokens: Mapping[str, str],
        commits: Mapping[tuple[str, int], str],
        notes: Notes,
    ) -> None:
        self._devices = [
            SimulatedDevice(each, server, tokens[each.id], commits[each.hardware_id, each.version], notes)
            for each in members
        ]
        self._thread = threading.Thread(target=self._run, name="simulated devices", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._live())

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(device.run()) for device in self._devices]
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class SimulatedDevice:
    """A state machine with realistic short delays. On the bad hardware id the bad version fails its health check, as on
    the real ones."""

    member: Member
    server: str
    token: str
    commit: str
    notes: Notes
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.version = self.member.version
        self._random = random.Random(self.member.id)
        address = urlsplit(self.server)
        self._connection = Connection(
            address.hostname or "127.0.0.1", address.port or 80, address.path.rstrip("/"), self.token
        )

    async def run(self) -> None:
        """Until it is cancelled."""
        await asyncio.sleep(self._random.random())
        try:
            while True:
                try:
                    pause = await self.step()
                except (TimeoutError, OSError, ValueError, EOFError):
                    pause = 1.0
                await asyncio.sleep(pause)
        finally:
            self._connection.close()

    async def step(self) -> float:
        """One check-in and the update it may lead to; the seconds until the next."""
        answer = await self._check_in()
        offer = answer["offer"]
        if offer is not None and offer["target"]["commit"] != self.commit:
            await self._update(offer)
            answer = await self._check_in()
        return float(answer["check_in_after"])

    async def _update(self, offer: dict[str, Any]) -> None:
        target = offer["target"]
        for event, (at_least, at_most) in (("downloading", DOWNLOADS), ("installing", INSTALLS), ("applied", REBOOTS)):
            await self._tell(event, offer)
            await asyncio.sleep(self._random.uniform(at_least, at_most))
        if (self.member.hardware_id, target["version"]) == BAD:
            why = f"ended with 1: board firmware does not fit {self.member.hardware_id}"
            await self._tell("rolled_back", offer, code="unhealthy", message=why)
        else:
            self.commit, self.version = target["commit"], target["version"]

    async def _check_in(self) -> dict[str, Any]:
        await self._send()
        facts = {"commit": self.commit, "version": self.version, "hardware_id": self.member.hardware_id}
        sent_at = datetime.now(UTC)
        answer: dict[str, Any] = await self._post("check-in", {**facts, "tag": TAG, "labels": {}})
        self.notes.checked_in(self.member.id, sent_at, answer["offer"])
        return answer

    async def _tell(self, event: str, offer: dict[str, Any], **why: str) -> None:
        fields = {"id": str(uuid.uuid4()), "rollout": offer["rollout"], "target": offer["target"]["version"]}
        self.events.append({**fields, "event": event, "at": datetime.now(UTC).isoformat(), **why})
        with suppress(OSError, ValueError, EOFError, asyncio.TimeoutError):
            await self._send()

    async def _send(self) -> None:
        """An event stays here, under the same id, until the server has taken it."""
        while self.events:
            batch, sent_at = self.events[:100], datetime.now(UTC)
            await self._post("reports", {"events": batch})
            self.notes.reported(self.member.id, [each["id"] for each in batch], sent_at)
            del self.events[: len(batch)]

    async def _post(self, what: str, body: dict[str, Any]) -> Any:
        path = f"/v1/devices/{quote(self.member.id, safe='')}/{what}"
        return await asyncio.wait_for(self._connection.post(path, body), ANSWER_WITHIN)


class Connection:
    """As much HTTP/1.1 as a device needs: one request at a time, JSON there and back, the connection kept."""

    def __init__(self, host: str, port: int, prefix: str, token: str) -> None:
        self._host, self._port, self._prefix, self._token = host, port, prefix, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object) -> Any:
        """The answer's body. Raises OSError for a broken connection and for any status but 2xx."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            return await self._exchange(*self._streams, path, json.dumps(body).encode())
        except BaseException:
            self.close()  # whatever went wrong, what comes next on it may belong to something else
            raise

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, content: bytes
    ) -> Any:
        writer.write(
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
        answer = await reader.readexactly(int(headers.get("content-length", "0")))
        status = int(head[0].split()[1])
        if headers.get("connection", "").lower() == "close":
            self.close()
        if not 200 <= status < 300:
            raise ConnectionError(f"{path}: {status}: {answer[:200].decode(errors='replace')}")
        return json.loads(answer or b"null")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
