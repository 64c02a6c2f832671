"""Versions over time: how many devices ran which, as the censuses counted them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from markupsafe import Markup

from orchestrator.core.words import number
from orchestrator.web.console.charts.svg import el, picture, round_steps

WIDTH: Final = 1180
SLIM: Final = 560
HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 12, 12, 26
COLOURS: Final = 6
"""Versions that have a colour of their own; the rest are one."""
_MOST: Final = 120

Version = int | None


@dataclass(frozen=True, slots=True)
class Line:
    """One version now. ``colour``: its class in the picture; the last one is all that have none."""

    name: str
    colour: int
    devices: int
    share: float


def lines(series: Sequence[tuple[datetime, Mapping[Version, int]]]) -> tuple[Line, ...]:
    """The newest versions first, then who is on older ones together, then who has not said."""
    if not series:
        return ()
    now = series[-1][1]
    whole = sum(now.values()) or 1
    named = _named(series)
    found = [Line(f"version {v}", i, now.get(v, 0), now.get(v, 0) / whole) for i, v in enumerate(named)]
    rest = sum(many for v, many in now.items() if v is not None and v not in named)
    if any(v is not None and v not in named for _, counts in series for v in counts):
        found.append(Line("older versions", COLOURS, rest, rest / whole))
    if any(None in counts for _, counts in series):
        found.append(Line("not said yet", COLOURS + 1, now.get(None, 0), now.get(None, 0) / whole))
    return tuple(found)


def _named(series: Sequence[tuple[datetime, Mapping[Version, int]]]) -> list[int]:
    most: Counter[int] = Counter()
    for _, counts in series:
        for version, many in counts.items():
            if version is not None and many > most[version]:
                most[version] = many
    return sorted((version for version, _ in most.most_common(COLOURS)), reverse=True)


def chart(series: Sequence[tuple[datetime, Mapping[Version, int]]], *, slim: bool, id: str) -> Markup:
    """Stacked areas, the newest version at the bottom; ``slim`` for a narrow page."""
    return _chart(tuple((at, tuple(counts.items())) for at, counts in series), slim, id)


@lru_cache(maxsize=64)
def _chart(counted: tuple[tuple[datetime, tuple[tuple[Version, int], ...]], ...], slim: bool, id: str) -> Markup:
    """A census never changes: nothing is drawn again before there is another."""
    series = [(at, dict(counts)) for at, counts in counted]
    width = SLIM if slim else WIDTH
    named = _named(series)
    points = (
        series if len(series) <= _MOST else [series[len(series) * i // _MOST] for i in range(_MOST - 1)] + [series[-1]]
    )
    start, end = points[0][0], points[-1][0]
    length = max((end - start).total_seconds(), 1.0)
    up = round_steps(max(sum(counts.values()) for _, counts in points), about=4)

    def x(at: datetime) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (at - start).total_seconds() / length

    def y(many: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * many / up[-1]

    parts: list[Markup] = []
    for many in up:
        parts.append(el("line", class_="grid", x1=_LEFT, x2=width - _RIGHT, y1=y(many), y2=y(many)))
        parts.append(el("text", number(int(many)), class_="tick", x=_LEFT - 8, y=y(many) + 4, text_anchor="end"))
    below = [0.0] * len(points)
    areas: list[tuple[int, Version | Literal["older"]]] = [*enumerate(named), (COLOURS, "older"), (COLOURS + 1, None)]
    for colour, which in areas:
        above = []
        for place, (_, counts) in enumerate(points):
            if which == "older":
                many = sum(each for v, each in counts.items() if v is not None and v not in named)
            else:
                many = counts.get(which, 0)
            above.append(below[place] + many)
        if above != below:
            forth = "L".join(f"{x(at):.1f} {y(top):.1f}" for (at, _), top in zip(points, above, strict=True))
            back = "L".join(
                f"{x(at):.1f} {y(low):.1f}" for (at, _), low in reversed(list(zip(points, below, strict=True)))
            )
            parts.append(el("path", class_=f"area v{colour}", d=f"M{forth}L{back}Z"))
        below = above
    for at, anchor in _marks(start, end):
        parts.append(el("text", _date(at, end - start), class_="tick", x=x(at), y=HEIGHT - 8, text_anchor=anchor))
    said = ", ".join(f"{each.name}: {number(each.devices)}" for each in lines(series))
    return picture(
        width,
        HEIGHT,
        parts,
        title="Versions over time",
        described=f"From {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC. Now: {said}.",
        id=id,
        class_=f"chart versions {'slim' if slim else 'wide'}",
    )


def _marks(start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    if end - start < timedelta(minutes=1):
        return [(start, "start")]
    return [(start, "start"), (start + (end - start) / 2, "middle"), (end, "end")]


def _date(at: datetime, length: timedelta) -> str:
    return f"{at:%H:%M} UTC" if length < timedelta(days=2) else f"{at.day} {at:%b}"
