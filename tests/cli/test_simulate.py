"""``wave simulate`` for people, for programs, and for those who mistype."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.render.simulation import why
from tests.cli.house import House

FEW = ("--fleet", "300", "--seeds", "6", "--jobs", "1")


def test_a_table_for_people(house: House) -> None:
    said = house.ok("simulate", "standard", "--scenario", "broken", *FEW)
    assert "6 rollouts to 300 devices, scenario broken" in said
    assert "chance of a halt" in said
    assert "100 % (" in said
    assert "devices failed before the halt" in said


def test_a_release_within_its_tolerance_can_only_be_halted_falsely(house: House) -> None:
    assert "chance of a false halt" in house.ok("simulate", "standard", "--scenario", "tolerated", *FEW)


def test_two_policies_side_by_side_with_a_picture(house: House) -> None:
    file = house.root / "out.svg"
    words = ("--scenario", "bad", "--budgets", "off", "--picture", str(file))
    said = house.ok("simulate", "--compare", "standard", "slow-roll", *words, *FEW)
    assert "STANDARD" in said
    assert "SLOW-ROLL" in said
    assert "Without budgets." in said
    assert file.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("halted rollout/failed", "halted by rollout/failed"),
        ("halted budget:failed", "halted by the budget for failed"),
        ("held bake_inconclusive", "held at a bake that was over and could not pass"),
        ("halted silence", "halted by the clock of silence"),
        ("held ", "held"),
    ],
)
def test_why_runs_came_to_a_stop_is_said_in_words(cause: str, words: str) -> None:
    assert why(cause) == words


def test_classes_that_no_simulated_device_comes_to_are_named(house: House) -> None:
    """A class by error code: devices here say none, so that its tolerance is not tried, and the answer says so."""
    file = house.root / "modem.yaml"
    classes = "{failed: 2%, codes: {modem: {match: [MODEM-*], at_most: 1%}}}"
    file.write_text(f"policy: modem\ntolerate: {classes}\n", encoding="utf-8")
    said = " ".join(house.ok("simulate", str(file), *FEW).split())
    assert "modem: no device came to modem: simulated devices say no error codes" in said
    assert house.json("simulate", str(file), *FEW)["policies"][0]["not_drawn"] == ["modem"]
    assert "no device came to" not in house.ok("simulate", "standard", *FEW)


def test_what_a_person_or_a_gate_must_say_is_taken_for_given_and_the_answer_says_so(house: House) -> None:
    file = house.root / "asks.yaml"
    file.write_text("policy: asks\napprove: {open: 1}\npromote: manual\ngates: [{gate: desk, asks: tickets}]\n")
    said = " ".join(house.ok("simulate", str(file), *FEW).split())
    assert "asks: taken for given at once: promotion, approval, gate desk. Nobody is asked here" in said
    policies = house.json("simulate", str(file), *FEW)["policies"]
    assert policies[0]["taken_for_granted"] == ["promotion", "approval", "gate desk"]
    assert "taken for given" not in house.ok("simulate", "standard", *FEW)


def test_the_object_for_programs(house: House) -> None:
    words = ("--fail", "100%", "--offline", "5%")
    first = house.json("simulate", "standard", *words, *FEW)
    assert first == house.json("simulate", "standard", *words, *FEW)
    assert set(first) == {"scenario", "fleet", "fail", "offline", "history", "seeds", "seed", "budgets", "policies"}
    (one,) = first["policies"]
    assert one["halted"]["runs"] == 6
    assert set(one["failed_before_halt"]) == {"runs", "q10", "q50", "q90"}


def test_the_waves_of_a_rollout_file_are_played(house: House) -> None:
    file = house.rollout()
    assert "6 rollouts" in house.ok("simulate", "standard", "--rollout", str(file), *FEW)
    assert "6 rollouts" in house.ok("simulate", "standard", "--waves", "canary 10, rest", *FEW)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name one policy, or two with --compare."),
        (["standard", "--compare", "standard", "demo"], "Name one policy, or two with --compare."),
        (["nix"], "There is no policy 'nix'."),
        (["standard", "--scenario", "nix"], "There is no scenario 'nix'."),
        (["standard", "--fleet", "0"], "A fleet to simulate has 1 to 1,000,000 devices"),
        (["standard", "--fail", "3"], "--fail has no unit"),
        (["standard", "--offline", "100%"], "`offline` is a share of at least 0 % and below 100 %"),
        (["standard", "--seeds", "0"], "`seeds` is the number of runs"),
        (["standard", "--history", "-1"], "`history` is a number of devices"),
        (["standard", "--jobs", "0"], "`jobs` is a number of processes"),
        (["standard", "--budgets", "maybe"], "--budgets is on or off"),
        (["standard", "--waves", "a 5,,b"], "is no wave"),
        (["standard", "--waves", "a 1", "--rollout", "x.yaml"], "not both"),
        (["standard", "--picture", "x.png"], "it is SVG"),
        (["standard", "--picture", "/nowhere/x.svg", *FEW], "cannot be written"),
    ],
)
def test_bad_input_is_told_in_one_sentence(house: House, words: list[str], said: str) -> None:
    ended = house.run("simulate", *words)
    assert ended.exit_code in (2, 3)
    assert said in " ".join(ended.stderr.split())


def test_bad_input_is_told_to_programs_too(house: House) -> None:
    ended = house.run("simulate", "standard", "--fleet", "0", "--json")
    assert json.loads(ended.stdout)["error"]["kind"] == "invalid_input"
