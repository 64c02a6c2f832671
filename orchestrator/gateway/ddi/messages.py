"""What clients of hawkBit's protocol say, read as widely as they write it: unknown fields are ignored, numbers may be
text, and log lines that are no UTF-8 are read all the same."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

from orchestrator.core.ddi import Execution, Finished, Said
from orchestrator.gateway.http import Problem, as_utf8, decoded

MOST_ATTRIBUTES: Final = 100
"""As in hawkBit."""

_LONGEST_DETAIL: Final = 2_000

Number = int | float | str | None
"""Some clients send numbers as text."""


class Progress(Struct, frozen=True):
    cnt: Number = None
    of: Number = None


class Result(Struct, frozen=True):
    finished: Finished
    progress: Progress | None = None


class Status(Struct, frozen=True):
    execution: Execution
    result: Result
    code: Number = None
    details: list[str | None] | str | None = None


class Feedback(Struct, frozen=True):
    """``id`` is left unread: the address says which action is meant. ``time`` and ``timestamp`` are the device's own
    clock, shown and never believed."""

    status: Status
    time: Number = None
    timestamp: Number = None

    @property
    def said(self) -> Said:
        return Said(self.status.execution, self.status.result.finished, self.details, self._begun)

    @property
    def details(self) -> tuple[str, ...]:
        details = self.status.details
        if details is None:
            return ()
        return (details,) if isinstance(details, str) else tuple(each or "" for each in details)

    @property
    def message(self) -> str | None:
        text = "\n".join(each.rstrip() for each in self.details if each.strip())
        return text[:_LONGEST_DETAIL] or None

    @property
    def code(self) -> str | None:
        return None if self.status.code is None else str(self.status.code)

    @property
    def at(self) -> str | None:
        at = self.time if self.time is not None else self.timestamp
        return None if at is None else str(at)

    @property
    def _begun(self) -> bool:
        progress = self.status.result.progress
        return progress is not None and str(progress.cnt) not in ("None", "0", "0.0", "")


class ConfigData(Struct, frozen=True):
    """What a device says of itself."""

    data: dict[str, str | int | float | bool | None]
    mode: str | None = None

    @property
    def attributes(self) -> dict[str, str]:
        return {key: _text(value) for key, value in self.data.items() if value is not None}


_feedback: Final = msgspec.json.Decoder(Feedback).decode
_config: Final = msgspec.json.Decoder(ConfigData).decode

MODES: Final = frozenset({"merge", "replace", "remove"})


def feedback_of(body: bytes) -> Feedback:
    """Raises Problem."""
    return decoded(_feedback, as_utf8(body))


def config_of(body: bytes) -> ConfigData:
    """Raises Problem."""
    said = decoded(_config, as_utf8(body))
    if said.mode is not None and said.mode.lower() not in MODES:
        raise Problem(400, "invalid_report", "The mode is merge, replace or remove.")
    if len(said.data) > MOST_ATTRIBUTES:
        raise Problem(429, "too_many", f"A device may have {MOST_ATTRIBUTES} attributes at most.")
    return said


def event_id(action: int, what: str, body: bytes) -> str:
    """The protocol gives feedback no id, so the same words on the same action are the same feedback."""
    return f"ddi-{what}{action}-{hashlib.sha256(body).hexdigest()[:24]}"


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
