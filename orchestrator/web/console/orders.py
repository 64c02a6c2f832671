"""Orders from the console: a form shows what will happen, asks why, and only what was shown is done.

``GET`` looks: the order is carried out and taken back, or foreseen where that would take long, and the page says what
came of it. ``POST`` with ``step`` ``do``
carries it out when the form was shown for exactly these choices (``seen``), else it looks again.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

from fastapi import Form, Query, Request
from fastapi.responses import Response

from orchestrator.core.approving import files_of
from orchestrator.core.roles import ROLE_MEANING
from orchestrator.core.states import WaveStatus
from orchestrator.core.words import plural
from orchestrator.errors import Forbidden, InvalidInput, NotFound, WaveError
from orchestrator.services.console import OrderPage
from orchestrator.services.foreseeing import Foreseen
from orchestrator.services.people import Person
from orchestrator.services.views import RolloutView, WaveView
from orchestrator.web.asking import application
from orchestrator.web.console.rendering import elsewhere, page, url
from orchestrator.web.console.routes import Orderer, Viewer, console_of, kept, router
from orchestrator.web.console.verbs import VERBS, Order, Verb, choices
from orchestrator.web.problems import status_of

MOST_REASON: Final = 500
"""Characters of a reason."""


@router.get("/rollouts/{name}/order/{verb}")
@kept
def look(
    request: Request,
    person: Viewer,
    name: str,
    verb: str,
    wave: str = "",
    segment: str = "",
    accept: Annotated[tuple[str, ...], Query()] = (),
    at_once: bool = False,
) -> Response:
    """The form, with what the order would do as it stands."""
    order = Order(wave=wave, segment=segment, accept=tuple(accept), at_once=at_once)
    return _form(request, person, name, _verb(person, verb), order, status=200)


@router.post("/rollouts/{name}/order/{verb}")
def give(
    request: Request,
    person: Orderer,
    name: str,
    verb: str,
    reason: Annotated[str, Form()] = "",
    wave: Annotated[str, Form()] = "",
    segment: Annotated[str, Form()] = "",
    accept: Annotated[list[str] | None, Form()] = None,
    at_once: Annotated[bool, Form()] = False,
    files: Annotated[str, Form()] = "",
    step: Annotated[str, Form()] = "look",
    seen: Annotated[str, Form()] = "",
) -> Response:
    """Do it, or show the form again with why not."""
    found = _verb(person, verb)
    order = Order(" ".join(reason.split()), wave, segment, tuple(accept or ()), at_once, files)
    if step != "do" or seen != _choice(order):
        return _form(request, person, name, found, order, status=200)
    try:
        if not order.reason:
            raise InvalidInput("Say why: the reason goes into the journal, where others read it.")
        if len(order.reason) > MOST_REASON:
            raise InvalidInput(f"The reason is longer than {MOST_REASON} characters.")
        found.run(application(request).rollouts, name, person.name, order, False)
    except NotFound:
        raise
    except WaveError as error:
        return _form(request, person, name, found, order, status=status_of(error), problem=error)
    return elsewhere(url("rollouts", name))


def _verb(person: Person, name: str) -> Verb:
    verb = VERBS.get(name)
    if verb is None:
        raise NotFound(f"There is no order {name[:40]!r}.")
    if not verb.allowed(person):
        needed = sorted(verb.roles)[-1]
        raise Forbidden(
            f"{person.name} may not {verb.title.lower()}: that needs a {needed}, who {ROLE_MEANING[needed]}.",
            remedy="Ask somebody who may, or an admin for the role.",
        )
    return verb


def _choice(order: Order) -> str:
    """What was chosen, but for the reason: the form may be sent for this and nothing else."""
    said = repr((order.wave, order.segment, order.accept, order.at_once, order.files))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _form(
    request: Request,
    person: Person,
    name: str,
    verb: Verb,
    order: Order,
    *,
    status: int,
    problem: WaveError | None = None,
) -> Response:
    console = console_of(request)
    about = console.order(name)
    order = _filled(verb, about, order)
    would, refused = "", None
    try:
        would = _would(request, person, name, verb, order)
    except WaveError as error:
        refused = error
    return page(
        request,
        "order.html",
        person,
        console.clock(),
        code=status,
        verb=verb,
        deed=verb.deed(name, order),
        order=order,
        about=about,
        s=about.view.summary,
        waves=choices(verb, about.view),
        would=would,
        refused=refused,
        problem=problem,
        effects=_effects(verb, about.view, order) if refused is None else (),
        seen=_choice(order),
    )


def _would(request: Request, person: Person, name: str, verb: Verb, order: Order) -> str:
    """What it would do, in a sentence or two. Raises why not."""
    app = application(request)
    if verb.foresee is not None:
        return verb.foresee(Foreseen(app.store, app.clock), name, person.name, order)
    return verb.run(app.rollouts, name, person.name, order, True).sentence


def _opening(wave: WaveView) -> str:
    """What a wave that opens begins with, as far as it has been looked at."""
    after = f"after {' and '.join(wave.after)} " if wave.after else ""
    size = wave.facts.eligible
    many = "its devices are" if size is None else f"its {size:,} devices are"
    return f"Wave {wave.state.wave} opens {after}in slices: {many} offered the Target a few at first."


def _skipping(wave: WaveView) -> str:
    size = wave.facts.eligible
    whose = "Its devices are" if size is None else f"Its {plural(size, 'device')} {'is' if size == 1 else 'are'}"
    withheld = wave.state.withheld or wave.state.status is WaveStatus.CANCELLED
    when = "not served, as it was cancelled" if withheld else "served when the rollout completes"
    return f"What comes after it goes on without it. {whose} {when}."


def _filled(verb: Verb, about: OrderPage, order: Order) -> Order:
    """Where something must be chosen and nothing is, the first choice stands."""
    waves = choices(verb, about.view)
    wave = order.wave or (waves[0] if verb.one_wave and waves else "")
    segment = order.segment or (about.segments[0] if verb.segments and about.segments else "")
    files = order.files or files_of(about.view.spec_digest, about.view.policy_digest)
    return Order(order.reason, wave, segment, order.accept, order.at_once, files)


def _effects(verb: Verb, view: RolloutView, order: Order) -> tuple[str, ...]:
    """What the order means in numbers of devices, as far as the counters tell."""
    touched = [each for each in view.waves if not order.wave or each.state.wave == order.wave]
    under_way = sum(each.facts.in_flight for each in touched)
    begun = sum(piece.started for each in touched for piece in each.facts.slices)
    waiting = max(0, under_way - max(0, begun - sum(each.facts.resolved for each in touched)))
    found = []
    if verb.name == "start":
        first = [each.state.wave for each in view.waves if not each.after]
        later = [each.state.wave for each in view.waves if each.after]
        found.append(f"First, as soon as its deltas are there and a window is open: {', '.join(first)}.")
        if later:
            found.append(f"Then, each after those before it have passed: {', '.join(later)}.")
    if verb.name == "promote":
        found += [_opening(each) for each in touched]
    if verb.name == "skip":
        found += [_skipping(each) for each in touched]
    if verb.name == "resume" and under_way:
        found.append(f"{under_way:,} devices are under way and go on.")
    if verb.name in ("halt", "cancel") and under_way:
        found.append(f"About {waiting:,} offers whose device has not started will be withdrawn.")
        found.append(
            f"About {under_way - waiting:,} devices that have started may finish; what they report is counted."
        )
    if verb.name == "pause" and under_way:
        found.append(f"{under_way:,} devices are under way and may finish; nobody else is offered anything.")
    if verb.name == "complete" and not order.wave:
        left = max(0, view.summary.devices - view.summary.offered)
        found.append(f"About {left:,} devices that have no offer yet may get one at their next check-in.")
    if verb.name in ("halt", "cancel", "complete") and view.summary.confirmed:
        found.append(f"{view.summary.confirmed:,} devices that run the Target keep it.")
    return tuple(found)
