"""``wave delta …``: the deltas that are there, required, under way; building, dropping and verifying them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.complete import target_versions
from orchestrator.cli.context import AsJson, DryRun, Invocation, invocation, names_of
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from orchestrator.services.application import Application
    from orchestrator.services.delta_provider import DeltaPair
    from orchestrator.services.delta_views import DeltaView

app = group("delta")

From = Annotated[
    str,
    typer.Argument(
        metavar="FROM", help="A version, ref or commit; nothing: from scratch.", autocompletion=target_versions
    ),
]
To = Annotated[str, typer.Argument(metavar="TO", help="A version, ref or commit.", autocompletion=target_versions)]
HardwareId = Annotated[
    str | None,
    typer.Option("--hardware-id", "--hw-id", metavar="ID", help="Where a version has a commit for each hardware id."),
]
Here = Annotated[bool, typer.Option("--here", help="Build in this process; no builder has to run.")]
NoWait = Annotated[bool, typer.Option("--no-wait", "--no-tail", help="Queue it and go.")]
Log = Annotated[bool, typer.Option("--log", help="Show the log of the build.")]


@command(app, "list", "wave delta list", "wave delta list --state failed,building")
def list_deltas(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only these; repeatable or with commas.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that could not be built.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the deltas that are there, under way, given up or required."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.services.delta_views import DeltaState

    wanted = set(names_of(state)) | ({"failed"} if failed else set())
    if unknown := sorted(wanted - set(DeltaState)):
        raise InvalidInput(f"{unknown[0]} is no state of a delta.", remedy=f"There are {', '.join(DeltaState)}.")
    with call.application() as house:
        found = [each for each in house.deltas.list() if not wanted or each.state in wanted]
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("deltas", [shapes.delta(each) for each in found])
    from orchestrator.cli.render.content import deltas

    call.show(deltas(found))


@command(app, "show", "wave delta show 22 42", "wave delta show 22 42 --log")
def show(
    ctx: typer.Context, from_: From, to: To, hardware_id: HardwareId = None, log: Log = False, as_json: AsJson = False
) -> None:
    """Show one delta: its state, its size, whom it serves, its log."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.deltas.show(house.deltas.resolve_pair(from_, to, hardware_id))
        now = house.clock()
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("delta", shapes.delta(found, log=log))
    from orchestrator.cli.render.content import delta

    call.show(delta(found, now, log=log))


@command(app, "build", "wave delta build 22 42", "wave delta build 22 42 --here --log")
def build(
    ctx: typer.Context,
    from_: From,
    to: To,
    hardware_id: HardwareId = None,
    here: Here = False,
    no_wait: NoWait = False,
    log: Log = False,
    as_json: AsJson = False,
) -> None:
    """Have one delta built, and wait until it is there."""
    call = invocation(ctx, as_json=as_json)
    if here:
        call.require_here()
    with call.application() as house:
        pair = house.deltas.resolve_pair(from_, to, hardware_id)
        queued = house.deltas.request([pair], by=call.by)
        failed = [] if no_wait else wait_for(call, house, [pair], here=here, log=log)
        found = house.deltas.show(pair)
    if as_json:
        from orchestrator.cli.render import shapes

        call.answer("delta_build", {"queued": queued, **shapes.delta(found, log=log)})
    elif not failed:
        from orchestrator.cli.render.content import built

        call.show(built(found))
    if failed:
        raise typer.Exit(6)


