"""Errors: one sentence with its remedy on stderr, the exit code of its kind, JSON if asked for, no traceback."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from orchestrator import bootstrap
from orchestrator.cli.app import run
from tests.cli.house import House
from tests.services.fake_provider import commit

BAD = [  # words, exit code, kind, what the sentence says
    (["nope"], 2, "usage", "No such command 'nope'"),
    (["stat"], 2, "usage", "status"),
    (["list", "--nope"], 2, "usage", "No such option"),
    (["start"], 2, "usage", "ROLLOUT"),
    (["tick", "extra"], 2, "usage", "unexpected extra argument"),
    (["list", "--status", "walking"], 2, "invalid_input", "There are draft, scheduled"),
    (["device", "list", "--status", "lost"], 2, "invalid_input", "There are active, held, retired"),
    (["device", "list", "--label", "emea"], 2, "invalid_input", "KEY=VALUE"),
    (["device", "enroll"], 2, "invalid_input", "one of both"),
    (["device", "enroll", "a"], 2, "invalid_input", "--hardware-id"),
    (["device", "enroll", "a b", "--hardware-id", "x", "--tag", "t"], 2, "invalid_input", "letters, digits"),
    (["delta", "list", "--state", "odd"], 2, "invalid_input", "There are ready"),
    (["delta", "drop"], 2, "invalid_input", "--unused"),
    (["delta", "verify", "1"], 2, "invalid_input", "FROM and TO"),
    (["complete", "lmp-42", "lab", "--now"], 2, "invalid_input", "whole rollout"),
    (["status", "gone"], 3, "not_found", "There is no rollout gone."),
    (["status"], 3, "not_found", "no rollout yet"),
    (["journal", "gone"], 3, "not_found", "wave list"),
    (["explain", "gone"], 3, "not_found", "no rollout and no device gone"),
    (["start", "gone"], 3, "not_found", "gone"),
    (["target", "show", "9"], 3, "not_found", "wave target list"),
    (["device", "show", "gone"], 3, "not_found", "wave device list"),
    (["device", "hold", "gone"], 3, "not_found", "wave device list"),
    (["device", "token", "gone"], 3, "not_found", "gone"),
    (["policy", "show", "gone"], 3, "not_found", "There is no policy"),
    (["delta", "show", "1", "2"], 3, "not_found", "wave target list"),
    (["unfreeze"], 4, "wrong_state", "Nothing is frozen."),
    (["target", "add", "1", "f" * 64, "--hardware-id", "x"], 6, "content_unavailable", "not in the repository"),
    (["plan", "missing.yaml"], 2, "invalid_file", "missing.yaml"),
    (["target", "import", "missing.json"], 2, "invalid_input", "No such file"),
    (["freeze", "--reason", " "], 2, "invalid_input", "--reason TEXT"),
    (["list", "--by", ""], 0, "", ""),
    (["freeze", "--reason", "x", "--by", "a\nb"], 2, "invalid_input", "printable"),
]


@pytest.mark.parametrize(("words", "code", "kind", "said"), BAD, ids=[" ".join(each[0])[:40] for each in BAD])
def test_bad_input_is_told_in_a_sentence(words: list[str], code: int, kind: str, said: str, house: House) -> None:
    ended = house.run(*words)
    assert ended.exit_code == code, ended.output
    assert said in ended.stderr
    if code:
        assert ended.stderr.startswith("wave: ") and ended.stdout == ""
        assert ended.stderr.count("\n") == 1
        again = house.run(*words, "--json")
        assert again.exit_code == code
        error = json.loads(again.stdout)["error"]
        assert error["kind"] == kind and {"kind", "message", "remedy"} <= set(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollout: [", "rollout.yaml:"),
        ("rollout: lmp-42\ntarget: 42\n", "waves"),
        ("- 1\n", "rollout.yaml"),
        ("", "rollout.yaml"),
        ("rollout: lmp-42\ntarget: 42\ntag: t\npolicy: standart\nwaves: [{wave: a, devices: all}]\n", "standard"),
        ("rollout: lmp-42\ntarget: 42\ntag: t\npolicy: standard\nwave: 1\nwaves: [{wave: a, devices: all}]\n", "wave"),
    ],
)
def test_a_broken_rollout_file_is_told_with_its_place(text: str, said: str, house: House) -> None:
    file = house.root / "rollout.yaml"
    file.write_text(text)
    for command in ("plan", "apply"):
        ended = house.run(command, str(file))
        assert ended.exit_code in (2, 3)
        assert said in ended.stderr
        assert "error" in json.loads(house.run(command, str(file), "--json").stdout)


def test_every_problem_of_a_file_is_in_the_json(house: House) -> None:
    file = house.root / "p.yaml"
    file.write_text("policy: p\nfalse_halt: 200%\nbake: {at_most: 3x}\n")
    error = json.loads(house.run("policy", "check", str(file), "--json").stdout)["error"]
    assert error["kind"] == "invalid_file"
    assert [each["path"] for each in error["problems"]] == ["false_halt", "bake.at_most"]
    assert all(each["line"] in (2, 3) for each in error["problems"])


def test_what_the_state_forbids_is_refused_and_names_what_is_allowed(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()))
    for words in (["pause", "lmp-42"], ["resume", "lmp-42"], ["complete", "lmp-42"], ["skip", "lmp-42", "lab"]):
        ended = fleet.run(*words)
        assert ended.exit_code == 4, ended.output
        assert "draft" in ended.stderr
    ended = fleet.run("promote", "lmp-42", "nowhere")
    assert ended.exit_code == 3
    assert "Its waves: lab, canary, rest." in ended.stderr


def test_a_second_rollout_over_the_same_devices_is_refused(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()), "--start")
    other = fleet.root / "other.yaml"
    other.write_text(fleet.rollout().read_text().replace("lmp-42", "lmp-42b"))
    ended = fleet.run("apply", str(other), "--start")
    assert ended.exit_code == 4
    assert "supersedes: lmp-42" in ended.stderr


def test_a_locked_database_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(house.root / "wave.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        ended = house.run("freeze", "--reason", "x")
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert ended.exit_code in (5, 6)
    assert ended.stderr.startswith("wave: ")


def test_no_installation_is_told(house: House, tmp_path: Path) -> None:
    ended = house.run("list", "--root", str(tmp_path / "none"))
    assert ended.exit_code == 6
    assert "`wave init` makes one" in ended.stderr


def test_a_database_that_is_none_is_told(house: House) -> None:
    (house.root / "wave.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    for name in ("wave.db-wal", "wave.db-shm"):
        (house.root / name).unlink(missing_ok=True)
    ended = house.run("list")
    assert ended.exit_code == 6
    assert ended.stderr.startswith("wave: ")


def test_a_fault_is_one_sentence_and_a_log(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(bootstrap, "open_store", fault)
    ended = house.run("list", "--json")
    assert ended.exit_code == 1
    error = json.loads(ended.stdout)["error"]
    assert error["kind"] == "internal" and "ZeroDivisionError" in error["message"]
    log = Path(error["remedy"].split(" is in ")[1].split(". Please")[0])
    assert "inside" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
    log.unlink()


def test_run_gives_the_exit_code(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "gone"]) == 3
    assert run(["list"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_ends_quietly(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "open_store", interrupted)
    ended = house.run("list")
    assert ended.exit_code == 130
    assert ended.output == ""


def test_a_target_that_would_change_is_refused(house: House) -> None:
    house.ok("target", "add", "41", commit(41), "--hardware-id", "rpi4")
    ended = house.run("target", "add", "41", commit(42), "--hardware-id", "rpi4")
    assert ended.exit_code == 4
    assert "take another" in ended.stderr
