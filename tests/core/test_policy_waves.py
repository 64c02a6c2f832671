"""What one wave may change of its policy, and the exact sentence when it may not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.core.document import InvalidDocument
from orchestrator.core.policy import Policy, Promotion
from orchestrator.core.wave_policy import WaveOverride, policy_for
from tests.core.test_policy import PAGE

KEYS = "promote, window, pace, bake, deltas, gates, approve"


def override(document: object) -> WaveOverride:
    return WaveOverride.parse(document)


def test_a_wave_changes_single_keys() -> None:
    policy = Policy.parse(PAGE)
    changed = policy_for(
        policy, override({"promote": "automatic", "bake": {"at_least": "1d"}, "window": {"hours": "22:00-04:00"}})
    )
    assert changed.promote is Promotion.AUTOMATIC
    assert (changed.bake.at_least, changed.bake.reports) == (timedelta(days=1), 0.95)
    assert changed.window is not None
    assert changed.window.document() == {**policy.document()["window"], "hours": "22:00-04:00"}
    assert changed.tolerate == policy.tolerate
    assert policy_for(policy, None) is policy


def test_a_wave_may_lift_the_window() -> None:
    assert policy_for(Policy.parse(PAGE), override({"window": "always"})).window is None


def test_an_override_that_does_not_fit_its_policy_is_refused() -> None:
    policy = Policy.parse({"policy": "x"})
    for document, sentence in [
        ({"bake": {"at_least": "3d"}}, "bake: has at_most 2d below at_least 3d; give an at_most of at least 3d."),
        ({"window": {"days": "mon"}}, "window.timezone: is missing; for example `timezone: Europe/Berlin`."),
    ]:
        with pytest.raises(InvalidDocument) as refused:
            policy_for(policy, override(document))
        assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            {"tolerate": {}},
            f"tolerate: cannot differ from wave to wave; a wave may change {KEYS}.",
        ),
        *(
            (
                {key: []},
                f"{key}: cannot differ from wave to wave; a wave may change {KEYS}.",
            )
            for key in ("segments", "false_exclude", "on_segment", "escalate_over", "on_halt")
        ),
        (
            {"pomote": "manual"},
            f"pomote: is not a key here; allowed are {KEYS}. Did you mean 'promote'?",
        ),
        (
            {"window": {"hours": "9-5"}},
            'window.hours: must be two times of day such as "09:00-16:00" or "22:00-04:00", not \'9-5\'.',
        ),
        (
            "manual",
            "must be a mapping with the keys promote, window, pace, bake, deltas, gates, approve, not 'manual'.",
        ),
    ],
)
def test_what_a_wave_may_not_change(document: object, sentence: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        override(document)
    assert str(refused.value) == sentence
