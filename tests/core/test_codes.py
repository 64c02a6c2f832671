"""Error codes: which pattern stands for which code, and which class counts, in whatever order it is written."""

from __future__ import annotations

import re
import time
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.codes import Classes, classes_of, could_both_match, first_clash, matches, specificity
from orchestrator.core.outcomes import OutcomeClass

FAILED, VERIFY_FAILED = OutcomeClass.FAILED, OutcomeClass.VERIFY_FAILED
patterns = st.text("ab*?", max_size=5)
short_codes = ["".join(code) for length in range(7) for code in product("ab", repeat=length)]


def as_regex(pattern: str) -> str:
    return "".join(".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)


@given(st.text("aB.[*?\n", max_size=8), st.text("aB.[\n", max_size=10))
def test_a_pattern_stands_for_what_the_same_regular_expression_stands_for(pattern: str, code: str) -> None:
    assert matches(pattern, code) == bool(re.fullmatch(as_regex(pattern), code, re.DOTALL))


@given(patterns, patterns)
def test_two_patterns_clash_exactly_when_some_code_is_of_both(one: str, other: str) -> None:
    """Over two letters, a code that both match is never longer than both patterns together."""
    shared = [code for code in short_codes if matches(one, code) and matches(other, code)]
    if could_both_match(one, other):
        assert shared or len(one) + len(other) > 6
    else:
        assert not shared
    assert could_both_match(one, other) == could_both_match(other, one)


def test_many_stars_cost_no_more_than_the_lengths_multiplied() -> None:
    begun = time.process_time()
    assert not matches("*a" * 60 + "b", "a" * 128)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("code", "of"),
    [
        ("NET-42", "radio"),
        ("NET-43", "modem"),
        ("NET-", "modem"),
        ("net-43", "failed"),
        ("E17", "disk"),
        ("E18", "any"),
        ("E1", "failed"),
        ("", "failed"),
        (None, "failed"),
    ],
)
def test_the_most_specific_pattern_counts(code: str | None, of: str) -> None:
    classes = classes_of({"any": ["E??"], "disk": ["E17"], "modem": ["NET-*"], "radio": ["NET-42"]}, verify=False)
    assert classes.of(FAILED, code) == of


def test_a_failed_verification_has_its_own_class_only_where_it_is_named() -> None:
    assert Classes().of(VERIFY_FAILED, "E1") == FAILED
    assert Classes(verify=True).of(VERIFY_FAILED, "E1") == VERIFY_FAILED
    assert classes_of({"own": ["E1"]}, verify=True).of(VERIFY_FAILED, "E1") == "own"
    for kind in (OutcomeClass.ROLLED_BACK, OutcomeClass.DOWNLOAD_FAILED):
        assert Classes().of(kind, None) == kind


own_classes = st.dictionaries(
    st.sampled_from(["one", "two", "three"]), st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=3)
)


@given(own_classes, st.text("ab", max_size=4), st.data())
def test_the_order_in_which_classes_and_patterns_are_written_never_matters(
    codes: dict[str, list[str]], code: str, data: Any
) -> None:
    names = data.draw(st.permutations(list(codes)))
    shuffled = {name: data.draw(st.permutations(codes[name])) for name in names}
    assert first_clash(shuffled) == first_clash(codes)
    assert classes_of(shuffled, verify=False) == classes_of(codes, verify=False)
    if first_clash(codes) is None:
        of = classes_of(codes, verify=False).of(FAILED, code)
        fitting = [(specificity(each), name) for name, many in codes.items() for each in many if matches(each, code)]
        assert of == (min(fitting)[1] if fitting else FAILED)
        assert len({name for rank, name in fitting if rank == min(fitting)[0]}) <= 1, "nothing is left to chance"
