"""The console in a real Chromium: one server on one installation, and browsers that sign in by a role."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Dialog, Page

from orchestrator.core.roles import Role
from orchestrator.errors import Unauthorized
from orchestrator.gateway.server import Server, listen
from orchestrator.services.people import Doorkeeper, Person
from orchestrator.web.app import operators_side
from tests.web.installation import Installation

CHROMIUM = "/usr/bin/chromium"
NAME = "<img src=x onerror=alert(1)>anna"
"""Who is signed in: a name that is no text to a page that is not careful."""


class Roles:
    """A session is the name of a role."""

    def by_token(self, token: str, *, address: str, looks: bool = True) -> Person:
        if token not in set(Role):
            raise Unauthorized("The session is over: sign in again.")
        return Person(NAME, frozenset({Role(token)}))

    def by_session(self, session: str, *, address: str, looks: bool = True) -> Person:
        return self.by_token(session, address=address)


@dataclass
class Served:
    """The operators' side of an installation on a port that it keeps over a restart."""

    home: Installation
    port: int = 0
    doorkeeper: Callable[[], Doorkeeper] = Roles
    """Made anew with each start."""
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
        side = operators_side(self.home.app, over=self._over, doorkeeper=self.doorkeeper())
        self._server = Server(side, sockets=[door], signals=False)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._server is not None and self._thread is not None
        self._over.set()
        self._server.stop()
        self._thread.join(15)

    @contextmanager
    def page(
        self, browser: Browser, role: str = "admin", *, width: int = 1440, dark: bool = False
    ) -> Iterator[Watched]:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
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
