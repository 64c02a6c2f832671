"""The pages that show: fleet, rollouts, a rollout, a device, deltas, policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import Response

from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.reasons import words
from orchestrator.core.states import RolloutStatus
from orchestrator.core.words import plural
from orchestrator.errors import InvalidInput
from orchestrator.services.console import ENTRIES_ON_A_PAGE, ON_A_PAGE, RolloutPage
from orchestrator.services.delta_views import DeltaState
from orchestrator.web.console.charts import bands, staircase, versions, waves, windows
from orchestrator.web.console.gates import gate_rows
from orchestrator.web.console.rendering import elsewhere, page, url
from orchestrator.web.console.routes import Viewer, console_of, kept, router
from orchestrator.web.console.verbs import awaited, offered

MOST_STAIRCASES: Final = 6
"""Staircases on one page: the loud ones first."""

FEWEST_STAIRCASES: Final = 2

MOST_SKIPPED: Final = 100_000
"""Rollouts or deltas before those of a page."""

MOST_ID: Final = 256
"""Characters of an id that are looked for."""


@router.get("/")
def home() -> Response:
    return elsewhere("/rollouts")


@router.get("/rollouts")
@kept
def rollouts(request: Request, person: Viewer, status: str = "", offset: int = 0) -> Response:
    console = console_of(request)
    if status and status not in set(RolloutStatus):
        raise InvalidInput(f"There is no status {status[:40]!r}.")
    offset = max(0, min(offset, MOST_SKIPPED))
    found = console.rollouts({RolloutStatus(status)} if status else None, offset=offset)
    return page(
        request,
        "rollouts.html",
        person,
        console.clock(),
        found=found,
        chosen=status,
        offset=offset,
        on_a_page=ON_A_PAGE,
    )


@router.get("/rollouts/{name}")
@kept
def rollout(request: Request, person: Viewer, name: str) -> Response:
    console = console_of(request)
    now = console.clock()
    found = console.rollout(name)
    view = found.view
    drawn = _staircases(found)
    lying, upright = waves.graphs(view, id="waves")
    calendars = []
    if found.policy.window is not None:
        calendars.append(windows.calendar("Opening and passing", found.policy.window, now, id="cal-open"))
    if found.policy.offer_window is not None:
        calendars.append(windows.calendar("Offers", found.policy.offer_window, now, id="cal-offer"))
    banded = bands.bands(view.waves, found.rules.tolerate)
    verbs = offered(view, found.rules)
    return page(
        request,
        "rollout.html",
        person,
        now,
        found=found,
        view=view,
        s=view.summary,
        word_of=view.word_of,
        counts_of=waves.counts_of,
        bar=waves.bar_alone,
        lying=lying,
        upright=upright,
        stairs=drawn,
        quiet=_quiet(found, drawn),
        classes=words,
        heading=staircase.heading,
        most_listed=staircase.MOST_LISTED,
        too_many=found.too_many,
        banded=banded,
        band_chart=bands.chart(banded, id="bands"),
        percent=bands.percent,
        calendars=calendars,
        gates=gate_rows(view.waves, found.rules),
        verbs=verbs,
        awaited=awaited(view, verbs),
    )


@router.get("/rollouts/{name}/journal")
@kept
def journal(request: Request, person: Viewer, name: str, before: int | None = None) -> Response:
    console = console_of(request)
    found = console.journal(name, None if before is None else max(1, before))
    return page(
        request, "journal.html", person, console.clock(), found=found, before=before, on_a_page=ENTRIES_ON_A_PAGE
    )


def _staircases(found: RolloutPage) -> list[staircase.Drawing]:
    """Those that have something to say; where few have, those that halt the whole rollout, quiet as they are."""
    classes: dict[str, int] = {outcome: place for place, outcome in enumerate(OutcomeClass)}
    watching = [each for each in found.view.monitors if each.answer is not Answer.COUNT and not each.accepted]
    watching.sort(key=lambda each: (each.segment or "", each.wave or "", classes.get(each.outcomes[0], 99)))
    loud = [each for each in watching if each.bad]
    loud.sort(key=lambda each: (each.crossed_at is None, not each.amber, -each.bad))
    quiet = [each for each in watching if each not in loud and each.wave is None and each.segment is None]
    quiet.sort(key=lambda each: each.answer is not Answer.HALT)
    chosen = loud[:MOST_STAIRCASES] + quiet[: max(0, FEWEST_STAIRCASES - len(loud))]
    drawn = []
    for number, monitor in enumerate(chosen):
        name = monitor.monitor
        places = [(each.device, each.places[name]) for each in found.stains if name in each.places]
        dots = staircase.dots_of(places)
        drawn.append(staircase.drawing(monitor, dots, found.view.steps.get(name), id=f"stairs-{number}"))
    return drawn


def _quiet(found: RolloutPage, drawn: Sequence[staircase.Drawing]) -> str:
    """What no staircase is drawn of, because there is nothing of it."""
    shown = {each.monitor.outcomes for each in drawn}
    watching = [each for each in found.view.monitors if each.answer is not Answer.COUNT and not each.accepted]
    rest = list(dict.fromkeys(words(each.outcomes) for each in watching if not each.bad and each.outcomes not in shown))
    places = max((each.places for each in watching), default=0)
    if not rest or not places:
        return ""
    said = f"{', '.join(rest[:-1])} or {rest[-1]}" if rest[1:] else rest[0]
    return f"Among {plural(places, 'place')} none is {said}."


@router.get("/devices")
@kept
def devices(request: Request, person: Viewer, begins: str = "", after: str = "") -> Response:
    console = console_of(request)
    begins = begins.strip()[:MOST_ID]
    found = console.begin_so(begins, after or None)
    if len(found) == 1 and not after and found[0].id == begins:
        return elsewhere(url("devices", begins))
    return page(
        request,
        "devices.html",
        person,
        console.clock(),
        title=f"Devices that begin with {begins}" if begins else "Devices",
        begins=begins,
        found=found[:ON_A_PAGE],
        more=f"/devices?{urlencode({'begins': begins, 'after': found[ON_A_PAGE - 1].id})}" if found[ON_A_PAGE:] else "",
    )


@router.get("/groups/{name}")
@kept
def group(request: Request, person: Viewer, name: str, after: int = 0) -> Response:
    console = console_of(request)
    rows = console.group(name, after)
    return page(
        request,
        "devices.html",
        person,
        console.clock(),
        title=f"Group {name}",
        begins="",
        found=[row.device for row in rows[:ON_A_PAGE]],
        more=f"{url('groups', name)}?after={rows[ON_A_PAGE - 1].key}" if rows[ON_A_PAGE:] else "",
    )


@router.get("/devices/{device_id}")
@kept
def device(request: Request, person: Viewer, device_id: str) -> Response:
    console = console_of(request)
    view = console.queries.device(device_id)
    return page(request, "device.html", person, console.clock(), view=view, d=view.device)


@router.get("/deltas")
@kept
def deltas(request: Request, person: Viewer, state: str = "", offset: int = 0) -> Response:
    console = console_of(request)
    if state and state not in set(DeltaState):
        raise InvalidInput(f"There is no state {state[:40]!r}.")
    offset = max(0, min(offset, MOST_SKIPPED))
    found = console.deltas(DeltaState(state) if state else None, offset=offset)
    return page(
        request,
        "deltas.html",
        person,
        console.clock(),
        found=found,
        chosen=state,
        offset=offset,
        on_a_page=ON_A_PAGE,
    )


@router.get("/fleet")
@kept
def fleet(request: Request, person: Viewer) -> Response:
    console = console_of(request)
    found = console.fleet()
    charts = [
        versions.chart(found.versions, slim=slim, id=f"versions-{slim}") for slim in (False, True) if found.versions
    ]
    return page(
        request, "fleet.html", person, console.clock(), found=found, charts=charts, lines=versions.lines(found.versions)
    )
