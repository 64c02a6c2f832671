"""Hands messages over: Apprise for what it knows, a signed POST for webhooks."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.adapters.notify.destinations import Address, Webhook, read_destinations
from orchestrator.core.notices import Notice
from orchestrator.errors import InvalidInput, NotFound, Unavailable
from orchestrator.services.tracing import carried_headers
from orchestrator.services.webhooks import headers

if TYPE_CHECKING:
    from apprise import NotifyType

WITHIN: Final = 10.0
"""Seconds a webhook's receiver has for each step."""

APPRISE_WITHIN: Final = 25.0
"""Seconds that Apprise is given for one message."""

MOST_SAID: Final = 300
"""Characters kept of what a service says of a failure."""

_PIECES: Final = re.compile(r"[:/@?&=,;#]+")
_SHORTEST_SECRET: Final = 4

_URGENT: Final = frozenset({"halted"})
_UNEASY: Final = frozenset(
    {"awaited", "held", "wave_held", "excluded", "put_off", "frozen", "cancelled", "wave_cancelled"}
)
_GOOD: Final = frozenset({"passed", "completed"})


class DestinationSender:
    """The destinations in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        # Apprise tells its own log what goes wrong, with parts of addresses; what people need is in the result.
        apprise_log = logging.getLogger("apprise")
        apprise_log.propagate = False
        apprise_log.addHandler(logging.NullHandler())

    def names(self) -> Collection[str]:
        return read_destinations(self._file).keys()

    def send(self, destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        known = read_destinations(self._file)
        match known.get(destination):
            case Webhook() as hook:
                _post(hook, notice, link=link, at=at)
            case Address() as address:
                _through_apprise(address.url, notice, link=link)
            case None:
                raise NotFound(
                    f"There is no destination {destination[:128]}.",
                    remedy=f"{self._file} names {', '.join(sorted(known)) or 'none'}.",
                )


def _post(hook: Webhook, notice: Notice, *, link: str | None, at: datetime) -> None:
    import httpx2

    body = json.dumps(notice.document(link), ensure_ascii=False).encode()
    sent = {
        "content-type": "application/json",
        "user-agent": "wave",
        **carried_headers(),
        **headers(hook.secret, notice.id, at, body),
    }
    try:
        # No redirect is followed: who may answer was written down. The answer's body is nobody's.
        with httpx2.stream(
            "POST", hook.url, content=body, headers=sent, timeout=WITHIN, follow_redirects=False
        ) as answer:
            if not answer.is_success:
                raise Unavailable(f"The receiver answered {answer.status_code}.")
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        raise Unavailable(f"The receiver could not be reached: {type(error).__name__}.") from None


def _through_apprise(url: str, notice: Notice, *, link: str | None) -> None:
    from apprise import Apprise, AppriseAsset, NotifyFormat, PersistentStoreMode

    asset = AppriseAsset(
        app_id="wave",
        app_desc="wave",
        app_url="",
        image_url_mask="",  # a picture would be fetched from another host
        image_url_logo="",
        async_mode=False,
        storage_mode=PersistentStoreMode.MEMORY,
        service_timeout=APPRISE_WITHIN,
        pgp_autogen=False,
        pem_autogen=False,
    )
    service = Apprise.instantiate(url, asset=asset)
    if service is None:
        raise InvalidInput(
            "Apprise does not know this address.", remedy="https://appriseit.com/services/ has them all."
        )
    receivers = len(service) // (service.retry + 1)
    if receivers != 1:
        # One of them that fails would have the others told again and again.
        raise InvalidInput(f"The address leads to {receivers} receivers.", remedy="Give each a destination of its own.")
    to = Apprise(asset=asset)
    to.add(service)
    result = to.notify(
        title=notice.title, body=notice.body(link), notify_type=_kind(notice.event), body_format=NotifyFormat.TEXT
    )
    if not result:
        said = "; ".join(dict.fromkeys(without_secrets(entry.message, url) for entry in result.logs()))
        raise Unavailable(f"The service did not take it: {said[:MOST_SAID] or result.status.name.lower()}.")


def _kind(event: str) -> NotifyType:
    from apprise import NotifyType

    if event in _URGENT:
        return NotifyType.FAILURE
    if event in _UNEASY:
        return NotifyType.WARNING
    return NotifyType.SUCCESS if event in _GOOD else NotifyType.INFO


def without_secrets(text: str, url: str) -> str:
    """What a service said, with every piece of its address blotted out: any may be a token."""
    from urllib.parse import unquote

    pieces = {piece for each in (url, unquote(url)) for piece in _PIECES.split(each) if len(piece) >= _SHORTEST_SECRET}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, "…")
    return " ".join(text.split())
