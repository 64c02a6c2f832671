"""The waves of a rollout as a graph: what comes after what, how each stands, and how far it has come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from markupsafe import Markup

from orchestrator.core.states import WaveStatus
from orchestrator.core.words import MARK, number
from orchestrator.services.views import RolloutView, WaveView
from orchestrator.web.console.charts.svg import el, escaped, picture, short

_WIDE, _HIGH = 190, 92
_ACROSS, _DOWN = 54, 18
_PAD: Final = 3
_LETTERS: Final = 21


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of a wave: so many in all as far as known, and of them."""

    size: int | None
    confirmed: int
    bad: int
    in_flight: int


def counts_of(wave: WaveView) -> Counts:
    """As ``wave status`` counts them: with a place, waiting for one, or found at the last look; those of excluded
    segments are no part of it."""
    facts = wave.facts
    placed = facts.members - sum(piece.excluded for piece in facts.slices) + facts.waiting
    size = max(placed, facts.offered) if facts.slices else facts.eligible
    return Counts(size, facts.confirmed, facts.bad_in_all, max(0, facts.in_flight))


class Node(NamedTuple):
    """What is drawn of a wave."""

    wave: str
    word: str
    counts: Counts
    after: tuple[str, ...]


def graphs(view: RolloutView, *, id: str) -> tuple[Markup, Markup]:
    """From left to right, and from top to bottom for a narrow page."""
    nodes = (Node(each.state.wave, view.word_of(each), counts_of(each), each.after) for each in view.waves)
    return _graphs(tuple(nodes), id)


@lru_cache(maxsize=256)
def _graphs(waves: tuple[Node, ...], id: str) -> tuple[Markup, Markup]:
    """What they have in common is drawn once, and nothing again while it stays the same."""
    inside = {each.wave: _inside(each) for each in waves}
    return (
        _graph(waves, inside, upright=False, id=f"{id}-lying"),
        _graph(waves, inside, upright=True, id=f"{id}-upright"),
    )


def _graph(waves: Sequence[Node], inside: Mapping[str, Markup], *, upright: bool, id: str) -> Markup:
    layers = _layers(waves)
    width, height = _size(layers, upright=upright)
    at: dict[str, tuple[float, float]] = {}
    for column, layer in enumerate(layers):
        for row, wave in enumerate(layer):
            at[wave.wave] = _place(column, row, len(layer), layers, upright=upright)
    edges = [
        _edge(at[before], at[each.wave], done=_done(waves, before), upright=upright)
        for each in waves
        for before in each.after
    ]
    nodes = [_node(each, inside[each.wave], *at[each.wave]) for each in waves]
    said = "; ".join(
        f"{each.wave} is {each.word}" + (f", after {' and '.join(each.after)}" if each.after else "") for each in waves
    )
    return picture(
        width,
        height,
        edges,
        nodes,
        title="The waves",
        described=f"{said}. The table below has the numbers.",
        id=id,
        class_="chart waves " + ("upright" if upright else "lying"),
    )


def _layers(waves: Sequence[Node]) -> list[list[Node]]:
    """Each wave one layer after the last that it waits for."""
    depth: dict[str, int] = {}
    by = {each.wave: each for each in waves}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((of(before) for before in by[name].after if before in by), default=-1)
        return depth[name]

    found: Mapping[int, list[Node]] = defaultdict(list)
    for each in waves:
        found[of(each.wave)].append(each)
    return [found[each] for each in range(len(found))]


def _size(layers: Sequence[Sequence[Node]], *, upright: bool) -> tuple[float, float]:
    along, beside = len(layers), max(map(len, layers), default=1)
    if upright:
        return 2 * _PAD + beside * _WIDE + (beside - 1) * _DOWN, 2 * _PAD + along * _HIGH + (along - 1) * 30
    return 2 * _PAD + along * _WIDE + (along - 1) * _ACROSS, 2 * _PAD + beside * _HIGH + (beside - 1) * _DOWN


