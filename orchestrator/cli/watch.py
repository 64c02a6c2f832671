"""``wave status --watch``: the tree once a second in a terminal, a line per change when nobody sits before one."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.harmless import harmless, harmless_json
from orchestrator.core.states import RolloutStatus

if TYPE_CHECKING:
    from orchestrator.cli.context import Invocation
    from orchestrator.services.application import Application
    from orchestrator.services.views import RolloutView

UNDER_WAY = frozenset({RolloutStatus.DRAFT, RolloutStatus.SCHEDULED, RolloutStatus.RUNNING})

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_TOGETHER, _DONE = "\x1b[?2026h", "\x1b[?2026l"
"""Terminals that know it show what stands between at once; the others ignore it."""
_TO_END_OF_LINE, _TO_END_OF_SCREEN, _FROM_THE_TOP = "\x1b[K", "\x1b[J", "\x1b[2J\x1b[H"


def watch(
    call: Invocation,
    app: Application,
    name: str | None,
    *,
    every: float,
    until_it_rests: bool,
    within: timedelta | None = None,
) -> tuple[RolloutStatus, bool]:
    """Look until Ctrl-C, or with ``until_it_rests`` until it has ended or needs a person, or for as long as ``within``;
    the last status seen (``comes_to``), and whether the time was over first.

    A store that is busy for a moment does not end the watching. Raises NotFound for a rollout that is not there.
    """
    from orchestrator.errors import Busy

    view = app.queries.rollout(name)
    name = view.summary.rollout
    ends_at = None if within is None else time.monotonic() + within.total_seconds()
    late = False
    show: Pages | Lines = Pages(call) if call.out.is_terminal and not call.as_json else Lines(call)
    with show as shown:
        try:
            while True:
                shown.update(view, app.clock())
                if until_it_rests and comes_to(view) not in UNDER_WAY:
                    break
                left = every if ends_at is None else min(every, ends_at - time.monotonic())
                if late := left <= 0:
                    break
                time.sleep(left)
                try:
                    view = app.queries.rollout(name)
                except Busy:
                    continue
        except KeyboardInterrupt:
            pass  # the way a person ends it
    return comes_to(view), late


def comes_to(view: RolloutView) -> RolloutStatus:
    """Its status, for whoever waits for an end: running with a wave that is held is held, because nothing but a person
    ends that. A wave that waits for its promotion or an approval is not: that was foreseen."""
    running = view.summary.status is RolloutStatus.RUNNING
    held = running and any(each.state.hold is not None for each in view.waves)
    return RolloutStatus.HELD if held else view.summary.status


class Pages:
    """One page that is drawn over itself, line by line: nothing is blank in between, so that nothing flickers. The last
    one stays when the watching ends."""

    def __init__(self, call: Invocation) -> None:
        self._console = call.out
        self._drawn: list[str] = []
        self._size: tuple[int, int] = (0, 0)

    def __enter__(self) -> Pages:
        self._write(_HIDE)
        return self

    def __exit__(self, *ended: object) -> None:
        self._write(_SHOW)

    def update(self, view: RolloutView, now: datetime) -> None:
        from orchestrator.cli.render.tree import tree

        with self._console.capture() as captured:
            self._console.print(tree(view, now))
        size = (self._console.width, self._console.height)
        lines = shortened(captured.get().splitlines(), size[1])
        self._write(over(self._drawn, lines, anew=size != self._size))
        self._drawn, self._size = lines, size

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


_BELOW: Final = "… {} more lines: a higher window shows them"


def shortened(lines: list[str], height: int) -> list[str]:
    """As many as fit above the cursor's own line."""
    if len(lines) < height:
        return lines
    kept = max(1, height - 2)
    return [*lines[:kept], _BELOW.format(len(lines) - kept)]


def over(before: list[str], after: list[str], *, anew: bool) -> str:
    """What draws ``after`` where ``before`` stands; lines that are the same are left alone. ``anew``: the window has
    another size than it had, so that nobody knows where lines stand; with nothing before, below the cursor."""
    if before and anew:
        return "".join([_TOGETHER, _FROM_THE_TOP, *(line + "\n" for line in after), _DONE])
    made = [f"\x1b[{len(before)}A\r"] if before else []
    for place, line in enumerate(after):
        same = place < len(before) and before[place] == line
        made.append("\n" if same else f"\r{line}{_TO_END_OF_LINE}\n")
    return f"{_TOGETHER}{''.join(made)}{_TO_END_OF_SCREEN if len(after) < len(before) else ''}{_DONE}"


class Lines:
    """A line per change; with ``--json`` an object per change, each on a line of its own."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._last = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *ended: object) -> None:
        sys.stdout.flush()

    def update(self, view: RolloutView, now: datetime) -> None:
        from orchestrator.cli.render import shapes
        from orchestrator.cli.render.rollout import one_line

        line = one_line(view, now)
        said = line.partition(" ")[2]
        if said == self._last:
            return
        self._last = said
        if self._call.as_json:
            line = json.dumps({"format": 1, "kind": "rollout", "result": shapes.rollout(view)}, ensure_ascii=False)
            line = harmless_json(line)
        sys.stdout.write(harmless(line) + "\n")
        sys.stdout.flush()
