"""The tables of ``make evidence``: one for each part, in Markdown, with what was asked beside what came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.services.simulation.summary import Chance, Quantiles
from tests.evidence.cases import EXCLUDED, RIVALS, RULES
from tests.evidence.playing import Measured

Table = Sequence[Sequence[str]]


def share(found: Chance) -> str:
    """``0.6 % (0.3 to 1.1)``: with the exact 95 % interval."""
    return f"{_percent(found.share)} % ({_percent(found.low)} to {_percent(found.high)})"


def three(found: Quantiles | None) -> str:
    """The median, and the 10 % and 90 % quantiles around it."""
    return "never" if found is None else f"{found.median:g} ({found.low:g} to {found.high:g})"


def _percent(part: float) -> str:
    return f"{100 * part:.2g}" if part < 0.1 else f"{100 * part:.3g}"


def false_halts(found: Sequence[Measured]) -> Table:
    by = {(each.case.name, each.case.rule): each for each in found}
    names = dict.fromkeys(each.case.name for each in found)
    columns = [*RULES, *RIVALS]
    rows = [["good release halted", "asked", *columns]]
    for name in names:
        asked = "≤ 5 %" if name.startswith("at the tolerance") else "≤ 1 %"
        if EXCLUDED in name:
            one = by[name, "standard"]
            rows.append([f"{name}: halted after it was excluded", asked, share(one.halted_after_excluding), *[""] * 4])
            rows.append([f"{name}: halted in all, before it was found too", "", share(one.halted), *[""] * 4])
            rows.append([f"{name}: it alone was excluded", "", share(one.excluded_rightly), *[""] * 4])
            continue
        cells = [share(by[name, rule].halted) if (name, rule) in by else "" for rule in columns]
        rows.append([name, asked, *cells])
    return rows


def detections(found: Sequence[Measured]) -> Table:
    asked = {"5 times the tolerance": "≤ 10; one class ≤ 8", "all devices fail": "≤ 5 in all runs"}
    return [["failed devices at the halt", "asked", *RULES, *RIVALS], *_by_name(found, asked, _failed)]


def starts_late(found: Sequence[Measured]) -> Table:
    asked = {"reports one by one": "≤ 10 in all runs"}
    rows = [["failed reports at the halt, and those still under way that fail", "asked", *RULES]]
    return [*rows, *_by_name(found, asked, _failed_and_doomed, rules=list(RULES))]


def one_hardware(found: Sequence[Measured]) -> Table:
    rows = [["5 % of the fleet fail at 30 %", "it alone excluded (≥ 99 %)", "or named by an earlier halt of the whole"]]
    rows[0] += [
        "its devices with an outcome (median ≤ 15)",
        "among its first places",
        "failed of these",
        "its devices in flight",
    ]
    for each in found:
        figures = [three(each.of_exclusion(what)) for what in ("reported", "places", "bad", "in_flight")]
        found_out = [share(each.excluded_rightly), share(each.named_rightly)]
        rows.append([each.case.name, *found_out, *figures])
    return rows


def silence(found: Sequence[Measured]) -> Table:
    head = ["silence by the fleet's clock", "policy", "asked", "stopped by the clock"]
    rows = [[*head, "within 15 min of the last start, or before it"]]
    rows[0] += ["minutes after the last start until then", "canaries that had begun"]
    for each in found:
        asked = "never" if "slower" in each.case.name else "in 15 min" if each.case.name.startswith("all of") else ""
        figures = [each.stopped_by_silence(), each.stopped_within(15.0)]
        rows.append(
            [
                each.case.name,
                each.case.rule,
                asked,
                *map(share, figures),
                three(each.minutes_to_the_stop()),
                three(each.begun_at_the_stop()),
            ]
        )
    return rows


def comes_through(found: Sequence[Measured]) -> Table:
    waves = ("w20", "w200", "w2000")
    rows = [["half of the tolerance", "asked", *(f"wave of {int(name[1:]):,}" for name in waves)]]
    for each in found:
        rows.append([each.case.name, "≥ 97 %", *(share(each.passed_within(name, 48.0)) for name in waves)])
    return rows


def fifty(found: Sequence[Measured]) -> Table:
    rows = [["fleet of 50, budgets on", "halted", "held", "failed at the halt"]]
    rows += [[each.case.name, share(each.halted), share(each.held), three(each.failed)] for each in found]
    return rows


WRITERS: Final[dict[str, tuple[str, Callable[[Sequence[Measured]], Table]]]] = {
    "false-halts": ("Good releases halted by mistake", false_halts),
    "detections": ("Bad releases: how many devices failed before the halt", detections),
    "starts-late": ("Total failure that starts in the last wave, of 2,000 devices", starts_late),
    "one-hardware": ("One hardware id that fails", one_hardware),
    "silence": ("Silent bricks", silence),
    "comes-through": ("Good releases pass their bake within 48 hours", comes_through),
    "fifty": ("A fleet of fifty", fifty),
}


def _by_name(
    found: Sequence[Measured],
    asked: dict[str, str],
    cell: Callable[[Measured], str],
    rules: Sequence[str] = (*RULES, *RIVALS),
) -> list[list[str]]:
    by = {(each.case.name, each.case.rule): each for each in found}
    names = dict.fromkeys(each.case.name for each in found)
    return [[name, asked.get(name, ""), *(cell(by[name, rule]) for rule in rules)] for name in names]


def _failed(each: Measured) -> str:
    caught = "" if each.halted.share > 0.99 else f", in {share(each.halted)} of runs"
    held = f", held in {share(each.held)}" if each.held.hits else ""
    return f"{three(each.failed)}, at most {each.most_failed}{caught}{held}"


def _failed_and_doomed(each: Measured) -> str:
    return f"{_failed(each)}; under way {three(each.doomed)}"


def markdown(title: str, rows: Table, runs: str) -> str:
    """A heading, what was played, and the table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join([f"### {title}", "", runs, "", *lines, ""])
