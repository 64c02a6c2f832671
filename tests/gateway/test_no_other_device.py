"""A device can never read or report for another: every route of every door, by everything that a device may have.

The routes are those that the doors describe, so a new one is tried without being named here. Each that names a device
is asked for device ``theirs`` with whatever device ``mine`` holds; each that takes the device from what is shown is
shown all that ``mine`` could make of that; the answer must be the one that nonsense gets, to the byte, and in the store
nothing may have moved.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.http import Receive, Scope, Send
from orchestrator.gateway.openapi import describe
from orchestrator.gateway.tls import CERTIFICATE
from orchestrator.services.credentials import Certificate, GrantKind, RevokedKind
from tests.gateway.aktualizr.house import House as AktualizrHouse
from tests.gateway.ddi_world import DdiWorld
from tests.gateway.every_door import every_door
from tests.gateway.mender_house import House as MenderHouse
from tests.services.fleet_world import HARDWARE, TAG, World, commit_of

DAY = timedelta(days=1)

BODIES: dict[str, Any] = {
    "check-in": {"commit": commit_of(42), "version": 42},
    "reports": {"events": [{"id": "e", "rollout": "lmp-42", "target": 42, "event": "failed"}]},
    "configData": {"id": "", "data": {"swVersion": "1.42.0"}},
    "feedback": {"id": 1, "status": {"result": {"finished": "failure"}, "execution": "closed", "details": [""]}},
    "status": {"status": "failure"},
    "events": [{"id": "e", "eventType": {"id": "EcuInstallationCompleted"}, "event": {"success": False}}],
    "attributes": [{"name": "device_type", "value": HARDWARE}, {"name": "artifact_name", "value": "app-42"}],
    "next": {"artifact_name": "app-42", "device_provides": {"artifact_name": "app-42", "device_type": HARDWARE}},
    "log": {"messages": [{"level": "error", "message": "no"}]},
}

ENROLMENT = "/v1/enroll"
"""The one route that is shown something of no device: what makes one known."""


@dataclass
class Doors:
    """All doors over one world, a rollout that is offered to both devices, and what ``mine`` can show."""

    ddi: DdiWorld
    gateway: Gateway
    aktualizr: AktualizrHouse
    mine: str
    theirs: str
    action: int

    def ask(
        self, method: str, path: str, headers: dict[str, str], certificate: Certificate | None = None, body: Any = None
    ) -> httpx.Response:
        """As a connection with a client certificate would; aktualizr's paths go to its own house."""
        gateway = self.aktualizr.gateway if path.startswith(("/d/", "/device")) else self.gateway

        return asked(gateway, method, path, headers, certificate, body)

    def held(self) -> list[tuple[str, dict[str, str], Certificate | None]]:
        """All that ``mine`` may come to have, by a name."""
        world, identity = self.ddi.world, self.ddi.world.devices.identity
        own = world.tokens[self.mine]
        _, scoped = identity.add(GrantKind.GATEWAY, by="anna", group="mine")
        _, elsewhere = identity.add(
            GrantKind.GATEWAY, by="anna", tag="devel", hardware_ids=[HARDWARE], may_register=True, uses=1
        )
        _, enrolment = identity.add(GrantKind.ENROLMENT, by="anna", tag=TAG, uses=9)
        now = world.now
        certificate = Certificate(self.mine, "a1", "a1" * 32, now - DAY, now + DAY)
        revoked = Certificate(self.theirs, "b1", "b1" * 32, now - DAY, now + DAY)
        over = Certificate(self.theirs, "c1", "c1" * 32, now - 2 * DAY, now - DAY)
        identity.revoke_certificates(RevokedKind.SERIAL, "b1", by="anna")
        shown = [
            (f"{scheme} {name}", {"authorization": f"{scheme} {token}"}, None)
            for name, token in (
                ("own token", own),
                ("gateway token of another group", scoped),
                ("gateway token of another tag", elsewhere),
                ("enrolment token", enrolment),
            )
            for scheme in ("Bearer", "TargetToken", "GatewayToken")
        ]
        return [
            *shown,
            ("own certificate", {}, certificate),
            ("their revoked certificate", {}, revoked),
            ("their ended certificate", {}, over),
            ("own token and certificate", {"authorization": f"Bearer {own}"}, certificate),
        ]

    def routes(self) -> list[tuple[str, str]]:
        """Every described route that names a device."""
        return [(method, path) for method, path, _ in routes_of(self.ddi.world) if "{device}" in path]


