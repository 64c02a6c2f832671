"""Every command says in one sentence what it does, and shows an example that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pytest
import typer

from orchestrator.cli.app import ANYWHERE, app, hoisted, wants_json
from orchestrator.cli.late import EXAMPLES, LATE
from tests.cli.house import House


def commands(name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command of the tree by its whole name, built as it is when it is called."""
    for top, late in LATE.items():
        made: Any = typer.main.get_command(late.build())
        if hasattr(made, "commands"):
            yield from ((f"{top} {name}", each) for name, each in made.commands.items())
        else:
            yield top, made


COMMANDS = dict(commands())

LISTED = (
    "plan apply start list status top log explain pause resume promote approve complete exclude include halt cancel "
    "skip retry freeze unfreeze replay simulate help init serve tick version doctor backup restore builder"
).split() + [
    f"{group} {name}"
    for group, names in {
        "target": "add list show tag import static-deltas",
        "artifact": "add list show verify remove",
        "delta": "list show build drop verify",
        "device": "list show enroll group label retire hold release replace token",
        "enrolment": "add list revoke",
        "user": "add list show roles disable enable password log",
        "token": "add list revoke",
        "ca": "init issue server revoke list",
        "tuf": "init rotate show",
        "mender": "list accept reject preauthorize decommission",
        "policy": "check list show schema",
        "gate": "ask",
        "notify": "list destinations retry test send",
        "db": "upgrade check copy",
        "journal": "show verify",
    }.items()
    for name in names.split()
]


def test_the_tree_is_what_was_promised() -> None:
    assert sorted(COMMANDS) == sorted(LISTED)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_a_sentence_and_a_pasteable_example(name: str, house: House) -> None:
    shown = house.ok(*name.split(), "--help")
    sentence = COMMANDS[name].help.split("\n\n")[0]
    assert sentence.endswith(".") and sentence[0].isupper() and len(sentence) < 200
    assert "Example" in shown
    usage = " ".join(takewhile(str.strip, shown.partition("Usage:")[2].splitlines()))
    assert not any(odd in usage for odd in ("{", "[[", "]]")), usage
    for example in EXAMPLES[name]:
        words = shlex.split(example.partition(">")[0])
        assert words[: 1 + len(name.split())] == ["wave", *name.split()]
        assert len(example) <= 76, "broken over two lines it cannot be pasted"
        assert all(len(line) <= 80 for line in shown.splitlines())
        assert "<bool>" not in shown, "an option without a value has no type"


@pytest.mark.parametrize(("name", "example"), [(n, e) for n, found in sorted(EXAMPLES.items()) for e in found])
def test_every_example_parses(name: str, example: str) -> None:
    words = shlex.split(example.partition(">")[0])[1 + len(name.split()) :]
    command = COMMANDS[name]
    parsed = command.make_context(name, [word for word in words if word != "--no-color"])
    assert parsed.params or not words


def test_global_options_may_stand_behind_the_command() -> None:
    assert hoisted(["status", "x", "--by", "jo", "--no-color"]) == ["--by", "jo", "--no-color", "status", "x"]
    assert hoisted(["list", "--root=/a"]) == ["--root=/a", "list"]
    assert hoisted(["retry", "--", "--by"]) == ["retry", "--", "--by"]
    assert hoisted(["list", "--by"]) == ["--by", "list"]


def test_no_command_has_an_option_that_is_global() -> None:
    for name, command in COMMANDS.items():
        own = {word for param in command.params for word in getattr(param, "opts", [])}
        assert not own & set(ANYWHERE), name


def test_json_is_known_before_the_words_are_parsed() -> None:
    assert wants_json(["list", "--json"])
    assert not wants_json(["retry", "x", "--", "--json"])


def test_whatever_prints_can_print_json() -> None:
    without = {"serve", "builder"}
    for name, command in COMMANDS.items():
        own = {word for param in command.params for word in getattr(param, "opts", [])}
        assert ("--json" in own) is (name not in without), name


def test_orders_that_change_a_rollout_can_be_tried_first() -> None:
    for name in "apply start pause resume promote complete halt cancel skip retry".split():
        assert "--dry-run" in {word for param in COMMANDS[name].params for word in param.opts}, name


def test_help_of_the_whole_fits_80_columns(house: House) -> None:
    shown = house.ok("--help")
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "builder" not in shown.split("Installation")[1].split("serve")[0]


def test_the_tree_has_a_name() -> None:
    assert app.info.name == "wave"
