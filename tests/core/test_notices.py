"""What a policy asks to be told of, and what one message says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.core.document import InvalidDocument
from orchestrator.core.notices import OF_EVENT, ON_MEANING, Notice, On, notice
from orchestrator.core.policy import Policy
from orchestrator.core.states import RolloutStatus, WaveStatus

NOW = datetime(2026, 11, 24, 14, 20, 11, tzinfo=UTC)
TWO = [{"to": "oncall", "on": ["halted", "held"]}, {"to": "release", "on": ["opened", "completed"]}]


def policy(**keys: object) -> Policy:
    return Policy.parse({"policy": "x", **keys})


def refusal(**keys: object) -> str:
    with pytest.raises(InvalidDocument) as refused:
        policy(**keys)
    return str(refused.value)


def test_nobody_is_told_of_what_nobody_asked_for() -> None:
    assert policy().told_of("halted", "policy") == ()
    asked = policy(notify=TWO)
    assert asked.told_of("halted", "policy") == ("oncall",)
    assert asked.told_of("wave_held", "policy") == ("oncall",)
    assert asked.told_of("opened", "policy") == ("release",)
    assert asked.told_of("passed", "policy") == ()
    assert asked.told_of("slice_opened", "policy") == ()


def test_an_order_is_told_where_orders_are_asked_for_and_a_decision_is_not() -> None:
    asked = policy(notify=[{"to": "audit", "on": ["orders"]}])
    assert asked.told_of("paused", "ann") == ("audit",)
    assert asked.told_of("applied", "ann") == ("audit",)
    assert asked.told_of("halted", "policy") == ()


def test_notify_in_on_halt_tells_everybody_of_a_halt_and_of_nothing_else() -> None:
    asked = policy(notify=TWO, on_halt=["withdraw", "notify"])
    assert asked.told_of("halted", "policy") == ("oncall", "release")
    assert asked.told_of("held", "policy") == ("oncall",)
    assert not asked.cancels


def test_without_the_key_a_policy_is_the_one_it_was() -> None:
    assert "notify" not in policy().document()
    with_it = policy(notify=TWO)
    assert Policy.from_canonical(with_it.canonical()) == with_it


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"notify": []}, "notify: must not be an empty list."),
        ({"notify": [{"to": "oncall", "on": []}]}, "notify[0].on: must not be an empty list."),
        ({"notify": [{"to": "oncall", "on": ["halt"]}]}, "notify[0].on[0]: must be one of scheduled, started,"),
        ({"notify": [{"to": "oncall", "on": ["all"]}]}, "notify[0].on[0]: must name each"),
        ({"notify": [{"to": "oncall", "on": ["held", "held"]}]}, "notify[0].on: names held twice."),
        ({"notify": [{"to": "On Call", "on": ["held"]}]}, "notify[0].to: must be made of small letters"),
        ({"notify": [*TWO, TWO[0]]}, "notify[2].to: names oncall a second time."),
        ({"notify": [{"on": ["held"]}]}, "notify[0].to: is missing"),
        ({"on_halt": ["withdraw", "notify"]}, "on_halt: has notify, and the key notify names nobody to be told."),
    ],
)
def test_what_is_refused(keys: dict[str, object], sentence: str) -> None:
    assert refusal(**keys).startswith(sentence)


def test_every_word_has_a_meaning_and_an_event() -> None:
    assert set(ON_MEANING) == set(On)
    assert set(OF_EVENT.values()) == set(On) - {On.ORDERS}


def halted(**more: object) -> Notice:
    given: dict = {
        "rollout": "lmp-42", "version": 42, "status": RolloutStatus.HALTED, "seq": 7, "digest": "ab" * 32,
        "event": "halted", "by": "policy", "at": NOW, "sentence": "4 failed within the first 20 places.",
        "stopped_by": ["rollout/failed"],
    }  # fmt: skip
    return notice(**{**given, **more})


def test_one_message_says_what_why_what_it_means_where_to_look_and_what_to_type() -> None:
    told = halted()
    assert told.title == "Rollout lmp-42 (version 42): halted"
    assert told.body("https://wave.example.com/rollouts/lmp-42") == (
        "4 failed within the first 20 places.\n"
        "\n"
        "What it means: The rollout is halted: Stopped for safety: offers not started are withdrawn; a person accepts"
        " or cancels.\n"
        "\n"
        "Decided by the policy at 2026-11-24 14:20:11 UTC; entry 7 of the journal.\n"
        "\n"
        "Look: https://wave.example.com/rollouts/lmp-42\n"
        "\n"
        "To type:\n"
        "  wave explain lmp-42\n"
        "  wave resume lmp-42 --accept rollout/failed --reason TEXT\n"
        "  wave cancel lmp-42 --reason TEXT"
    )
    assert "Look:" not in told.body(None)


def test_a_wave_that_is_held_says_how_it_goes_on() -> None:
    told = halted(
        status=RolloutStatus.RUNNING, event="wave_held", wave="lab", wave_status=WaveStatus.BAKING, wave_held=True
    )
    assert told.title == "Wave lab of rollout lmp-42 (version 42): held"
    assert told.meaning.startswith("The wave waits for a person; other waves go on.")
    assert told.commands[1:] == ("wave resume lmp-42 --wave lab", "wave complete lmp-42 lab --reason TEXT")
    waiting = halted(
        status=RolloutStatus.RUNNING, event="wave_held", wave="lab", wave_status=WaveStatus.PREPARING, wave_held=True
    )
    assert waiting.commands[-1] == "wave skip lmp-42 lab --reason TEXT"


def test_what_a_person_wrote_stays_one_line_of_what_can_be_printed() -> None:
    told = halted(sentence="Halted by ann: a\r\nSubject: b\x1b[31m\u202e c")
    assert told.sentence == "Halted by ann: a Subject: b [31m c"
    assert told.title == "Rollout lmp-42 (version 42): halted"


def test_it_is_the_same_after_the_outbox() -> None:
    assert Notice.from_text(halted().as_text()) == halted()
