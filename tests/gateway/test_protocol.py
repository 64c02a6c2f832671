"""The gateway's protocol: every answer and every error a device can get, pinned."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from orchestrator.errors import (
    BuildFailed,
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    Refused,
    StoreUnavailable,
    TooMany,
    Unauthorized,
    WaveError,
)
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import CHECK_IN_BYTES, OwnDoor
from orchestrator.services.kept import Kept
from orchestrator.services.looking import MOST_LOOKS
from orchestrator.services.messages import MOST_EVENTS
from tests.gateway.own_door import Door, body_of, error
from tests.services.fleet_world import HARDWARE, World, commit_of

NONE = {"offer": None}


# ------------------------------------------------------------------------------------------------- what goes well


def test_an_update_from_the_check_in_to_the_confirmation(door: Door) -> None:
    (device,) = door.world.fleet(1)
    door.world.delta(41)
    door.world.apply()
    answer = door.check_in(device)
    assert answer.status_code == 200
    after = answer.json()["check_in_after"]
    assert answer.json() == {
        "offer": {
            "rollout": "lmp-42",
            "target": {"name": f"{HARDWARE}-42", "version": 42, "commit": commit_of(42)},
            "repository": "http://127.0.0.1:8700/ostree",
            "delta": {"from": commit_of(41), "path": "deltas/ab/cdef", "bytes": 1024},
        },
        "check_in_after": after,
    }
    events = [
        {"id": f"e{number}", "rollout": "lmp-42", "target": 42, "event": event, "at": "2026-01-01T00:00:00Z"}
        for number, event in enumerate(("downloading", "installing", "applied"))
    ]
    told = door.post(device, "reports", {"events": events})
    assert (told.status_code, told.json()) == (200, {"accepted": 3, "duplicates": 0, "refused": []})
    again = door.post(device, "reports", {"events": events})
    assert again.json() == {"accepted": 0, "duplicates": 3, "refused": []}
    assert door.check_in(device, 42).json() == {"offer": None, "check_in_after": after}
    assert door.world.status(device) == "confirmed"


def test_bad_items_of_a_report_are_named(door: Door) -> None:
    (device,) = door.world.fleet(1)
    event = {"id": "e1", "rollout": "nothing", "target": 42, "event": "failed"}
    assert door.post(device, "reports", {"events": [event]}).json() == {
        "accepted": 0,
        "duplicates": 0,
        "refused": [{"index": 0, "id": "e1", "kind": "unknown_rollout", "message": "There is no rollout 'nothing'."}],
    }


def test_the_shortest_check_in(door: Door) -> None:
    (device,) = door.world.enroll(1)
    assert door.post(device, "check-in", {"commit": None}).json()["offer"] is None
    assert door.post(device, "check-in", {}).status_code == 200


def test_what_a_newer_device_says_beside_is_ignored(door: Door) -> None:
    (device,) = door.world.enroll(1)
    assert door.post(device, "check-in", {"commit": None, "moon": "full"}).status_code == 200


def test_an_id_is_decoded_once(door: Door) -> None:
    (device,) = door.world.enroll(1)
    path = device.replace("-", "%2D")
    headers = {"authorization": f"bearer  {door.world.tokens[device]}"}
    assert door.ask("POST", f"/v1/devices/{path}/check-in", headers=headers, json={}).status_code == 200


def test_health(door: Door) -> None:
    found = door.ask("GET", "/healthz")
    assert (found.status_code, found.json()) == (200, {"status": "ok"})
    assert door.ask("HEAD", "/healthz").content == b""
    door.world.devices.writer.close()
    assert error(door.ask("GET", "/healthz")) == (503, "unavailable")


def test_a_body_in_pieces(door: Door) -> None:
    (device,) = door.world.enroll(1)

    async def pieces() -> AsyncIterator[bytes]:
        for each in json.dumps(body_of(41)):
            yield each.encode()

    assert door.post(device, "check-in", pieces()).status_code == 200


def test_the_repository_is_mounted_beside(world: World) -> None:
    seen: list[tuple[str, str]] = []

    async def files(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["root_path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"file"})

    door = Door(world, Gateway([OwnDoor(world.devices)], files=files))
    assert door.ask("GET", "/ostree/objects/ab/cd.filez").content == b"file"
    assert seen == [("/ostree/objects/ab/cd.filez", "/ostree")]
    assert error(Door(world).ask("GET", "/ostree/config")) == (404, "not_found")


# ------------------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/devices/",
        "/v1/devices/dev-0001",
        "/v1/devices/dev-0001/check-out",
        "/v2/x",
        "/healthz/",
        "/ostree",
    ],
)
def test_an_unknown_path(door: Door, path: str) -> None:
    assert error(door.ask("POST", path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/devices/dev-0001/check-in", "POST"),
        ("PUT", "/v1/devices/dev-0001/reports", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method(door: Door, method: str, path: str, allow: str) -> None:
    response = door.ask(method, path)
    assert error(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("what", ["check-in", "reports"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"{",
        b'{"commit": NaN}',
        b"\xff\xfe{\x00}\x00",
        '{"tag": "ä"}'.encode("latin-1"),
        gzip.compress(b"{}"),
        b"[" * 50_000,
    ],
    ids=["empty", "words", "cut", "nan", "utf-16", "latin-1", "gzip", "deep"],
)
def test_what_is_not_json(door: Door, what: str, body: bytes) -> None:
    (device,) = door.world.enroll(1)
    status, kind = error(door.post(device, what, body))
    assert (status, kind) in {(400, "not_json"), (400, "invalid_report")}


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("check-in", []),
        ("check-in", None),
        ("check-in", {"commit": 7}),
        ("check-in", {"commit": "x"}),
        ("check-in", {"commit": commit_of(41).upper().replace("0", "A")}),
        ("check-in", {"version": -1}),
        ("check-in", {"version": 2**63}),
        ("check-in", {"version": "41"}),
        ("check-in", {"version": 41.5}),
        ("check-in", {"tag": "no tag"}),
        ("check-in", {"hardware_id": "\n"}),
        ("check-in", {"labels": {"a": 1}}),
        ("check-in", {"labels": {"a": "\0"}}),
        ("check-in", {"labels": {f"k{n}": "v" for n in range(65)}}),
        ("check-in", {"healthy": "yes"}),
        ("reports", {}),
        ("reports", {"events": {}}),
        ("reports", {"events": [{"id": "a"}]}),
        ("reports", {"events": [{"id": 1, "rollout": "r", "target": 42, "event": "failed"}]}),
        ("reports", {"events": [{"id": "1", "rollout": "r", "target": "42", "event": "failed"}]}),
    ],
)
def test_a_wrong_shape(door: Door, what: str, body: Any) -> None:
    (device,) = door.world.enroll(1)
    content = json.dumps(body).encode()
    assert error(door.post(device, what, content)) == (400, "invalid_report")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer \xff\xfe"]
)
@pytest.mark.parametrize("what", ["check-in", "reports"])
def test_a_device_that_is_not_let_in(door: Door, what: str, authorization: str | None) -> None:
    (device,) = door.world.enroll(1)
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    for each in (device, "stranger"):
        response = door.ask("POST", f"/v1/devices/{each}/{what}", headers=headers, json={"events": []})
        assert error(response) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["x" * 129, "x" * 5_000_000, "a\0b", "a b", "", "a/b", "\udcff"], ids=range(7))
@pytest.mark.parametrize("what", ["check-in", "reports"])
def test_an_id_that_no_device_can_have_reaches_nothing(world: World, what: str, name: str) -> None:
    """It is neither looked up nor remembered: a store may refuse it, and memory would fill with it."""
    status, kind = asked_by_a_stranger(Gateway([OwnDoor(world.devices)]), f"/v1/devices/{name}/{what}")
    assert (status, kind) == (401, "unauthorized")
    assert not world.devices._strangers


@pytest.mark.parametrize("aside", [False, True], ids=["at once", "looked up aside"])
@pytest.mark.parametrize("what", ["check-in", "reports"])
def test_of_a_stranger_nothing_is_read(world: World, what: str, aside: bool) -> None:
    (device,) = world.enroll(1)
    devices = world.another(later=lambda work: work()) if aside else world.devices
    gateway = Gateway([OwnDoor(devices)])
    for each in (device, device, "stranger", "stranger"):
        assert asked_by_a_stranger(gateway, f"/v1/devices/{each}/{what}") == (401, "unauthorized")
    devices.close()


def asked_by_a_stranger(gateway: Gateway, path: str) -> tuple[int, str]:
    """Status and kind of what somebody with a wrong token is told, whose body nobody may touch."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"authorization", b"Bearer wrong")]}
    asyncio.run(gateway(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["kind"]


def test_strangers_who_come_too_fast_are_told_to_wait(world: World) -> None:
    """Each new id costs a look into the store; when two thousand wait for theirs, the next is not let in."""
    waiting: list[Callable[[], None]] = []
    devices = world.another(later=waiting.append)
    for number in range(MOST_LOOKS):
        devices.let_in(f"guess-{number}", "wrong")
    with pytest.raises(Busy):
        devices.let_in("one-too-many", "wrong")
    assert asked_by_a_stranger(Gateway([OwnDoor(devices)]), "/v1/devices/x/reports") == (503, "busy")
    waiting.pop(0)()
    devices.let_in("the-next", "wrong")
    devices.close()


def test_a_token_that_is_taken_back_while_the_body_comes_is_worth_nothing(world: World) -> None:
    (device,) = world.enroll(1)
    for kept in (0, 10):
        devices = world.another(most_kept=kept)
        token = world.tokens[device] = world.devices.register.new_token(device)
        known = devices.let_in(device, token)
        assert isinstance(known, Kept)
        world.devices.register.revoke(device)
        world.now += timedelta(seconds=2)
        with pytest.raises(Unauthorized):
            devices.check_in(device, token, world.said(41), known=known)
        devices.close()


def test_a_report_has_a_thousand_events_at_most(door: Door) -> None:
    (device,) = door.world.fleet(1)
    events = [{"id": f"{n}", "rollout": "r", "target": 42, "event": "failed"} for n in range(MOST_EVENTS + 1)]
    assert error(door.post(device, "reports", {"events": events})) == (400, "invalid_report")
    assert len(door.post(device, "reports", {"events": events[1:]}).json()["refused"]) == MOST_EVENTS


def test_the_token_of_another_device(door: Door) -> None:
    one, other = door.world.enroll(2)
    assert error(door.post(one, "check-in", {}, token=door.world.tokens[other])) == (401, "unauthorized")


@pytest.mark.parametrize(("what", "most"), [("check-in", 64 * 1024), ("reports", 1024 * 1024)])
def test_a_body_that_is_too_large(door: Door, what: str, most: int) -> None:
    (device,) = door.world.enroll(1)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10 * 1024):
            yield b"x" * 1024

    for body in (b"x" * (most + 1), b"x" * 10_000_000, endless()):
        response = door.post(device, what, body)
        assert error(response) == (413, "too_large")
        assert response.headers["connection"] == "close"
    assert error(door.post(device, what, b" " * most)) == (400, "not_json")


def test_a_body_that_does_not_come(world: World) -> None:
    (device,) = world.enroll(1)
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/v1/devices/{device}/check-in"
    token = f"Bearer {world.tokens[device]}".encode()
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"authorization", token)]}
    asyncio.run(Gateway([OwnDoor(world.devices)], read_seconds=0.05)(scope, never, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["kind"] == "too_slow"


def test_a_device_that_hangs_up_is_not_answered(world: World) -> None:
    (device,) = world.enroll(1)
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError("nobody listens")

    token = f"Bearer {world.tokens[device]}".encode()
    path = f"/v1/devices/{device}/check-in"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"authorization", token)]}
    asyncio.run(Gateway([OwnDoor(world.devices)])(scope, receive, send))


