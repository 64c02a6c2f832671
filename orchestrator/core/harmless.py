"""Text that others wrote, as a terminal or a log may show it: nothing in it moves a cursor, changes a title, begins a
line or turns the order of letters round. What could is shown as what it is.

Pure. Not for: markup (each page quotes its own), nor what is kept, which stays as it came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestrator.errors import InvalidInput

MOST_REASON: Final = 1_000
"""Characters of a reason that a person gives."""

_TURNING: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that change the direction of what follows: a name could be read as another."""

_BREAKING: Final = (0x2028, 0x2029)


def _escapes(codes: Iterable[int]) -> dict[int, str]:
    return {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in codes}


_SHOWN: Final = _escapes((*range(0x20), *range(0x7F, 0xA0), *_TURNING, *_BREAKING, *range(0xD800, 0xE000)))
_WITH_LINES: Final = {code: shown for code, shown in _SHOWN.items() if code not in (0x09, 0x0A)}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _SHOWN if code >= 0x7F}


def harmless(text: str) -> str:
    """The text, with its own ends of lines and tabs."""
    return text if text.isprintable() else text.translate(_WITH_LINES)


def on_one_line(text: str) -> str:
    """The text as a part of a line: what ends one, and what nobody sees, is a blank."""
    return " ".join("".join(" " if ord(letter) in _SHOWN else letter for letter in text).split())


def reason_given(text: str | None) -> str:
    """A person's reason as a journal keeps it: on one line, empty for none. Raises InvalidInput for one that is too
    long."""
    said = on_one_line(text or "")
    if len(said) > MOST_REASON:
        raise InvalidInput(f"The reason is longer than {MOST_REASON:,} characters.", remedy="Say it shorter.")
    return said


def harmless_json(document: str) -> str:
    """JSON in which the same is written as JSON may: it means what it meant."""
    return document.translate(_IN_JSON)
