"""The operators' side of a real ``wave serve``: on by itself, never in the way of devices, and there for people."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.faults import House, copied
from tests.loopback import listens
from tests.waiting import until
from tests.web.e2e.browsing import CHROMIUM

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
    console = serving.operators()
    assert status(f"{console}/sign-in") == 200
    assert status(f"{console}/api/v1/me") == 401
    assert status(f"{console}/api/v1/rollouts") == 401


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


def test_a_port_that_was_asked_for_and_is_taken_ends_it_before_anybody_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        house = House.bare(tmp_path / "wave", more=f"builders: 0\nconsole_port: {port}")
        house.wave("init", str(house.root))
        said = house.fails(6, "serve")
    assert f"port {port}: Address already in use. Set another `console_port`" in said
    assert "serving devices" not in said


LOADED_LATE = """
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

class Late(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "fastapi":
            Path("loading").touch()
            while not Path("load").exists():
                time.sleep(0.02)
            if Path("load").read_text():
                raise ImportError("it is broken")
        return None

sys.meta_path.insert(0, Late())
from orchestrator.__main__ import main
sys.exit(main())
"""
"""`wave`, for which what the operators' side is made of is there when a file says so, or is broken."""


def test_devices_are_answered_before_the_operators_side_is_loaded(house: House) -> None:
    house.wave("init", str(house.root))
    serving = house.serve(code=LOADED_LATE)
    until("it begins to load", (house.root / "loading").exists, alive=serving)
    assert status(f"http://127.0.0.1:{house.port}/healthz") == 200
    assert "serving operators on" not in serving.said()
    (house.root / "load").touch()
    assert status(f"{serving.operators()}/sign-in") == 200
    serving.stop()


def test_it_stops_while_the_operators_side_is_loaded(house: House) -> None:
    house.wave("init", str(house.root))
    serving = house.serve(code=LOADED_LATE)
    until("it begins to load", (house.root / "loading").exists, alive=serving)
    serving.process.terminate()
    until("it stops listening", lambda: not listens(house.port))
    (house.root / "load").touch()
    serving.stop()
    assert "serving operators on" not in serving.said()


def test_an_operators_side_that_is_broken_leaves_no_device_alone(house: House) -> None:
    house.wave("init", str(house.root))
    (house.root / "load").write_text("broken")
    serving = house.serve(code=LOADED_LATE)
    serving.says("the operators' side has ended by a fault")
    assert "it is broken" in serving.said()
    assert status(f"http://127.0.0.1:{house.port}/healthz") == 200


PASSWORD = "three blind mice run"


@pytest.mark.ostree
def test_a_person_is_let_in_signs_in_and_gives_an_order(template: House, tmp_path: Path) -> None:
    """`wave user add` on the host, then the console in a browser: sign in, look, pause with a reason, sign out. The
    command line then says the same, with who it was."""
    with copied(template, tmp_path / "house", more="builders: 0\nconsole_port: 0") as house:
        house.begin()
        house.ok("user", "add", "ann", "--role", "releaser", typed=f"{PASSWORD}\n")
        serving = house.serve()
        console = serving.operators()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(20_000)
            page.goto(f"{console}/rollouts/r3")
            page.get_by_label("Name").fill("ann")
            page.get_by_label("Password").fill("not this one at all")
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("alert")).to_be_visible()
            page.get_by_label("Name").fill("ann")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("h1")).to_contain_text("r3")
            page.get_by_role("link", name="Pause").click()
            page.get_by_label("Reason").fill("The lab is being moved.")
            page.get_by_role("button", name="Pause").click()
            expect(page.locator("h1 .pill")).to_have_text("paused")
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_label("Password")).to_be_visible()
            page.goto(f"{console}/rollouts/r3")
            expect(page.get_by_label("Password")).to_be_visible()
            browser.close()
        assert house.status()["status"] == "paused"
        assert "Paused by ann: The lab is being moved." in " ".join(house.ok("journal", "r3").out.split())
        assert PASSWORD not in serving.said()
