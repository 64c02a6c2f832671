"""What a page costs: no page goes through more rows of the database where there are more devices, none is large."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from orchestrator.core.evidence.log import BLOCK
from orchestrator.core.roles import Role
from orchestrator.services.census import EVERY, Censuses
from orchestrator.web import signing_in
from orchestrator.web.app import operators_side
from orchestrator.web.console.routes import router
from orchestrator.web.console.verbs import VERBS
from tests.web.history import releases
from tests.web.installation import Installation, believable
from tests.web.multitude import multiply
from tests.web.pages import MOST_BYTES, NO_PAGES, PAGES
from tests.web.visits import counted


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with pytest.MonkeyPatch.context() as patch:
        made = Installation(Path(tmp_path_factory.mktemp("home"))).open(patch)
        releases(made, 7, lines=7, devices=12)
        believable(made)
        yield made
        made.close()


@pytest.fixture
def client(home: Installation) -> TestClient:
    """Somebody who has signed in at the real door."""
    home.app.people.add("anna", [Role.ADMIN, Role.RELEASER, Role.APPROVER], by="test", password="correct horse battery")
    side = operators_side(home.app, doorkeeper=home.app.door)
    made = TestClient(side, follow_redirects=False)
    made.cookies.set("wave_session", home.app.door.sign_in("anna", "correct horse battery", address="127.0.0.1"))
    return made


@pytest.mark.slow
def test_no_page_goes_through_more_rows_where_there_are_more_devices(home: Installation, client: TestClient) -> None:
    """And every page is one of these; an order that is looked at counts with what it would write. An order covers the
    evidence that no block of its digest holds yet: of that there is as much both times."""
    asked = {path.partition("?")[0] for path in PAGES}
    routes = [each for each in (*router.routes, *signing_in.router.routes) if isinstance(each, APIRoute)]
    pages = [each for each in routes if "GET" in (each.methods or ()) and each.path not in NO_PAGES]
    assert len(pages) > 10
    assert not [each.path for each in pages if not any(each.path_regex.fullmatch(path) for path in asked)]
    assert {path.split("/order/")[1].partition("?")[0] for path in PAGES if "/order/" in path} == set(VERBS)
    multiply(home, "lmp-42", 3 * BLOCK, bad_every=10)
    few = _visits(home, client)
    multiply(home, "lmp-42", 12 * BLOCK, bad_every=10)
    many = _visits(home, client)
    assert not {path: (few[path], many[path]) for path in PAGES if many[path] > few[path]}


def _visits(home: Installation, client: TestClient) -> dict[str, int]:
    home.app.devices.refresh()
    home.now += EVERY
    assert Censuses(home.app.store, home.app.clock).take()
    with home.app.store.writing() as w:  # as ticks do, as the reports come
        for row in w.rollouts():
            w.seal_evidence(row.key, at_most=1_000_000)
    found, side = {}, client.app
    assert isinstance(side, FastAPI)
    for path in PAGES:
        client.get(path)  # what is read once and kept
        home.app.devices.refresh()
        side.state.kept.forget()
        with counted() as visits:
            answer = client.get(path)
        assert answer.status_code in (200, 303), (path, answer.text)
        assert len(gzip.compress(answer.content, 1)) <= MOST_BYTES
        assert not visits.at_once(home.root / "wave.db"), path
        found[path] = visits.steps
    return found
