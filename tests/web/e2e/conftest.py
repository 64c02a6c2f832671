"""One installation with much to see, served, and one Chromium, for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from orchestrator.core.roles import Role
from orchestrator.services.people_orders import People
from tests.web.e2e.browsing import CHROMIUM, QUICK, WORDS, Served
from tests.web.installation import Installation
from tests.web.scenes import Scenes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        home = Installation(Path(tmp_path_factory.mktemp("home"))).open(patch)
        Scenes().play(home)
        People(home.app.store, home.app.clock, QUICK).add("rosa", [Role.VIEWER], by="root", password=WORDS)
        found = Served(home)
        found.start()
        yield found
        found.stop()
        home.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