def _place(
    column: int, row: int, beside: int, layers: Sequence[Sequence[Node]], *, upright: bool
) -> tuple[float, float]:
    width, height = _size(layers, upright=upright)
    if upright:
        used = beside * _WIDE + (beside - 1) * _DOWN
        return (width - used) / 2 + row * (_WIDE + _DOWN), _PAD + column * (_HIGH + 30)
    used = beside * _HIGH + (beside - 1) * _DOWN
    return _PAD + column * (_WIDE + _ACROSS), (height - used) / 2 + row * (_HIGH + _DOWN)


def _done(waves: Sequence[Node], name: str) -> bool:
    return any(each.wave == name and each.word in (WaveStatus.PASSED, WaveStatus.SKIPPED) for each in waves)


def _edge(start: tuple[float, float], end: tuple[float, float], *, done: bool, upright: bool) -> Markup:
    if upright:
        x1, y1, x2, y2 = start[0] + _WIDE / 2, start[1] + _HIGH, end[0] + _WIDE / 2, end[1] - 6
        middle = (y1 + y2) / 2
        curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2 - 4:.1f} {y2 - 1:.1f}h8l-4 6z"
    else:
        x1, y1, x2, y2 = start[0] + _WIDE, start[1] + _HIGH / 2, end[0] - 6, end[1] + _HIGH / 2
        middle = (x1 + x2) / 2
        curve = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2 - 1:.1f} {y2 - 4:.1f}v8l6 -4z"
    kind = "edge done" if done else "edge"
    return el("g", el("path", class_=kind, d=curve), el("path", class_=f"{kind} tip", d=tip))


def _node(wave: Node, inside: Markup, x: float, y: float) -> Markup:
    return el("g", inside, class_=f"wave s-{wave.word}", transform=f"translate({short(x)} {short(y)})")


def _inside(wave: Node) -> Markup:
    """A box with what is in it, its corner at 0, 0."""
    word, counts = wave.word, wave.counts
    name = wave.wave if len(wave.wave) <= _LETTERS else f"{wave.wave[: _LETTERS - 1]}…"
    whole = "size not known yet" if counts.size is None else f"{number(counts.confirmed)} of {number(counts.size)}"
    return Markup(
        f'<rect class="box" x="0" y="0" width="{_WIDE}" height="{_HIGH}" rx="8"/>'
        f'<rect class="stripe" x="0" y="10" width="4" height="{_HIGH - 20}" rx="2"/>'
        f'<text class="name" x="14" y="24">{escaped(name)}</text>'
        f'<text class="state" x="14" y="43">{MARK[word]} {word}</text>'
        f"{bar(counts, x=14, y=52, width=_WIDE - 28, height=7)}"
        f'<text class="count" x="14" y="75">{whole}</text>'
        f"{_aside(counts.bad, 'bad', 'more bad', 43)}{_aside(counts.in_flight, 'under way', 'more', 75)}"
    )


def _aside(many: int, what: str, kind: str, y: int) -> str:
    return f'<text class="{kind}" x="{_WIDE - 12}" y="{y}" text-anchor="end">{many:,} {what}</text>' if many else ""


@lru_cache(maxsize=4_096)
def bar(counts: Counts, *, x: float, y: float, width: float, height: float) -> Markup:
    """Confirmed, bad, under way, and the rest."""
    whole = max(counts.size or 0, counts.confirmed + counts.bad + counts.in_flight)
    parts = [el("rect", class_="bar-rest", x=x, y=y, width=width, height=height, rx=height / 2)]
    at = x
    for kind, count in (("bar-ok", counts.confirmed), ("bar-bad", counts.bad), ("bar-flying", counts.in_flight)):
        if count and whole:
            wide = min(x + width - at, max(3.0, width * count / whole))
            parts.append(el("rect", class_=kind, x=at, y=y, width=wide, height=height, rx=1.5))
            at += wide
    return el("g", parts)


@lru_cache(maxsize=1_024)
def bar_alone(counts: Counts, *, width: float = 120) -> Markup:
    """The bar as a picture of its own, beside numbers that say the same."""
    drawn = bar(counts, x=0, y=1, width=width, height=8)
    return el("svg", drawn, view_box=f"0 0 {width:g} 10", width=width, height=10, aria_hidden="true", class_="bar")
