"""Bad input at every door for devices: refused with a defined answer, and counted once, by the door and that answer.

=========================  =============================================================================================
path traversal             in every part of every route that is named in a path, below; of files also in test_files.py
giant bodies               every route that takes one: by its head before a byte is read, else where it is full
slow bodies                every route that takes one, below; heads and connections in test_counting.py
bombs                      nothing is ever unpacked: every route that takes a body, below
wrong encodings            every route that takes a body, below, and by the parsers in test_parsers_fuzzed.py
tokens of other devices    every route, below; all that a device may hold in test_no_other_device.py
replayed and reordered     every route that reports, below; any order ends in the same state: services/test_order.py
uploads                    tests/web/test_uploads.py: they come from people
=========================  =============================================================================================

The routes are those that the doors describe, so a new one is tried without being named here.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.core.ddi import action_of
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.artifact_files import ArtifactServer
from orchestrator.gateway.counting import counted
from orchestrator.gateway.files import FileServer
from orchestrator.gateway.http import KINDS
from orchestrator.gateway.openapi import Described
from orchestrator.services.credentials import GrantKind
from orchestrator.services.metering import Refusals
from tests.gateway.every_door import every_door
from tests.gateway.mender_house import Client, House
from tests.gateway.test_no_other_device import BODIES
from tests.services.fleet_world import HARDWARE, TAG, commit_of
from tests.services.mender.keys import request_of

CHUNK = 64 * 1024
BOMB = gzip.compress(bytes(64 << 20), 9)
"""64 KiB that would be 64 MiB."""

TELLS_ANYTHING = re.compile(r".*/system_info(/network|/config)?")
"""What a device tells of itself here is kept as it comes, up to a mebibyte, shown and never read."""

ELSEWHERE = [
    "..",
    ".",
    "../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fwave.db",
    "m0\0",
    "m0\n",
    "m0;x",
    "~root",
    "\udcff",
    "ä" * 40,
    "x" * 129,
    "x" * 100_000,
    "",
]

NOTHING: Mapping[str, str] = {}

Receive = Callable[[], Awaitable[dict[str, Any]]]


class Route(NamedTuple):
    """As a door describes it. ``takes``: whether it has a body."""

    door: str
    method: str
    path: str
    takes: bool

    @property
    def what(self) -> str:
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Told(NamedTuple):
    """What was answered; ``counts``: by which it was counted, without the rest."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    counts: dict[tuple[str, str], int]


@dataclass
class Doors:
    """Every door, files and artifacts behind, over one world in which a rollout is offered to two devices."""

    folder: Path
    house: House = field(default_factory=House)
    refused: Refusals = field(default_factory=Refusals)

    def __post_init__(self) -> None:
        world = self.house.world
        self.mine, self.theirs = self.house.fleet(2)
        world.apply()
        self.deployments = {each.name: each.offered() for each in (self.mine, self.theirs)}
        self.action = action_of(world.row().key, 1)
        _, self.enrolment = world.devices.identity.add(GrantKind.ENROLMENT, by="anna", tag=TAG, uses=99)
        doors = every_door(world)
        self.gateway = Gateway(
            doors,
            files=FileServer(self.folder, on_sent=counted("ostree", self.refused)),
            artifacts=ArtifactServer(self.folder, None, world.clock, on_sent=counted("artifacts", self.refused)),
            read_seconds=0.05,
            refused=self.refused,
        )
        self.routes = [
            Route(door.name, each.method, each.path, takes=each.method in ("POST", "PUT", "PATCH"))
            for door in doors
            if isinstance(door, Described)
            for each in door.routes()
            if each.path != "/healthz"
        ]

    @property
    def with_body(self) -> list[Route]:
        return [each for each in self.routes if each.takes]

    def path(self, route: Route, of: Client | None = None, instead: Mapping[str, str] = NOTHING) -> str:
        client = of or self.mine
        known = {
            "device": client.name,
            "secret": client.token,
            "action": str(self.action),
            "deployment": self.deployments[client.name],
            "name": "app-42.mender",
            "version": "1",
            "sha256": "0" * 64,
            **instead,
        }
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], route.path)

    def shown(self, route: Route, by: Client | None = None) -> dict[str, str]:
        token = (by or self.mine).token
        if route.what == "enroll":
            return {"authorization": f"Bearer {self.enrolment}"}
        if route.what == "auth_requests":
            return {"x-men-signature": request_of("stranger")[1].decode()}
        return {} if route.door == "aktualizr" else {"authorization": f"Bearer {token}"}

    def good(self, route: Route) -> bytes:
        match route.what:
            case "enroll":
                return json.dumps({"device": "new-1", "hardware_id": HARDWARE}).encode()
            case "auth_requests":
                return request_of("stranger")[0]
            case "next" if "/v1/" in route.path:
                return json.dumps({"artifact_name": "app-41", "device_type": HARDWARE}).encode()
            case "apps-states":
                return b'{"apps": {"shell": {"state": "healthy"}}}'
            case what:
                return json.dumps(BODIES.get(what, {"a": 1})).encode()

    def call(self, route: Route, path: str, receive: Receive | bytes, **headers: str) -> Told:
        """One request, as the server hands it over: its path is decoded already."""
        sent: list[Any] = []

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": receive, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        shown = headers.pop("shown", None)
        named = {**(self.shown(route) if shown is None else json.loads(shown)), **headers}
        scope = {
            "type": "http",
            "method": route.method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogateescape"),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()],
            "client": ("192.0.2.1", 4711),
        }
        before = Counter(self.refused.counts)
        asyncio.run(self.gateway(scope, whole if isinstance(receive, bytes) else receive, send))
        counts = dict(Counter(self.refused.counts) - before)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        told = Told(sent[0]["status"], dict(sent[0]["headers"]), body, counts)
        assert sum(counts.values()) == (told.status >= 400), (str(route), told)
        assert all(door == route.door and kind in KINDS for door, kind in counts)
        return told


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    (tmp_path / "config").write_text("[core]")
    made = Doors(tmp_path)
    yield made
    made.house.world.close()


