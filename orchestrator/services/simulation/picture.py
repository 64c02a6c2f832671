"""The picture of a simulation, as SVG of our own: how many devices failed before the halt, and how long it took.

Each panel shows for every value the part of the runs that had come to it (a cumulative curve of steps): a curve that
rises further to the left is better. Colours and lines follow the reader's light or dark theme; nothing is fetched and
nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from orchestrator.services.simulation.setting import Ending, Played
from orchestrator.services.simulation.summary import Summary, figure, share_words

WIDTH: Final = 920
HEIGHT: Final = 432
_LEFT, _TOP, _PANEL, _DEEP, _GAP = 62, 112, 360, 232, 90
_MOST_STEPS: Final = 200

_STYLE: Final = """
  .paper { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 17px; font-weight: 600 } .small { font-size: 12px; fill: #57606a }
  .grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #57606a; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  .one { stroke: #0969da } .two { stroke: #bc4c00; stroke-dasharray: 7 4 }
  .dot-one { fill: #0969da } .dot-two { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #e6edf3 } .small { fill: #9da7b3 }
    .grid { stroke: #30363d } .axis { stroke: #9da7b3 }
    .one { stroke: #58a6ff } .two { stroke: #f0883e } .dot-one { fill: #58a6ff } .dot-two { fill: #f0883e }
  }
"""
_NAMES: Final = ("one", "two")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One policy's runs and what they add up to."""

    summary: Summary
    played: Sequence[Played]


def picture(drawn: Sequence[Drawn]) -> str:
    """The SVG of one policy's runs, or of two side by side."""
    first = drawn[0].summary
    title = f"{first.runs:,} rollouts to {first.fleet:,} devices, scenario {first.scenario}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="34">{escape(title)}</text>',
    ]
    at = _LEFT
    for name, each in zip(_NAMES, drawn, strict=False):
        words = _legend(each.summary)
        parts.append(f'<circle class="dot-{name}" cx="{at + 6}" cy="57" r="5"/>')
        parts.append(f'<text x="{at + 18}" y="61">{escape(words)}</text>')
        at += 430
    failed = [[each.failed for each in one.played if each.ending is Ending.HALTED] for one in drawn]
    ends = [[each.hours for each in one.played if each.ending is not Ending.UNFINISHED] for one in drawn]
    runs = [len(one.played) for one in drawn]
    left = _LEFT + _PANEL + _GAP
    parts += _panel(_LEFT, "Devices failed before the halt", failed, runs, whose="halted", whole=True)
    parts += _panel(left, "Hours to the end", ends, runs, whose="ended", whole=False)
    return "\n".join([*parts, "</svg>", ""])


def _legend(found: Summary) -> str:
    return (
        f"{found.policy}: {share_words(found.halted.share)} halted, {share_words(found.held.share)} held, "
        f"{share_words(found.completed.share)} completed"
    )


def _panel(
    left: int, title: str, many: Sequence[Sequence[float]], of: Sequence[int], *, whose: str, whole: bool
) -> list[str]:
    top, bottom, right = _TOP, _TOP + _DEEP, left + _PANEL
    parts = [f'<text x="{left}" y="{top - 12}">{escape(title)}, share of all runs</text>']
    for percent in (0, 25, 50, 75, 100):
        y = bottom - _DEEP * percent / 100
        parts.append(f'<line class="grid" x1="{left}" y1="{y:g}" x2="{right}" y2="{y:g}"/>')
        parts.append(f'<text class="small" x="{left - 8}" y="{y + 4:g}" text-anchor="end">{percent} %</text>')
    highest = max((value for values in many for value in values), default=0.0)
    if not any(many):
        parts.append(f'<text class="small" x="{left + 14}" y="{bottom - 14}">It never came to that.</text>')
    step = _round_step(max(highest, 1.0), whole=whole)
    edge = step * (math.floor(max(highest, 1.0) / step) + 1)
    decimals = next(digits for digits in range(9) if math.isclose(round(step, digits), step))
    for number in range(round(edge / step) + 1):
        x = left + _PANEL * number * step / edge
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}"/>')
        label = f"{number * step:,.{decimals}f}"
        parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    for name, values, runs in zip(_NAMES, many, of, strict=False):
        if values:
            parts.append(f'<path class="curve {name}" d="{_steps(sorted(values), runs, left, bottom, edge)}"/>')
    for number, (name, values) in enumerate(zip(_NAMES, many, strict=False)):
        if values:
            ordered = sorted(values)
            low, half, most = (figure(ordered[max(0, math.ceil(part * len(ordered)) - 1)]) for part in (0.1, 0.5, 0.9))
            y = bottom + 44 + 20 * number
            words = f"{whose}: 10 % within {low}, half within {half}, 90 % within {most}"
            parts.append(f'<circle class="dot-{name}" cx="{left + 6}" cy="{y - 4}" r="4"/>')
            parts.append(f'<text class="small" x="{left + 18}" y="{y}">{words}</text>')
    return parts


def _steps(ordered: Sequence[float], runs: int, left: int, bottom: int, edge: float) -> str:
    """A cumulative curve; of many runs only as many steps as can be seen."""
    every = max(1, len(ordered) // _MOST_STEPS)
    path = [f"M{left} {bottom}"]
    for number, value in enumerate(ordered, start=1):
        following = ordered[number] if number < len(ordered) else None
        if (number % every and following is not None) or following == value:
            continue
        path.append(f"H{left + _PANEL * value / edge:.1f}V{bottom - _DEEP * number / runs:.1f}")
    return "".join([*path, f"H{left + _PANEL}"])


def _round_step(highest: float, *, whole: bool) -> float:
    """A round number of which five or so make the axis."""
    rough = highest / 5
    size: float = 10.0 ** math.floor(math.log10(rough))
    step = next(size * part for part in (1, 2, 2.5, 5, 10) if size * part >= rough)
    return max(1.0, math.ceil(step)) if whole else step
