"""The console in a real Chromium: one server on one installation, and browsers that sign in by a role."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from argon2 import PasswordHasher
from playwright.sync_api import Browser, Dialog, Page

from orchestrator.core.roles import Role
from orchestrator.gateway.server import Server, listen
from orchestrator.services.passwords import Passwords
from orchestrator.services.people import Doorkeeper, Person
from orchestrator.services.people_door import Door
from orchestrator.web.app import operators_side
from tests.web.e2e.pages import all_pages
from tests.web.installation import Installation

CHROMIUM = "/usr/bin/chromium"
NAME = "<img src=x onerror=alert(1)>anna"
"""Who is signed in: a name that is no text to a page that is not careful."""
WORDS = "correct horse battery"
"""Rosa's password, who may look."""
QUICK = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


class Roles(Door):
    """A door beside which the name of a role is a session too, as ``viewer`` or ``viewer.mika``."""

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        role, _, name = session.partition(".")
        if role in set(Role):
            return Person(name or NAME, frozenset({Role(role)}))
        return super().by_session(session, address=address, looks=looks)


@dataclass
class Served:
    """The operators' side of an installation on a port that it keeps over a restart."""

    home: Installation
    port: int = 0
    doorkeeper: Callable[[], Doorkeeper] | None = None
    """Made anew with each start; else ``door`` is."""
    _over: threading.Event = field(default_factory=threading.Event)
    _server: Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        door = listen("127.0.0.1", self.port)
        self.port = door.getsockname()[1]
        self._over = threading.Event()
        side = operators_side(self.home.app, over=self._over, doorkeeper=(self.doorkeeper or self.door)())
        self._server = Server(side, sockets=[door], signals=False)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    @property
    def pages(self) -> dict[str, str]:
        """Every page by the name of its picture."""
        ((failed, _),) = self.home.app.queries.updates("beta-43", bad=True, limit=1)
        return all_pages(failed)

    def door(self) -> Roles:
        app = self.home.app
        return Roles(app.store, app.clock, idle=timedelta(hours=12), at_most=timedelta(days=7), passwords=QUICK)

    def stop(self) -> None:
        assert self._server is not None and self._thread is not None
        self._over.set()
        self._server.stop()
        self._thread.join(15)

    @contextmanager
    def page(
        self, browser: Browser, role: str = "admin", *, width: int = 1440, height: int = 900, dark: bool = False
    ) -> Iterator[Watched]:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(10_000)
        if role:
            context.add_cookies([{"name": "wave_session", "value": role, "url": self.url}])
        try:
            yield Watched(context.new_page(), self.url)
        finally:
            context.close()


class Watched:
    """A page, with what it asked for and what went wrong."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", self._dialog)

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, path: str) -> int:
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None
        return answer.status
