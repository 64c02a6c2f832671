"""The staircase of a monitor: where it halts, the failed devices as dots, and the next limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from orchestrator.core.evidence.crossing import Step
from orchestrator.core.evidence.limits import Staircase, staircase
from orchestrator.core.facts import MonitorFacts
from orchestrator.core.outcomes import Answer
from orchestrator.core.reasons import monitor_state, step_of, words
from orchestrator.core.words import number
from orchestrator.web.console.charts.svg import el, escaped, picture, round_steps

WIDTH: Final = 560
HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 14, 40
_MOST_STEPS: Final = 160

MOST_LISTED: Final = 50
"""Failed devices in the table beside a staircase."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One chart with its words. ``failed``: how many dots there are; ``listed``: the rows of a table of the first
    MOST_LISTED: count, place, limit, device."""

    monitor: MonitorFacts
    sentence: str
    svg: Markup
    failed: int
    listed: Markup


@lru_cache(maxsize=64)
def drawing(monitor: MonitorFacts, dots: tuple[tuple[int, str], ...], step: Step | None, *, id: str) -> Drawing:
    """``dots``: place and device of each that is bad, by place; empty when there are too many to draw. Nothing is drawn
    again while no outcome is counted."""
    stairs = staircase(monitor.tolerance, monitor.alpha)
    sentence = monitor_state(monitor, step)
    svg = _svg(monitor, stairs, dots, step, sentence, id)
    return Drawing(monitor, sentence, svg, len(dots), _listed(stairs, dots[:MOST_LISTED]))


def _listed(stairs: Staircase, dots: Sequence[tuple[int, str]]) -> Markup:
    return Markup(
        "".join(
            f'<tr><td class="n">{count}</td><td class="n">{number(place)}</td>'
            f'<td class="n">{number(stairs.limit(count))}</td>'
            f'<td><a href="/devices/{quote(device, safe="")}">{escaped(device)}</a></td></tr>'
            for count, (place, device) in enumerate(dots, 1)
        )
    )


def plain(tolerance: float, alpha: float, places: int, *, id: str, title: str, answer: Answer = Answer.HALT) -> Markup:
    """The staircase alone, as far as so many places reach."""
    stairs = staircase(tolerance, alpha)
    scale = _Scale(max(places, stairs.first + 2), stairs.need(max(1, places)) + 2)
    said = ", ".join(f"{bad} within {number(stairs.limit(bad))}" for bad in range(stairs.first, stairs.first + 4))
    return picture(
        WIDTH,
        HEIGHT,
        _grid(scale),
        _region(stairs, scale),
        _axes(scale),
        el("text", f"{answer.value}s", class_="region-word", x=scale.x(0) + 10, y=scale.y(scale.most) + 18),
        title=title,
        described=f"It {answer.value}s at {said} places, and so on.",
        id=id,
        class_="chart staircase",
    )


def first_limits(tolerance: float, alpha: float, places: int, *, most: int = 6) -> tuple[tuple[int, int], ...]:
    """The first steps, as far as so many places reach: so many bad, within so many."""
    stairs = staircase(tolerance, alpha)
    counts = range(stairs.first, stairs.first + most)
    return tuple((bad, stairs.limit(bad)) for bad in counts if bad == stairs.first or stairs.limit(bad - 1) < places)


@dataclass(frozen=True)
class _Scale:
    """Places to the right, bad devices upwards: at least so many of both."""

    at_least: float
    bad: float

    @cached_property
    def across(self) -> list[float]:
        return round_steps(self.at_least)

    @cached_property
    def up(self) -> list[float]:
        return round_steps(self.bad, about=4)

    @cached_property
    def places(self) -> float:
        return self.across[-1]

    @cached_property
    def most(self) -> float:
        return self.up[-1]

    def x(self, place: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(place, self.places) / self.places

    def y(self, bad: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(bad, self.most) / self.most


def _svg(
    monitor: MonitorFacts,
    stairs: Staircase,
    dots: Sequence[tuple[int, str]],
    step: Step | None,
    sentence: str,
    id: str,
) -> Markup:
    following = step_of(monitor, step)
    waits = monitor.crossed_at is None and not monitor.accepted
    furthest = max(monitor.places, following.within if waits else 0, monitor.crossed_at[1] if monitor.crossed_at else 0)
    reached = stairs.need(monitor.places) if monitor.places else stairs.first
    highest = max(monitor.bad, following.there + following.more if waits else 0, reached) + 1
    scale = _Scale(max(furthest * 1.08, stairs.first + 3), highest)
    drawn: list[Markup] = [_grid(scale), _region(stairs, scale)]
    above: list[Markup] = []
    if monitor.places:
        x = scale.x(monitor.places)
        drawn.append(el("line", class_="so-far", x1=x, x2=x, y1=scale.y(scale.most), y2=scale.y(0)))
        at_end = x > WIDTH - 150
        above.append(
            el(
                "text",
                f"{number(monitor.places)} places so far",
                class_="so-far-word",
                x=x - 5 if at_end else x + 5,
                y=scale.y(0) - 7,
                text_anchor="end" if at_end else "start",
            )
        )
    if waits:
        line, word = _next(monitor, following, scale)
        drawn.append(line)
        above.append(word)
    drawn.append(_axes(scale))
    if dots:
        path = (
            "M"
            + f"{scale.x(0):.1f} {scale.y(0):.1f}"
            + "".join(f"H{scale.x(place):.1f}V{scale.y(count):.1f}" for count, (place, _) in enumerate(dots, 1))
        )
        drawn.append(el("path", class_="walk", d=path + f"H{scale.x(monitor.places):.1f}"))
    # No word may lie over a device that failed.
    drawn += above
    drawn.append(_dots(monitor, dots, scale))
    if not dots and monitor.bad:
        drawn.append(el("circle", class_="dot", cx=scale.x(monitor.places), cy=scale.y(monitor.bad), r=5))
    return picture(
        WIDTH,
        HEIGHT,
        drawn,
        title=f"Staircase of {monitor.monitor}",
        described=f"{sentence}. The shaded region above the steps {_does(monitor)}.",
        id=id,
        class_="chart staircase",
    )


def _dots(monitor: MonitorFacts, dots: Sequence[tuple[int, str]], scale: _Scale) -> Markup:
    """There may be hundreds, and all are alike: each is one string."""
    across, up = (WIDTH - _LEFT - _RIGHT) / scale.places, (HEIGHT - _TOP - _BOTTOM) / scale.most
    base, size = HEIGHT - _BOTTOM, "4" if len(dots) < 60 else "2.5"
    drawn = []
    for count, (place, device) in enumerate(dots, 1):
        kind, radius = ("dot crossed", "5.5") if monitor.crossed_at == (count, place) else ("dot", size)
        x, y = _LEFT + across * min(place, scale.places), base - up * min(count, scale.most)
        drawn.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escaped(device)}: number {count}, '
            f"at place {place:,}</title></circle>"
        )
    return Markup("".join(drawn))


def _does(monitor: MonitorFacts) -> str:
    return "excludes the segment" if monitor.segment else f"{monitor.answer.value}s the rollout"


@lru_cache(maxsize=512)
def _region(stairs: Staircase, scale: _Scale) -> Markup:
    """Where the next bad device halts: above the smallest count that halts among so many places."""
    last = int(scale.places)
    first, highest = stairs.need(1), min(stairs.need(max(1, last)), int(scale.most) + 1)
    every = max(1, (highest - first) // _MOST_STEPS)
    path = [f"M{scale.x(0):.1f} {scale.y(first):.1f}"]
    for bad in range(first, highest + 1, every):
        x = scale.x(min(last, stairs.limit(bad)))
        path.append(f"H{x:.1f}")
        if stairs.limit(bad) < last:
            path.append(f"V{scale.y(min(scale.most, bad + every)):.1f}")
    edge = "".join(path)
    top = scale.y(scale.most)
    closed = f"{edge}H{scale.x(scale.places):.1f}V{top:.1f}H{scale.x(0):.1f}Z"
    return el("g", el("path", class_="region", d=closed), el("path", class_="limit", d=edge))


def _next(monitor: MonitorFacts, step: Step, scale: _Scale) -> tuple[Markup, Markup]:
    """Where the next limit is, so many bad devices within so many first places, and that in words."""
    count, until = step.there + step.more, step.within
    x, y = scale.x(until), scale.y(count)
    word = f"{count} within {number(until)} {'excludes' if monitor.segment else monitor.answer.value + 's'}"
    line = el(
        "g",
        el("line", class_="next", x1=scale.x(0), x2=x, y1=y, y2=y),
        el("circle", class_="next-mark", cx=x, cy=y, r=4.5),
    )
    # To its right nothing is shaded, and no dot is that high: the next one there halts.
    if x < WIDTH - 170:
        return line, el("text", word, class_="next-word", x=x + 10, y=y + 4)
    return line, el("text", word, class_="next-word", x=x - 9, y=y + 18, text_anchor="end")


@lru_cache(maxsize=512)
def _grid(scale: _Scale) -> Markup:
    left, right = scale.x(0), scale.x(scale.places)
    levels = [scale.y(bad) for bad in scale.up if bad]
    return el("g", [el("line", class_="grid", x1=left, x2=right, y1=y, y2=y) for y in levels])


@lru_cache(maxsize=512)
def _axes(scale: _Scale) -> Markup:
    base = scale.y(0)
    parts = [el("line", class_="axis", x1=scale.x(0), x2=scale.x(scale.places), y1=base, y2=base)]
    for place in scale.across:
        x = scale.x(place)
        last = place == scale.places
        parts.append(
            el("text", number(int(place)), class_="tick", x=x, y=base + 16, text_anchor="end" if last else "middle")
        )
        parts.append(el("line", class_="axis", x1=x, x2=x, y1=base, y2=base + 4))
    for bad in scale.up:
        y = scale.y(bad)
        parts.append(el("text", number(int(bad)), class_="tick", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    parts.append(
        el("text", "places, in their order", class_="axis-word", x=WIDTH - _RIGHT, y=HEIGHT - 4, text_anchor="end")
    )
    parts.append(el("text", "bad devices ↑", class_="axis-word", x=4, y=HEIGHT - 4))
    return el("g", parts)


def dots_of(places: Sequence[tuple[str, int]]) -> tuple[tuple[int, str], ...]:
    """By place, from device and place."""
    return tuple(sorted((place, device) for device, place in places))


def heading(monitor: MonitorFacts) -> str:
    """``failed, over the rollout``: how people name a monitor."""
    if monitor.segment:
        return f"{words(monitor.outcomes)}, over segment {monitor.segment}"
    return f"{words(monitor.outcomes)}, over {f'wave {monitor.wave}' if monitor.wave else 'the rollout'}"
