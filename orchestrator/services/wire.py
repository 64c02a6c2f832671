"""How values travel between an orchestrator and whoever drives it from afar: JSON made from the very types of the
services, and the same values again from it.

Times are ISO 8601 in UTC, durations ISO 8601 too, enums their words, bytes base64. What was encoded and decoded is
equal to what it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from orchestrator.errors import InvalidInput

Value = TypeVar("Value")

DEEPEST: Final = 64
"""How deep a document may be nested: deeper than any that means something."""

NUL: Final = "No text has a NUL in it: not every database keeps one."

_encode: Final = msgspec.json.Encoder().encode


def encoded(value: object) -> bytes:
    """As JSON."""
    return _encode(value)


def decoded(text: bytes, kind: Any) -> Any:
    """A value of that type. Raises InvalidInput, with the place in the document."""
    try:
        return _decoder(kind).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{_place(error)}.") from None
    except RecursionError:
        raise InvalidInput("The document is nested too deeply.") from None


def converted(words: object, kind: Any) -> Any:
    """A value of that type from words, as they stand in a query: ``"12"`` is a number there. Raises InvalidInput."""
    try:
        return msgspec.convert(words, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{_place(error)}.") from None


def check_depth(value: object) -> None:
    """Raises InvalidInput for what is nested deeper than ``DEEPEST``: whoever reads it would lose themselves in it."""
    level: list[object] = [value]
    for _ in range(DEEPEST):
        level = [below for each in level for below in _below(each)]
        if not level:
            return
    raise InvalidInput("The document is nested too deeply.")


def _below(value: object) -> Iterable[object]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _place(error: Exception) -> str:
    """``$.limit`` is the limit."""
    return str(error).replace("`$.", "`").replace(" - at `$`", "").rstrip(".")
