"""``wave help WORD``: the glossary at hand."""

from __future__ import annotations

import pytest

from orchestrator.core.glossary import GLOSSARY, explained, words
from orchestrator.core.states import RolloutStatus
from tests.cli.house import House
from tests.cli.test_rollouts import narrow


def test_a_word_is_said_to_mean_what_the_glossary_has(house: House) -> None:
    shown = house.ok("help", "place")
    narrow(shown)
    assert shown.startswith("place\n  a device's rank by position in the slices opened so far")
    assert house.ok("help", "Target").startswith("target\n  the software a device should run")
    assert house.ok("help", "device", "group").startswith("device group\n")
    assert "3 in 8" in house.ok("help", "staircase")


def test_a_status_is_a_word_of_what_has_it(house: House) -> None:
    shown = house.ok("help", "cancelled")
    assert "  Of a rollout: Ended early" in shown and "  Of a wave: A person ended it" in shown
    assert all(explained(status) for status in RolloutStatus)


def test_without_a_word_all_are_listed(house: House) -> None:
    shown = house.ok("help")
    narrow(shown)
    assert all(word.split()[0] in shown for word in GLOSSARY)
    assert set(house.json("help")) == set(words())


def test_a_command_and_a_word_that_is_none_lead_further(house: House) -> None:
    assert house.ok("help", "promote") != "" and "top is a command: --help behind it" in house.ok("help", "top")
    wrong = house.run("help", "plaze")
    assert wrong.exit_code == 3 and "Did you mean 'place'?" in wrong.output


@pytest.mark.parametrize("word", words())
def test_every_word_says_something(word: str) -> None:
    assert all(meaning for _, meaning in explained(word))
