"""How many steps SQLite takes for what a block asks of a store, whatever comes of them: each row of a table or an index
that it goes on to is one at least, and a look for a row by its key is some, however large the table.

SQLite calls back for each step. What goes through a whole table in one, a count of it, is found in the statements'
programs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.sql.engine import Engine

AT_ONCE = frozenset({"Count"})
"""Instructions that go through a whole table or index in one step."""

FLEET = frozenset({"device", "device_update", "update_offer", "device_label", "event", "evidence", "clock_mark"})
"""Tables with a row, or more, for each device."""


@dataclass
class Visits:
    """``steps`` of the machine; ``statements``: what was asked, as it was sent."""

    steps: int = 0
    statements: list[str] = field(default_factory=list)

    def step(self) -> int:
        self.steps += 1
        return 0

    def at_once(self, path: Path) -> list[str]:
        """Statements that count a table of the fleet in one step."""
        with closing(sqlite3.connect(path)) as link:
            link.text_factory = lambda text: text.decode(errors="replace")  # digests stand in programs as they are
            return self._at_once(link)

    def _at_once(self, link: sqlite3.Connection) -> list[str]:
        roots = {
            page
            for page, table in link.execute("SELECT rootpage, tbl_name FROM sqlite_master").fetchall()
            if table in FLEET
        }
        found = []
        for statement in dict.fromkeys(self.statements):
            if not statement.lstrip().upper().startswith(("SELECT", "WITH")):
                continue
            opened = {}
            for _, name, cursor, page, *_ in link.execute(f"EXPLAIN {statement}").fetchall():
                if name == "OpenRead":
                    opened[cursor] = page
                if name in AT_ONCE and opened.get(cursor) in roots:
                    found.append(statement)
        return found


@contextmanager
def counted() -> Iterator[Visits]:
    """Of all sessions of all stores, readings and transactions."""
    visits = Visits()

    def watching(opening: Any) -> Any:
        @contextmanager
        def watched(engine: Engine) -> Iterator[Any]:
            with opening(engine) as link:
                link.raw.set_progress_handler(visits.step, 1)
                link.raw.set_trace_callback(visits.statements.append)
                try:
                    yield link
                finally:
                    link.raw.set_progress_handler(None, 1)
                    link.raw.set_trace_callback(None)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reading", "writing"):
            patch.setattr(Engine, name, watching(getattr(Engine, name)))
        yield visits
