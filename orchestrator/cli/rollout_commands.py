"""``wave plan | apply | start | list | status | explain | pause | …``: what one types every day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.complete import devices_and_rollouts, rollout_names, segment_names, wave_names
from orchestrator.cli.context import AsJson, Because, DryRun, Invocation, duration_of, invocation, names_of
from orchestrator.cli.late import top
from orchestrator.cli.orders import Order, order
from orchestrator.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from orchestrator.services.editing import Applied
    from orchestrator.services.rollouts import Ordered

RolloutName = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="The rollout's name.", autocompletion=rollout_names)
]
MaybeRollout = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLLOUT]",
        help="The rollout's name; else the live one, or the newest.",
        show_default=False,
        autocompletion=rollout_names,
    ),
]
WaveName = Annotated[str, typer.Argument(metavar="WAVE", help="The wave's name.", autocompletion=wave_names)]
MaybeWave = Annotated[
    str | None,
    typer.Argument(metavar="[WAVE]", help="One wave of it only.", show_default=False, autocompletion=wave_names),
]
SegmentName = Annotated[
    str,
    typer.Argument(
        metavar="SEGMENT",
        help="DIMENSION=VALUE, such as hardware_id=rpi4, source_version=41 or label:region=emea.",
        autocompletion=segment_names,
    ),
]
RolloutPath = Annotated[Path, typer.Argument(metavar="FILE", help="The rollout file (YAML).")]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept", metavar="NAME", help="What stopped it and is accepted, such as rollout/failed; repeatable."
    ),
]

NOT_SAID: Final = 4
"""The exit code of a change that was shown and not made, as of anything refused."""

PREPARE = "Prepare a rollout"
WATCH = "Watch"
STEER = "Steer"
STOP = "Stop"


# ------------------------------------------------------------------------------------------------- prepare


@top("plan", "wave plan examples/rollout.yaml", "wave plan examples/rollout.yaml --json", panel=PREPARE)
def plan(ctx: typer.Context, file: RolloutPath, as_json: AsJson = False) -> None:
    """Show what a rollout would do, wave by wave, with deltas, evidence and calendar; nothing is changed."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as app:
        made = app.planner.plan(*app.files.rollout(file))
    if as_json:
        return call.answer("plan", made)
    from orchestrator.cli.render.plan import plan as page

    call.show(page(made))


@top(
    "apply",
    "wave apply examples/rollout.yaml --dry-run",
    "wave apply examples/rollout.yaml --start",
    "wave apply examples/rollout.yaml --yes --allow-wider lab --reason slow",
    panel=PREPARE,
)
def apply(
    ctx: typer.Context,
    file: RolloutPath,
    start: Annotated[bool, typer.Option("--start", help="Start it as well.")] = False,
    allow_wider: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-wider",
            metavar="WAVE",
            help="This wave has begun, and may be held to looser rules; repeatable, with a --reason.",
        ),
    ] = None,
    reason: Because = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Change a rollout that runs; without it, only shown.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bind a rollout to copies of its file and its policy; one that runs is changed after a look at the difference."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as app:
        spec, policy = app.files.rollout(file)
        allowed = names_of(allow_wider)
        done = app.rollouts.apply(
            spec, policy, by=call.by, reason=reason, yes=yes, allow_wider=allowed, dry_run=dry_run
        )
        started = None
        if start and not dry_run and done.edited is None:
            started = app.rollouts.start(done.rollout, by=call.by, reason=reason)
    if as_json:
        from orchestrator.cli.render.json import plain

        call.answer("applied", {**plain(done), "dry_run": dry_run, "started": plain(started)})
    elif done.edited is not None:
        from orchestrator.cli.render.edit import edited as page

        call.show(page(done.edited, written=done.written, dry_run=dry_run))
    else:
        _tell_applied(call, done, started, dry_run=dry_run)
    if not done.written and not dry_run:
        words = "--yes" if done.edited is None or not done.edited.lacks else f"--yes {done.edited.lacks}"
        call.tell(f"wave: Nothing was changed: {done.rollout} is {done.status}. `{words}` changes it.")
        raise typer.Exit(NOT_SAID)


