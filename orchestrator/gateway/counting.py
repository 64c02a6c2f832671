"""Refusals that no door speaks of itself: of files, and of connections before there is a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from orchestrator.gateway.files import FileSent
from orchestrator.services.metering import Refusals

CONNECTION: Final = "connection"
"""The door of what never became a request."""

NOT_HTTP: Final = "not_http"
TOO_SLOW: Final = "too_slow"
TOO_LARGE: Final = "too_large"
TOO_MANY: Final = "too_many"

_KIND_OF_STATUS: Final[Mapping[int, str]] = {
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    416: "refused",
    503: "unavailable",
}


def counted(door: str, refused: Refusals) -> Callable[[FileSent], None]:
    """For a server of files: counts what it does not send."""

    def count(sent: FileSent) -> None:
        if sent.status >= 400 or not sent.status:
            refused.count(door, _KIND_OF_STATUS.get(sent.status, "internal"))

    return count