@pytest.mark.parametrize("length", [b"x", b"-1", b""])
def test_a_length_that_is_no_number(world: World, length: bytes) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer x"), (b"content-length", length)]
    scope = {"type": "http", "method": "POST", "path": "/v1/devices/d/check-in", "headers": headers}
    asyncio.run(Gateway([OwnDoor(world.devices)])(scope, receive, send))
    assert sent[0]["status"] in (400, 401)


_SECRET = "password=hunter2"


@pytest.mark.parametrize(
    ("raised", "status", "kind"),
    [
        (Busy(_SECRET), 503, "busy"),
        (Conflict(_SECRET), 503, "busy"),
        (StoreUnavailable(_SECRET), 503, "store_unavailable"),
        (BuildFailed(_SECRET), 503, "unavailable"),
        (ZeroDivisionError(_SECRET), 500, "internal"),
        (WaveError(_SECRET), 500, "internal"),
        (NotFound("There is none."), 404, "not_found"),
        (Refused("No."), 409, "refused"),
        (Forbidden("Not you."), 403, "forbidden"),
        (TooMany("Slower.", after=0.2), 429, "too_many"),
    ],
)
def test_what_goes_wrong_inside_is_told_without_its_secrets(
    door: Door, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, kind: str
) -> None:
    (device,) = door.world.enroll(1)

    def fails(*args: object, **more: object) -> None:
        raise raised

    monkeypatch.setattr(door.world.devices, "report", fails)
    response = door.post(device, "reports", {"events": []})
    assert error(response) == (status, kind)
    assert "hunter2" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))


