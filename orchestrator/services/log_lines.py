"""How a line of the log looks: for people as text, for programs as JSON. Both carry the request or the tick that it
belongs to (``following``), in UTC.

What devices and people say is shown quoted: no message can begin a line of its own. Secrets are not put in messages;
this does not look for any.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from orchestrator.services.following import followed


class LogFormat(StrEnum):
    """The setting ``log``."""

    TEXT = "text"
    JSON = "json"


_QUOTED: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {9: "\t", 10: "\\n", 13: "\\r"}


def at(record: logging.LogRecord) -> str:
    """When, as ``2026-11-02T09:00:00.123Z``."""
    when = datetime.fromtimestamp(record.created, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


class Text(logging.Formatter):
    """``2026-11-02T09:00:00.123Z INFO orchestrator.serving: serving devices on … request=…``"""

    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {key}={value}" for key, value in followed().items())
        said = record.getMessage().translate(_QUOTED)
        line = f"{at(record)} {record.levelname} {record.name}: {said}{ids}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class Json(logging.Formatter):
    """One object a line: ``at``, ``level``, ``logger``, ``message``, ``request`` and ``tick`` where there is one, and
    ``error`` with the traceback of what was not foreseen."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": at(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | followed()
        if record.exc_info is not None:
            line["error"] = self.formatException(record.exc_info)
        # Half a character, which no encoding has, would make the line unreadable.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode()


def formatter(form: LogFormat) -> logging.Formatter:
    return Json() if form is LogFormat.JSON else Text()
