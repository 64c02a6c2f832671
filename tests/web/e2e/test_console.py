"""The console as people have it in front of them: orders, live figures, and a server that goes away."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, expect

from tests.web.e2e.browsing import NAME, Served
from tests.web.e2e.looking import snap
from tests.web.e2e.pages import DESK, DOOR, PHONE
from tests.web.installation import HTML

pytestmark = pytest.mark.e2e


def test_nothing_runs_that_is_written_into_a_page(served: Served, browser: Browser) -> None:
    with served.page(browser) as watched:
        for path in [*served.pages.values(), *DOOR.values()]:
            watched.go(path)
            inline = watched.page.evaluate(
                "() => [...document.querySelectorAll('script:not([src]), style, [style]')].length"
                " + [...document.querySelectorAll('*')].filter(e => [...e.attributes].some("
                "a => a.name.startsWith('on'))).length"
            )
            assert inline == 0, path
        answer = watched.page.request.get(f"{served.url}/rollouts")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        # What a page could be made to hold does not run.
        watched.page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); }"
        )
        assert watched.page.evaluate("() => window.ran") is None


def test_html_in_a_label_and_in_a_name_is_text(served: Served, browser: Browser) -> None:
    with served.page(browser) as watched:
        watched.go("/devices/gw-0007")
        expect(watched.page.locator("#labels")).to_contain_text(HTML)
        expect(watched.page.locator(".who .name")).to_have_text(NAME)
        assert not watched.wrong


def test_an_order_shows_first_what_it_does_and_asks_why(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        page.get_by_role("link", name="Pause").click()
        expect(page.locator("#would")).to_contain_text("Rollout lmp-42 is paused: it gives no new offers.")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("alert")).to_contain_text("Say why")
        page.get_by_label("Reason").fill("Support has no hands free until noon.")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("h1 .pill")).to_have_text("paused")
        journal = page.locator("#journal li").first
        expect(journal).to_contain_text(f"Paused by {NAME}: Support has no hands free until noon.")
        page.get_by_role("link", name="Resume").click()
        page.get_by_label("Reason").fill("They have.")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("h1 .pill")).to_have_text("running")


def test_what_was_not_shown_is_not_done(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42/order/cancel")
        page.get_by_label("Reason").fill("One wave only.")
        page.get_by_label("What").select_option("rest")
        page.get_by_role("button", name="Cancel lmp-42", exact=True).click()
        expect(page.locator("#would")).to_contain_text("Wave rest of rollout lmp-42 is cancelled.")
        expect(page.get_by_label("Reason")).to_have_value("One wave only.")
        watched.go("/rollouts/lmp-42")
        expect(page.locator("h1 .pill")).to_have_text("running")


def test_a_halted_rollout_goes_on_only_with_what_stopped_it_accepted(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser") as watched:
        page = watched.page
        watched.go("/rollouts/beta-43/order/resume")
        expect(page.locator("#would")).to_contain_text("As it stands this is refused.")
        page.get_by_label(re.compile("rollout/failed")).check()
        page.get_by_role("button", name="Show what would happen").click()
        expect(page.locator("#would")).to_contain_text("Rollout beta-43 runs again.")


def test_a_viewer_sees_no_orders_and_can_give_none(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer") as watched:
        watched.go("/rollouts/lmp-42")
        expect(watched.page.locator(".actions")).to_have_count(0)
        assert watched.go("/rollouts/lmp-42/order/halt") == 403
        expect(watched.page.locator("h1")).to_have_text("You may not do this")
        csrf = watched.page.locator("input[name=csrf]").first.get_attribute("value") or ""
        form: dict[str, str | float | bool] = {"reason": "because", "step": "do", "csrf": csrf}
        answer = watched.page.request.post(f"{served.url}/rollouts/lmp-42/order/halt", form=form)
        assert answer.status == 403
    with served.page(browser, "releaser") as watched:
        answer = watched.page.request.post(f"{served.url}/rollouts/lmp-42/order/halt", form={"step": "do"})
        assert answer.status == 403, "a form of nobody's page"
    assert served.home.app.queries.rollout("lmp-42").summary.status == "running"


def test_who_is_not_signed_in_goes_to_the_door_and_is_told_where_from(served: Served, browser: Browser) -> None:
    with served.page(browser, "") as watched:
        answer = watched.page.request.get(f"{served.url}/rollouts/lmp-42", max_redirects=0)
        assert answer.status == 303
        assert answer.headers["location"] == "/sign-in?next=%2Frollouts%2Flmp-42"


def test_a_page_left_open_follows_what_happens(served: Served, browser: Browser) -> None:
    with served.page(browser) as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        expect(page.locator("#live")).to_have_text("live")
        page.evaluate("() => { window.here = 'the same page'; }")
        page.locator("#calendar summary").click()
        served.home.now += timedelta(seconds=1)
        served.home.app.rollouts.pause("lmp-42", by="mika", reason="From the terminal.")
        expect(page.locator("h1 .pill")).to_have_text("paused")
        expect(page.locator("#journal li").first).to_contain_text("From the terminal.")
        assert page.evaluate("() => window.here") == "the same page"
        expect(page.locator("#calendar details")).to_have_attribute("open", "")
        served.home.app.rollouts.resume("lmp-42", by="mika")
        expect(page.locator("h1 .pill")).to_have_text("running")


def test_figures_move_with_reports(served: Served, browser: Browser) -> None:
    with served.page(browser) as watched:
        watched.go("/rollouts/lmp-42")
        expect(watched.page.locator("#live")).to_have_text("live")
        before = served.home.app.queries.rollout("lmp-42").summary.confirmed
        expect(watched.page.locator("#figures")).to_contain_text(re.compile(rf"Confirmed\s*{before}\b"))
        for device in [each for each in served.home.tokens if each.startswith("gw-")]:
            if served.home.take(device, confirms=True):
                break
        expect(watched.page.locator("#figures")).to_contain_text(re.compile(rf"Confirmed\s*{before + 1}\b"))


def test_a_page_left_open_over_a_restart_is_true_again(served: Served, browser: Browser) -> None:
    with served.page(browser) as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        expect(page.locator("#live")).to_have_text("live")
        served.stop()
        expect(page.locator("#live")).to_have_text("reconnecting")
        served.home.app.rollouts.pause("lmp-42", by="mika", reason="While nobody looked.")
        served.start()
        expect(page.locator("#live")).to_have_text("live", timeout=20_000)
        expect(page.locator("h1 .pill")).to_have_text("paused")
        served.home.app.rollouts.resume("lmp-42", by="mika")


def test_a_policy_is_played_from_its_page(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser.anna") as watched:
        page = watched.page
        watched.go("/policies/standard")
        page.get_by_label("Scenario").select_option("broken")
        page.get_by_label("Devices").fill("60")
        page.get_by_label("Rollouts").fill("4")
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#simulation")).to_contain_text("chance of a halt", timeout=60_000)
        picture = page.locator("img.study")
        expect(picture).to_be_visible()
        page.wait_for_function("() => document.querySelector('img.study').naturalWidth > 0")
        for view in (DESK, PHONE, DESK.in_the_dark(), PHONE.in_the_dark()):
            page.set_viewport_size({"width": view.width, "height": view.height})
            page.emulate_media(color_scheme="dark" if view.dark else "light")
            snap(page, "policy-played", view)
            assert page.evaluate("document.documentElement.scrollWidth") <= view.width
        assert not watched.wrong