def test_an_error_of_the_commit_is_told_too(door: Door) -> None:
    (device,) = door.world.fleet(1)
    door.world.apply()

    def broken(*args: object, **more: object) -> bool:
        raise StoreUnavailable("The disk is full.")

    door.world.check_in(device)
    door.world.devices.reports.settle = broken
    events = [{"id": "e", "rollout": "lmp-42", "target": 42, "event": "failed"}]
    assert error(door.post(device, "reports", {"events": events})) == (503, "store_unavailable")
    assert error(door.ask("GET", "/healthz")) == (503, "store_unavailable")


def test_a_shutting_down_server_says_when_to_come_again(door: Door) -> None:
    (device,) = door.world.fleet(1)
    door.world.devices.writer.close()
    response = door.post(device, "reports", {"events": []})
    assert (error(response), response.headers["retry-after"]) == ((503, "busy"), "5")


def test_many_at_once_are_each_told_their_own(door: Door) -> None:
    fleet = door.world.fleet(40)
    door.world.apply()

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(door.gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await asyncio.gather(
                *(
                    client.post(
                        f"/v1/devices/{device}/check-in",
                        headers={"authorization": f"Bearer {door.world.tokens[device]}"},
                        json=body_of(41),
                    )
                    for device in fleet
                )
            )

    answers = asyncio.run(all_of_them())
    assert sum(answer.json()["offer"] is not None for answer in answers) == 20
    expected: Callable[[str], float] = lambda device: door.world.answer(device).check_in_after  # noqa: E731
    assert [answer.json()["check_in_after"] for answer in answers] == [expected(device) for device in fleet]


def test_limits_are_what_is_written() -> None:
    assert CHECK_IN_BYTES == 65_536
