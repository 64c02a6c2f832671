"""What devices, people and other servers write, in an operator's terminal: it is read there and does nothing."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from orchestrator.core.harmless import MOST_REASON, harmless, harmless_json, on_one_line
from orchestrator.services.messages import CheckIn, ReportedEvent
from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House
from tests.services.fake_provider import commit

EVIL = "no space\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x00\u202egnp.exe\u2028left"
"""Sets the window's title, clears the screen, writes over what stands there, and turns letters round."""

ACTING = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2028)} - {"\n"}


def acting(text: str) -> set[str]:
    return ACTING & set(text)


@pytest.fixture
def running(fleet: House) -> House:
    """A rollout under way."""
    fleet.build()
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    return fleet


@pytest.fixture
def failed(running: House) -> House:
    """Devices whose updates failed, with that to say of it."""
    fleet = running
    with fleet.application() as app:
        for device, token in fleet.tokens.items():
            version = app.queries.device(device).device.version
            assert version is not None
            answer = app.devices.check_in(device, token, CheckIn(commit=commit(version), version=version))
            offer = (answer.result(10) if isinstance(answer, Future) else answer).offer
            if offer is not None:
                event = ReportedEvent(f"{device}-1", offer.rollout, offer.target.version, "failed", message=EVIL)
                app.devices.report(device, token, [event]).result(10)
    return fleet


def test_what_a_device_says_does_nothing_in_a_terminal(failed: House) -> None:
    with failed.application() as app:
        device = next(each for each in failed.tokens if app.queries.device(each).events)
    shown = 0
    for words in (
        ["device", "show", device],
        ["explain", device],
        ["top"],
        ["status", "lmp-42"],
        ["journal", "lmp-42"],
    ):
        said = failed.ok(*words)
        assert acting(said) == set(), words
        shown += "\\x1b]0;owned" in "".join(said.split())
        assert acting(failed.ok(*words, "--json")) == set(), words
    assert shown, "it is shown as what it is"


def test_a_reason_is_one_line_of_text_wherever_it_is_given(running: House) -> None:
    running.ok("pause", "lmp-42", "--reason", f"first\nPassed by policy.{EVIL}")
    running.ok("freeze", "--reason", f"{EVIL}\nsecond")
    with running.application() as app:
        sentences = [each.sentence for each in app.queries.journal("lmp-42")]
    assert any("first Passed by policy." in each for each in sentences)
    assert not acting("".join(sentences)) and "\n" not in "".join(sentences)
    for words in (["resume", "lmp-42"], ["unfreeze"], ["halt", "lmp-42", "--yes"]):
        refused = running.run(*words, "--reason", "x" * (MOST_REASON + 1))
        assert refused.exit_code == 2, refused.output
        assert "The reason is longer than 1,000 characters." in refused.stderr
    said = running.run("freeze", "--reason", "\x1b\0")
    assert said.exit_code == 2 and "needs a reason" in said.stderr


def test_what_another_server_says_does_nothing_either(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    house.content()
    house.fleet(field_=4)
    house.ok("apply", str(house.rollout()))
    with served(house) as url:
        monkeypatch.setenv("WAVE_TOKEN", MIKA)
        refused = house.run("--server", url, "status", "\x1b[2Jnobody")
        assert refused.exit_code != 0 and "nobody" in refused.stderr
        assert acting(refused.output) == set()
        as_json = house.run("--server", url, "status", "\x9b2Jnobody", "--json")
        assert acting(as_json.output) == set()


def test_what_is_text_stays_as_it_is() -> None:
    plain = "Bücher, 日本, می‌خواهم, a\u00a0b, e\u0301, 👩‍🚀\nnext\tcell"
    assert harmless(plain) == plain
    assert on_one_line(" a\n b\x00c ") == "a b c"
    value = {"said": EVIL + plain, "\x85": 1}
    assert json.loads(harmless_json(json.dumps(value, ensure_ascii=False))) == value


def test_half_a_character_can_be_written() -> None:
    assert harmless("a\ud800b").encode() == b"a\\ud800b"
