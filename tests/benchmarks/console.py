"""What the console's pages cost on a large installation: ``python -m tests.benchmarks.console [DEVICES]``.

A store with a million devices and a hundred rollouts, of which one has been offered to nearly all of them. Each page's
bytes on the wire and its median time to the first byte, against that of a page with nothing on it in the same run: made
anew for each request, and given again as it is to consoles that stand open.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from orchestrator.gateway.server import Server, listen
from orchestrator.services.census import Censuses
from orchestrator.web.app import operators_side
from tests.benchmarks.figures import figure
from tests.web.installation import EVERYBODY, TOLERANT, Installation, believable
from tests.web.multitude import multiply
from tests.web.test_app import Known

DEVICES = 1_000_000
ROLLOUTS = 100
ROUNDS = 25
CONSOLES = 200
IDLE_FOR = 20
PAGES = (
    "/rollouts",
    "/rollouts/lmp-42",
    "/rollouts/beta-43",
    "/rollouts/lmp-42/order/pause",
    "/fleet",
    "/devices?begins=copy-",
    "/groups/lab",
    "/devices/gw-0007",
    "/deltas",
    "/policies",
    "/policies/standard",
)
EMPTY = "/rollouts?status=cancelled"
"""A page of the same frame with nothing on it."""


def installation(root: Path, patch: pytest.MonkeyPatch, devices: int) -> Installation:
    home = Installation(root).open(patch)
    believable(home)
    for number in range(ROLLOUTS - 3):
        home.apply(f"line-{number}", 42, "promoted", EVERYBODY, TOLERANT)
    began = time.perf_counter()
    multiply(home, "lmp-42", devices)
    seal(home)
    print(f"{devices:,} devices were made in {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    Censuses(home.app.store, home.app.clock).take()
    return home


def seal(home: Installation) -> None:
    """As ticks do, as the reports come."""
    with home.app.store.writing() as w:
        row = w.rollout("lmp-42")
        assert row is not None
        w.seal_evidence(row.key, at_most=10_000_000)


def idle(port: int) -> None:
    """The part of a core that many open consoles cost while nothing happens."""
    links = []
    for _ in range(CONSOLES):
        link = HTTPConnection("127.0.0.1", port, timeout=60)
        link.request("GET", "/live", headers={"cookie": "wave_session=admin"})
        assert link.getresponse().status == 200
        links.append(link)
    time.sleep(2)
    before, began = time.process_time(), time.perf_counter()
    time.sleep(IDLE_FOR)
    part = (time.process_time() - before) / (time.perf_counter() - began)
    for link in links:
        link.close()
    figure(f"{CONSOLES} open consoles while nothing happens", f"{100 * part:.1f} % of a core", "under 10 %")


def timed(port: int, path: str) -> tuple[float, int]:
    """Seconds to the first byte, and bytes of the body as sent."""
    link = HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    link.request("GET", path, headers={"cookie": "wave_session=admin", "accept-encoding": "gzip"})
    answer = link.getresponse()
    first = time.perf_counter() - began
    body = answer.read()
    assert answer.status == 200, (path, answer.status)
    link.close()
    return first, len(body)


def main(devices: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        home = installation(Path(folder), patch, devices)
        over = threading.Event()
        door = listen("127.0.0.1", 0)
        server = Server(operators_side(home.app, over=over, doorkeeper=Known()), sockets=[door], signals=False)
        port = door.getsockname()[1]
        serving = threading.Thread(target=server.run, daemon=True)
        serving.start()
        try:
            measure(port, devices)
            idle(port)
        finally:
            over.set()
            server.stop()
            serving.join(15)
            home.close()


def medians_of(port: int, *, anew: bool) -> tuple[dict[str, float], dict[str, int]]:
    """Medians and sizes by path. ``anew``: by an address that nobody asked for before."""
    for path in (EMPTY, *PAGES):
        timed(port, path)
    times: dict[str, list[float]] = {path: [] for path in (EMPTY, *PAGES)}
    sizes: dict[str, int] = {}
    for number in range(ROUNDS):
        for path, found in times.items():
            asked = f"{path}{'&' if '?' in path else '?'}round={number}" if anew else path
            first, sizes[path] = timed(port, asked)
            found.append(first)
    return {path: statistics.median(found) for path, found in times.items()}, sizes


def measure(port: int, devices: int) -> None:
    for anew, how in ((True, "made anew"), (False, "of a console that stands open")):
        medians, sizes = medians_of(port, anew=anew)
        print(how)
        for path, median in medians.items():
            times = f"{1e3 * median:7.1f} ms  {median / medians[EMPTY]:5.1f} x"
            print(f"   {path:34} {times}  {sizes[path]:8,} bytes", flush=True)
        slowest = max(PAGES, key=lambda path: medians[path])
        figure(
            f"the console's slowest page on {devices:,} devices and {ROLLOUTS} rollouts, {how}, median first byte",
            f"{1e3 * medians[slowest]:.0f} ms ({slowest}), {medians[slowest] / medians[EMPTY]:.1f} x an empty page",
            "at most 3 x an empty page",
        )
    largest = max(PAGES, key=lambda path: sizes[path])
    figure("the console's largest page there, on the wire", f"{sizes[largest]:,} bytes ({largest})", "at most 150 KB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES)
