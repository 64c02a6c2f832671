"""The site of the docs: it is built without a warning, holds every page, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import answering

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


class Loads(HTMLParser):
    """What a page makes a browser fetch, and the classes that make the theme's script do so."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "embed", "use", "form"):
            self.found += [given.get("src", ""), given.get("action", ""), given.get("xlink:href", "")]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href", ""))
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style", ""))
        assert "mermaid" not in given.get("class", "").split()


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in (ROOT / "docs").rglob("*.md")}
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert pages | {"index.html"} <= built
    for page in sorted(site.rglob("*.html")):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert [each for each in loads.found if re.match(r"(?i)(https?:)?//", each)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")) == [], sheet.name


def test_no_mark_of_the_sources_is_left(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "runnable:" not in text and "begin generated" not in text and "stateDiagram" not in text
    assert "<code>halted</code>" in text, "the graph of states is a table"


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(site))

    with answering(Files) as url:
        yield url


def test_a_browser_asks_nobody_else_and_finds_what_is_searched(served: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index.html", "tutorial.html", "how-to/staircase.html", "reference/none.html"):
            page.goto(f"{served}/{name}")
        page.goto(f"{served}/index.html")
        page.locator(".md-search__input").click()
        page.keyboard.type("staircase")
        page.locator(".md-search-result__item a").first.wait_for(timeout=20_000)
        browser.close()
    assert [url for url in asked if not url.startswith((served, "blob:", "data:"))] == []
