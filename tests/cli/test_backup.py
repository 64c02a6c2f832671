"""`wave backup` and `wave restore` at the command line, and a rollout that goes on where it stood."""

from __future__ import annotations

from pathlib import Path

from tests.cli.house import House


def test_a_rollout_comes_back_frozen_and_goes_on_when_it_is_told_to(fleet: House, tmp_path: Path) -> None:
    """It is half way when it is backed up, and halted by a person afterwards. The backup knows nothing of that, so
    nothing is offered until somebody has looked."""
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    fleet.build()
    fleet.tick()
    assert fleet.devices_do("confirmed") > 0
    file = tmp_path / "b.tar.gz"
    said = fleet.ok("backup", str(file))
    assert "was read back" in said and "secrets" in said
    before = fleet.json("status", "lmp-42")["waves"]
    fleet.ok("halt", "lmp-42", "--reason", "smoke", "--yes")

    assert "Nothing was changed" in fleet.ok("restore", str(file), "--dry-run")
    refused = fleet.run("restore", str(file))
    assert refused.exit_code == 4 and "--yes" in refused.output
    said = " ".join(fleet.ok("restore", str(file), "--yes").split())
    assert "halts and cancels too" in said and "before-restore-" in said

    after = fleet.json("status", "lmp-42")
    assert after["status"] == "running", "the halt came after the backup"
    assert [each["confirmed"] for each in after["waves"]] == [each["confirmed"] for each in before]
    fleet.tick()
    assert fleet.devices_do("confirmed") == 0, "frozen"
    assert "counts up" in fleet.ok("db", "check")
    assert "frozen" in fleet.ok("journal", "lmp-42")
    fleet.ok("unfreeze")
    assert fleet.run("journal", "verify").exit_code == 0


def test_json_says_what_was_written_and_what_has_to_be_known(fleet: House, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    made = fleet.json("backup", str(file))
    assert set(made) == {"file", "made_at", "bytes", "members", "schema", "content"}
    assert made["bytes"] == file.stat().st_size
    told = fleet.json("restore", str(file), "--yes")
    assert set(told) == {"root", "made_at", "members", "set_aside", "warnings", "dry_run"}
    assert told["members"] == made["members"]


def test_what_is_no_backup_is_told_in_a_sentence(fleet: House, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_text("no backup")
    ended = fleet.run("restore", str(file), "--yes")
    assert ended.exit_code == 2
    assert "Nothing was changed." in ended.output
    assert fleet.run("restore", str(tmp_path / "nowhere"), "--yes").exit_code == 6


def test_none_of_it_is_done_to_another_machine(fleet: House, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    fleet.ok("backup", str(file))
    for words in (["doctor"], ["backup", str(tmp_path / "c.tar.gz")], ["restore", str(file), "--yes"]):
        ended = fleet.run("--server", "http://127.0.0.1:1", *words)
        assert ended.exit_code == 2 and "machine of the installation itself" in ended.output, ended.output