def asked(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], certificate: Certificate | None, body: Any
) -> httpx.Response:
    async def worn(scope: Scope, receive: Receive, send: Send) -> None:
        if certificate is not None:
            scope = {**scope, "extensions": {CERTIFICATE: certificate}}
        await gateway(scope, receive, send)

    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(worn), base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers, json={} if body is None else body)

    return asyncio.run(once())


def routes_of(world: World) -> list[tuple[str, str, bool]]:
    """Every described route, and whether it is for anybody."""
    return [
        (method.upper(), path, "security" not in operation)
        for path, methods in describe(every_door(world))["paths"].items()
        for method, operation in methods.items()
    ]


def everything(world: World) -> dict[str, list[Any]]:
    """Every row of the store."""
    with world.store.reading() as r:
        names = [row[0] for row in r.link.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: r.link.rows(f"SELECT * FROM {name}") for name in names}


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    ddi = DdiWorld(tmp_path)
    mine, theirs = ddi.fleet(2)
    world = ddi.world
    world.devices.set_group([mine], "mine")
    action = ddi.action(theirs)
    ddi.action(mine)
    aktualizr = AktualizrHouse(tmp_path / "tuf", world)
    yield Doors(ddi, Gateway(every_door(world)), aktualizr, mine, theirs, action)
    ddi.close()


def body_for(path: str) -> Any:
    return BODIES.get(path.rpartition("/")[2])


def real(path: str, device: str, doors: Doors, secret: str) -> str:
    known = {"device": device, "action": str(doors.action), "name": "image.swu", "secret": secret}
    known |= {"version": "1", "sha256": "0" * 64}
    return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], path)


