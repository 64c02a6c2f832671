"""``wave apply`` of a rollout that runs: first a look, then a yes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.house import ROLLOUT, House

STRICTER = ROLLOUT.replace("count: 20", "count: 25")


@pytest.fixture
def running(fleet: House) -> House:
    """The lab is open; the canary and the rest are to come. The policy is a file beside it."""
    fleet.ok("apply", str(fleet.rollout(policy=str(_policy(fleet, "6h")))), "--start")
    fleet.tick()
    fleet.build()
    fleet.tick(timedelta(minutes=1))
    assert "lab=open" in fleet.ok("status", "lmp-42", "--json") or '"open"' in fleet.ok("status", "lmp-42", "--json")
    return fleet


def _policy(fleet: House, bake: str) -> Path:
    file = fleet.root / "mine.yaml"
    file.write_text(f"policy: mine\ndeltas: {{within: 6h}}\nbake: {{at_least: {bake}, at_most: 2d}}\n")
    return file


def test_a_change_is_shown_and_not_made(running: House) -> None:
    file = running.rollout(policy="./mine.yaml", text=STRICTER)
    ended = running.run("apply", str(file))
    assert ended.exit_code == 4
    assert "--- rollout, as bound" in ended.stdout and "+    count: 25" in ended.stdout
    assert "wave canary devices.count: 20 becomes 25" in " ".join(ended.stdout.split())
    assert "It would decide now" in ended.stdout
    assert "Nothing was changed: lmp-42 is running. `--yes` changes it." in ended.stderr
    assert "edited" not in running.ok("journal", "lmp-42")
    shown = running.ok("apply", str(file), "--dry-run")
    assert "Dry run, nothing was changed." in shown


def test_with_a_yes_it_is_made_and_journaled(running: House) -> None:
    file = running.rollout(policy="./mine.yaml", text=STRICTER)
    shown = running.ok("apply", str(file), "--yes", "--reason", "more of the field first")
    assert "no evidence was reset" in shown
    journal = " ".join(running.ok("journal", "lmp-42").split())
    assert "edited by mika" in journal and "more of the field first" in journal
    assert "is as it was applied before" in running.ok("apply", str(file))
    assert "nothing differs" in " ".join(running.ok("replay", "lmp-42").split())
    assert running.ok("journal", "verify").startswith("+ lmp-42")


def test_it_is_shown_for_a_program_too(running: House) -> None:
    file = running.rollout(policy="./mine.yaml", text=STRICTER)
    ended = running.run("apply", str(file), "--json")
    assert ended.exit_code == 4 and '"written": false' in ended.stdout
    found = running.json("apply", str(file), "--yes")
    assert found["written"] is True and found["status"] == "running"
    assert {"file": "rollout", "key": "wave canary devices.count", "before": "20", "after": "25"} in (
        found["edited"]["changes"]
    )
    assert found["edited"]["old_spec_digest"] != found["spec_digest"]


def test_a_looser_rule_names_the_word_that_it_needs(running: House) -> None:
    _policy(running, "1h")
    file = running.rollout(policy="./mine.yaml")
    ended = running.run("apply", str(file))
    assert ended.exit_code == 4
    assert "! looser: bake.at_least of wave lab: 6h becomes 1h" in " ".join(ended.stdout.split())
    assert "`--yes --allow-wider lab --reason TEXT` changes it." in " ".join(ended.stderr.split())
    ended = running.run("apply", str(file), "--yes")
    assert ended.exit_code == 4
    assert "bake.at_least of wave lab: 6h becomes 1h" in ended.stderr
    assert "--allow-wider lab --reason TEXT" in ended.stderr
    shown = running.ok("apply", str(file), "--yes", "--allow-wider", "lab", "--reason", "the lab is watched by eye")
    assert "looser: bake.at_least of wave lab" in " ".join(shown.split())


def test_colour_is_for_terminals(running: House) -> None:
    file = running.rollout(policy="./mine.yaml", text=STRICTER)
    plain = running.run("apply", str(file))
    coloured = running.run("apply", str(file), env={"FORCE_COLOR": "1"})
    assert "\x1b[" not in plain.stdout and "\x1b[32m+    count: 25" in coloured.stdout
