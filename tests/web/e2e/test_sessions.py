"""Real people in a real browser: who signs in by the form, what a restart leaves them, and how a session ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from orchestrator.core.fleet import Device, DeviceStatus
from orchestrator.core.roles import Role
from orchestrator.services.passwords import Passwords
from orchestrator.services.people_door import Door
from orchestrator.services.people_orders import People
from tests.web.e2e.browsing import Served, Watched
from tests.web.house_of_people import CHEAP, WORDS
from tests.web.installation import EVERYBODY, MESSAGES, TOLERANT, Installation

pytestmark = pytest.mark.e2e

NAME = "<img src=x onerror=alert(1)>anna"
MARKUP = "<script>alert(2)</script><b>bold</b>&amp;\u202egnp.exe"


@dataclass
class Town:
    """A small installation with one releaser whose name is HTML, whose devices say HTML, and a server in front."""

    served: Served
    people: People

    @property
    def home(self) -> Installation:
        return self.served.home

    def door(self) -> Door:
        """As each server makes its own."""
        home = self.served.home
        return Door(
            home.app.store,
            lambda: home.now,
            idle=timedelta(hours=12),
            at_most=timedelta(days=7),
            passwords=Passwords(CHEAP),
        )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MESSAGES, "failed", MARKUP)
        home = Installation(Path(tmp_path_factory.mktemp("town"))).open(patch)
        for version in (41, 42):
            home.target(version, "promoted")
        home.enroll([Device(f"gw-{n}", "rpi4", "promoted", labels={"site": MARKUP[:40]}) for n in range(30)], 41)
        home.publish(41, 42, 1_000_000)
        home.apply("lmp-42", 42, "promoted", EVERYBODY, TOLERANT)
        home.start("lmp-42")
        for _ in range(3):
            home.tick(timedelta(seconds=20))
        assert home.all_of("gw-", failing=(1,), most=1) == 1
        people = People(home.app.store, lambda: home.now, Passwords(CHEAP))
        people.add(NAME, [Role.RELEASER], by=MARKUP[:60], password=WORDS)
        made = Town(Served(home), people)
        made.served.doorkeeper = made.door
        made.served.start()
        yield made
        made.served.stop()
        home.close()


def sign_in(watched: Watched) -> None:
    page = watched.page
    watched.go("/rollouts/lmp-42")
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(WORDS)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#live")).to_have_text("live")


def test_a_console_left_open_over_a_restart_goes_on_with_the_same_session(town: Town, browser: Browser) -> None:
    with town.served.page(browser, "") as watched:
        page = watched.page
        sign_in(watched)
        page.evaluate("() => { window.here = 'the same page'; }")
        town.served.stop()
        expect(page.locator("#live")).to_have_text("reconnecting")
        town.home.app.rollouts.pause("lmp-42", by="mika", reason="While nobody looked.")
        town.served.start()
        expect(page.locator("h1 .pill")).to_have_text("paused", timeout=20_000)
        expect(page.locator("#live")).to_have_text("live")
        assert page.evaluate("() => window.here") == "the same page", "nobody had to sign in again"
        page.get_by_role("link", name="Resume").click()
        page.get_by_label("Reason").fill("It is there again.")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("h1 .pill")).to_have_text("running")
        expect(page.locator("#journal li").first).to_contain_text(f"Resumed by {NAME}: It is there again.")


def test_a_page_whose_session_is_over_leads_to_the_door(town: Town, browser: Browser) -> None:
    """Signed out elsewhere, stolen or disabled: it does not go on saying that it reconnects."""
    with town.served.page(browser, "") as watched:
        sign_in(watched)
        town.people.disable(NAME, by="root")
        town.people.enable(NAME, by="root")
        town.home.app.rollouts.pause("lmp-42", by="mika", reason="A secret.")
        expect(watched.page.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)
        assert "A secret." not in watched.page.content()
        town.home.app.rollouts.resume("lmp-42", by="mika")


def test_after_sign_out_the_way_back_shows_nothing(town: Town, browser: Browser) -> None:
    with town.served.page(browser, "") as watched:
        page = watched.page
        sign_in(watched)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)


def test_html_is_text_wherever_it_comes_from(town: Town, browser: Browser) -> None:
    with town.served.page(browser, "") as watched:
        page = watched.page
        sign_in(watched)
        town.home.now += timedelta(seconds=1)
        town.home.app.rollouts.pause("lmp-42", by=NAME, reason=MARKUP)
        town.home.app.devices.register.set_status(["gw-7"], DeviceStatus.HELD, MARKUP, by=NAME)
        expect(page.locator("#journal li").first).to_contain_text("<script>alert(2)</script><b>bold</b>&amp;")
        failed = next(each for each in town.home.tokens if town.home.app.queries.device(each).events)
        for path in ("/rollouts", f"/devices/{failed}", "/devices/gw-7", "/fleet", "/rollouts/lmp-42/order/resume"):
            watched.go(path)
            expect(page.locator(".who .name")).to_have_text(NAME)
            assert page.locator("main b").filter(has_text=re.compile("^bold$")).count() == 0, path
        watched.go(f"/devices/{failed}")
        expect(page.locator("#events")).to_contain_text("<script>alert(2)</script><b>bold</b>&amp;")
        expect(page.locator("#labels")).to_contain_text(MARKUP[:40])
        watched.go("/devices/gw-7")
        expect(page.locator("#head")).to_contain_text("<script>alert(2)</script><b>bold</b>&amp;")
        assert not watched.wrong
        town.home.app.rollouts.resume("lmp-42", by="mika")
