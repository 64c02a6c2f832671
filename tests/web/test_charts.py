"""The pictures of the console: what is drawn is what is counted, and no text of a device's becomes an element."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from markupsafe import Markup

from orchestrator.core.evidence.limits import staircase as limits_of
from orchestrator.core.facts import MonitorFacts
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.window import Window
from orchestrator.web.console.charts import staircase, windows
from orchestrator.web.console.charts.svg import el, picture, round_steps


def _monitor(places: int, bad: int, crossed: tuple[int, int] | None = None) -> MonitorFacts:
    stairs = limits_of(0.02, 0.01)
    return MonitorFacts(
        "rollout/failed",
        (OutcomeClass.FAILED,),
        None,
        0.02,
        0.01,
        Answer.HALT,
        places,
        bad,
        stairs.limit(bad + 1),
        crossed,
    )


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    made = el("text", "<b>", Markup("<i/>"), class_='a"b', x=1.25)
    assert made == '<text class="a&quot;b" x="1.2">&lt;b&gt;<i/></text>'
    assert el("path", d=None) == "<path/>"
    shown = picture(1, 1, title="<t>", described="&", id="one", class_="chart")
    assert '<title id="one-title">&lt;t&gt;</title>' in shown and "&amp;</desc>" in shown


@pytest.mark.parametrize("highest", [0, 1, 3, 7, 20, 999, 1_000_000])
def test_an_axis_has_round_steps_and_reaches_far_enough(highest: int) -> None:
    steps = round_steps(highest)
    assert steps[0] == 0 and steps[-1] >= highest and 2 <= len(steps) <= 8


def test_each_failed_device_is_a_dot_with_its_name_and_the_crossing_is_marked() -> None:
    drawn = staircase.drawing(_monitor(40, 3, (3, 9)), ((2, "a<b"), (5, "b"), (9, "c")), None, id="s")
    assert len(re.findall("<circle", drawn.svg)) == 3
    assert "a&lt;b: number 1, at place 2" in drawn.svg
    assert drawn.svg.count('class="dot crossed"') == 1
    assert drawn.failed == 3
    first = limits_of(0.02, 0.01).limit(1)
    assert f'<td class="n">1</td><td class="n">2</td><td class="n">{first:,}</td>' in drawn.listed
    assert '<td><a href="/devices/a%3Cb">a&lt;b</a></td>' in drawn.listed
    assert re.findall('<tr><td class="n">(\\d+)</td><td class="n">(\\d+)', drawn.listed) == [
        ("1", "2"),
        ("2", "5"),
        ("3", "9"),
    ]


def test_of_many_failed_devices_the_first_are_listed_and_all_are_drawn() -> None:
    dots = tuple((place, f"dev-{place}") for place in range(1, 80))
    drawn = staircase.drawing(_monitor(4_000, 79), dots, None, id="s")
    assert (drawn.svg.count("<title>dev-"), drawn.failed, drawn.listed.count("<tr>")) == (79, 79, 50)


def test_the_next_limit_is_told_while_nothing_has_crossed() -> None:
    first = limits_of(0.02, 0.01).first
    drawn = staircase.drawing(_monitor(40, 0), (), None, id="s")
    assert f"{first} within {limits_of(0.02, 0.01).limit(first)} halts" in drawn.svg
    assert "next-mark" not in staircase.drawing(_monitor(40, 3, (3, 9)), (), None, id="s").svg


@pytest.mark.parametrize("places", [0, 1, 20, 5_000, 3_000_000])
def test_a_staircase_of_any_length_stays_small(places: int) -> None:
    assert len(staircase.drawing(_monitor(places, 0), (), None, id="s").svg) < 12_000


def test_a_window_is_drawn_in_its_own_zone_and_its_exceptions_are_closed() -> None:
    window = Window.parse(
        {"days": "mon-fri", "hours": "22:00-04:00", "timezone": "Europe/Berlin", "except": ["2026-11-25"]}
    )
    found = windows.calendar("Offers", window, datetime(2026, 11, 24, 12, tzinfo=UTC), id="c")
    words = [said for _, said in found.rows]
    assert words[0] == "00:00 to 04:00, 22:00 to 24:00"
    assert words[1] == "00:00 to 04:00", "what began the day before goes on"
    assert words[2] == "22:00 to 24:00"
    assert not found.open_now and found.changes_at == datetime(2026, 11, 24, 21, tzinfo=UTC)
