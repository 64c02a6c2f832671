"""The console for who has no mouse, no eyes for it, or a telephone: by keyboard, by names and roles, by thumb."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page, expect

from orchestrator.services.console import ENTRIES_ON_A_PAGE
from tests.web.e2e.browsing import WORDS, Served
from tests.web.e2e.pages import DOOR

pytestmark = pytest.mark.e2e

REGIONS = ("Waves", "What would move it", "Halting staircase", "Success band", "Windows", "Deltas", "Journal")
SCREENS = (320, 720)
"""Pixels of the narrowest screen (WCAG 2.2, 1.4.10), and of a desk's at twice the size."""
LEAST_TARGET = 24
"""Pixels that a finger needs at least (WCAG 2.2, 2.5.8)."""

_AT = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return { tag: at.tagName, text: (at.innerText || at.getAttribute("aria-label") || "").trim(),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    top: at.getBoundingClientRect().top, bottom: at.getBoundingClientRect().bottom };
}"""

_SMALL = """(least) => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, summary")]
  .filter((each) => {
    const box = each.getBoundingClientRect();
    const inline = each.tagName === "A" && getComputedStyle(each).display === "inline";
    return box.width && !each.closest(".skip") && !inline && each.type !== "checkbox"
      && (box.height < least || box.width < least);
  })
  .map((each) => `${each.tagName} ${each.innerText || each.name}: ${each.getBoundingClientRect().height}`)"""


def _tab(page: Page) -> dict[str, object]:
    page.keyboard.press("Tab")
    found: dict[str, object] = page.evaluate(_AT)
    return found


def test_who_signs_in_needs_no_mouse_and_comes_to_where_they_wanted(served: Served, browser: Browser) -> None:
    with served.page(browser, "") as watched:
        page = watched.page
        watched.go("/fleet")
        expect(page).to_have_title("Sign in · wave")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("rosa")
        page.keyboard.press("Tab")
        page.keyboard.type("not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
        expect(page.get_by_label("Password")).to_be_focused()
        page.keyboard.type(WORDS)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Fleet")
        assert len(watched.wrong) == 1 and "401" in watched.wrong[0], "what the browser says of the wrong password"


def test_a_page_left_open_leads_to_the_door_once_its_session_is_over(served: Served, browser: Browser) -> None:
    with served.page(browser, "") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        page.get_by_label("Name").fill("rosa")
        page.get_by_label("Password").fill(WORDS)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#live")).to_have_text("live")
        (session,) = [each for each in page.context.cookies() if each.get("name") == "wave_session"]
        served.door().sign_out(session["value"])
        served.home.app.rollouts.pause("lmp-42", by="mika", reason="While the session ended.")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(page).to_have_url(f"{served.url}/sign-in?next=%2Frollouts%2Flmp-42")
        assert "While the session ended" not in page.content()
        served.home.app.rollouts.resume("lmp-42", by="mika")


def test_tab_goes_from_the_way_past_the_frame_to_the_page_and_one_sees_where(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser.anna") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        seen = [_tab(page) for _ in range(17)]
        assert seen[0]["text"] == "Skip to the page" and float(str(seen[0]["top"])) >= 0, (
            "it is seen once it is reached"
        )
        texts = [each["text"] for each in seen]
        assert texts[1:7] == ["wave", "Rollouts", "Fleet", "Deltas", "Policies", "Sign out"]
        assert texts[8:15] == ["Promote", "Pause", "Complete", "Exclude a segment", "Skip a wave", "Cancel", "Halt"]
        assert texts[15] == "?", "what a wave is"
        assert str(texts[16]).startswith("lab"), "the graph of the waves, which can be scrolled"
        assert all(each["ring"] for each in seen), [each for each in seen if not each["ring"]]
        watched.go("/rollouts/lmp-42")
        _tab(page)
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.id") == "main"
        assert _tab(page)["text"] == "Rollouts", "the crumb: the first link of the page itself"


def test_an_order_is_given_by_keyboard_alone(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser.anna") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42/order/pause")
        page.keyboard.press("Tab")
        while page.evaluate("() => document.activeElement.id") != "reason":
            page.keyboard.press("Tab")
        page.keyboard.type("Support has no hands free.")
        assert _tab(page)["text"] == "Pause lmp-42"
        page.keyboard.press("Enter")
        expect(page.locator("h1 .pill")).to_contain_text("paused")
        served.home.app.rollouts.resume("lmp-42", by="mika")


def test_a_page_is_told_by_its_landmarks_and_its_charts_have_names(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer.mika") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        expect(page.get_by_role("banner")).to_have_count(1)
        expect(page.get_by_role("main")).to_have_count(1)
        expect(page.get_by_role("navigation", name="Pages")).to_have_count(1)
        for name in (
            "Waves",
            "What would move it",
            "Halting staircase",
            "Success band",
            "Windows",
            "Deltas",
            "Journal",
        ):
            expect(page.get_by_role("region", name=name, exact=True)).to_have_count(1)
        expect(page.get_by_role("img", name="The waves")).to_have_accessible_description(re.compile("lab is passed"))
        for name in ("Staircase of rollout/failed", "Success against the tolerance"):
            expect(page.get_by_role("img", name=name)).to_have_count(1)
        assert page.locator("svg[role=img]").evaluate_all(
            "all => all.every(e => document.getElementById(e.getAttribute('aria-describedby')).textContent.length > 20)"
        )
        levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels)), "none is left out"


def test_what_changes_is_read_out_and_stands_in_the_title_of_the_tab(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer.mika") as watched:
        page = watched.page
        watched.go("/rollouts/lmp-42")
        expect(page.locator("#live")).to_have_text("live")
        news = page.locator("#news")
        expect(news).to_have_attribute("role", "status")
        expect(news).to_have_text("")
        served.home.app.rollouts.pause("lmp-42", by="mika", reason="Support has no hands free.")
        expect(news).to_contain_text("lmp-42 is paused. Paused by mika: Support has no hands free.")
        expect(page).to_have_title("lmp-42: paused · wave")
        served.home.app.rollouts.resume("lmp-42", by="mika")
        expect(page).to_have_title("lmp-42: running · wave")


def test_the_focus_stays_where_it_was_when_the_page_changes_under_it(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer.mika") as watched:
        page = watched.page
        watched.go("/rollouts")
        expect(page.locator("#live")).to_have_text("live")
        page.get_by_role("link", name="lmp-42", exact=True).focus()
        served.home.app.rollouts.freeze(by="mika", reason="The network is down.")
        # It was no part of the page before.
        expect(page.locator("#frozen")).to_contain_text("The network is down.")
        expect(page.get_by_role("link", name="lmp-42", exact=True)).to_be_focused()
        served.home.app.rollouts.unfreeze(by="mika")
        expect(page.locator("#frozen")).to_have_count(0)


def test_a_thumb_finds_what_it_aims_at_and_no_page_goes_beyond_any_screen(served: Served, browser: Browser) -> None:
    with served.page(browser, "releaser.anna", width=390, height=844) as watched:
        page, found = watched.page, []
        for path in [*served.pages.values(), *DOOR.values()]:
            watched.go(path)
            found += [f"{path}: {each}" for each in page.evaluate(_SMALL, LEAST_TARGET)]
            for width in SCREENS:
                page.set_viewport_size({"width": width, "height": 844})
                wide = page.evaluate("document.documentElement.scrollWidth")
                found += [f"{path} is {wide} px wide on a screen of {width}"] if wide > width else []
            page.set_viewport_size({"width": 390, "height": 844})
        assert not found, "\n".join(found)


def test_a_table_that_became_cards_is_still_a_table(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer.mika", width=390, height=844) as watched:
        watched.go("/rollouts/lmp-42")
        waves = watched.page.get_by_role("table", name="The waves in file order")
        expect(waves.get_by_role("columnheader", name="Confirmed")).to_have_count(1)
        row = waves.get_by_role("row").filter(has=watched.page.get_by_role("rowheader", name="canary"))
        expect(row.get_by_role("cell").first).to_have_text("+ passed")


def test_a_journal_is_read_to_its_beginning(served: Served, browser: Browser) -> None:
    with served.page(browser, "viewer.mika") as watched:
        page = watched.page
        for _ in range(ENTRIES_ON_A_PAGE // 2):
            served.home.app.rollouts.pause("lmp-42", by="mika")
            served.home.app.rollouts.resume("lmp-42", by="mika")
        watched.go("/rollouts/lmp-42")
        page.get_by_role("link", name="entries").click()
        assert page.get_by_role("link", name="Newer").count() == 0
        seen = page.locator(".journal li").count()
        while page.get_by_role("link", name="Older").count():
            page.get_by_role("link", name="Older").click()
            seen += page.locator(".journal li").count()
        newest = served.home.app.queries.journal("lmp-42")[-1].seq
        assert seen == newest > ENTRIES_ON_A_PAGE
        expect(page.locator(".journal li").last).to_contain_text("Applied by mika")
        page.get_by_role("link", name="Newer").click()
        expect(page).to_have_url(f"{served.url}/rollouts/lmp-42/journal")