def test_whatever_a_device_has_it_can_neither_read_nor_report_for_another(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    held, routes = doors.held(), doors.routes()
    own = doors.ddi.world.tokens[doors.mine]
    assert len(routes) > 20
    before = everything(doors.ddi.world)
    tried = 0
    for method, path in routes:
        nonsense = doors.ask(
            method,
            real(path, doors.theirs, doors, "n" * 43),
            {"authorization": "Bearer nonsense"},
            body=body_for(path),
        )
        assert nonsense.status_code == 401, (method, path, nonsense.text)
        for name, headers, certificate in held:
            targets = [real(path, doors.theirs, doors, own)]
            if "another tag" not in name:  # this one would make it known
                targets.append(real(path, "nobody", doors, own))
            for target in targets:
                told = doors.ask(method, target, headers, certificate, body_for(path))
                assert (told.status_code, told.content) == (401, nonsense.content), (name, method, target)
                tried += 1
    assert everything(doors.ddi.world) == before
    assert tried == (2 * len(held) - 3) * len(routes)
    ours = [each for each in caplog.records if each.name != "httpx"]  # the test's own client logs what it asks for
    said = json.dumps([(each.getMessage(), str(each.args), each.exc_text) for each in ours])
    for secret in [*doors.ddi.world.tokens.values(), *(h["authorization"].split()[1] for _, h, _ in held if h)]:
        assert secret not in said


def test_the_same_routes_serve_the_device_itself(doors: Doors) -> None:
    """So the refusals above are not those of routes that serve nobody."""
    own = doors.ddi.world.tokens[doors.theirs]
    for method, path in doors.routes():
        told = doors.ask(
            method, real(path, doors.theirs, doors, own), {"authorization": f"Bearer {own}"}, body=body_for(path)
        )
        assert told.status_code not in (401, 403, 405, 500), (method, path, told.status_code, told.text)


def test_without_a_path_that_says_who_it_is_a_certificate_is_its_own_device(doors: Doors) -> None:
    now = doors.ddi.world.now
    certificate = Certificate(doors.mine, "a1", "a1" * 32, now - DAY, now + DAY)
    assert doors.ask("GET", "/device", {}, certificate).json() == {"Name": doors.mine}
    assert doors.ask("GET", "/device", {}).status_code == 401
    at = f"/d/{doors.theirs}/{'n' * 43}/device"
    assert doors.ask("GET", at, {}, certificate).status_code == 401, "who names a device shows its secret"


def test_every_route_names_its_device_or_takes_it_from_what_is_shown_or_is_for_anybody(doors: Doors) -> None:
    """So that each is tried above or below, whatever door it is added to."""
    for_anybody = {path for _, path, anybody in routes_of(doors.ddi.world) if anybody}
    assert for_anybody == {"/healthz", "/api/devices/v1/authentication/auth_requests"}
    assert not any("{device}" in path for path in for_anybody)


@dataclass
class Shown:
    """Doors whose routes take the device from what is shown; a rollout is offered to both devices."""

    house: MenderHouse
    gateway: Gateway
    mine: str
    theirs: str
    own: str
    deployments: dict[str, str]
    former: str

    def ask(
        self, method: str, path: str, token: str | None, certificate: Certificate | None = None, deployment: str = ""
    ) -> httpx.Response:
        headers = {} if token is None else {"authorization": token}
        real = path.replace("{deployment}", deployment or self.deployments[self.theirs])
        return asked(self.gateway, method, real, headers, certificate, body_for(path))

    def routes(self) -> list[tuple[str, str]]:
        return [
            (method, path)
            for method, path, anybody in routes_of(self.house.world)
            if not anybody and "{device}" not in path and path != ENROLMENT
        ]

    def made_up(self) -> list[tuple[str | None, Certificate | None]]:
        """All that ``mine`` could make of what it has, to pass for ``theirs``."""
        world = self.house.world
        name, end, secret = self.own.split(".")
        their_name = base64.urlsafe_b64encode(self.theirs.encode()).decode().rstrip("=")
        _, scoped = world.devices.identity.add(GrantKind.GATEWAY, by="anna", group="mine")
        _, enrolment = world.devices.identity.add(GrantKind.ENROLMENT, by="anna", tag=TAG, uses=9)
        now = world.now
        world.devices.identity.revoke_certificates(RevokedKind.SERIAL, "b1", by="anna")
        tokens = [
            f"{their_name}.{end}.{secret}",
            f"{their_name}.{int(end, 16) + 9:x}.{secret}",
            f"{name}.{int(end, 16) + 9:x}.{secret}",
            f"{their_name}.{end}.{secret}.{self.own}",
            f"{their_name}.{end}.",
            self.former,
            scoped,
            enrolment,
        ]
        return [
            *((f"{scheme} {token}", None) for token in tokens for scheme in ("Bearer", "TargetToken", "GatewayToken")),
            (None, Certificate(self.theirs, "b1", "b1" * 32, now - DAY, now + DAY)),
            (None, Certificate(self.theirs, "c1", "c1" * 32, now - 2 * DAY, now - DAY)),
        ]


@pytest.fixture
def shown_doors() -> Iterator[Shown]:
    house = MenderHouse()
    mine, theirs = house.fleet(2)
    house.world.apply()
    former = theirs.token
    house.world.later(timedelta(seconds=10))
    theirs.authenticate()
    deployments = {each.name: each.offered() for each in (mine, theirs)}
    gateway = Gateway(every_door(house.world))
    yield Shown(house, gateway, mine.name, theirs.name, mine.token, deployments, former)
    house.world.close()


def refusal(answer: httpx.Response) -> Any:
    """Without the number of the request."""
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def test_where_the_device_is_taken_from_what_is_shown_nobody_can_pass_for_another(shown_doors: Shown) -> None:
    world, routes, tried = shown_doors.house.world, shown_doors.routes(), shown_doors.made_up()
    assert len(routes) == 7
    before = everything(world)
    for method, path in routes:
        for token, certificate in tried:
            told = shown_doors.ask(method, path, token, certificate)
            assert told.status_code == 401, (method, path, token, told.text)
            bearer = token is None or token.startswith("Bearer")
            nonsense = shown_doors.ask(method, path, "Bearer nonsense" if bearer else "TargetToken nonsense")
            assert refusal(told) == refusal(nonsense), (method, path, token)
    assert everything(world) == before


def test_who_is_let_in_can_name_no_deployment_of_another(shown_doors: Shown) -> None:
    world = shown_doors.house.world
    named = [(method, path) for method, path in shown_doors.routes() if "{deployment}" in path]
    certificate = Certificate(shown_doors.mine, "a1", "a1" * 32, world.now - DAY, world.now + DAY)
    before = everything(world)
    for method, path in named:
        for token, worn in ((f"Bearer {shown_doors.own}", None), (None, certificate)):
            nonsense = shown_doors.ask(method, path, token, worn, "00000000-0000-8000-8000-000000000000")
            told = shown_doors.ask(method, path, token, worn)
            assert (told.status_code, refusal(told)) == (404, refusal(nonsense)), (method, path)
    assert len(named) == 2
    assert everything(world) == before


def test_the_same_routes_serve_whom_they_are_shown(shown_doors: Shown) -> None:
    for method, path in shown_doors.routes():
        deployment = shown_doors.deployments[shown_doors.mine]
        told = shown_doors.ask(method, path, f"Bearer {shown_doors.own}", deployment=deployment)
        assert told.status_code in (200, 204), (method, path, told.status_code, told.text)
