"""The page of ``wave status --watch``: rollout, waves, segments and monitors as a tree, with marks and ages.

Every line is cut to the terminal's width and none is wrapped but sentences, so that the page keeps its shape while the
figures change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from orchestrator.cli.render.grid import wrapped
from orchestrator.cli.render.rollout import bar, counting, monitor_next, size
from orchestrator.cli.render.words import MARK, STYLE, ago, more, number, plural, span, status
from orchestrator.core.facts import BudgetFacts, MonitorFacts
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.services.views import RolloutView, WaveView

MOST_SEGMENTS: Final = 8
"""Segments with something to say that are shown; more are counted."""

_TEE, _LAST, _DOWN, _BLANK = "├─ ", "└─ ", "│  ", "   "


class Branch:
    """A line, and what hangs below it: lines, and sentences that may be wrapped."""

    def __init__(self, line: Text, *, said: Sequence[Text] = ()) -> None:
        self.line = line
        self.said = list(said)
        self.below: list[Branch] = []

    def add(self, line: Text, *, said: Sequence[Text] = ()) -> Branch:
        made = Branch(line, said=said)
        self.below.append(made)
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _lines(self, console, options.max_width, "", "")


def _lines(branch: Branch, console: Console, width: int, first: str, rest: str) -> Iterator[Text]:
    line = Text.assemble((first, "dim"), branch.line, no_wrap=True, overflow="ignore")
    line.truncate(width, overflow="ellipsis")
    line.rstrip()
    yield line
    bar_ = _DOWN if branch.below else _BLANK
    for sentence in branch.said:
        for part in wrapped(console, sentence, 0, width - len(rest) - len(bar_)):
            made = Text.assemble((rest + bar_, "dim"), part, no_wrap=True, overflow="ignore")
            made.rstrip()
            yield made
    for place, each in enumerate(branch.below, 1):
        last = place == len(branch.below)
        yield from _lines(each, console, width, rest + (_LAST if last else _TEE), rest + (_BLANK if last else _DOWN))


def tree(view: RolloutView, now: datetime) -> RenderableType:
    s = view.summary
    since = f"  for {span(now - s.standing.since)}, by {s.standing.by}"
    head = Text.assemble((s.rollout, "bold"), "  ", status(s.status, loud=True), since)
    root = Branch(head, said=list(_said(view, now)))
    _whole(root, view)
    for wave in view.waves:
        _wave(root, wave, view, now)
    _segments(root, view, now)
    return root


def _said(view: RolloutView, now: datetime) -> Iterator[Text]:
    s = view.summary
    yield Text(f"Target {s.target_version} to tag {s.tag} under {s.policy}, {plural(s.devices, 'device')}", style="dim")
    if s.standing.reason.sentence:
        yield Text(s.standing.reason.sentence, style=STYLE.get(s.status.value, "") if s.status in _STOPPED else "")
    if view.frozen is not None:
        yield Text(f"! All offers are frozen: {view.frozen.sentence}", style="bold yellow")
    for problem in view.problems:
        yield Text(f"! Not done yet, tried again: {problem}", style="yellow")
    if view.wake_at is not None and s.status in (RolloutStatus.RUNNING, RolloutStatus.SCHEDULED):
        yield Text(f"Looks again with the next report, or {ago(view.wake_at, now)}.", style="dim")


_STOPPED: Final = frozenset({RolloutStatus.HALTED, RolloutStatus.HELD})


def _whole(root: Branch, view: RolloutView) -> None:
    """What watches all of it."""
    found = [each for each in counting(view) if each.wave is None and each.segment is None]
    budgets = [each for each in view.budgets if each.bad]
    loud = [each for each in found if each.bad or each.amber or each.crossed_at is not None]
    _quiet(root, [each for each in found if each not in loud])
    for each in loud:
        root.add(_monitor(each, view))
    for budget in budgets:
        root.add(_budget(budget))


def _quiet(branch: Branch, found: Sequence[MonitorFacts]) -> None:
    if found and (places := max(each.places for each in found)):
        names = ", ".join(dict.fromkeys(each.monitor.rpartition("/")[2] for each in found))
        branch.add(Text.assemble(("+ ", "green"), f"{names}: none among {plural(places, 'place')}"))


def _wave(root: Branch, wave: WaveView, view: RolloutView, now: datetime) -> None:
    state, facts = wave.state, wave.facts
    word = view.word_of(wave)
    since = state.hold.since if state.hold is not None else state.standing.since
    whole = size(wave)
    line = Text.assemble(
        (f"{MARK[word]} ", STYLE.get(word, "")),
        (f"{state.wave:<12} ", "bold"),
        status(word),
        " " * max(1, 10 - len(word)),
        bar(wave),
        f" {number(facts.confirmed)} of {number(whole)}" if whole else "",
    )
    if facts.bad_in_all:
        line.append(f", {number(facts.bad_in_all)} bad", style="red")
    if state.status is not WaveStatus.PENDING:
        line.append(f", for {span(now - since)}", style="dim")
    said = []
    if state.hold is not None:
        said.append(Text(state.hold.reason.sentence, style="yellow"))
    for reason, until in wave.waiting:
        if state.hold is None or reason.sentence != state.hold.reason.sentence:
            when = "" if until is None else f" Next by the clock {ago(until, now)}."
            said.append(Text(f"{reason.sentence}{when}", style="dim"))
    branch = root.add(line, said=said)
    deltas = facts.deltas
    if deltas is not None and state.status is WaveStatus.PREPARING:
        style = "red" if deltas.failed else "green" if deltas.ready == deltas.pairs else "cyan"
        broken = f", {deltas.failed} could not be built" if deltas.failed else ""
        branch.add(Text.assemble((": ", style), f"deltas {deltas.ready} of {deltas.pairs}", (broken, "red")))
    own = [each for each in counting(view) if each.wave == state.wave and each.segment is None]
    if state.status in (WaveStatus.OPEN, WaveStatus.BAKING, WaveStatus.FAILED):
        for each in own:
            if each.bad or each.amber or each.crossed_at is not None:
                branch.add(_monitor(each, view))


def _segments(root: Branch, view: RolloutView, now: datetime) -> None:
    excluded = {each.segment: each for each in view.excluded}
    watched: dict[str, list[MonitorFacts]] = {name: [] for name in excluded}
    for each in view.monitors:
        if each.segment is not None and (each.bad or each.crossed_at is not None):
            watched.setdefault(each.segment, []).append(each)
    if not watched:
        return
    worst = {name: max((each.bad for each in found), default=0) for name, found in watched.items()}
    order = sorted(watched, key=lambda name: (name not in excluded, -worst[name], name))
    head = root.add(Text(plural(len(order), "segment with something bad", "segments with something bad"), style="bold"))
    for name in order[:MOST_SEGMENTS]:
        out = excluded.get(name)
        line = Text.assemble(("- " if out else "> ", "yellow" if out else "cyan"), (name, "bold"))
        if out is not None:
            line.append(f" excluded {ago(out.standing.since, now)}, {plural(out.devices, 'device')}", style="yellow")
        branch = head.add(line)
        if out is None:
            for monitor in watched[name]:
                branch.add(_monitor(monitor, view))
    if len(order) > MOST_SEGMENTS:
        head.add(Text(f"and {len(order) - MOST_SEGMENTS} more: `wave top` has what fails most", style="dim"))


def _monitor(each: MonitorFacts, view: RolloutView) -> Text:
    crossed = each.crossed_at is not None and not each.accepted
    amber = each.amber and not each.accepted
    style = "red" if crossed else "yellow" if amber else ""
    return Text.assemble(
        ("x " if crossed else "! " if amber else "+ ", style or "green"),
        each.monitor if each.segment is None else each.monitor.rpartition("/")[2],
        (f"  {number(each.bad)} bad in {plural(each.places, 'place')}", style),
        (f"; {monitor_next(each, view.steps.get(each.monitor))}", style or "dim"),
    )


def _budget(each: BudgetFacts) -> Text:
    left = each.limit - (each.bad - each.base)
    style = "red" if each.reached else ""
    said = f"used up: {each.answer}s" if each.reached else more(left, each.answer)
    mark = ("x " if each.reached else "+ ", style or "green")
    return Text.assemble(mark, f"budget/{each.name}  {number(each.bad)} bad; ", (said, style))
