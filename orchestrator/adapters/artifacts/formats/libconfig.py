"""Reads libconfig text, in which SWUpdate's ``sw-description`` is written, as far as a description needs it.

An own reader: the one on PyPI is of 2019 and opens files that ``@include`` names. Here an include is refused. Time and
memory grow with the text alone; nesting is bounded.
"""

from __future__ import annotations

import re
from typing import Any, Final

DEEPEST: Final = 32

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*|//[^\n]*|/\*(?s:.*?)\*/)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<word>[A-Za-z*][A-Za-z0-9_*.-]*)
      | (?P<number>[-+]?[0-9][0-9A-Za-z.+-]*|[-+]?\.[0-9][0-9A-Za-z.+-]*)
      | (?P<sign>[=:;,{}()\[\]])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_PLAIN: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}


class NotLibconfig(ValueError):
    """The text breaks the syntax; ``str()`` says where."""


def parse(text: str) -> dict[str, Any]:
    """The settings of the text: groups as dicts, arrays and lists as lists, numbers as the text they are. Raises
    NotLibconfig."""
    reader = _Reader(_tokens(text))
    found = reader.settings(until="")
    if reader.left:
        raise NotLibconfig(f"{reader.peek()!r} stands alone")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotLibconfig(f"line {text.count(chr(10), 0, at) + 1} cannot be read")
        at = match.end()
        kind = match.lastgroup or ""
        if kind != "blank":
            found.append((kind, match[0]))
    return found


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._tokens)

    def peek(self) -> str:
        return self._tokens[self._at][1] if self.left else ""

    def settings(self, *, until: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.left and self.peek() != until:
            kind, name = self._take()
            if kind != "word":
                raise NotLibconfig(f"{name[:40]!r} is no name")
            if self._take()[1] not in ("=", ":"):
                raise NotLibconfig(f"{name[:40]} has no value")
            found[name] = self._value()
            if self.peek() in (";", ","):
                self._take()
        return found

    def _take(self) -> tuple[str, str]:
        if not self.left:
            raise NotLibconfig("the text ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _value(self) -> Any:
        kind, text = self._take()
        match kind, text:
            case "string", _:
                pieces = [_unescaped(text)]
                while self.left and self._tokens[self._at][0] == "string":
                    pieces.append(_unescaped(self._take()[1]))
                return "".join(pieces)
            case "word", _ if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "number", _:
                return text
            case "sign", "{" | "[" | "(":
                return self._nested(text)
        raise NotLibconfig(f"{text[:40]!r} is no value")

    def _nested(self, opening: str) -> Any:
        self._depth += 1
        if self._depth > DEEPEST:
            raise NotLibconfig(f"it is nested more than {DEEPEST} deep")
        found: Any
        if opening == "{":
            closing, found = "}", self.settings(until="}")
        else:
            closing, found = "]" if opening == "[" else ")", []
            while self.left and self.peek() != closing:
                found.append(self._value())
                if self.peek() == ",":
                    self._take()
        if self._take()[1] != closing:
            raise NotLibconfig(f"{opening} is not closed")
        self._depth -= 1
        return found


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        said = found[1]
        return chr(int(said[1:], 16)) if len(said) == 3 else _PLAIN.get(said, said)

    return _ESCAPE.sub(one, text[1:-1])
