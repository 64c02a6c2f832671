"""The success band against the tolerance: how many come through without each kind of trouble, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from markupsafe import Markup

from orchestrator.core.evidence.interval import Interval, interval
from orchestrator.core.outcomes import Answer, Outcome, Tolerance, in_order, word
from orchestrator.core.words import number
from orchestrator.services.views import WaveView
from orchestrator.web.console.charts.svg import el, picture

SURE: Final = 0.05
"""The bands hold with so much less than certainty, however often one looks."""

WIDTH: Final = 560
_REACHES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_ROW, _LEFT, _RIGHT, _TOP = 58, 4, 8, 4


@dataclass(frozen=True, slots=True)
class Band:
    """Of ``outcomes`` devices ``bad`` came to the class. Shares are of those that did not; ``least``: the share that
    the policy asks for."""

    outcome: Outcome
    name: str
    outcomes: int
    bad: int
    low: float
    high: float
    least: float
    answer: Answer

    @property
    def share(self) -> float:
        return 1 - self.bad / self.outcomes if self.outcomes else 1.0

    @property
    def verdict(self) -> str:
        if not self.outcomes:
            return "nothing seen yet"
        if self.high < self.least:
            return "worse than tolerated"
        return "within the tolerance" if self.low >= self.least else "not decided yet"


def bands(waves: Sequence[WaveView], tolerate: Mapping[Outcome, Tolerance]) -> tuple[Band, ...]:
    """One for each class that is tolerated up to something."""
    outcomes = sum(wave.facts.resolved for wave in waves)
    found = []
    for outcome in in_order(tolerate):
        bad = sum(wave.facts.bad(outcome) for wave in waves)
        seen = max(outcomes, bad)
        low, high = _band(bad, seen)
        tolerance = tolerate[outcome]
        found.append(Band(outcome, word(outcome), seen, bad, 1 - high, 1 - low, 1 - tolerance.at_most, tolerance.then))
    return tuple(found)


@lru_cache(maxsize=4_096)
def _band(bad: int, seen: int) -> Interval:
    return interval(bad, seen, SURE, halvings=30)


@lru_cache(maxsize=256)
def chart(found: tuple[Band, ...], *, id: str) -> Markup:
    """A row for each; the axis begins where the worst band, or twice the largest tolerance, does."""
    worst = max((1 - band.least for band in found), default=0.01)
    seen = max((1 - band.low for band in found if band.outcomes), default=0.0)
    asked = min(1.0, max(2 * worst, min(seen, 8 * worst)))
    reach = next(each for each in _REACHES if each >= asked)
    start = 1 - reach
    height = _TOP + _ROW * len(found) + 30

    def x(share: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (max(share, start) - start) / reach

    parts: list[Markup] = []
    base = _TOP + _ROW * len(found) + 2
    for number_, share in enumerate((start, start + reach / 2, 1.0)):
        anchor = ("start", "middle", "end")[number_]
        parts.append(el("line", class_="grid", x1=x(share), x2=x(share), y1=_TOP, y2=base))
        parts.append(el("text", percent(share), class_="tick", x=x(share), y=base + 18, text_anchor=anchor))
    for row, band in enumerate(found):
        y = _TOP + _ROW * row
        kind = "bad" if band.high < band.least else "ok" if band.low >= band.least else "open"
        parts.append(el("text", f"not {band.name}", class_="band-name", x=_LEFT, y=y + 20))
        parts.append(el("rect", class_="band-track", x=_LEFT, y=y + 28, width=WIDTH - _LEFT - _RIGHT, height=18, rx=3))
        if band.outcomes:
            left, right = x(band.low), x(band.high)
            parts.append(
                el("rect", class_=f"band band-{kind}", x=left, y=y + 28, width=max(2, right - left), height=18, rx=3)
            )
            parts.append(
                el("line", class_=f"band-point band-{kind}", x1=x(band.share), x2=x(band.share), y1=y + 26, y2=y + 48)
            )
        parts.append(el("line", class_="tolerance", x1=x(band.least), x2=x(band.least), y1=y + 23, y2=y + 51))
    said = "; ".join(f"not {band.name}: {sentence(band)}" for band in found)
    return picture(
        WIDTH,
        height,
        parts,
        title="Success against the tolerance",
        described=said or "Nothing is tolerated up to a share.",
        id=id,
        class_="chart bands",
    )


def sentence(band: Band) -> str:
    """``99.4 % of 380 (97.9 % to 99.9 %), at least 98 % asked``."""
    if not band.outcomes:
        return f"no outcome yet, at least {percent(band.least)} asked"
    between = f"{percent(band.low)} to {percent(band.high)}"
    return f"{percent(band.share)} of {number(band.outcomes)} ({between}), at least {percent(band.least)} asked"


def percent(share: float) -> str:
    """``98 %``, ``99.4 %``."""
    value = 100 * share
    return (
        f"{value:.0f} %"
        if value in (0, 100) or (value < 90 and value == int(value))
        else f"{value:.1f} %".replace(".0 %", " %")
    )
