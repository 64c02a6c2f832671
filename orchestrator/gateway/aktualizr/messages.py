"""What aktualizr-lite says in headers and bodies, read once: a value, or nothing where it cannot be one.

A client keeps what it could not deliver and sends it again for ever, in front of all that comes later. So of a list of
events each item is read alone, and what is no event is passed over; a list that is too long is told so by 413, upon
which the client sends half of it, and by no other status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from orchestrator.core.update import EventKind
from orchestrator.gateway.http import Problem, as_utf8
from orchestrator.services.aktualizr import Running
from orchestrator.services.messages import LONGEST_ID, LONGEST_MESSAGE

MOST_EVENTS: Final = 100
"""Events in one request; clients send six, and after a time without a network all that they have."""

MOST_TAGS: Final = 16

_COMMIT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TARGET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KIND: Final = re.compile(r"[A-Za-z0-9]{1,60}", re.ASCII)
_VERSION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

_decode: Final = msgspec.json.Decoder(Any).decode


def running(header: Callable[[bytes], bytes | None]) -> Running:
    """From ``x-ats-ostreehash``, ``x-ats-target`` and ``x-ats-tags``; ``unknown`` and ``Initial Target`` name
    nothing."""
    commit, target = _text(header(b"x-ats-ostreehash")), _text(header(b"x-ats-target"))
    tags = (each.strip() for each in _text(header(b"x-ats-tags")).split(",")[:MOST_TAGS])
    return Running(
        commit if _COMMIT.fullmatch(commit) else None,
        target if _TARGET.fullmatch(target) and target != "unknown" else None,
        tuple(each for each in tags if _TARGET.fullmatch(each)),
    )


def _text(value: bytes | None) -> str:
    return "" if value is None else str(value, "latin-1").strip()


class ClientEvent(NamedTuple):
    """One item. ``version`` and ``target`` say which Target it is about; ``success`` None: it does not say."""

    id: str
    type: str
    target: str | None
    version: int | None
    success: bool | None
    details: str
    at: str | None


class Meaning(NamedTuple):
    """What an event says in our words: ``counts`` None where it is only shown, as ``shown``. ``code``: why it failed,
    in a word that a policy may name."""

    counts: EventKind | None
    shown: str
    code: str | None = None


def events(body: bytes) -> list[ClientEvent]:
    """Those that can be read, in their order. Raises Problem when it is no list at all, or too long a one."""
    try:
        found = _decode(as_utf8(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not_json", f"The body is not JSON in UTF-8: {error}.") from None
    if not isinstance(found, list):
        raise Problem(400, "invalid_report", "The body is no list of events.")
    if len(found) > MOST_EVENTS:
        raise Problem(413, "too_large", f"At most {MOST_EVENTS} events are taken at once.")
    return [event for item in found if (event := _event(item)) is not None]


def _event(item: Any) -> ClientEvent | None:
    if not isinstance(item, dict):
        return None
    kind, said = item.get("eventType"), item.get("event")
    event_id = item.get("id")
    if not isinstance(kind, dict) or not isinstance(said, dict) or not isinstance(event_id, str):
        return None
    name = kind.get("id")
    if not (0 < len(event_id) <= LONGEST_ID and event_id.isprintable()):
        return None
    if not isinstance(name, str) or not _KIND.fullmatch(name):
        return None
    success, details, at = said.get("success"), said.get("details"), item.get("deviceTime")
    target, version = said.get("targetName"), said.get("version")
    return ClientEvent(
        event_id,
        name,
        target[:LONGEST_ID] if isinstance(target, str) and target else None,
        int(str(version)) if _VERSION.fullmatch(str(version)) else None,
        success if isinstance(success, bool) else None,
        details if isinstance(details, str) else "",
        at if isinstance(at, str) else None,
    )


_STARTS: Final = {
    "EcuDownloadStarted": EventKind.DOWNLOADING,
    "EcuInstallationStarted": EventKind.INSTALLING,
    "EcuInstallationApplied": EventKind.APPLIED,
}


def meaning(event: ClientEvent) -> Meaning:
    """Success of an installation is ``applied``: only what a device runs confirms. An end that says neither success nor
    failure counts as neither."""
    if (kind := _STARTS.get(event.type)) is not None:
        return Meaning(kind, kind.value)
    match event.type, event.success:
        case "EcuDownloadCompleted", False:
            return Meaning(EventKind.DOWNLOAD_FAILED, "download_failed", _download_code(event.details))
        case "EcuDownloadCompleted", True:
            return Meaning(None, "downloaded")
        case "EcuInstallationCompleted", True:
            return Meaning(EventKind.APPLIED, "installed")
        case "EcuInstallationCompleted", False:
            code = _install_code(event.details)
            kind = EventKind.ROLLED_BACK if code in _WENT_BACK else EventKind.FAILED
            return Meaning(kind, kind.value, code)
    ends = {True: "", False: "_failed", None: ""}[event.success]
    return Meaning(None, _WORD.sub("_", event.type).lower() + ends)


_DOWNLOAD_CODES: Final = (
    ("insufficient storage", "no_space"),
    ("no space", "no_space"),
    ("http 404", "http_404"),
    ("http 5", "http_5xx"),
    ("timed out", "timeout"),
    ("timeout", "timeout"),
)
_INSTALL_CODES: Final = (
    ("wrong version booted", "wrong_version_booted"),
    ("rolled back", "rolled_back"),
    ("rollback", "rolled_back"),
    ("failed to start app after booting", "app_start_failed"),
    ("failed to install app", "app_install_failed"),
    ("no space", "no_space"),
)
_WENT_BACK: Final = frozenset({"wrong_version_booted", "rolled_back"})


def _download_code(details: str) -> str | None:
    return _first(_DOWNLOAD_CODES, details)


def _install_code(details: str) -> str | None:
    return _first(_INSTALL_CODES, details)


def _first(codes: Iterable[tuple[str, str]], details: str) -> str | None:
    said = details[:LONGEST_MESSAGE].lower()
    return next((code for sign, code in codes if sign in said), None)


def all_healthy(body: bytes) -> bool | None:
    """Whether an ``apps-states`` says that every app is well; None when it is none."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    apps = found.get("apps") if isinstance(found, dict) else None
    if not isinstance(apps, dict):
        return None
    return all(isinstance(app, dict) and app.get("state") != "unhealthy" for app in apps.values())