def _tell_applied(call: Invocation, done: Applied, started: Ordered | None, *, dry_run: bool) -> None:
    what = "is new" if done.created else "has changed" if done.changes else "is as it was applied before"
    tense = "Dry run: rollout" if dry_run else "Rollout"
    if started or dry_run:
        tail = ""
    else:
        tail = f" `wave start {done.rollout}` starts it." if done.status == "draft" else f" It is {done.status}."
    call.show(f"{tense} {done.rollout} {what}.{tail}")
    for line in done.changes:
        call.show(f"  {line}")
    if started is not None:
        call.show(started.sentence)


@order("start", "wave start lmp-42", panel=PREPARE)
def start(rollout: RolloutName) -> Order:
    """Let an applied rollout run, now or at its start_at."""
    return Order(lambda orders, given: orders.start(rollout, **given))


# ------------------------------------------------------------------------------------------------- watch


@top("list", "wave list", "wave list --status running,held --json", panel=WATCH)
def list_rollouts(
    ctx: typer.Context,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="STATUS", help="Only these; repeatable or with commas.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only rollouts of this tag.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the rollouts, newest first."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.core.states import RolloutStatus

    wanted = names_of(status)
    unknown = [word for word in wanted if word not in set(RolloutStatus)]
    if unknown:
        raise InvalidInput(f"{unknown[0]} is no status of a rollout.", remedy=f"There are {', '.join(RolloutStatus)}.")
    with call.application() as app:
        found = app.queries.summaries([RolloutStatus(word) for word in wanted] or None)
        now = app.clock()
    found = [each for each in found if tag is None or each.tag == tag]
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("rollouts", [shapes.summary(each) for each in found])
    from orchestrator.cli.render.rollout import rollouts

    call.show(rollouts(found, now))


@top(
    "status",
    "wave status lmp-42 --watch",
    "wave status lmp-42 --exit-code",
    "wave status lmp-42 --watch --exit-code --timeout 2h",
    panel=WATCH,
)
def status(
    ctx: typer.Context,
    rollout: MaybeRollout = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it as a tree, once a second.")] = False,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="End with 0 running or completed, 10 held or a wave of it held, 11 halted, 12 cancelled, 13 paused.",
        ),
    ] = False,
    every: Annotated[
        float,
        typer.Option("--every", help="Seconds between two looks of --watch.", min=0.1, max=3600, show_default=True),
    ] = 1.0,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="TIME", help="Watch until it rests, at most so long (90m); then end with 14."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a rollout stands: its waves, what they wait for, monitors and budgets."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render.rollout import EXIT, TIMED_OUT
    from orchestrator.cli.watch import comes_to

    if timeout is not None and not watch:
        raise InvalidInput("--timeout is for --watch: without it nothing is waited for.")
    within = duration_of("--timeout", timeout)
    late = False
    with call.application() as app:
        if watch:
            from orchestrator.cli.watch import watch as go_on

            last, late = go_on(
                call, app, rollout, every=every, until_it_rests=exit_code or within is not None, within=within
            )
        else:
            view, now = app.queries.rollout(rollout), app.clock()
            last = comes_to(view)
            if as_json:
                from orchestrator.cli.render import shapes

                call.answer("rollout", shapes.rollout(view))
            else:
                from orchestrator.cli.render.rollout import rollout as page

                call.show(page(view, now))
    if late:
        raise typer.Exit(TIMED_OUT)
    if exit_code:
        raise typer.Exit(EXIT.get(last, 0))


