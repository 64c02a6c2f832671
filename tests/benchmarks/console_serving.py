"""The server of the console's benchmark, in a process of its own: gateway, console, ticks and census side by side as
``wave serve`` has them, over a store that was made beforehand, under a clock that goes on from when it was made.

``python -m tests.benchmarks.console_serving ROOT GATEWAY_PORT CONSOLE_PORT``
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from orchestrator import bootstrap
from orchestrator.adapters.processes import stop_event
from orchestrator.adapters.scheduler import TickScheduler
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.own import OwnDoor
from orchestrator.gateway.server import Server, listen, spare_collector
from orchestrator.services.census import Censuses
from orchestrator.services.gatekeeping import in_a_thread
from orchestrator.services.metering import Meter
from orchestrator.services.settings import Settings
from orchestrator.web.app import operators_side
from orchestrator.web.following import Following
from tests.services.fake_provider import FakeProvider
from tests.web.installation import NOON


def clock(began: float) -> Callable[[], datetime]:
    return lambda: NOON + timedelta(seconds=time.monotonic() - began)


def main(root: Path, gateway_port: int, console_port: int) -> None:
    settings = Settings(root=root)
    now = clock(time.monotonic())
    aside, over, meter = ThreadPoolExecutor(2), threading.Event(), Meter()
    ticks: list[TickScheduler] = []

    def poke() -> None:
        for each in ticks:
            each.poke()

    def later(work: Callable[[], None]) -> None:
        aside.submit(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "open_provider", lambda settings: FakeProvider(root / "content"))
        app = bootstrap.open_application(settings, clock=now, poke=poke, later=later, beside=in_a_thread)
    ticks.append(TickScheduler(app.ticker, app.store, now, at_most=settings.tick_at_most, lease=settings.lease))
    ticks[0].start()
    side = Following(operators_side(app, over=over, doorkeeper=app.door, meter=meter), meter)
    console = Server(side, sockets=[listen("127.0.0.1", console_port)], signals=False)
    gateway = Server(Gateway([OwnDoor(app.devices)]), sockets=[listen("127.0.0.1", gateway_port)], signals=False)
    threads = [
        threading.Thread(target=console.run, name="operators", daemon=True),
        threading.Thread(target=Censuses(app.store, now).run, args=(over,), name="census", daemon=True),
    ]
    with stop_event() as stop:

        def end() -> None:
            stop.wait()
            over.set()
            console.stop()
            gateway.stop()

        threading.Thread(target=end, daemon=True).start()
        for thread in threads:
            thread.start()
        spare_collector()
        gateway.run()
    for thread in threads:
        thread.join(15)
    ticks[0].stop()
    app.close()
    aside.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
