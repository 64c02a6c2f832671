"""``wave simulate``: a policy played through the real decisions over a virtual fleet and clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.complete import policy_names
from orchestrator.cli.context import AsJson, Invocation, invocation
from orchestrator.cli.late import top
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.services.simulation.picture import Drawn
    from orchestrator.services.simulation.study import Asked


@top(
    "simulate",
    "wave simulate standard --scenario bad",
    "wave simulate standard --fleet 20000 --fail 10% --picture out.svg",
    "wave simulate --compare standard accelerated --scenario late --budgets off",
    panel="Prepare a rollout",
)
def simulate(
    ctx: typer.Context,
    policy: Annotated[
        str | None,
        typer.Argument(metavar="[POLICY]", help="A name, or a path.", show_default=False, autocompletion=policy_names),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option("--compare", metavar="A B", help="Two policies side by side.", show_default=False),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            "--scenario",
            metavar="NAME",
            help="good, tolerated, bad, broken, bad-hardware, slow, bricks, late or outage.",
        ),
    ] = "good",
    fleet: Annotated[int, typer.Option("--fleet", metavar="N", help="Devices.")] = 2_000,
    fail: Annotated[
        str | None, typer.Option("--fail", metavar="P", help="Share that fails where trouble strikes, such as 5%.")
    ] = None,
    offline: Annotated[
        str, typer.Option("--offline", metavar="P", help="Share without a connection at the start.")
    ] = "0%",
    history: Annotated[
        int, typer.Option("--history", metavar="N", help="Past devices that silence is learnt from; 0 for none.")
    ] = 2_000,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Rollouts played, each with its own chance.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Where the seeds begin.")] = 1,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", help="Processes; else one for each processor.")
    ] = None,
    budgets: Annotated[str, typer.Option("--budgets", metavar="on|off", help="Hard stops on or off.")] = "on",
    waves: Annotated[
        str | None, typer.Option("--waves", metavar="TEXT", help='Such as "lab 5, canary 20, early 10%, rest".')
    ] = None,
    rollout: Annotated[
        Path | None, typer.Option("--rollout", metavar="FILE", help="A rollout file whose waves are played.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.svg", help="Write a picture of what came of it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a policy over a virtual fleet and clock, many times; the real rules decide, and nothing is changed."""
    call = invocation(ctx, as_json=as_json)
    if (policy is None) == (compare is None):
        raise InvalidInput("Name one policy, or two with --compare.", remedy="For example `wave simulate standard`.")
    if budgets not in ("on", "off"):
        raise InvalidInput(f"--budgets is on or off, not {budgets[:20]!r}.")
    if picture is not None and picture.suffix != ".svg":
        raise InvalidInput(f"{picture} is no name for the picture: it is SVG, so let it end in .svg.")
    if waves is not None and rollout is not None:
        raise InvalidInput("Give --waves or --rollout, not both.")
    from orchestrator.services.simulation.study import Asked, setting_of, study
    from orchestrator.services.simulation.waves import USUAL

    files = call.files()
    asked = Asked(
        scenario=scenario,
        fleet=fleet,
        fail=None if fail is None else _share("--fail", fail),
        offline=_share("--offline", offline),
        history=history,
        runs=seeds,
        jobs=_processors() if jobs is None else jobs,
        seed=seed,
        budgets=budgets == "on",
        waves=waves or USUAL,
        spec=None if rollout is None else files.rollout(rollout)[0],
    )
    policies = [files.policy(name) for name in ((policy,) if policy is not None else compare or ())]
    for each in policies:
        setting_of(each, asked)  # whatever is wrong is said before anything is played
    with _progress(call, len(policies) * seeds) as advance:
        drawn = [study(each, asked, advance) for each in policies]
    if picture is not None:
        _write(picture, drawn)
    _answer(call, asked, drawn, picture, as_json=as_json)


def _share(option: str, text: str) -> float:
    from orchestrator.core.durations import parse_share

    try:
        return parse_share(text)
    except InvalidInput as error:
        raise InvalidInput(f"{option} {error.message}") from None


def _answer(call: Invocation, asked: Asked, drawn: list[Drawn], picture: Path | None, *, as_json: bool) -> None:
    if as_json:
        from orchestrator.cli.render.simulation import as_object

        return call.answer("simulation", as_object(asked, [each.summary for each in drawn]))
    from orchestrator.cli.render.simulation import page

    call.show(page(asked, [each.summary for each in drawn]))
    if picture is not None:
        call.show(f"The picture is in {picture}.")


def _write(picture: Path, drawn: list[Drawn]) -> None:
    from orchestrator.services.simulation.picture import picture as svg

    try:
        picture.write_text(svg(drawn), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"The picture cannot be written to {picture}: {error.strerror}.") from None


def _processors() -> int:
    """Those that this process may use."""
    import os

    return max(1, min(64, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


@contextmanager
def _progress(call: Invocation, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for a person at a terminal, a word at each quarter for a log, nothing beside JSON."""
    if call.as_json:
        yield lambda done: None
        return
    if not call.err.is_terminal:
        yield _in_quarters(call, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=call.err, transient=True) as bar:
        task = bar.add_task("playing", total=total)
        yield lambda done: bar.advance(task, done)


def _in_quarters(call: Invocation, total: int) -> Callable[[int], None]:
    played = 0

    def advance(done: int) -> None:
        nonlocal played
        before, played = 4 * played // total, played + done
        if 4 * played // total > before:
            call.tell(f"{played:,} of {total:,} rollouts played.")

    return advance
