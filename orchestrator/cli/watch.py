"""``wave status --watch``: the page once a second in a terminal, a line per change when nobody sits before one."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.core.states import RolloutStatus

if TYPE_CHECKING:
    from orchestrator.cli.context import Invocation
    from orchestrator.services.application import Application
    from orchestrator.services.views import RolloutView

UNDER_WAY = frozenset({RolloutStatus.DRAFT, RolloutStatus.SCHEDULED, RolloutStatus.RUNNING})


def watch(call: Invocation, app: Application, name: str | None, *, every: float, until_it_rests: bool) -> RolloutStatus:
    """Look until Ctrl-C, or with ``until_it_rests`` until it has ended or needs a person; the last status seen.

    A store that is busy for a moment does not end the watching. Raises NotFound for a rollout that is not there.
    """
    from orchestrator.errors import Busy

    view = app.queries.rollout(name)
    name = view.summary.rollout
    show: Pages | Lines = Pages(call) if call.out.is_terminal and not call.as_json else Lines(call)
    with show as shown:
        try:
            while True:
                shown.update(view, app.clock())
                if until_it_rests and view.summary.status not in UNDER_WAY:
                    break
                time.sleep(every)
                try:
                    view = app.queries.rollout(name)
                except Busy:
                    continue
        except KeyboardInterrupt:
            pass  # the way a person ends it
    return view.summary.status


class Pages:
    """One page that is drawn anew."""

    def __init__(self, call: Invocation) -> None:
        from rich.live import Live

        self._live = Live(console=call.out, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Pages:
        self._live.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        self._live.__exit__(None, None, None)

    def update(self, view: RolloutView, now: datetime) -> None:
        from orchestrator.cli.render.rollout import rollout

        self._live.update(rollout(view, now), refresh=True)


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
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
