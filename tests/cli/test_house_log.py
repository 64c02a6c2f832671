"""Who ordered what outside rollouts: by the command line, from afar, and whatever there is to order."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Never

import pytest

from orchestrator import bootstrap
from orchestrator.adapters.sql.store import SqlWriting
from orchestrator.core.roles import Role
from orchestrator.core.states import POLICY
from orchestrator.errors import Busy, InvalidInput, StoreUnavailable, WaveError
from orchestrator.services.operations import OPERATIONS
from orchestrator.services.people import Person
from tests.cli.elsewhere import Known, served
from tests.cli.house import House
from tests.services.fake_provider import commit

CHANGE_NOTHING = {"replay", "plan", "verify_artifacts", "deltas.verify", "deliver_notices"}
"""Questions by POST; a look at deltas, which says what it found; and to send now what is sent anyway."""

ORDERS = [
    (["target", "add", "42", commit(42), "--hardware-id", "rpi4", "--tag", "main"], "target_added", "rpi4-42"),
    (["target", "tag", "rpi4-42", "--tags", "main,beta"], "target_tagged", "rpi4-42"),
    (["device", "enroll", "gw-1", "--hardware-id", "rpi4", "--tag", "main"], "devices_enrolled", "gw-1"),
    (["device", "enroll", "gw-2", "--hardware-id", "rpi4", "--tag", "main"], "devices_enrolled", "gw-2"),
    (["device", "group", "lab", "gw-1"], "devices_grouped", "gw-1"),
    (["device", "label", "site=<b>north</b>", "gw-1", "gw-2"], "devices_labelled", "gw-1, gw-2"),
    (["device", "hold", "gw-1", "--reason", "on the bench"], "devices_held", "gw-1"),
    (["device", "token", "gw-1"], "device_token_made", "gw-1"),
    (["device", "token", "gw-1", "--revoke"], "device_token_revoked", "gw-1"),
    (["device", "replace", "gw-2", "gw-3"], "devices_enrolled", "gw-3"),
    (["enrolment", "add", "--tag", "main"], "grant_added", "enr-"),
    (["ca", "revoke", "gw-1", "--yes"], "certificates_revoked", "gw-1"),
    (["ca", "revoke", "gw-1", "--undo"], "certificates_allowed", "gw-1"),
]


def test_every_order_that_there_is_says_who_gave_it() -> None:
    """No row of the table that changes something is carried out without whoever asked."""
    for operation in OPERATIONS:
        if operation.writes and operation.key not in CHANGE_NOTHING:
            assert "by" in inspect.signature(operation.call).parameters, operation.key


def test_each_order_of_the_command_line_stands_in_the_log_with_who(house: House) -> None:
    for words, event, what in ORDERS:
        house.ok(*words, "--by", "ann")
        newest = house.json("log", "--limit", "1")[0]
        assert (newest["by"], newest["event"]) == ("ann", event), words
        assert newest["what"].startswith(what) and newest["sentence"].startswith("ann "), newest
    grant = house.json("enrolment", "list")[0]["name"]
    house.ok("enrolment", "revoke", grant, "--yes", "--by", "ben")
    assert house.json("log", "--limit", "1")[0]["sentence"] == f"ben revoked {grant}."
    said = house.ok("log", "--limit", "50")
    assert "ann set label site=<b>north</b> on gw-1, gw-2." in " ".join(said.split())
    assert "ann made gw-1 held: on the bench." in " ".join(said.split())
    everything = house.json("log", "--limit", "500")
    assert [each["number"] for each in everything] == sorted((each["number"] for each in everything), reverse=True)
    assert not [each for each in everything if each["by"] == POLICY]


def test_keys_and_roots_that_are_made_stand_in_the_log_and_what_is_refused_does_not(house: House) -> None:
    root_key = house.root / "tuf" / "keys" / "root.key"
    house.ok("ca", "init", "--name", "Acme devices", "--by", "ann")
    house.ok("tuf", "init", "--by", "ben")
    house.ok("tuf", "rotate", "--root-key", str(root_key), "--yes", "--by", "cem")
    for refused in (("ca", "init"), ("tuf", "init"), ("tuf", "rotate", "--root-key", "nothing", "--yes")):
        assert house.run(*refused).exit_code != 0
    assert [each["sentence"] for each in house.json("log")] == [
        "cem made the next TUF root, with new online keys.",
        "ben began a TUF repository.",
        "ann made the authority Acme devices.",
    ]


def test_a_root_is_made_where_there_is_no_store_too(house: House) -> None:
    (house.root / "wave.db").unlink()
    ended = house.run("tuf", "init")
    assert ended.exit_code == 0 and "Root 1 is made" in ended.stdout
    assert "This stands in no log" in ended.stderr


@pytest.mark.parametrize("error", [Busy("Somebody writes."), InvalidInput("No such zone.")], ids=["busy", "setting"])
def test_a_root_waits_neither_for_a_busy_store_nor_for_settings_of_others(
    house: House, monkeypatch: pytest.MonkeyPatch, error: WaveError
) -> None:
    def closed(*_: object, **__: object) -> Never:
        raise error

    monkeypatch.setattr(bootstrap, "open_application", closed)
    ended = house.run("tuf", "init")
    assert ended.exit_code == 0 and "Root 1 is made" in ended.stdout
    assert f"This stands in no log: {error.message}" in ended.stderr


def test_a_root_whose_line_is_lost_at_the_end_is_told_as_made(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: SqlWriting) -> None:
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(SqlWriting, "before_commit", full)
    ended = house.run("tuf", "init")
    assert ended.exit_code == 6
    told = "It is done, and only the house's log does not say so: The disk is full. Do not order it again."
    assert told in " ".join(ended.stderr.split())
    assert (house.root / "tuf" / "keys" / "root.key").is_file()
    assert "It is done" not in house.run("tuf", "init").stderr, "one that is refused is not"


def test_what_changes_nothing_is_not_written_down(house: House) -> None:
    house.ok("device", "enroll", "gw-1", "--hardware-id", "rpi4", "--tag", "main")
    house.ok("device", "group", "lab", "gw-1")
    before = house.json("log")
    house.ok("device", "group", "lab", "gw-1")
    house.ok("target", "add", "42", commit(42), "--hardware-id", "rpi4", "--dry-run")
    assert house.run("device", "group", "lab", "nobody").exit_code != 0
    assert house.json("log") == before


def test_from_afar_it_is_whom_the_token_names(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = Known({"secret": Person("<b>cem</b>", frozenset({Role.ADMIN}), "tok-1")})
    monkeypatch.setenv("WAVE_TOKEN", "secret")
    file = tmp_path / "update.bin"
    file.write_bytes(b"x" * 1000)
    with served(house, known) as url:
        there = ("--server", url)
        for words, event, _ in ORDERS[:-2]:
            house.ok(*there, *words)
            newest = house.json(*there, "log", "--limit", "1")[0]
            assert (newest["by"], newest["event"]) == ("<b>cem</b>", event), words
        house.ok(*there, "artifact", "add", str(file), "--version", "7", "--hardware-id", "rpi4")
        newest = house.json(*there, "log", "--limit", "1")[0]
        assert (newest["by"], newest["event"]) == ("<b>cem</b>", "artifact_added")
        assert len(house.json(*there, "log", "--limit", "4")) == 4
    assert house.json("log", "--limit", "1") == [newest]
