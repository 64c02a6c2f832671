"""A real ``wave serve`` tells a collector what it does, and at its end the last of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.adapters.otlp import collecting
from tests.e2e.faults import House
from tests.e2e.faulty_fleet import ask
from tests.loopback import free_port
from tests.waiting import until

pytestmark = pytest.mark.e2e

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_ticks_devices_and_operators_are_told_until_the_end(house: House) -> None:
    console = free_port()
    with collecting() as collector:
        house.settings(more=f"console_port: {console}\nbuilders: 1\nlog: json\ntraces: {collector.url}")
        server = house.serve()
        house.begin()
        device, secret = next(iter(house.tokens.items()))
        until("it is up", lambda: "serving operators" in server.said(), alive=server)
        assert ask(house.port, f"/v1/devices/{device}/check-in", {}, secret)[0] == 200
        asked = urllib.request.Request(
            f"http://127.0.0.1:{console}/api/v1/me", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=20)
        with refused.value as answer:
            assert answer.code == 401 and answer.headers["x-request-id"] == TRACE
        server.stop()
        told = {each.name: each for each in collector.spans}
        assert {"tick", "write", "device", "GET /api/v1/me"} <= set(told)
        assert told["GET /api/v1/me"].trace == TRACE
        ticks = {each.trace for each in collector.named("tick")}
        assert {each.trace for each in collector.named("decision")} <= ticks
        assert collector.about["service.name"] == "wave"
        assert secret not in repr(collector.spans)
    lines = [json.loads(line) for line in server.said().splitlines()]
    assert {line["tick"] for line in lines if "tick" in line} <= ticks
