"""Messages handed over for real: to a receiver of webhooks and through Apprise, both on this machine."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.notify.destinations import read_destinations
from orchestrator.adapters.notify.sender import DestinationSender, without_secrets
from orchestrator.core.notices import Notice
from orchestrator.errors import InvalidInput, NotFound, Unavailable
from tests.adapters.notify.receiver import Receiver, receiving

# Apprise asks for a module that Python will drop, and does without it then.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOW = datetime(2026, 11, 24, 14, 20, 11, tzinfo=UTC)
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7w8Wu0JuYkY="
PAGE = Path(__file__).parents[3] / "docs" / "notifications.md"
LINK = "https://wave.example.com/rollouts/lmp-42"
NOTICE = Notice(
    id="ab" * 16,
    rollout="lmp-42",
    version=42,
    seq=7,
    event="halted",
    wave=None,
    by="policy",
    at="2026-11-24 14:20:11 UTC",
    status="halted",
    wave_status=None,
    title="Rollout lmp-42 (version 42): halted",
    sentence="4 failed. Ann says: <script>alert(1)</script>",
    meaning="Stopped.",
    commands=("wave explain lmp-42",),
)


def sender(tmp_path: Path, text: str, *, mode: int = 0o600) -> DestinationSender:
    file = tmp_path / "destinations.yaml"
    file.write_text(text)
    file.chmod(mode)
    return DestinationSender(file)


def send(to: DestinationSender, name: str) -> None:
    to.send(name, NOTICE, link=LINK, at=NOW)


@pytest.fixture
def documented() -> Any:
    """What the page tells a receiver to do."""
    code = re.search(r"begin example: receiver -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names["check"]


def hook(receiver: Receiver) -> str:
    return f"tickets:\n  webhook: {receiver.url}/hooks/TOKEN\n  secret: {SECRET}\n"


def test_a_webhook_is_signed_so_that_the_documented_receiver_takes_it_once(tmp_path: Path, documented: Any) -> None:
    with receiving() as receiver:
        send(sender(tmp_path, hook(receiver)), "tickets")
    ((headers, body),) = receiver.came
    told = json.loads(body)
    assert told["sentence"] == NOTICE.sentence and told["link"] == LINK and told["commands"] == ["wave explain lmp-42"]
    at = NOW.timestamp()
    for changed, why in (
        ({"body": body.replace(b"halted", b"passed")}, "forged"),
        ({"secret": "whsec_" + "A" * 44}, "forged"),
        ({"headers": {**headers, "webhook-timestamp": str(int(at) + 60)}}, "forged"),
        ({"headers": {**headers, "webhook-id": "another"}}, "forged"),
        ({"now": at + 301}, "too old"),
        ({}, None),
        ({}, "replayed"),
    ):
        given = {"headers": headers, "body": body, "secret": SECRET, "now": at, **changed}
        if why is None:
            documented(**given)
        else:
            with pytest.raises(ValueError, match=why):
                documented(**given)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410, 500, 503])
def test_only_a_success_is_one_and_nobody_follows_a_redirect(tmp_path: Path, status: int) -> None:
    with receiving() as receiver:
        receiver.status = status
        with pytest.raises(Unavailable, match=f"answered {status}"):
            send(sender(tmp_path, hook(receiver)), "tickets")
    assert len(receiver.came) == 1


def test_a_receiver_that_is_not_there_is_told_without_its_address(tmp_path: Path) -> None:
    with receiving() as receiver:
        pass
    with pytest.raises(Unavailable) as refused:
        send(sender(tmp_path, hook(receiver)), "tickets")
    assert "TOKEN" not in str(refused.value) and "127.0.0.1" not in str(refused.value)


def test_apprise_is_asked_for_everything_else(tmp_path: Path) -> None:
    with receiving() as receiver:
        address = receiver.url.replace("http://", "json://")
        send(sender(tmp_path, f"chat: {address}/TOKEN\n"), "chat")
        receiver.status = 500
        with pytest.raises(Unavailable, match="The service did not take it") as refused:
            send(sender(tmp_path, f"chat: {address}/TOKEN\n"), "chat")
    assert json.loads(receiver.came[0][1])["title"] == NOTICE.title
    assert "TOKEN" not in str(refused.value)


def test_an_address_that_leads_to_two_or_to_none_is_refused(tmp_path: Path) -> None:
    to = sender(tmp_path, "two: mailto://u:p@localhost?to=a@example.com,b@example.com\nnone: nosuch://hunter2\n")
    with pytest.raises(InvalidInput, match="leads to 2 receivers"):
        send(to, "two")
    with pytest.raises(InvalidInput, match="does not know this address") as refused:
        send(to, "none")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(NotFound, match="no destination nobody"):
        send(to, "nobody")


def test_a_file_that_others_may_read_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="others may read it"):
        sender(tmp_path, "a: json://localhost\n", mode=0o640).names()


def test_without_a_file_there_is_no_destination(tmp_path: Path) -> None:
    assert read_destinations(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "must be a mapping of destinations"),
        ("a: hunter2", "must be an address of Apprise's"),
        ("A B: json://localhost", "is no name"),
        ("a: {webhook: 'ftp://hunter2', secret: x}", "no http:// or https:// address"),
        ("a: {webhook: 'https://[', secret: x}", "no http:// or https:// address"),
        ("a: {webhook: 'https://x/hunter2', secret: hunter2}", "24 to 64 bytes in base64"),
        ("a: {webhook: 'https://x/hunter2'}", "a mapping with webhook and secret"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_without_what_stands_there(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)) as refused:
        sender(tmp_path, text).names()
    assert "hunter2" not in str(refused.value)


def test_pieces_of_an_address_are_blotted_out() -> None:
    url = "slack://hunter2/tok%2Fen-b/C#releases"
    assert without_secrets("Failed  for hunter2 and tok%2Fen-b\n or en-b", url) == "Failed for … and … or …"
