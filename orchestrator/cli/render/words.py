"""Colours of statuses in the terminal; the words themselves are ``core.words``'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from orchestrator.core.words import (
    MARK,
    ago,
    building,
    clock,
    digest,
    megabytes,
    minutes,
    moment,
    more,
    number,
    percent,
    plural,
    short_clock,
    span,
)

__all__ = [
    "MARK",
    "STYLE",
    "ago",
    "building",
    "clock",
    "digest",
    "megabytes",
    "minutes",
    "moment",
    "more",
    "number",
    "percent",
    "plural",
    "short_clock",
    "span",
    "status",
]

STYLE: Final[Mapping[str, str]] = {
    "running": "green",
    "open": "cyan",
    "baking": "cyan",
    "preparing": "cyan",
    "passed": "green",
    "confirmed": "green",
    "completed": "green",
    "ready": "green",
    "done": "green",
    "paused": "yellow",
    "held": "yellow",
    "silent": "yellow",
    "ignored": "yellow",
    "halted": "bold red",
    "failed": "red",
    "rolled_back": "red",
    "cancelled": "dim",
    "skipped": "dim",
    "retired": "dim",
    "pending": "dim",
    "draft": "dim",
    "scheduled": "dim",
}


def status(word: str, *, loud: bool = False) -> Text:
    return Text(word.upper() if loud else word.replace("_", " "), style=STYLE.get(word, ""))