@top("top", "wave top lmp-42", "wave top lmp-42 --limit 3 --json", panel=WATCH)
def top_(
    ctx: typer.Context,
    rollout: MaybeRollout = None,
    limit: Annotated[int, typer.Option("--limit", help="Values of each kind.", min=1, max=100)] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what fails most: outcomes, error codes, hardware, versions and labels of the bad devices."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render.failing import page

    with call.application() as app:
        found = app.queries.failing(rollout, limit=limit)
    if as_json:
        return call.answer("failing", found)
    call.show(page(found))


@top("explain", "wave explain lmp-42", "wave explain gw-7f3a", panel=WATCH)
def explain(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ROLLOUT|DEVICE", help="A rollout's name or a device's id.", autocompletion=devices_and_rollouts
        ),
    ],
    device: Annotated[
        bool, typer.Option("--device", help="It is a device, though a rollout has that name too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say why a rollout stands where it does and what would move it, or why a device has its offer or not yet."""
    call = invocation(ctx, as_json=as_json)
    from orchestrator.cli.render import explain as page
    from orchestrator.cli.render import shapes

    with call.application() as app:
        now = app.clock()
        if not device:
            try:
                view = app.queries.rollout(name)
            except NotFound:
                if not app.queries.is_device(name):
                    raise NotFound(
                        f"There is no rollout and no device {name}.",
                        remedy="`wave list` and `wave device list` show what there is.",
                    ) from None
            else:
                return call.answer("rollout", shapes.rollout(view)) if as_json else call.show(page.rollout(view, now))
        found = app.queries.device(name)
    if as_json:
        return call.answer("device", shapes.device_view(found))
    call.show(page.device(found, now))


# ------------------------------------------------------------------------------------------------- steer and stop


@order("pause", 'wave pause lmp-42 --reason "network maintenance"', panel=STEER)
def pause(rollout: RolloutName) -> Order:
    """Give no new offer and open nothing until somebody resumes it; devices that started may finish."""
    return Order(lambda orders, given: orders.pause(rollout, **given))


@order(
    "resume",
    "wave resume lmp-42",
    'wave resume lmp-42 --accept rollout/failed --reason "bad SD cards"',
    "wave resume lmp-42 --wave canary",
    panel=STEER,
)
def resume(
    rollout: RolloutName,
    accept: Accept = None,
    wave: Annotated[
        str | None, typer.Option("--wave", metavar="WAVE", help="Only this held wave.", autocompletion=wave_names)
    ] = None,
) -> Order:
    """Go on after a pause, a hold or a halt; what stopped it must be accepted by name, with a reason."""
    accepted = names_of(accept)
    return Order(lambda orders, given: orders.resume(rollout, accept=accepted, wave=wave, **given))


@order("promote", "wave promote lmp-42 rest", panel=STEER)
def promote(rollout: RolloutName, wave: WaveName) -> Order:
    """Let a wave open that waits for a person; said beforehand, it need not wait."""
    return Order(lambda orders, given: orders.promote(rollout, wave, **given))


@order("approve", "wave approve lmp-42", "wave approve lmp-42 --wave rest", panel=STEER)
def approve(
    rollout: RolloutName,
    wave: Annotated[
        str | None,
        typer.Option("--wave", metavar="WAVE", help="Only the opening of this wave.", autocompletion=wave_names),
    ] = None,
) -> Order:
    """Give the word that the policy asks of another person than who wrote or started it; halted, that it may go on."""
    return Order(lambda orders, given: orders.approve(rollout, wave=wave, **given))


@order("skip", "wave skip lmp-42 lab", panel=STEER)
def skip(rollout: RolloutName, wave: WaveName) -> Order:
    """Let what comes after a wave go on without it."""
    return Order(lambda orders, given: orders.skip(rollout, wave, **given))


@order("retry", "wave retry lmp-42 gw-7f3a gw-7f3b", "wave retry lmp-42 --dry-run", panel=STEER)
def retry(
    rollout: RolloutName,
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]", help="Devices; else all with a bad outcome.")
    ] = None,
) -> Order:
    """Let devices with a bad outcome try once more; what was counted stays counted."""
    named = names_of(devices)
    return Order(lambda orders, given: orders.retry(rollout, named, **given))


