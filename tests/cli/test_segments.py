"""Leaving a segment out and taking it back in, at the keyboard."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.cli.house import House
from tests.cli.test_rollouts import narrow, until_lab_baked

OLD = "source_version=30"


def test_a_segment_is_left_out_shown_and_taken_back_in(fleet: House) -> None:
    until_lab_baked(fleet)
    shown = fleet.ok("exclude", "lmp-42", OLD, "--reason", "old loaders hang", "--dry-run")
    assert " ".join(shown.split()) == (
        "Dry run, nothing was changed. It would say: Segment source_version=30 of rollout lmp-42 is excluded: its 20"
        " devices will be offered nothing more, 0 offers not started will be withdrawn, and the rest goes on without."
    )
    assert fleet.json("status", "lmp-42")["excluded"] == []
    fleet.ok("exclude", "lmp-42", OLD, "--reason", "old loaders hang", "--yes")
    (left_out,) = fleet.json("status", "lmp-42")["excluded"]
    assert (left_out["segment"], left_out["by"], left_out["reason"]["kind"]) == (OLD, "mika", "ordered")
    assert left_out["devices"] > 0
    for command in ("status", "explain"):
        page = fleet.ok(command, "lmp-42")
        narrow(page)
        words = " ".join(page.split())
        assert "! Excluded " in words and "Segment source_version=30 excluded by mika: old loaders hang." in words
    device = next(name for name in fleet.tokens if fleet.json("explain", name)["version"] == 30 and "gw" in name)
    (why,) = fleet.json("explain", device)["rollouts"]
    assert why["kind"] == "excluded" and "old loaders hang" in why["sentence"]
    assert OLD in fleet.ok("journal", "lmp-42")
    back = fleet.ok("include", "lmp-42", OLD, "--reason", "loader 7 is out", "--yes")
    said = " ".join(back.split())
    assert said.startswith("Segment source_version=30 of rollout lmp-42 is taken back in: its")
    assert said.endswith("only budgets, and the clock of silence where there is one, watch who has a place.")
    assert fleet.json("status", "lmp-42")["excluded"] == []
    fleet.tick()
    fleet.ok("db", "check")


def test_from_the_start_by_way_of_exclude_and_include_to_the_end(fleet: House) -> None:
    """The canary is open; half of it confirms, version 30 is left out, the rest of it arrives; 30 is taken back in, and
    in the end everybody runs the Target."""
    until_lab_baked(fleet)
    fleet.devices_do("confirmed", most=10)
    fleet.ok("exclude", "lmp-42", OLD, "--reason", "old loaders hang", "--yes")
    fleet.tick()
    fleet.devices_do("confirmed")
    for _ in range(4):
        fleet.tick(timedelta(hours=2))
        fleet.devices_do("confirmed")
    waves = {each["wave"]: each["status"] for each in fleet.json("status", "lmp-42")["waves"]}
    assert waves["canary"] == "passed"
    fleet.ok("db", "check")
    said = " ".join(fleet.ok("include", "lmp-42", OLD, "--reason", "loader 7 is out", "--yes").split())
    assert "its devices with a place may be offered again, 0 devices more in a later slice" in said
    for _ in range(2):
        fleet.tick(timedelta(hours=2))
        fleet.devices_do("confirmed")
    explained = " ".join(fleet.ok("explain", "lmp-42").split())
    assert explained.count("rollout/silent") == 1, "those that ended with the attempt before are not told twice"
    fleet.ok("promote", "lmp-42", "rest")
    for _ in range(6):
        fleet.tick(timedelta(hours=3))
        fleet.devices_do("confirmed")
    assert fleet.json("status", "lmp-42")["status"] == "completed"
    assert len([name for name in fleet.tokens if fleet.json("explain", name)["version"] == 42]) == 64
    assert "nothing differs" in " ".join(fleet.ok("replay", "lmp-42").split())
    fleet.ok("db", "check")


def test_what_is_no_segment_is_refused_with_what_there_is(fleet: House) -> None:
    until_lab_baked(fleet)
    for words, code, said in (
        (("source_version=30",), 2, "needs a reason"),
        (("rpi4", "--reason", "x"), 2, "Write DIMENSION=VALUE"),
        (("hardware_id=nova", "--reason", "x"), 3, "There are: hardware_id=rpi4"),
    ):
        ended = fleet.run("exclude", "lmp-42", *words, "--yes")
        assert ended.exit_code == code and said in " ".join(ended.output.split()), ended.output


def test_what_cannot_be_ordered_is_refused_before_anybody_is_asked(
    fleet: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_lab_baked(fleet)
    for module in ("context", "orders"):
        monkeypatch.setattr(f"orchestrator.cli.{module}.is_asked", lambda call, *, yes, dry_run=False: not yes)
    refused = fleet.run("exclude", "lmp-42", "hardware_id=nova", "--reason", "x")
    assert refused.exit_code == 3 and "withdraw its offers?" not in refused.output
    asked = fleet.run("exclude", "lmp-42", OLD, "--reason", "x")
    assert "Exclude source_version=30 from lmp-42 and withdraw its offers?" in " ".join(asked.output.split())
    assert fleet.json("status", "lmp-42")["excluded"] == []


def test_plan_says_which_segments_are_watched(house: House) -> None:
    house.content()
    house.fleet()
    words = " ".join(house.ok("plan", str(house.rollout(policy="standard"))).split())
    assert "Segments watched by themselves: 2 of source_version; one that fails is excluded, above 20 %" in words
    assert "Excluded by mistake: at most 5 %" in words
