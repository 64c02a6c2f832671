"""Every page at both widths and in both schemes: it stands, nothing of it moves, axe finds nothing, it is small, and
its picture lies in ``build/console`` for people to look at."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.web.e2e.browsing import Served
from tests.web.e2e.looking import Seen, look
from tests.web.e2e.pages import DESK, DOOR, PHONE, TROUBLE, View

pytestmark = pytest.mark.e2e

MOST_BYTES = 150_000
MOST_SHIFT = 0.01
"""A tenth of what Lighthouse calls good."""


def _wrong(name: str, seen: Seen, status: int) -> list[str]:
    found = [f"{name}: {seen.axe}"] if seen.axe else []
    if seen.status != status:
        found.append(f"{name} answers {seen.status}")
    if seen.wider:
        found.append(f"{name} is {seen.wider} px wider than the screen")
    if seen.shift > MOST_SHIFT:
        found.append(f"{name} moves by {seen.shift:.3f}: {seen.moved}")
    if not 0 < seen.bytes <= MOST_BYTES:
        found.append(f"{name} has {seen.bytes:,} bytes on the wire")
    if not seen.first_paint:
        found.append(f"{name} paints nothing")
    # A browser says of each answer like 404 that it is one.
    errors = [each for each in seen.wrong if status == 200 or "Failed to load resource" not in each]
    return found + [f"{name}: {each}" for each in errors]


@pytest.mark.parametrize("view", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_stands_still_is_small_and_axe_finds_nothing(served: Served, browser: Browser, view: View) -> None:
    found: list[str] = []
    for name, path in served.pages.items():
        role = "approver.bela" if name == "order-approve" else "releaser.anna"
        found += _wrong(name, look(served, browser, path, view, role=role, name=name), 200)
    for name, (path, status) in TROUBLE.items():
        found += _wrong(name, look(served, browser, path, view, name=name), status)
    for name, path in DOOR.items():
        found += _wrong(name, look(served, browser, path, view, role="", name=name), 200)
    assert not found, "\n".join(found)
