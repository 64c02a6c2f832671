"""Targets, static deltas as fioctl prints them, deltas, devices."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.errors import Unauthorized
from tests.cli.house import House
from tests.services.fake_provider import commit


def test_static_deltas_print_what_fioctl_prints(fleet: House) -> None:
    ended = fleet.run("target", "static-deltas", "--dryrun", "--by-tag", "promoted", "42")
    assert ended.stdout == "Dry run: Would generate static deltas for Target versions:\n   30 -> 42\n   41 -> 42\n"
    assert "30 -> 42 for 21 devices (rpi4)" in ended.stderr
    assert fleet.json("delta", "list") == []
    one = fleet.ok("target", "static-deltas", "--dry-run", "--by-tag", "promoted", "--hw-id", "rpi4", "42")
    assert one.startswith("Dry run: Would generate static deltas for Targets with hardware ID rpi4 and versions:\n")


def test_static_deltas_are_built_and_waited_for(fleet: House) -> None:
    ended = fleet.run("target", "static-deltas", "--by-tag", "promoted", "42", "--here")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith("Generating static deltas for Target versions:\n   30 -> 42\n")
    assert {each["state"] for each in fleet.json("delta", "list")} == {"ready"}
    assert "41 -> 42  ready" in ended.stderr


def test_a_delta_that_cannot_be_built_ends_with_6(fleet: House) -> None:
    fleet.provider.order("gone")
    ended = fleet.run("delta", "build", "41", "42", "--here")
    assert ended.exit_code == 6
    assert "x 41 -> 42: " in ended.stderr
    assert "failed" in fleet.ok("delta", "list", "--failed")


def test_deltas_from_build_to_drop(fleet: House) -> None:
    assert fleet.ok("delta", "list") == "No delta is there, and none is required.\n"
    assert "41 (00290029) -> 42 (002a002a): ready" in fleet.ok("delta", "build", "41", "42", "--here", "--log")
    shown = fleet.ok("delta", "show", "41", "42", "--log")
    assert "43 devices could use it" in shown and "Last build: done" in shown
    assert fleet.ok("delta", "verify").startswith("+ ")
    assert "Would drop 1 delta" in fleet.ok("delta", "drop", "41", "42", "--dry-run")
    assert "Dropped 1 delta" in fleet.ok("delta", "drop", "41", "42")
    assert fleet.ok("delta", "drop", "--unused") == "Nothing to drop.\n"


def test_nobody_builds_is_said_and_no_wait_goes(fleet: House) -> None:
    assert "queued" in fleet.ok("delta", "build", "41", "42", "--no-wait")


def test_targets(house: House) -> None:
    assert "wave target add" in house.ok("target", "list")
    shown = house.ok("target", "add", "42", commit(42), "--hardware-id", "rpi4", "--tag", "main,qa", "--dry-run")
    assert shown == "Would add rpi4-42: version 42 for rpi4, commit 002a002a002a, tags main, qa.\n"
    house.ok("target", "add", "42", commit(42), "--hardware-id", "rpi4", "--tag", "main,qa")
    assert house.ok("target", "list").splitlines()[1].split() == [
        "42",
        "rpi4-42",
        "rpi4",
        "main,",
        "qa",
        "002a002a002a",
    ]
    change = "Changing tags of rpi4-42 from [main, qa] -> [promoted]\n"
    assert house.ok("target", "tag", "--tags", "promoted", "--by-version", "42", "--dry-run") == f"Dry run: {change}"
    assert house.ok("target", "tag", "-T", "promoted", "rpi4-42") == change
    assert "tags promoted" in house.ok("target", "show", "42")


def test_targets_are_imported(house: House, tmp_path: Path) -> None:
    custom = {"version": "41", "hardwareIds": ["rpi4"], "tags": ["main"], "targetFormat": "OSTREE"}
    entries = {
        "rpi4-lmp-41": {"hashes": {"sha256": commit(41)}, "custom": custom},
        "rpi4-lmp-7": {"hashes": {"sha256": commit(7)}, "custom": {**custom, "version": "7"}},
    }
    file = tmp_path / "targets.json"
    file.write_text(json.dumps({"signed": {"targets": entries}}))
    shown = house.ok("target", "import", str(file), "--dry-run")
    assert shown.startswith("Dry run: 1 added, 1 skipped.\n") and "not in the repository" in shown
    assert house.json("target", "list") == []
    house.ok("target", "import", str(file))
    assert [each["target"] for each in house.json("target", "list")] == ["rpi4-lmp-41"]


def test_a_token_is_shown_once(house: House) -> None:
    ended = house.run(
        "device", "enroll", "gw-1", "--hardware-id", "rpi4", "--tag", "promoted", "--label", "region=emea"
    )
    name, token = ended.stdout.split()
    assert name == "gw-1" and len(token) >= 43
    assert "this once" in ended.stderr
    assert token not in house.ok("device", "show", "gw-1")
    again = house.ok("device", "token", "gw-1").split()[1]
    assert again != token
    assert house.json("device", "token", "gw-1", "--revoke") == {"device": "gw-1", "token": None}


def test_a_fleet_file_is_enrolled_with_tokens_for_the_owner_alone(house: House, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    words = ("device", "enroll", "--from", "examples/fleet.yaml", "--tokens-to", str(tokens))
    assert house.run(*words, "--dry-run").stdout == "Dry run: would enrol 5 devices.\n"
    assert not tokens.exists()
    ended = house.run(*words)
    assert ended.stdout == "" and "Enrolled 5 devices." in ended.stderr
    assert tokens.stat().st_mode & 0o777 == 0o600
    assert len(tokens.read_text().splitlines()) == 5
    assert house.run(*words).exit_code == 2, "a file that is there is never written over"


def test_known_devices_keep_their_tokens_unless_new_ones_are_asked_for(house: House, tmp_path: Path) -> None:
    """A fleet file grows and is read again: nobody in the field is locked out, only the new device gets a token."""
    words = ("device", "enroll", "--from", str(tmp_path / "fleet.yaml"))
    text = "devices:\n  - {id: a, hardware_id: rpi4, tag: main}\n"
    (tmp_path / "fleet.yaml").write_text(text)
    (before,) = house.run(*words).stdout.splitlines()
    (tmp_path / "fleet.yaml").write_text(text + "  - {id: b, hardware_id: rpi4, tag: main}\n")
    ended = house.run(*words)
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["b"]
    assert ended.stderr.endswith("Enrolled 2 devices. A token is shown this once. 1 known before keeps the token.\n")
    assert may_check_in(house, *before.split())
    assert [each["token"] for each in house.json(*words)["devices"]] == [None, None]
    renewed = house.run(*words, "--new-tokens", "--yes").stdout.splitlines()
    assert [line.split()[0] for line in renewed] == ["a", "b"]
    assert not may_check_in(house, *before.split())
    assert may_check_in(house, *renewed[0].split())


def may_check_in(house: House, device: str, token: str) -> bool:
    with house.application() as app:
        try:
            app.devices.let_in(device, token)
        except Unauthorized:
            return False
        return True


def test_a_device_is_replaced_by_another(house: House) -> None:
    """The board burnt out. The new one follows what the old one followed, and the old one counts nowhere any more."""
    first = ("gw-1", "--hardware-id", "rpi4", "--tag", "promoted", "--group", "lab", "--label", "site=berlin")
    old = house.ok("device", "enroll", *first).split()[1]
    name, token = house.ok("device", "replace", "gw-1", "gw-2", "--yes").split()
    assert name == "gw-2" and token != old
    before, after = house.json("device", "list")["devices"]
    assert (before["status"], before["held_because"], after["status"]) == ("retired", "replaced by gw-2", "active")
    kept = ("hardware_id", "tag", "group", "labels")
    assert [after[each] for each in kept] == [before[each] for each in kept] == [*first[2:7:2], {"site": "berlin"}]
    assert may_check_in(house, name, token)
    for words, exit_code in ((("gw-1", "gw-2"), 4), (("gw-2", "gw-2"), 4), (("gw-9", "gw-3"), 3), (("gw-1", "a b"), 2)):
        assert house.run("device", "replace", *words).exit_code == exit_code, words
    again = house.json("device", "replace", "gw-1", "gw-3")
    assert set(again) == {"retired", "device", "token"}, "as after a kill between retiring and enrolling"


def test_devices_are_kept(house: House) -> None:
    house.ok("device", "enroll", "--from", "examples/fleet.yaml")
    assert house.ok("device", "group", "qa", "lab-01", "gw-7f3a") == "2 devices are in group qa.\n"
    assert house.ok("device", "group", "--none", "lab-01") == "1 device is in no group.\n"
    assert house.ok("device", "group", "empty") == "Group empty is there.\n"
    assert house.ok("device", "label", "region=apac", "gw-7f3a") == "1 device has region=apac.\n"
    assert [d["device"] for d in house.json("device", "list", "--label", "region=apac")["devices"]] == ["gw-7f3a"]
    assert house.ok("device", "label", "--remove", "region", "gw-7f3a") == "1 device has no label region.\n"
    assert house.ok("device", "hold", "lab-01", "--reason", "bench") == "1 device is held: it gets no offer.\n"
    assert "Held: bench" in house.ok("device", "show", "lab-01")
    assert house.ok("device", "release", "lab-01") == "1 device is active again.\n"
    assert house.ok("device", "retire", "lab-01", "--yes") == "1 device is retired: it counts nowhere any more.\n"
    shown = house.ok("device", "list", "--limit", "2")
    assert len(shown.splitlines()) == 3
    assert all(len(line) <= 80 for line in house.ok("device", "list").splitlines())


def test_the_house(house: House) -> None:
    assert house.ok("db", "check") == "Everything counts up.\n"
    assert house.ok("tick", "--once").endswith("0 decisions.\n")
    assert "schema" in house.ok("db", "upgrade")
    assert house.ok("version").startswith("wave ")
    assert "nothing was changed" in " ".join(house.ok("init", str(house.root)).split())