@order(
    "complete",
    "wave complete lmp-42",
    "wave complete lmp-42 canary",
    "wave complete lmp-42 --now --yes",
    panel=STEER,
    asks=True,
)
def complete(
    rollout: RolloutName,
    wave: MaybeWave = None,
    at_once: Annotated[bool, typer.Option("--now", help="Serve whole what has no delta yet.")] = False,
    accept: Accept = None,
) -> Order:
    """Make the Target available to every device of the tag at once, or let one wave pass."""
    if wave is not None and (at_once or accept):
        raise InvalidInput(
            "--now and --accept belong to a whole rollout.", remedy="Leave them out, or leave out the wave."
        )
    accepted = names_of(accept)
    return Order(
        lambda orders, given: orders.complete(rollout, wave=wave, at_once=at_once, accept=accepted, **given),
        f"Let wave {wave} of {rollout} pass?"
        if wave
        else f"Offer the Target of {rollout} to every device of its tag now?",
    )


@order(
    "exclude",
    'wave exclude lmp-42 hardware_id=rpi4 --reason "dark screens"',
    "wave exclude lmp-42 label:region=emea --reason strike --dry-run",
    panel=STEER,
    asks=True,
)
def exclude(rollout: RolloutName, segment: SegmentName) -> Order:
    """Leave a segment out: its devices are offered nothing more, the rest goes on as if they were not there."""
    return Order(
        lambda orders, given: orders.exclude(rollout, segment, **given),
        f"Exclude {segment} from {rollout} and withdraw its offers?",
    )


@order(
    "include",
    "wave include lmp-42 hardware_id=rpi4 --reason fixed",
    panel=STEER,
    asks=True,
)
def include(rollout: RolloutName, segment: SegmentName) -> Order:
    """Take an excluded segment back in: a new attempt, all monitors begin anew with the next slice."""
    return Order(
        lambda orders, given: orders.include(rollout, segment, **given),
        f"Offer the Target of {rollout} to {segment} again?",
    )


@order("halt", 'wave halt lmp-42 --reason "support reports black screens"', panel=STOP, asks=True)
def halt(rollout: RolloutName) -> Order:
    """Stop for safety: offers whose device has not started are withdrawn."""
    return Order(lambda orders, given: orders.halt(rollout, **given), f"Halt {rollout} and withdraw its offers?")


@order("cancel", "wave cancel lmp-42", "wave cancel lmp-42 emea --reason holiday", panel=STOP, asks=True)
def cancel(rollout: RolloutName, wave: MaybeWave = None) -> Order:
    """End a rollout early, or one wave of it; updated devices stay updated."""
    return Order(
        lambda orders, given: orders.cancel(rollout, wave=wave, **given),
        f"Cancel {f'wave {wave} of ' if wave else ''}{rollout}? That cannot be undone.",
    )


@top("freeze", 'wave freeze --reason "certificate expired"', panel=STOP)
def freeze(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; everybody can read it.")],
    as_json: AsJson = False,
) -> None:
    """Stop all offers of all rollouts at once."""
    call = invocation(ctx, as_json=as_json)
    by = call.by
    with call.application() as app:
        app.rollouts.freeze(by=by, reason=reason)
    _said(call, f"All offers are frozen by {by}: {reason.strip()}. `wave unfreeze` ends it.", frozen=True, by=by)


@top("unfreeze", "wave unfreeze", panel=STOP)
def unfreeze(ctx: typer.Context, reason: Because = None, as_json: AsJson = False) -> None:
    """Let offers go on after a freeze."""
    call = invocation(ctx, as_json=as_json)
    by = call.by
    with call.application() as app:
        app.rollouts.unfreeze(by=by, reason=reason)
    _said(call, f"Offers go on, by {by}.", frozen=False, by=by)


def _said(call: Invocation, sentence: str, *, frozen: bool, by: str) -> None:
    if call.as_json:
        return call.answer("freeze", {"frozen": frozen, "by": by, "sentence": sentence})
    call.show(sentence)