def test_what_is_good_is_taken_at_every_route_that_takes_a_body(doors: Doors) -> None:
    """So what is refused below is refused for what is bad in it."""
    assert len(doors.with_body) == 18
    # A stranger waits for a person; what the own door was told first is the end of the action that hawkBit's names.
    answers = {"auth_requests": {401}, "feedback": {200, 410}}
    for route in doors.with_body:
        told = doors.call(route, doors.path(route), doors.good(route))
        assert told.status in answers.get(route.what, {200, 204}), (str(route), told)


def test_giant_bodies(doors: Doors) -> None:
    for route in doors.with_body:
        path = doors.path(route)

        async def untouched() -> dict[str, Any]:
            raise AssertionError("the body was read")

        for length in ("10000000", "9" * 30):
            told = doors.call(route, path, untouched, content_length=length)
            assert (told.status, told.counts) == (413, {(route.door, "too_large"): 1}), (str(route), told)
            assert told.headers[b"connection"] == b"close"
        read = 0

        async def endless() -> dict[str, Any]:
            nonlocal read
            read += CHUNK
            return {"type": "http.request", "body": b" " * CHUNK, "more_body": True}

        told = doors.call(route, path, endless, transfer_encoding="chunked")
        assert (told.status, told.counts) == (413, {(route.door, "too_large"): 1}), (str(route), told)
        assert read <= (1 << 20) + CHUNK, "no more is held than the largest body that is taken"


def test_slow_bodies(doors: Doors) -> None:
    for route in doors.with_body:
        pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def stalls(pieces: list[dict[str, Any]] = pieces) -> dict[str, Any]:
            if not pieces:
                await asyncio.Event().wait()
            return pieces.pop()

        told = doors.call(route, doors.path(route), stalls)
        assert (told.status, told.counts) == (408, {(route.door, "too_slow"): 1}), (str(route), told)
        assert told.headers[b"connection"] == b"close"


def test_bombs(doors: Doors) -> None:
    """They are bytes like others: no body is unpacked, whatever its head says."""
    assert len(BOMB) < CHUNK * 1.1
    for route in doors.with_body:
        told = doors.call(route, doors.path(route), BOMB[:15_000], content_encoding="gzip")
        if TELLS_ANYTHING.fullmatch(route.path):
            assert told.status == 200
            continue
        assert told.status == 400, (str(route), told)
        assert set(told.counts) <= {(route.door, "not_json"), (route.door, "invalid_report")}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda body: body.decode().encode("utf-16"),
        lambda body: body.decode().encode("utf-32"),
        lambda body: b"\xff" + body,
        lambda body: body + b"\0",
        lambda body: b"\xef\xbb\xbf\xef\xbb\xbf" + body,
        lambda body: b"[" * 10_000,
        lambda body: body[:-2],
        lambda body: b"",
    ],
    ids=["utf-16", "utf-32", "no utf-8", "nul behind", "two marks", "deep", "cut off", "empty"],
)
def test_wrong_encodings(doors: Doors, wrong: Callable[[bytes], bytes]) -> None:
    for route in doors.with_body:
        if route.what == "auth_requests":
            continue  # read byte by byte for its signature: services/mender/test_letting_in.py
        told = doors.call(route, doors.path(route), wrong(doors.good(route)))
        if TELLS_ANYTHING.fullmatch(route.path):
            assert told.status == 200
            continue
        assert told.status == 400, (str(route), told)
        assert set(told.counts) <= {(route.door, "not_json"), (route.door, "invalid_report")}


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=range(len(ELSEWHERE)))
def test_a_path_that_leads_elsewhere(doors: Doors, elsewhere: str) -> None:
    """In each of the parts that a path names."""
    tried = 0
    for route in doors.routes:
        for part in re.findall(r"\{(\w+)\}", route.path):
            told = doors.call(route, doors.path(route, instead={part: elsewhere}), doors.good(route))
            assert told.status in (401, 404), (str(route), part, told)
            assert set(told.counts) <= {(route.door, "unauthorized"), (route.door, "not_found")}
            assert b"core" not in told.body and len(told.body) < 1_000
            tried += 1
    assert tried > 40
    for door, at in (("ostree", f"/ostree/{elsewhere}"), ("artifacts", f"/artifacts/{elsewhere}/a.swu")):
        told = doors.call(Route(door, "GET", at, takes=False), at, b"", shown="{}")
        assert (told.status, told.counts) == (404, {(door, "not_found"): 1})


