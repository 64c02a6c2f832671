"""Answers as JSON in one envelope, ``{"format": 1, "kind": …, "result": …}``.

An error is ``{"error": {"kind": …, "message": …, "remedy": …}}``, with ``problems`` where a file is at fault.

Times are ISO 8601 in UTC with ``Z``, durations seconds, enums their words, a byte string its hex. Keys are added, never
renamed, while ``format`` is 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

from orchestrator.core.harmless import harmless_json

FORMAT: Final = 1


def envelope(kind: str, result: Any) -> str:
    """One line per key, as people and ``jq`` read it."""
    made = {"format": FORMAT, "kind": kind, "result": plain(result)}
    return harmless_json(json.dumps(made, indent=2, ensure_ascii=False))


def error_envelope(kind: str, message: str, remedy: str | None, **more: Any) -> str:
    made = {"error": {"kind": kind, "message": message, "remedy": remedy, **plain(more)}}
    return harmless_json(json.dumps(made, ensure_ascii=False))


def iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """A value as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(each) for each in value)
    return value
