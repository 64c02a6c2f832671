"""Whatever the gateway refuses is counted, once, by the door and the kind that was told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.core.limits import OFF, Limit
from orchestrator.gateway import guard
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.gateway.counting import counted
from orchestrator.gateway.files import FileServer
from orchestrator.gateway.http import KINDS
from orchestrator.gateway.limits import Limits
from orchestrator.gateway.own import CHECK_IN_BYTES, OwnDoor
from orchestrator.services.downloads import Signer
from orchestrator.services.metering import Refusals
from tests.gateway.every_door import every_door
from tests.gateway.own_door import body_of
from tests.gateway.test_server import connected, exchange, serving, told
from tests.services.fleet_world import World


@pytest.fixture
def refused() -> Refusals:
    return Refusals()


class Asked:
    """Every door, with files behind."""

    def __init__(self, world: World, refused: Refusals, folder: Path) -> None:
        self.world = world
        self.refused = refused
        signer = Signer(lambda: b"k" * 32)
        self.gateway = Gateway(
            every_door(world),
            files=FileServer(folder, on_sent=counted("ostree", refused)),
            artifacts=ArtifactServer(folder, signer, world.clock, on_sent=counted("artifacts", refused)),
            refused=refused,
        )

    def ask(self, method: str, path: str, **more: Any) -> int:
        """The status; one refused request counts one."""

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **more)

        before = sum(self.refused.counts.values())
        answer = asyncio.run(once())
        assert sum(self.refused.counts.values()) == before + (answer.status_code >= 400)
        return answer.status_code


@pytest.fixture
def asked(world: World, refused: Refusals, tmp_path: Path) -> Asked:
    (tmp_path / "config").write_text("[core]")
    return Asked(world, refused, tmp_path)


def test_bad_input_is_refused_with_a_defined_answer_and_counted(asked: Asked) -> None:
    one, other = asked.world.enroll(2)
    mine = {"authorization": f"Bearer {asked.world.tokens[one]}"}
    check_in = f"/v1/devices/{one}/check-in"
    ask = asked.ask
    assert ask("POST", check_in, headers=mine, json=body_of(41)) == 200
    assert ask("POST", f"/v1/devices/{other}/check-in", headers=mine, json=body_of(41)) == 401
    assert ask("POST", "/v1/devices/%2e%2e%2fadmin/check-in", headers=mine, json=body_of(41)) == 401
    assert ask("POST", check_in, headers=mine, content=b"x" * (CHECK_IN_BYTES + 1)) == 413
    assert ask("POST", check_in, headers=mine, content=b"\xff\xfe{}") == 400
    assert ask("POST", check_in, headers=mine, content=b"\x1f\x8b\x08" + bytes(60)) == 400
    assert ask("GET", check_in, headers=mine) == 405
    assert ask("GET", "/nothing") == 404
    assert ask("GET", "/DEFAULT/controller/v1/somebody") == 401
    assert ask("GET", "/api/devices/v1/deployments/device/deployments/next") == 401
    assert ask("GET", "/repo/timestamp.json") == 401
    assert ask("GET", "/ostree/config") == 200
    assert ask("GET", "/ostree/../wave.db") == 404
    assert ask("DELETE", "/ostree/config") == 405
    assert ask("GET", f"/artifacts/{'0' * 64}/a.swu") == 403
    assert asked.refused.counts == {
        ("own", "unauthorized"): 2,
        ("own", "too_large"): 1,
        ("own", "not_json"): 2,
        ("own", "method_not_allowed"): 1,
        ("none", "not_found"): 2,
        ("ddi", "unauthorized"): 1,
        ("mender", "unauthorized"): 1,
        ("aktualizr", "unauthorized"): 1,
        ("ostree", "method_not_allowed"): 1,
        ("artifacts", "forbidden"): 1,
    }


def test_every_door_has_a_name_of_its_own(world: World) -> None:
    names = [door.name for door in every_door(world)]
    assert len(set(names)) == len(names)
    assert all(name.isalpha() for name in names)


def test_what_is_counted_is_bounded(asked: Asked) -> None:
    for number in range(50):
        asked.ask("GET", f"/nothing/{number}")
        asked.ask("POST", f"/v1/devices/dev-{number}/check-in", headers={"authorization": f"Bearer {number}"})
    assert len(asked.refused.counts) == 2
    assert {kind for _, kind in asked.refused.counts} <= KINDS


def test_who_asks_too_often_is_counted_by_the_limit_that_said_so(world: World, refused: Refusals) -> None:
    limits = Limits(per_device=Limit(1, "min", 1), per_address=OFF, failures=OFF)
    gateway = Gateway([OwnDoor(world.devices)], limits=limits, refused=refused)
    (device,) = world.enroll(1)
    token = {"authorization": f"Bearer {world.tokens[device]}"}

    async def thrice() -> None:
        transport = httpx.ASGITransport(gateway, client=("203.0.113.5", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for _ in range(3):
                await client.post(f"/v1/devices/{device}/check-in", json=body_of(41), headers=token)

    asyncio.run(thrice())
    assert refused.counts == {("own", "too_many"): 2}
    assert limits.refused == {"address": 0, "device": 2, "failures": 0}


def test_what_never_becomes_a_request_is_counted(
    world: World, refused: Refusals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    with serving(Gateway([OwnDoor(world.devices)]), refused=refused) as (_, port):
        assert exchange(port, b"what is this?\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert exchange(port, b"GET /healthz HTTP/1.1\r\n").startswith(b"HTTP/1.1 408")
        with pytest.raises(ConnectionError), connected(port) as line:  # noqa: PT012 - whichever send sees it
            line.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(2_000):
                line.sendall(b"x-%d: %s\r\n" % (number, b"x" * 10_000))
    assert refused.counts == {
        ("connection", "not_http"): 1,
        ("connection", "too_slow"): 1,
        ("connection", "too_large"): 1,
    }


def test_connections_above_the_bound_are_counted(world: World, refused: Refusals) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(Gateway([OwnDoor(world.devices)]), at_once=1, refused=refused) as (_, port), connected(port):
        assert told(port, ask).startswith(b"HTTP/1.1 503")
    assert refused.counts == {("connection", "too_many"): 1}
