"""How often one may ask: the buckets, and who is told to wait at the door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.limits import OFF, Limit, parse_limit
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.limits import Buckets, Limits, is_loopback, site_of
from orchestrator.gateway.own import OwnDoor
from orchestrator.services.credentials import GrantKind
from orchestrator.services.devices import Devices
from tests.gateway.own_door import error
from tests.gateway.test_server import serving
from tests.services.fleet_world import HARDWARE, TAG, World

HERE, THERE = "203.0.113.5", "198.51.100.7"


# ------------------------------------------------------------------------------------------------- the buckets


@given(st.integers(1, 50), st.integers(1, 30), st.lists(st.floats(0, 2), max_size=200))
def test_in_no_stretch_of_time_are_more_let_through_than_the_limit_says(
    asks: int, burst: int, gaps: list[float]
) -> None:
    buckets, now, let_through = Buckets(Limit(asks, "s", burst)), 100.0, []
    for gap in gaps:
        now += gap
        if buckets.take("a", now) <= 0:
            let_through.append(now)
    for index, begin in enumerate(let_through):
        for number, end in enumerate(let_through[index:], 1):
            assert number <= burst + (end - begin) * asks + 1e-6


@given(st.integers(1, 50), st.integers(1, 30))
def test_who_waits_as_long_as_told_is_let_through(asks: int, burst: int) -> None:
    buckets, now = Buckets(Limit(asks, "s", burst)), 100.0
    for _ in range(3 * burst):
        while (wait := buckets.take("a", now)) > 0:
            assert wait <= 1 / asks + 1e-6
            now += wait + 1e-9


def test_a_burst_then_the_steady_rate_and_each_key_its_own() -> None:
    buckets = Buckets(Limit(10, "s", 3))
    assert [buckets.take("a", 5.0) > 0 for _ in range(5)] == [False, False, False, True, True]
    assert buckets.take("b", 5.0) <= 0
    assert buckets.take("a", 5.1) <= 0 < buckets.take("a", 5.1)
    assert [buckets.take("a", 9.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_however_many_keys_come_the_memory_is_bounded_and_the_busy_are_remembered() -> None:
    buckets = Buckets(Limit(1, "s", 1), most=100)
    for number in range(10_000):
        buckets.take(str(number), 5.0)
        assert buckets.take("busy", 5.0) > 0 or number == 0 or len(buckets) <= 200
    assert len(buckets) <= 200


@pytest.mark.parametrize(
    ("text", "limit"),
    [("10/s burst 60", Limit(10, "s", 60)), ("30/min burst 5", Limit(30, "min", 5)), ("off", OFF), (False, OFF)],
)
def test_a_limit_is_read_and_written_the_same(text: object, limit: Limit) -> None:
    assert parse_limit(text) == limit == parse_limit(str(limit)) == parse_limit(limit)


@pytest.mark.parametrize("text", ["", "10", "10/s", "0/s burst 5", "10/h burst 5", "10/s burst 0", 10, True, None])
def test_what_is_no_limit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="10/s burst 60"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("address", "loopback", "site"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("::1", True, "::"),
        ("::ffff:127.0.0.9", True, "127.0.0.9"),
        (HERE, False, HERE),
        ("::ffff:203.0.113.5", False, HERE),
        ("2001:db8:1:2:3:4:5:6", False, "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", False, "2001:db8:1:2::"),
        ("testclient", False, "testclient"),
    ],
)
def test_whose_address_it_is(address: str, loopback: bool, site: str) -> None:
    assert (is_loopback(address), site_of(address)) == (loopback, site)


# ------------------------------------------------------------------------------------------------- at the door


@dataclass
class Limited:
    """A gateway with limits and a clock by hand, asked from any address."""

    world: World
    per_device: Limit = OFF
    per_address: Limit = OFF
    failures: Limit = OFF
    now: float = 1000.0
    devices: Devices = field(init=False)

    def __post_init__(self) -> None:
        self.devices = self.world.devices
        self.limits = Limits(
            per_device=self.per_device,
            per_address=self.per_address,
            failures=self.failures,
            clock=lambda: self.now,
        )
        self.gateway = Gateway([OwnDoor(self.devices)], limits=self.limits)

    def ask(self, path: str, token: str, *, address: str = HERE, json: Any = None) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.gateway, client=(address, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                headers = {"authorization": f"Bearer {token}"}
                return await client.post(path, json=json or {}, headers=headers)

        return asyncio.run(once())

    def check_in(self, device: str, *, token: str | None = None, address: str = HERE) -> int:
        shown = self.world.tokens[device] if token is None else token
        return self.ask(f"/v1/devices/{device}/check-in", shown, address=address).status_code


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_a_device_that_asks_too_often_is_told_when_to_go_on(world: World) -> None:
    one, other = world.enroll(2)
    door = Limited(world, per_device=Limit(1, "min", 2))
    assert [door.check_in(one) for _ in range(3)] == [200, 200, 429]
    told = door.ask(f"/v1/devices/{one}/reports", world.tokens[one], json={"events": []})
    assert error(told) == (429, "too_many")
    assert told.headers["retry-after"] == "60"
    assert door.check_in(one, address=THERE) == 429, "wherever it asks from"
    assert door.check_in(other) == 200
    door.now += 60
    assert [door.check_in(one) for _ in range(2)] == [200, 429]
    assert door.limits.refused == {"device": 4, "address": 0, "failures": 0}


def test_nobody_uses_up_the_limit_of_another(world: World) -> None:
    (one,) = world.enroll(1)
    door = Limited(world, per_device=Limit(1, "min", 1))
    assert [door.check_in(one, token="wrong", address=THERE) for _ in range(5)] == [401] * 5
    assert door.check_in(one) == 200


def test_an_address_that_asks_too_often_is_told_when_to_go_on(world: World) -> None:
    fleet = world.enroll(4)
    door = Limited(world, per_address=Limit(1, "s", 3))
    assert [door.check_in(each) for each in fleet] == [200, 200, 200, 429]
    assert door.check_in(fleet[3], address=THERE) == 200
    assert [door.check_in(fleet[3], address="127.0.0.1") for _ in range(9)] == [200] * 9, "a proxy on this machine"
    door.now += 1
    assert door.check_in(fleet[3]) == 200


def test_an_address_that_is_wrong_too_often_waits_and_its_good_devices_are_served(world: World) -> None:
    one, fresh = world.enroll(2)
    door = Limited(world, failures=Limit(1, "min", 3))
    assert door.check_in(one) == 200
    assert [door.check_in(one, token="wrong") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert door.check_in("nobody", token="x") == 429
    assert door.check_in(one) == 200, "known in memory, and right"
    assert door.check_in(fresh) == 429, "nobody knows it in memory yet: it would cost a look into the store"
    assert door.check_in(fresh, address=THERE) == 200
    token = world.devices.identity.add(GrantKind.ENROLMENT, by="anna", tag=TAG)[1]
    asked = {"device": "new-1", "hardware_id": HARDWARE}
    assert error(door.ask("/v1/enroll", token, json=asked)) == (429, "too_many")
    door.now += 180
    assert door.ask("/v1/enroll", token, json=asked).status_code == 200


def test_only_a_trusted_proxy_says_for_whom_it_asks(world: World) -> None:
    fleet = world.enroll(3)

    def ask(port: int, device: str, forwarded: str) -> int:
        headers = {"authorization": f"Bearer {world.tokens[device]}", "x-forwarded-for": forwarded}
        url = f"http://127.0.0.1:{port}/v1/devices/{device}/check-in"
        return httpx.post(url, json={}, headers=headers).status_code

    door = Limited(world, per_address=Limit(1, "min", 1))
    with serving(door.gateway, proxies="127.0.0.1, 10.0.0.0/8") as (_, port):
        assert [ask(port, device, HERE) for device in fleet] == [200, 429, 429]
        assert ask(port, fleet[1], f"{HERE}, {THERE}, 10.0.0.1") == 200, "the last that no proxy of ours is"
        assert ask(port, fleet[1], f"127.0.0.1, {THERE}") == 429, "what somebody says of himself is not believed"
    with serving(door.gateway) as (_, port):
        assert {ask(port, device, HERE) for device in fleet} == {200}


def test_without_limits_nobody_is_told_to_wait(world: World) -> None:
    (one,) = world.enroll(1)
    door = Limited(world)
    assert {door.check_in(one) for _ in range(100)} == {200}
    assert {door.check_in(one, token="wrong") for _ in range(100)} == {401}