@command(app, "drop", "wave delta drop 22 42", "wave delta drop --unused --dry-run")
def drop(
    ctx: typer.Context,
    from_: Annotated[
        str | None, typer.Argument(metavar="[FROM]", help="Version, ref or commit.", autocompletion=target_versions)
    ] = None,
    to: Annotated[
        str | None, typer.Argument(metavar="[TO]", help="Version, ref or commit.", autocompletion=target_versions)
    ] = None,
    unused: Annotated[bool, typer.Option("--unused", help="All that no device and no live rollout needs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Though a live rollout needs it.")] = False,
    hardware_id: HardwareId = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove a delta from the repository, or all that nobody needs."""
    call = invocation(ctx, as_json=as_json)
    if (from_ is None) != (to is None) or (from_ is None) != unused:
        raise InvalidInput("Say which delta to drop, FROM and TO, or --unused.")
    with call.application() as house:
        pair = house.deltas.resolve_pair(from_, to, hardware_id) if from_ is not None and to is not None else None
        dropped = house.deltas.drop(pair, unused=unused, force=force, dry_run=dry_run, by=call.by)
    if as_json:
        return call.answer("deltas_dropped", {"dry_run": dry_run, "deltas": dropped})
    from orchestrator.cli.render.content import dropped as page

    call.show(page(dropped, dry_run=dry_run))


@command(app, "verify", "wave delta verify 22 42", "wave delta verify")
def verify(
    ctx: typer.Context,
    from_: Annotated[
        str | None,
        typer.Argument(metavar="[FROM]", help="Version, ref or commit; else all.", autocompletion=target_versions),
    ] = None,
    to: Annotated[
        str | None, typer.Argument(metavar="[TO]", help="Version, ref or commit.", autocompletion=target_versions)
    ] = None,
    hardware_id: HardwareId = None,
    as_json: AsJson = False,
) -> None:
    """Really apply one delta, or every one, in a scratch repository; what does not hold is built again."""
    call = invocation(ctx, as_json=as_json)
    if (from_ is None) != (to is None):
        raise InvalidInput("Say both, FROM and TO, or neither to verify every delta.")
    with call.application() as house:
        pair = house.deltas.resolve_pair(from_, to, hardware_id) if from_ is not None and to is not None else None
        found = house.deltas.verify(pair)
    if as_json:
        call.answer("deltas_verified", {"deltas": found})
    else:
        for each in found:
            call.show(f"{'+' if each.holds else 'x'} {each.sentence}")
        if not found:
            call.show("There is no delta to verify.")
    if not all(each.holds for each in found):
        raise typer.Exit(6)


# ------------------------------------------------------------------------------------------------- waiting

LOOK_EVERY = 0.5
"""Seconds between two looks."""

PATIENCE = 20.0
"""Seconds after which a build that nobody takes is worth a remark."""


def wait_for(call: Invocation, house: Application, pairs: Sequence[DeltaPair], *, here: bool, log: bool) -> list[str]:
    """Wait until none of these is queued or under way, with a bar in a terminal and a line per change elsewhere.

    ``here``: a thread of this process builds, each once. Returns what could not be built, a sentence each.
    """
    wanted = set(pairs)
    said: dict[DeltaPair, str] = {}
    lines: dict[DeltaPair, int] = {}
    waited = 0.0
    building: AbstractContextManager[list[Exception]] = _building(house) if here else nullcontext([])
    with building as wrong, Bars(call) as bars:
        while True:
            found = [each for each in house.deltas.list() if each.pair in wanted]
            for each in found:
                if said.get(each.pair) != each.state_text:
                    said[each.pair] = each.state_text
                    bars.show(each)
                if log and each.job is not None:
                    new = each.job.log[lines.get(each.pair, 0) :]
                    lines[each.pair] = len(each.job.log)
                    for line in new.splitlines():
                        call.tell(f"  {line}")
            if wrong or not any(each.state in ("queued", "building") for each in found):
                break
            if waited == PATIENCE and not here and all(each.state == "queued" for each in found):
                call.tell("Nobody builds yet: `wave serve` does, or --here. Ctrl-C leaves it queued.")
            time.sleep(LOOK_EVERY)
            waited += LOOK_EVERY
    failed = [f"{_label(each)}: {each.error}" for each in found if each.state == "failed"]
    for sentence in failed:
        call.tell(f"x {sentence}")
    return failed


@contextmanager
def _building(house: Application) -> Iterator[list[Exception]]:
    """Be a builder meanwhile. What ends it too early is in the list, and raised at the end."""
    import os
    import threading

    from orchestrator.services.builder import Builder, Pace

    house.provider.check()
    owner = f"wave delta build, process {os.getpid()}"
    builder = Builder(
        house.store, house.provider, house.clock, owner=owner, pace=Pace(idle=timedelta(seconds=LOOK_EVERY), tries=1)
    )
    stop = threading.Event()
    wrong: list[Exception] = []

    def build() -> None:
        try:
            builder.run(stop)
        except Exception as error:
            wrong.append(error)

    thread = threading.Thread(target=build, name="builder", daemon=True)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()
    if wrong:
        raise wrong[0]


def _label(view: DeltaView) -> str:
    before = str(view.from_versions[0]) if view.from_versions else (view.pair.from_commit or "nothing")[:12]
    after = str(view.to_versions[0]) if view.to_versions else view.pair.to_commit[:12]
    return f"{before} -> {after}"


class Bars:
    """A bar for each delta in a terminal, a line on standard error for each change elsewhere."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._known: dict[DeltaPair, TaskID] = {}
        self._progress: Progress | None = None
        if call.err.is_terminal and not call.as_json:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            state = TextColumn("{task.fields[state]}")
            bar = BarColumn(24)
            self._progress = Progress(
                TextColumn("  {task.description}"), bar, state, TimeElapsedColumn(), console=call.err
            )

    def __enter__(self) -> Bars:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, view: DeltaView) -> None:
        if self._progress is None:
            return self._call.tell(f"  {_label(view)}  {view.state_text}")
        done = 1.0 if view.state == "ready" else view.job.done if view.job is not None else 0.0
        if view.pair not in self._known:
            self._known[view.pair] = self._progress.add_task(_label(view), total=1.0, state=view.state_text)
        self._progress.update(self._known[view.pair], completed=done, state=view.state_text)
