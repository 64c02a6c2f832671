"""The operators' side of a real ``wave serve``: on by itself, and never in the way of devices."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults import House, until

pytestmark = pytest.mark.e2e


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House.bare(tmp_path / "wave", more="builders: 0\nconsole_port: 0")
    yield made
    made.close()


def test_people_sign_in_and_nobody_else_gets_in(house: House) -> None:
    house.wave("init", str(house.root))
    serving = house.serve()
    until("it says where", lambda: "serving operators on" in serving.said(), alive=serving)
    said = re.search(r"serving operators on (\S+)", serving.said())
    assert said is not None
    assert status(f"{said[1]}/sign-in") == 200
    assert status(f"{said[1]}/api/v1/me") == 401
    assert status(f"{said[1]}/api/v1/rollouts") == 401


def test_where_the_default_port_is_taken_devices_are_served_all_the_same(house: House) -> None:
    page = (house.root / "wave.yaml").read_text().replace("console_port: 0", "")
    (house.root / "wave.yaml").write_text(page)
    house.wave("init", str(house.root))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8701))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        serving = house.serve()
        until("it says so", lambda: "the operators' side is off" in serving.said(), alive=serving)
        assert status(f"http://127.0.0.1:{house.port}/healthz") == 200
