"""A client's log of a deployment that failed: the lines that say most, in little room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from orchestrator.services.messages import LONGEST_MESSAGE

_RANKS: Final = {"panic": 0, "fatal": 0, "critical": 0, "error": 0, "warning": 1, "warn": 1}
_OTHERS: Final = 2
_LONGEST_LINE: Final = 500


class Line(Struct, frozen=True):
    """One line of a log. ``timestamp`` is the device's, and left aside."""

    message: str = ""
    level: str = ""


def gist(lines: Sequence[Line], longest: int = LONGEST_MESSAGE) -> str:
    """As many lines as there is room for, in their order: errors before warnings before the rest, the last ones
    first."""
    ranked = sorted(range(len(lines)), key=lambda at: (_RANKS.get(lines[at].level.lower(), _OTHERS), -at))
    chosen: dict[int, str] = {}
    room = longest
    for at in ranked:
        text = _plain(lines[at])
        if not text:
            continue
        if len(text) + 1 > room:
            break
        chosen[at] = text
        room -= len(text) + 1
    return "\n".join(chosen[at] for at in sorted(chosen))


def _plain(line: Line) -> str:
    said = "".join(each if each.isprintable() else " " for each in line.message[:_LONGEST_LINE])
    level = line.level if line.level.isascii() and line.level.isalpha() and len(line.level) < 16 else ""
    return f"{level}: {' '.join(said.split())}" if level and said.strip() else " ".join(said.split())
