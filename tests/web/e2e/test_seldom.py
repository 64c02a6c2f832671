"""What one sees seldom, and then at night: an empty house, a hundred rollouts, a freeze, a device with a long history,
trouble at the door. Each page stands, axe finds nothing, and its pictures lie in ``build/console``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.roles import Role
from orchestrator.errors import TooMany
from orchestrator.services.people_orders import People
from orchestrator.services.queries import Queries
from orchestrator.services.views import DeviceView
from tests.web.e2e.browsing import QUICK, WORDS, Served
from tests.web.e2e.looking import snap
from tests.web.e2e.pages import DESK, PHONE
from tests.web.installation import EVERYBODY, NOON, TOLERANT, Installation

pytestmark = pytest.mark.e2e

MINUTE = timedelta(minutes=1)
QUICKLY = {**TOLERANT, "bake": {"at_least": "10m", "at_most": "48h"}}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Served]:
    """With nobody and nothing in it."""
    with pytest.MonkeyPatch.context() as patch:
        home = Installation(tmp_path).open(patch)
        found = Served(home)
        found.start()
        yield found
        found.stop()
        home.close()


def _look(page: Page, name: str) -> list[str]:
    """At both widths in both schemes; what is wrong with it."""
    wrong = []
    for view in (DESK, PHONE):
        page.set_viewport_size({"width": view.width, "height": view.height})
        for each in (view, view.in_the_dark()):
            page.emulate_media(color_scheme="dark" if each.dark else "light")
            snap(page, name, each)
        wider = int(page.evaluate("document.documentElement.scrollWidth")) - view.width
        if wider > 0:
            wrong.append(f"{name} is {wider} px wider than the screen")
    found = Axe().run(page)
    return wrong + ([f"{name}: {found.generate_report()}"] if found.violations_count else [])


def test_an_empty_house_says_what_comes_next(house: Served, browser: Browser) -> None:
    wrong: list[str] = []
    with house.page(browser, "") as watched:
        watched.go("/sign-in")
        expect(watched.page.locator(".note")).to_contain_text("wave user add NAME --role admin")
        wrong += _look(watched.page, "empty-sign-in")
    with house.page(browser, "admin.anna") as watched:
        for path in ("rollouts", "fleet", "deltas"):
            assert watched.go(f"/{path}") == 200
            wrong += _look(watched.page, f"empty-{path}")
    assert not wrong, "\n".join(wrong)


def test_what_comes_seldom_is_looked_at_too(house: Served, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    home, wrong = house.home, list[str]()
    _live_on(home)
    with house.page(browser, "releaser.anna") as watched:
        for name, path in {
            "many-rollouts": "/rollouts",
            "many-cancelled": "/rollouts/early-42",
            "device-history": "/devices/old-1",
            "device-silent": "/devices/old-2",
            "approval-waits": "/rollouts/strict-44",
        }.items():
            assert watched.go(path) == 200
            wrong += _look(watched.page, name)
        home.app.rollouts.freeze(by="mika", reason="The depots have no power.")
        for name, path in {"frozen": "/rollouts/trams-42", "many-frozen": "/rollouts?status=running"}.items():
            assert watched.go(path) == 200
            wrong += _look(watched.page, name)
    with house.page(browser, "viewer.mika") as watched:
        assert watched.go("/rollouts/trams-42/order/halt") == 403
        wrong += _look(watched.page, "forbidden")
        for name, status in (("busy", 429), ("mistake", 500)):
            monkeypatch.setattr(Queries, "device", _in_trouble(name))
            assert watched.go(f"/devices/{name}") == status
            wrong += _look(watched.page, name)
    with house.page(browser, "") as watched:
        watched.go("/sign-in")
        for _ in range(6):
            watched.page.get_by_label("Name").fill("rosa")
            watched.page.get_by_label("Password").fill("not this")
            watched.page.get_by_role("button", name="Sign in").click()
            expect(watched.page.get_by_role("alert")).to_be_visible()
        wrong += _look(watched.page, "sign-in-refused")
    assert not wrong, "\n".join(wrong)


def _in_trouble(name: str) -> object:
    def device(queries: Queries, device_id: str) -> DeviceView:
        if name == "busy":
            raise TooMany("You ask for 8 pages at once already.", after=1, remedy="Come back in a moment.")
        raise RuntimeError(device_id)

    return device


def _live_on(home: Installation) -> None:
    """A device that took five versions, one that is held and has not been heard of since, a hundred drafts of which one
    asks for a second person, and one that was cancelled."""
    People(home.app.store, home.app.clock, QUICK).add("rosa", [Role.VIEWER], by="root", password=WORDS)
    home.now = NOON
    for version in range(40, 45):
        home.target(version, "old", "trams")
    home.enroll([Device("old-1", "rpi4", "old"), Device("old-2", "rpi4", "old")], 39)
    home.app.devices.register.set_status(["old-2"], DeviceStatus.HELD, "It stands open on a bench.")
    home.enroll([Device(f"tram-{n:02}", "rpi4", "trams") for n in range(12)], 41)
    for version in range(40, 45):
        for before in (version - 1, 39, 41):
            if before < version:
                home.publish(before, version, 1_000_000 * version)
        home.apply(f"old-{version}", version, "old", EVERYBODY, QUICKLY)
        home.start(f"old-{version}")
        for _ in range(3):
            home.tick(MINUTE)
        home.take("old-1", "downloading", "installing", confirms=True)
        home.app.rollouts.complete(f"old-{version}", by="mika", reason="It runs.")
        home.tick(30 * MINUTE)
    home.apply("early-42", 42, "trams", EVERYBODY, QUICKLY)
    home.start("early-42")
    home.app.rollouts.cancel("early-42", by="mika", reason="The release notes were wrong.")
    home.apply("trams-42", 42, "trams", EVERYBODY, QUICKLY)
    home.start("trams-42")
    for _ in range(3):
        home.tick(MINUTE)
    home.all_of("tram-", failing=(2,), most=4)
    home.apply("strict-44", 44, "trams", EVERYBODY, {**QUICKLY, "approve": {"start": 1}})
    for n in range(99):
        home.apply(f"line-{n:02}-44", 44, "trams", EVERYBODY, QUICKLY)
