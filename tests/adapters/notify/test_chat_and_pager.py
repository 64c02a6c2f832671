"""Chat and pagers through Apprise, each against a server on this machine that looks at what it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from apprise.plugins import pagerduty

from orchestrator.errors import Unavailable
from tests.adapters.notify.receiver import receiving
from tests.adapters.notify.test_sender import LINK, NOTICE, send, sender

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TOKEN: Final = "yobjmukpaw3r3urc5h6i369yima"
SECRET: Final = "A" * 24 + "/" + "b" * 24

Said = Callable[[dict[str, str], Any], tuple[str, str]]
"""From headers and payload: what is shown as title, and as text."""


def mattermost(headers: dict[str, str], payload: Any) -> tuple[str, str]:
    assert payload["username"] == "wave"
    return "", payload["text"]


def rocket(headers: dict[str, str], payload: Any) -> tuple[str, str]:
    # It reads Markdown: what is none is marked so, and nobody's reason becomes a link or a picture.
    assert "alert\\(1\\)" in payload["text"]
    return "", payload["text"].replace("\\", "")


def gotify(headers: dict[str, str], payload: Any) -> tuple[str, str]:
    assert headers["x-gotify-key"] == TOKEN
    return payload["title"], payload["message"]


def ntfy(headers: dict[str, str], payload: Any) -> tuple[str, str]:
    assert (payload["topic"], headers["x-priority"]) == ("oncall", "max")
    return payload["title"], payload["message"]


def pager(headers: dict[str, str], payload: Any) -> tuple[str, str]:
    assert (payload["routing_key"], payload["event_action"]) == ("ROUTING", "trigger")
    assert payload["payload"]["severity"] == "critical", "a halt wakes somebody"
    return "", payload["payload"]["summary"]


SERVICES: Final[dict[str, tuple[str, Said]]] = {
    "mattermost": (f"mmost://HOST/{TOKEN}", mattermost),
    "rocket.chat": (f"rocket://{SECRET}@HOST/#releases", rocket),
    "gotify": (f"gotify://HOST/{TOKEN}", gotify),
    "ntfy": ("ntfy://HOST/oncall?priority=max", ntfy),
    "pagerduty": ("pagerduty://ROUTING@APIKEY/wave/fleet", pager),
}


@pytest.mark.parametrize("service", SERVICES)
def test_chat_and_pagers_get_all_of_the_message_and_say_when_they_do_not_take_it(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, said = SERVICES[service]
    with receiving() as receiver:
        # This one has one host in all the world; here it is another.
        monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, pagerduty.PagerDutyRegion.US, receiver.url)
        to = sender(tmp_path, f"oncall: {address.replace('HOST', receiver.url.removeprefix('http://'))}\n")
        send(to, "oncall")
        receiver.status = 503
        with pytest.raises(Unavailable, match="The service did not take it") as refused:
            send(to, "oncall")
    headers, body = receiver.came[0]
    title, text = said(headers, json.loads(body))
    whole = f"{title}\n{text}"
    for part in (NOTICE.title, NOTICE.sentence, NOTICE.meaning, LINK, *NOTICE.commands):
        assert part in whole
    everything = f"{headers} {body.decode()}".replace("\\", "").replace(LINK, "").replace(receiver.url, "")
    assert "://" not in everything, "nobody is sent to another host for a picture"
    assert TOKEN not in str(refused.value) and SECRET[:24] not in str(refused.value)
