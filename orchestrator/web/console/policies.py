"""The pages of policies: what they ask for, their staircases for a fleet of some size, and simulations of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final

import yaml
from fastapi import Form, Request
from fastapi.responses import Response

from orchestrator.core.durations import parse_share
from orchestrator.core.evidence.allowance import allot
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.reasons import words
from orchestrator.errors import InvalidInput, NotFound, WaveError
from orchestrator.services.people import Person
from orchestrator.services.simulation.scenarios import SCENARIOS
from orchestrator.services.simulation.study import Asked
from orchestrator.services.simulation.summary import Quantiles, figure, share_words
from orchestrator.services.simulation.waves import USUAL
from orchestrator.web.asking import application
from orchestrator.web.console.charts import staircase, windows
from orchestrator.web.console.rendering import elsewhere, page, sent, url
from orchestrator.web.console.routes import Releaser, Viewer, console_of, kept, router
from orchestrator.web.console.studies import JOBS, MOST_DEVICES, MOST_RUNS, Studies, Study
from orchestrator.web.problems import status_of

FLEET: Final = 2_000
"""Devices of the fleet that staircases are drawn for, unless another number is asked for."""

_PICTURE: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of a picture that has its style inside and no script."""


@router.get("/policies")
@kept
def policies(request: Request, person: Viewer) -> Response:
    files = application(request).files
    found, broken = [], []
    for name in files.policies():
        try:
            found.append(files.policy(name))
        except WaveError as error:
            broken.append((name, str(error)))
    now = application(request).clock()
    return page(request, "policies.html", person, now, found=found, broken=broken, classes=OutcomeClass)


@router.get("/policies/{name}")
def policy(request: Request, person: Viewer, name: str, fleet: int = FLEET, study: str = "") -> Response:
    if study:
        return _page(request, person, _policy(request, name), fleet, _studies(request).get(study))
    return _alone(request=request, person=person, name=name, fleet=fleet)


@kept
def _alone(request: Request, person: Person, name: str, fleet: int) -> Response:
    return _page(request, person, _policy(request, name), fleet, None)


@router.post("/policies/{name}/simulate")
def simulate(
    request: Request,
    person: Releaser,
    name: str,
    scenario: Annotated[str, Form()] = "good",
    fleet: Annotated[int, Form()] = FLEET,
    runs: Annotated[int, Form()] = 100,
    fail: Annotated[str, Form()] = "",
    waves: Annotated[str, Form()] = USUAL,
) -> Response:
    found = _policy(request, name)
    try:
        failing = parse_share(fail) if fail.strip() else None
        asked = Asked(scenario=scenario, fleet=fleet, fail=failing, runs=runs, jobs=JOBS, waves=waves[:500])
        made = _studies(request).start(found, asked, person.name)
    except WaveError as error:
        return _page(request, person, found, min(max(1, fleet), MOST_DEVICES), None, problem=error)
    return elsewhere(f"{url('policies', name)}?study={made.id}#simulation")


@router.get("/studies/{id}.svg")
def picture(request: Request, person: Viewer, id: str) -> Response:
    answer = sent(request, _studies(request).get(id).svg().encode(), "image/svg+xml")
    answer.headers["content-security-policy"] = _PICTURE
    return answer


def _studies(request: Request) -> Studies:
    found: Studies = request.app.state.studies
    return found


def _policy(request: Request, name: str) -> Policy:
    """By a name that is listed: never by a path."""
    files = application(request).files
    if name not in files.policies():
        raise NotFound(f"There is no policy {name[:60]!r}.")
    return files.policy(name)


def _page(
    request: Request,
    person: Person,
    found: Policy,
    fleet: int,
    study: Study | None,
    *,
    problem: WaveError | None = None,
) -> Response:
    if not 1 <= fleet <= 10_000_000:
        raise InvalidInput("A fleet has 1 to 10,000,000 devices.")
    now = console_of(request).clock()
    specs = allot(tolerate=found.tolerances, false_halt=found.false_halt, waves=(), devices=fleet)
    stairs = [
        (
            f"{words(spec.outcomes)} at most {100 * spec.tolerance:g} %",
            spec.answer,
            staircase.plain(
                spec.tolerance,
                spec.alpha,
                fleet,
                id=f"stairs-{number}",
                title=f"Staircase of {words(spec.outcomes)}",
                answer=spec.answer,
            ),
            staircase.first_limits(spec.tolerance, spec.alpha, fleet),
        )
        for number, spec in enumerate(specs)
    ]
    calendar = None if found.window is None else windows.calendar("Opening and passing", found.window, now, id="cal")
    return page(
        request,
        "policy.html",
        person,
        now,
        code=200 if problem is None else status_of(problem),
        policy=found,
        fleet=fleet,
        stairs=stairs,
        calendar=calendar,
        text=_text(found.canonical()),
        scenarios=SCENARIOS,
        usual=USUAL,
        study=study,
        problem=problem,
        most_runs=MOST_RUNS,
        most_devices=MOST_DEVICES,
        share=share_words,
        three=_three,
    )


@lru_cache(maxsize=64)
def _text(canonical: bytes) -> str:
    """Every key of a policy, as a file has them."""
    document = Policy.from_canonical(canonical).document()
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _three(found: Quantiles | None) -> str:
    return "-" if found is None else " / ".join(map(figure, found[1:]))
