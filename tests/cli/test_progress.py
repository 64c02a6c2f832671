"""The bar is for a person at a terminal; a pipe and JSON never see it."""

from __future__ import annotations

import io
import sys

import pytest

from orchestrator.cli.context import Invocation
from orchestrator.cli.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def sit_down(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """In the test itself: what a fixture puts there is put back before it begins."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_rows_and_bytes_are_shown_to_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    with Bar(Invocation(), "evidence") as bar:
        bar.rows("lmp-42", 3, 40)
        bar.rows("lmp-42", 40, 40)
    assert "evidence of lmp-42" in terminal.getvalue() and "40/40" in terminal.getvalue()
    with Bar(Invocation(), "Reading") as bar:
        bar.bytes(500, 1_000)
    assert "Reading" in terminal.getvalue() and "bytes" in terminal.getvalue()


def test_nothing_is_shown_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    with Bar(Invocation(), "evidence"):
        pass
    assert terminal.getvalue() == ""


def test_json_and_a_pipe_see_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    with Bar(Invocation(as_json=True), "evidence") as bar:
        bar.rows("lmp-42", 1, 2)
    assert terminal.getvalue() == ""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with Bar(Invocation(), "evidence") as bar:
        bar.rows("lmp-42", 1, 2)
    assert pipe.getvalue() == ""
