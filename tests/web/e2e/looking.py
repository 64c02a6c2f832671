"""A page looked at for the first time in a real Chromium: its picture, and figures as Lighthouse gives them.

Each look has a browser context of its own, so nothing is cached. *First paint* is the first contentful paint; *shift*
the sum of all layout shifts, those included that come when the page goes live and asks for itself again; *bytes* and
*requests* what came over the wire until the page had loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.web.e2e.browsing import Served, Watched
from tests.web.e2e.pages import View

BUILD: Final = Path(__file__).parents[3] / "build" / "console"
"""Where pictures go; nothing of it is kept in the repository."""

SLOW: Final = {"latency": 150, "downloadThroughput": 1_638_400 / 8, "uploadThroughput": 768_000 / 8}
"""Lighthouse's telephone network: 150 ms there and back, 1.6 Mbit/s."""

SLOWER: Final = 4
"""Lighthouse's telephone: so many times slower than this machine."""

_FIGURES: Final = """async () => {
  const seen = (type) => new Promise((done) => {
    new PerformanceObserver((list) => done(list.getEntries())).observe({ type, buffered: true });
    setTimeout(() => done([]), 50);
  });
  const shifts = await seen("layout-shift"), largest = await seen("largest-contentful-paint");
  const first = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    first: first ? first.startTime : 0,
    largest: largest.length ? largest[largest.length - 1].startTime : 0,
    shift: shifts.reduce((sum, each) => sum + each.value, 0),
    moved: shifts.flatMap((each) => each.sources.map((one) => one.node && one.node.outerHTML
      ? one.node.outerHTML.slice(0, 80) : "")),
  };
}"""

_ASKED_AGAIN: Final = (
    "() => performance.getEntriesByType('resource').some(e => e.initiatorType === 'fetch' && e.responseEnd)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at one page. Times in milliseconds; ``moved``: what shifted; ``axe``: what axe found, '' for nothing;
    ``wrong``: errors of the page's own; ``wider``: by so many pixels than the screen."""

    status: int
    bytes: int
    requests: int
    first_paint: float
    largest_paint: float
    shift: float
    moved: tuple[str, ...]
    axe: str
    wrong: tuple[str, ...]
    wider: int


@contextmanager
def looked_at(
    served: Served, browser: Browser, path: str, view: View, *, role: str, slow: bool = False, settled: bool = True
) -> Iterator[tuple[Watched, int, Mapping[str, int]]]:
    """The page once it stands, its status, and what came over the wire. ``settled``: after it went live and asked for
    itself again."""
    with served.page(browser, role, width=view.width, height=view.height, dark=view.dark) as watched:
        page = watched.page
        wire = {"bytes": 0, "requests": 0}
        link = page.context.new_cdp_session(page)
        link.send("Network.enable")

        def came(event: dict[str, Any]) -> None:
            wire["bytes"] += int(event["encodedDataLength"])
            wire["requests"] += 1

        link.on("Network.loadingFinished", came)
        if slow:
            link.send("Network.emulateNetworkConditions", {"offline": False, **SLOW})
            link.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        status = watched.go(path)
        loaded = dict(wire)
        if page.locator("body[data-live]").count():
            page.wait_for_function("() => document.getElementById('live').textContent === 'live'")
            if settled:
                page.wait_for_function(_ASKED_AGAIN)
        yield watched, status, loaded


def look(
    served: Served,
    browser: Browser,
    path: str,
    view: View,
    *,
    role: str = "releaser.anna",
    slow: bool = False,
    settled: bool = True,
    name: str = "",
) -> Seen:
    """``name``: of the pictures that are taken, if any, light and dark; then axe is asked of both, of the second only
    what colours can change."""
    with looked_at(served, browser, path, view, role=role, slow=slow, settled=settled) as (watched, status, wire):
        page = watched.page
        found = page.evaluate(_FIGURES)
        axe = ""
        if name:
            snap(page, name, view)
            axe = _asked_axe(page)
            page.emulate_media(color_scheme="dark")
            snap(page, name, view.in_the_dark())
            axe += _asked_axe(page, {"runOnly": {"type": "rule", "values": ["color-contrast"]}})
        return Seen(
            status=status,
            bytes=wire["bytes"],
            requests=wire["requests"],
            first_paint=found["first"],
            largest_paint=found["largest"],
            shift=found["shift"],
            moved=tuple(found["moved"]),
            axe=axe,
            wrong=(*watched.wrong, *(f"asks {each}" for each in watched.asked if not each.startswith(served.url))),
            wider=max(0, int(page.evaluate("document.documentElement.scrollWidth")) - view.width),
        )


def _asked_axe(page: Page, options: Mapping[str, Any] | None = None) -> str:
    found = Axe().run(page, options=options)
    return str(found.generate_report()) if found.violations_count else ""


def picture_of(name: str, view: View) -> Path:
    return BUILD / f"{name}-{view.name}.png"


def snap(page: Page, name: str, view: View) -> Path:
    """A picture of the whole page."""
    BUILD.mkdir(parents=True, exist_ok=True)
    path = picture_of(name, view)
    page.screenshot(path=path, full_page=True, animations="disabled", caret="hide")
    return path
