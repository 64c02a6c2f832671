"""A file of names and what is behind them, for its owner only: addresses, programs, tokens.

It is read anew each time that it is asked for, so that what is changed in it counts at once. What is wrong in it is
told by name and never with what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from orchestrator.adapters.files.private import check_private
from orchestrator.adapters.files.source import read_source
from orchestrator.core.document import NAME_PATTERN
from orchestrator.errors import InvalidFile, InvalidInput

T = TypeVar("T")

_NAME: Final = re.compile(NAME_PATTERN)


def read_named(file: Path, read: Callable[[Any], T], *, must_be: str) -> Mapping[str, T]:
    """By name; empty where there is no file. ``read`` makes of each value what it means, or raises InvalidInput with a
    sentence that repeats nothing of it; ``must_be``: what to say of a file that is no mapping. Raises InvalidInput for
    a file that others may read, InvalidFile for what is wrong in it."""
    if not file.exists():
        return {}
    check_private(file)
    source = read_source(file)
    if not isinstance(source.value, dict):
        raise InvalidFile(must_be, file=str(file))
    found: dict[str, T] = {}
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for name, value in source.value.items():
        try:
            if not _NAME.fullmatch(name):
                raise InvalidInput("is no name: small letters, digits and . _ -, at most 63.")
            found[name] = read(value)
        except InvalidInput as wrong:
            problems.append(((name,), str(wrong)))
    if problems or source.problems:
        raise source.invalid(problems)
    return found


def is_http(url: object) -> bool:
    """Whether it is an ``http://`` or ``https://`` address."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
