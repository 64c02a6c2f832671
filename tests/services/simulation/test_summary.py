"""Chances with their intervals, quantiles, and the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from scipy.stats import beta

from orchestrator.services.simulation.many import play_many
from orchestrator.services.simulation.picture import Drawn, picture
from orchestrator.services.simulation.summary import chance, figure, quantiles, share_words, summary
from tests.services.simulation.settings import setting


@pytest.mark.parametrize(("hits", "runs"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 1_000), (50, 2_000)])
def test_the_interval_is_that_of_clopper_and_pearson(hits: int, runs: int) -> None:
    found = chance(hits, runs)
    assert found.low == pytest.approx(0.0 if hits == 0 else beta.ppf(0.025, hits, runs - hits + 1), abs=1e-9)
    assert found.high == pytest.approx(1.0 if hits == runs else beta.ppf(0.975, hits + 1, runs - hits), abs=1e-9)


def test_quantiles_are_values_that_came_up() -> None:
    assert quantiles([]) is None
    assert quantiles([3.0]) == (1, 3.0, 3.0, 3.0)
    assert quantiles([float(n) for n in range(100, 0, -1)]) == (100, 10.0, 50.0, 90.0)


def test_the_endings_are_all_there_is() -> None:
    asked = setting("tolerated")
    found = summary(asked, play_many(asked, 30))
    assert found.halted.hits + found.held.hits + found.completed.hits + found.unfinished.hits == 30
    assert found.false_halts
    assert sum(many for _, many in found.causes) == found.halted.hits + found.held.hits


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.2314, "0.23"), (3.0, "3"), (3.2458, "3.2"), (45.04, "45"), (62.5, "62"), (12_345.6, "12,346")],
)
def test_a_figure_has_no_more_digits_than_can_be_known(value: float, said: str) -> None:
    assert figure(value) == said


def test_less_than_all_is_never_a_hundred_percent() -> None:
    assert (share_words(1.0), share_words(0.9996), share_words(0.0)) == ("100 %", "over 99 %", "0 %")


def test_the_axes_of_the_picture_are_numbered_as_people_write() -> None:
    """Ten thousand devices in steps of 2,500, and hours in halves."""
    asked = setting("broken")
    played = play_many(asked, 8)
    far = [replace(each, failed=2_400 * number, hours=0.3 * number) for number, each in enumerate(played)]
    said = [each.text or "" for each in ET.fromstring(picture([Drawn(summary(asked, far), far)])).iter()]
    assert "15,000" in said and "0.5" in said
    assert not any("e+" in each for each in said)


def test_the_picture_is_well_formed_whatever_came_of_it() -> None:
    many = []
    for name in ("broken", "good"):
        asked = replace(setting(name), policy=setting().policy)
        played = play_many(asked, 8)
        many.append(Drawn(summary(asked, played), played))
    for drawn in ([many[0]], [many[1]], many):
        text = picture(drawn)
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in text
        assert "<script" not in text
        assert "href" not in text
        assert len(root.findall(".//{*}path")) == sum((1 if each.summary.halted.hits else 0) + 1 for each in drawn)
