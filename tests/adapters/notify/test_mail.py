"""Mail through Apprise to a real SMTP server on this machine, which is away for a while and then takes it."""

from __future__ import annotations

import email
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from orchestrator.adapters.notify.sender import DestinationSender
from orchestrator.adapters.sql.store import open_store
from orchestrator.core.notices import Notice, notice
from orchestrator.core.states import RolloutStatus
from orchestrator.services.notice_store import Post, Wanted
from orchestrator.services.notices import GIVE_UP_AFTER, Delivered, Notices
from tests.contract.building import NOW, rollout
from tests.loopback import free_port

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

PASSWORD = "hunter2secret"
LINK = "https://wave.example.com/rollouts/r"


class Inbox:
    """What came, as mail."""

    def __init__(self) -> None:
        self.came: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.came.append(message)
        return "250 taken"


@contextmanager
def mail_server(port: int) -> Iterator[Inbox]:
    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=port, ready_timeout=20)
    server.start()
    try:
        yield inbox
    finally:
        server.stop()


def halted(sentence: str) -> Notice:
    return notice(
        rollout="r", version=42, status=RolloutStatus.HALTED, seq=3, digest="ab" * 32, event="halted", by="ann",
        at=NOW, sentence=sentence,
    )  # fmt: skip


def destinations(tmp_path: Path, port: int) -> DestinationSender:
    file = tmp_path / "destinations.yaml"
    to = f"mailto://wave:{PASSWORD}@localhost:{port}?from=wave@example.com&to=oncall@example.com&mode=insecure"
    # A server that speaks no encryption is asked for no password.
    file.write_text(f"oncall: {to.replace(f'wave:{PASSWORD}@', '')}\nlocked: {to}\n")
    file.chmod(0o600)
    return DestinationSender(file)


def parts(message: EmailMessage) -> dict[str, str]:
    return {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}


def test_a_mail_says_all_and_what_a_person_wrote_is_never_markup(tmp_path: Path) -> None:
    port = free_port()
    with mail_server(port) as inbox:
        said = halted("Halted by ann: <script>alert(1)</script> & <b>more</b>")
        destinations(tmp_path, port).send("oncall", said, link=LINK, at=NOW)
    (message,) = inbox.came
    assert message["subject"] == "Rollout r (version 42): halted" and message["to"] == "oncall@example.com"
    found = parts(message)
    for kind, text in found.items():
        assert "wave explain r" in text and LINK in text, kind
        if kind == "text/html":
            assert "<script" not in text and "<b>" not in text
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert any("What it means" in text for text in found.values())


def test_a_mail_server_that_is_away_for_an_hour_gets_the_mail_once(tmp_path: Path) -> None:
    """14:00 the server is away, 15:00 it is back; the mail is there by the next try, and once."""
    port = free_port()
    store, now = open_store("sqlite://"), [NOW]
    notices = Notices(store, destinations(tmp_path, port), lambda: now[0], None, lambda: 0.5)
    with store.writing() as w:
        key = w.add_rollout(rollout()).key
        w.add_notices(Wanted(key, "journal 3", halted("Halted."), NOW, NOW + GIVE_UP_AFTER), ["oncall"])

    def goes_on_until(then: datetime) -> None:
        while (due_at := notices.next_at()) is not None and due_at <= then:
            now[0] = max(now[0], due_at)
            assert notices.deliver().failed == 1
        now[0] = then

    goes_on_until(NOW + timedelta(hours=1))
    (row,) = notices.list()
    assert row.status is Post.WAITING and 6 <= row.attempts <= 10 and row.error is not None
    assert row.error.startswith("The service did not take it: Connection error")
    with mail_server(port) as inbox:
        now[0] = row.next_at
        assert notices.deliver() == Delivered(sent=1) and notices.deliver() == Delivered()
    assert len(inbox.came) == 1
    store.close()


def test_a_password_is_in_no_error_and_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    to = destinations(tmp_path, port)
    with pytest.raises(Exception, match="did not take it") as refused:
        to.send("locked", halted("Halted."), link=None, at=NOW)
    assert PASSWORD not in str(refused.value) + caplog.text
