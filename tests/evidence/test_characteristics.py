"""What the evidence page promises, played in small: the same cases as ``make evidence``, a few hundred runs of each.

The seeds are fixed, so nothing here fails by chance. The bounds are those of the promise and of the exact interval: a
test fails when the runs contradict the promise, not when they are few.
"""

from __future__ import annotations

import pytest

from tests.evidence import cases
from tests.evidence.cases import EXCLUDED, Case
from tests.evidence.playing import Measured, measure

FEW, MORE = 60, 300


def played(part: str, name: str, rule: str = "standard", *, runs: int = FEW) -> Measured:
    return measure(find(part, name, rule), runs)


def find(part: str, name: str, rule: str = "standard") -> Case:
    return next(each for each in cases.PARTS[part]() if (each.name, each.rule) == (name, rule))


@pytest.mark.parametrize("words", ["failures first", "all of these, failures first"])
def test_no_order_of_reports_halts_a_release_at_its_tolerance_too_often(words: str) -> None:
    assert played("false-halts", f"at the tolerance, {words}").halted.low <= 0.05
    assert played("false-halts", f"at half of it, {words}").halted.low <= 0.01


@pytest.mark.parametrize("rule", ["rate > 2 %", "Wilson"])
def test_the_rules_of_others_are_fooled_by_failures_that_report_first(rule: str) -> None:
    assert played("false-halts", "at half of it, failures first", rule).halted.low > 0.5


def test_the_rest_is_not_halted_once_a_segment_is_excluded() -> None:
    found = played("false-halts", f"at half of it, {EXCLUDED}")
    assert found.excluded_rightly.high > 0.99
    assert found.halted_after_excluding.low <= 0.01


@pytest.mark.parametrize(("rule", "median"), [("standard", 10), ("one class", 8)])
def test_five_times_the_tolerance_is_caught_after_few_failed_devices(rule: str, median: int) -> None:
    found = played("detections", "5 times the tolerance", rule, runs=MORE)
    assert found.stopped.hits == len(found.runs)  # some are held, because a monitor stays amber
    assert found.halted.low > 0.7
    assert found.failed is not None
    assert found.failed.median <= median
    assert found.failed_at_the_stop is not None
    assert found.failed_at_the_stop.median <= median


@pytest.mark.parametrize("rule", ["standard", "one class"])
def test_total_failure_is_halted_by_the_fifth_failed_device(rule: str) -> None:
    found = played("detections", "all devices fail", rule, runs=MORE)
    assert found.halted.hits == len(found.runs)
    assert found.most_failed <= 5


def test_total_failure_that_starts_late_is_halted_by_the_tenth_report() -> None:
    found = played("starts-late", "reports one by one", runs=MORE)
    assert found.halted.hits == len(found.runs)
    assert found.most_failed <= 10


def test_a_bad_hardware_id_is_excluded_and_named() -> None:
    found = played("one-hardware", "slices as they are")
    assert found.excluded_rightly.high >= 0.99
    reported = found.of_exclusion("reported")
    assert reported is not None
    assert reported.median <= 15


def test_bricked_canaries_are_found_by_the_clock_and_a_slower_release_is_not() -> None:
    found = played("silence", "all of 20 canaries brick, all report within minutes", "standard")
    assert found.stopped_by_silence().hits == found.halted.hits == len(found.runs)
    delay = found.minutes_to_the_stop()
    assert delay is not None
    assert delay.high <= 15
    usual = played("silence", "all of 20 canaries brick, the usual fleet", "standard")
    assert usual.stopped_within(15).hits == len(usual.runs)
    slower = played("silence", "1.5 times slower to report, the usual fleet", "standard", runs=30)
    assert slower.stopped_by_silence().hits == 0


def test_good_releases_pass_their_bake_in_time() -> None:
    found = played("comes-through", "10 % offline")
    assert all(found.passed_within(wave, 48.0).high >= 0.97 for wave in ("w20", "w200", "w2000"))


def test_a_group_threshold_lets_twice_its_share_of_a_group_die() -> None:
    ours, theirs = (played("detections", "all devices fail", rule) for rule in ("standard", "group > 2 %"))
    assert ours.failed is not None and theirs.failed is not None
    assert theirs.failed.median == 41  # more than 2 % of 2,000
    assert ours.failed.median <= 5
