"""A server in a process of its own, to be killed: the real services over a SQLite file, told what to do through a
pipe.

The real writer thread commits here. The clock is whatever the last message said, so that the fleet's time stays
virtual.
"""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any

from orchestrator.adapters.scheduler import TickScheduler
from orchestrator.adapters.sql.store import open_store
from orchestrator.services.deltas import Deltas
from orchestrator.services.devices import Devices
from orchestrator.services.settings import Settings
from orchestrator.services.settling import settle
from orchestrator.services.tick import Ticker
from tests.stories.content import Content
from tests.stories.simulator import TICK_AT_MOST, settled

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def serve(pipe: Connection, url: str, content: Content) -> None:
    """Answer ``(now, what, arguments)`` until killed. An answer is given when it is committed."""
    now = datetime.min.replace(tzinfo=UTC)

    def clock() -> datetime:
        return now

    store = open_store(url, create=False)
    devices = Devices(store, Settings(), clock, settle=settle, knows=content.has_commit)
    devices.writer.start()
    deltas = Deltas(store, content, clock)
    ticker = Ticker(store, devices.expire, deltas.ensure, changed=devices.refresh)
    lease = timedelta(seconds=0)  # whoever was killed has lost it
    scheduler = TickScheduler(
        ticker, store, clock, at_most=TICK_AT_MOST, lease=lease, owner="served", down_after=3 * TICK_AT_MOST
    )
    scheduler._at_most = TICK_AT_MOST
    pipe.send("ready")
    while True:
        now, what, arguments = pipe.recv()
        answer: Any
        if what == "check-in":
            answer = settled(devices.check_in(*arguments))._replace(had={})
        elif what == "report":
            answer = settled(devices.report(*arguments))
        else:
            devices.writer._touch_only()
            scheduler._beat()
            answer = (scheduler._look(), sorted(ticker._problems.items()))
        pipe.send(answer)


class Killed(Exception):
    """The server died before it answered; whatever was asked is to be asked again."""


class Server:
    """The process, as those see it that talk to it."""

    def __init__(self, url: str, content: Content) -> None:
        self._url, self._content = url, content
        self.kills = 0
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(theirs, self._url, self._content), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def ask(self, now: datetime, what: str, *arguments: Any, die_after: float | None = None) -> Any:
        """The answer; with ``die_after`` the process is killed so many seconds after it was asked, answered or not.
        Raises Killed, with another process started."""
        self._pipe.send((now, what, arguments))
        if die_after is None:
            return self._pipe.recv()
        self._process.join(die_after)
        self._process.kill()
        self._process.join()
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = None
        self._pipe.close()
        self.kills += 1
        self._start()
        if answer is None:
            raise Killed
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
