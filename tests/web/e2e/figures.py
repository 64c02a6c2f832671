"""What the console's pages cost a browser, as Lighthouse would say it: ``python -m tests.web.e2e.figures [--write]``.

Each page is visited some times with nothing cached, on a desk and on a slow telephone; the table has the medians. With
``--write`` it replaces the one in ``docs/console.md``. The paints are those of one machine; the other figures are the
same everywhere, and ``test_looks`` holds them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import sync_playwright

from tests.docs.generate import table
from tests.web.e2e.browsing import CHROMIUM, Served
from tests.web.e2e.looking import Seen, look
from tests.web.e2e.pages import DESK, DOOR, PHONE
from tests.web.installation import Installation
from tests.web.scenes import Scenes

PAGE: Final = Path(__file__).parents[3] / "docs" / "console.md"
BEGIN, END = "<!-- begin figures of the console -->", "<!-- end figures of the console -->"

MEASURED: Final = {
    "rollouts": "rollouts",
    "rollout": "a rollout that runs",
    "rollout-halted": "a rollout that was halted",
    "journal": "its journal",
    "fleet": "the fleet",
    "device": "a device",
    "deltas": "deltas",
    "policies": "policies",
    "policy": "a policy",
    "order-halt": "an order",
    "sign-in": "the door",
}

HEAD: Final = (
    "page",
    "first paint, desk",
    "first paint, phone",
    "largest paint, phone",
    "shift, desk",
    "shift, phone",
    "on the wire",
    "requests",
    "axe",
)


def _row(name: str, desk: Sequence[Seen], phone: Sequence[Seen]) -> tuple[str, ...]:
    def middle(seen: Sequence[Seen], what: str) -> str:
        return f"{statistics.median(getattr(each, what) for each in seen):.0f} ms"

    violations = sum(bool(each.axe) for each in (*desk, *phone))
    return (
        MEASURED[name],
        middle(desk, "first_paint"),
        middle(phone, "first_paint"),
        middle(phone, "largest_paint"),
        f"{max(each.shift for each in desk):.3f}",
        f"{max(each.shift for each in phone):.3f}",
        f"{max(each.bytes for each in (*desk, *phone)) / 1000:.1f} KB",
        str(max(each.requests for each in desk)),
        "none" if not violations else "some",
    )


def measured(served: Served, *, visits: int) -> tuple[str, list[tuple[str, ...]]]:
    """The version of Chromium, and the rows."""
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in MEASURED:
            path = DOOR.get(name) or served.pages[name]
            role = "" if name in DOOR else "releaser.anna"
            look(served, browser, path, DESK, role=role)  # what the server reads once
            desk = [look(served, browser, path, DESK, role=role, name=name if not n else "") for n in range(visits)]
            phone = [
                look(served, browser, path, PHONE, role=role, slow=True, name=name if not n else "")
                for n in range(visits)
            ]
            rows.append(_row(name, desk, phone))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        version = browser.version
        browser.close()
    return version, rows


def main() -> int:
    asked = argparse.ArgumentParser(prog="tests.web.e2e.figures")
    asked.add_argument("--visits", type=int, default=5)
    asked.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        home = Installation(Path(root)).open(patch)
        Scenes().play(home)
        served = Served(home)
        served.start()
        version, rows = measured(served, visits=chosen.visits)
        served.stop()
        home.close()
    busy = f"{os.cpu_count()} cores at a load of {os.getloadavg()[0]:.1f}"
    said = f"Chromium {version} on {busy}, medians of {chosen.visits} first visits.\n\n{table(HEAD, rows)}"
    print(said)
    if chosen.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(f"{text[:before]}\n{said}\n{text[after:]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