def test_tokens_of_other_devices(doors: Doors) -> None:
    for route in doors.routes:
        named = set(re.findall(r"\{(\w+)\}", route.path))
        if not named & {"device", "deployment"}:
            continue
        path = doors.path(route, doors.theirs, {"secret": doors.mine.token})
        told = doors.call(route, path, doors.good(route))
        status, kind = (401, "unauthorized") if "device" in named else (404, "not_found")
        assert (told.status, told.counts) == (status, {(route.door, kind): 1}), (str(route), told)
    assert doors.house.status(doors.theirs) == "offered"


REPORTS = {
    "own": "/v1/devices/{device}/reports",
    "ddi": "/DEFAULT/controller/v1/{device}/deploymentBase/{action}/feedback",
    "mender": "/api/devices/v1/deployments/device/deployments/{deployment}/status",
    "aktualizr": "/d/{device}/{secret}/events",
}


def said(door: str, kind: str) -> bytes:
    """That it downloads, installs, or has applied, in the words of the door."""
    number = ["downloading", "installing", "applied"].index(kind)
    match door:
        case "own":
            return json.dumps({"events": [{"id": kind, "rollout": "lmp-42", "target": 42, "event": kind}]}).encode()
        case "ddi":
            execution, finished = ("closed", "success") if kind == "applied" else ("proceeding", "none")
            result = {"finished": finished, "progress": {"cnt": number, "of": 2}}
            return json.dumps({"id": 1, "status": {"execution": execution, "result": result, "details": []}}).encode()
        case "mender":
            return json.dumps({"status": "success" if kind == "applied" else kind}).encode()
        case _:
            name = ["EcuDownloadStarted", "EcuInstallationStarted", "EcuInstallationApplied"][number]
            about = {"version": "42", "targetName": "app-42", "correlationId": "42-x"}
            return json.dumps([{"id": kind, "eventType": {"id": name, "version": 0}, "event": about}]).encode()


@pytest.mark.parametrize("door", REPORTS)
def test_replayed_and_reordered_feedback(doors: Doors, door: str) -> None:
    """Told again it is taken for what it is, and counted as told again; what comes late changes nothing."""
    (route,) = (each for each in doors.routes if each.path == REPORTS[door])
    reports = doors.house.world.devices.reports

    def tell(kind: str) -> tuple[int, int, int]:
        before = (reports.accepted, reports.duplicates)
        told = doors.call(route, doors.path(route), said(door, kind))
        return told.status, reports.accepted - before[0], reports.duplicates - before[1]

    done = 204 if door == "mender" else 200
    assert [tell("installing"), tell("installing")] == [(done, 1, 0), (done, 0, 1)]
    assert tell("downloading") == (done, 1, 0)
    assert doors.house.status(doors.mine) == "installing", "it had been overtaken"
    assert [tell("applied"), tell("applied")] == [(done, 1, 0), (done, 0, 1)]
    assert tell("installing") == (done, 0, 1)
    assert doors.house.status(doors.mine) == "applied"
    with doors.house.world.store.reading() as r:
        assert not r.check()


def test_feedback_on_what_is_over_is_told_so(doors: Doors) -> None:
    """Where the protocol has a word for it: 410 of hawkBit's, 409 of Mender's."""
    doors.house.world.rollouts.cancel("lmp-42", by="anna", reason="enough")
    doors.house.world.tick()
    for door, status, kind in (("ddi", 410, "gone"), ("mender", 409, "refused")):
        (route,) = (each for each in doors.routes if each.path == REPORTS[door])
        for _ in range(2):
            told = doors.call(route, doors.path(route), said(door, "installing"))
            assert (told.status, told.counts) == (status, {(door, kind): 1})
    assert doors.house.status(doors.mine) == "withdrawn"


def test_what_a_commit_would_be_is_no_id(doors: Doors) -> None:
    """Of the one route whose part is a checksum: another's is not there."""
    (route,) = (each for each in doors.routes if each.what == "{sha256}")
    for digest in (commit_of(42), commit_of(42).upper(), "0" * 63, "0" * 65):
        assert doors.call(route, doors.path(route, instead={"sha256": digest}), b"").status == 404
