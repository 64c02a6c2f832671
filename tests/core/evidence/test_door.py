"""The bake door opens on evidence only, and never on more trouble."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.evidence.door import Condition, Unmet, confirmed_needed, door
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.errors import InvalidInput

FAILED, ROLLED_BACK, SILENT = OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT
STANDARD: Mapping[Outcome, Tolerance] = {
    FAILED: Tolerance(0.02),
    ROLLED_BACK: Tolerance(0.01),
    SILENT: Tolerance(0.05, Answer.HOLD),
    OutcomeClass.IGNORED: Tolerance(0.01, Answer.COUNT),
}
READY: Mapping[str, Any] = {
    "baked": timedelta(hours=12),
    "at_least": timedelta(hours=12),
    "offers": 20,
    "outcomes": 20,
    "reports": 0.95,
    "confirmed": 20,
    "reachable": 20,
    "bad": {},
    "tolerate": STANDARD,
}


def _door(**changes: Any) -> tuple[Unmet, ...]:
    return door(**{**READY, **changes})


def test_a_wave_that_is_well_and_has_baked_passes() -> None:
    assert _door() == ()


@pytest.mark.parametrize(
    ("changes", "condition", "subject", "sentence"),
    [
        (
            {"baked": timedelta(hours=3, minutes=12, seconds=2)},
            Condition.TIME,
            "",
            "It has baked for 3 h 12 min of at least 12 h: 8 h 47 min more.",
        ),
        ({"outcomes": 17, "confirmed": 17}, Condition.REPORTS, "", "17 of 20 have reported; 95 % are needed: 2 more."),
        ({"confirmed": 15}, Condition.CONFIRMED, "", "15 have confirmed; 16 are needed: 1 more."),
        (
            {"bad": {FAILED: 3}},
            Condition.CLASS,
            "failed",
            "3 of 20 outcomes are failed; at the tolerance of 2 % so many come up in 0.71 % of cases, and more than"
            " 5 % is needed.",
        ),
        (
            {"amber": ["rollout/failed"]},
            Condition.AMBER,
            "rollout/failed",
            "Monitor rollout/failed is amber: it has a fifth or more of the evidence that halts.",
        ),
    ],
)
def test_what_is_not_met_is_said(changes: dict[str, Any], condition: Condition, subject: str, sentence: str) -> None:
    assert _door(**changes) == (Unmet(condition, sentence, subject),)


def test_two_failed_of_twenty_are_still_explained_by_two_per_cent() -> None:
    """5.99 % of good waves of twenty show as many."""
    assert _door(bad={FAILED: 2}) == ()


def test_more_than_five_per_cent_of_good_waves_must_look_like_it() -> None:
    """At 1 %, one bad of five comes up in 4.9 % of cases, one of six in 5.9 %."""
    small = {"reachable": 5, "confirmed": 4, "bad": {ROLLED_BACK: 1}}
    assert [each.subject for each in _door(offers=5, outcomes=5, **small)] == ["rolled_back"]
    assert _door(offers=6, outcomes=6, **small) == ()


def test_everything_unmet_is_said_in_order() -> None:
    unmet = _door(
        baked=timedelta(0), outcomes=4, confirmed=0, bad={FAILED: 2, ROLLED_BACK: 2, SILENT: 4}, amber=["b", "a"]
    )
    assert [(each.condition, each.subject) for each in unmet] == [
        (Condition.TIME, ""),
        (Condition.REPORTS, ""),
        (Condition.CONFIRMED, ""),
        (Condition.CLASS, "failed"),
        (Condition.CLASS, "rolled_back"),
        (Condition.CLASS, "silent"),
        (Condition.AMBER, "a"),
        (Condition.AMBER, "b"),
    ]


def test_a_share_is_taken_as_it_was_written() -> None:
    """0.07 of 100 is 7, although 0.07 * 100 is 7.000000000000001 in binary."""
    assert _door(offers=100, outcomes=7, confirmed=7, reachable=8, reports=0.07) == ()
    assert [each.condition for each in _door(offers=100, outcomes=6, confirmed=6, reachable=7, reports=0.07)] == [
        Condition.REPORTS
    ]


def test_how_many_must_be_confirmed() -> None:
    assert [confirmed_needed(reachable) for reachable in (0, 1, 2, 5, 18, 20, 24, 25, 26, 10_000_000)] == [
        1, 1, 2, 4, 15, 16, 20, 20, 20, 20,
    ]  # fmt: skip


def test_a_wave_without_a_single_report_never_passes() -> None:
    """Promise 4, also where nobody was offered anything and every share of nothing is reached."""
    (unmet,) = _door(offers=0, outcomes=0, confirmed=0, reachable=0)
    assert unmet.sentence == "0 have confirmed; 1 is needed: 1 more."


def test_a_class_that_is_only_counted_keeps_nothing_shut() -> None:
    assert _door(bad={OutcomeClass.IGNORED: 20, OutcomeClass.DOWNLOAD_FAILED: 20}) == ()


def test_tallies_that_contradict_each_other_do_not_open() -> None:
    assert [each.subject for each in _door(bad={FAILED: 21})] == ["failed"]


@pytest.mark.parametrize("name", ["offers", "outcomes", "confirmed", "reachable"])
def test_negative_tallies_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="negative"):
        _door(**{name: -1})
    with pytest.raises(InvalidInput, match="negative"):
        _door(bad={FAILED: -1})


def test_a_share_of_reports_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="reports"):
        _door(reports=1.2)


WAVES = st.fixed_dictionaries(
    {
        "baked": st.integers(10, 14).map(lambda hours: timedelta(hours=hours)),
        "offers": st.integers(0, 60),
        "outcomes": st.integers(0, 60),
        "confirmed": st.integers(0, 60),
        "reachable": st.integers(0, 60),
        "bad": st.dictionaries(st.sampled_from([FAILED, ROLLED_BACK, SILENT]), st.integers(0, 6)),
    }
)


@given(WAVES, st.sampled_from([FAILED, ROLLED_BACK, SILENT]), st.integers(1, 5))
def test_more_trouble_never_opens(wave: dict[str, Any], outcome: Outcome, more: int) -> None:
    """P5: whatever kept the door shut still does with more bad, less heard, less confirmed or an amber monitor."""
    before = {(each.condition, each.subject) for each in _door(**wave)}
    worse: list[dict[str, Any]] = [
        {"bad": {**wave["bad"], outcome: wave["bad"].get(outcome, 0) + more}},
        {"outcomes": max(0, wave["outcomes"] - more)},
        {"confirmed": max(0, wave["confirmed"] - more)},
        {"offers": wave["offers"] + more},
        {"reachable": wave["reachable"] + more},
        {"baked": wave["baked"] - timedelta(hours=more)},
        {"amber": ["rollout/failed"]},
    ]
    for change in worse:
        after = {(each.condition, each.subject) for each in _door(**{**wave, **change})}
        assert after >= before
