"""``wave init | serve | tick | version`` and the hidden ``builder``: the installation itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.context import AsJson, Invocation, invocation, openers
from orchestrator.cli.late import top

if TYPE_CHECKING:
    from orchestrator.services.log_lines import LogFormat

PANEL = "Installation"


@top("init", "wave init", "wave init /var/lib/wave", panel=PANEL)
def init(
    ctx: typer.Context,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where; else --root, or .wave here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an installation: directory, settings, database, repository; what is there stays."""
    call = invocation(ctx, as_json=as_json)
    root = directory or call.load_settings().root
    made = openers().initialise(root)
    if as_json:
        return call.answer("initialised", {"root": str(root), "made": made})
    for each in made:
        call.show(f"+ {each}")
    call.show(f"{root} is ready." if made else f"{root} was ready already: nothing was changed.")
    call.show("Next: `wave target add`, `wave device enroll`, `wave serve`.")


@top("serve", "wave serve", "wave serve --host 0.0.0.0 --port 8700", panel=PANEL)
def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; else as set.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0 for any free one.", min=0, max=65535)] = None,
) -> None:
    """Run the gateway for devices, the ticker and the builders until Ctrl-C."""
    call = invocation(ctx)
    overrides = {} if host is None else {"host": host}
    if port is not None:
        overrides["port"] = str(port)
    settings = call.load_settings(**overrides)
    log_to_stderr(settings.log)
    openers().serve(settings)


def log_to_stderr(form: LogFormat) -> None:
    """What runs for long says what it does, a line each."""
    import logging

    from orchestrator.services.log_lines import formatter

    lines = logging.StreamHandler()
    lines.setFormatter(formatter(form))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.getLogger("orchestrator").setLevel(logging.INFO)


@top("tick", "wave tick --once", "wave tick --once --json", panel=PANEL)
def tick(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at every rollout and carry out what its policy decides, without serving devices; not beside `wave serve`."""
    call = invocation(ctx, as_json=as_json)
    import time

    with call.application() as app:
        while True:
            try:
                done = app.turn.look(app.clock())
            finally:
                app.turn.end()
            if as_json:
                call.answer("tick", done)
            else:
                _tell_tick(call, done)
            if once:
                break
            pause = app.settings.tick_at_most.total_seconds()
            if done.wake_at is not None:
                pause = min(pause, max(0.5, (done.wake_at - app.clock()).total_seconds()))
            time.sleep(pause)
    if done.problems:
        raise typer.Exit(1)


def _tell_tick(call: Invocation, done: object) -> None:
    from orchestrator.cli.render.words import clock, plural
    from orchestrator.services.tick import Ticked

    assert isinstance(done, Ticked)
    if done.elsewhere:
        return call.show("`wave serve` ticks: nothing was done here.")
    if done.not_counted:
        call.show(f"No gateway serves: silence that is due in {plural(done.not_counted, 'rollout')} is not counted.")
    when = f"; looks again {clock(done.wake_at, done.at)}" if done.wake_at is not None else ""
    call.show(f"{clock(done.at, done.at)}  {plural(done.decided, 'decision')}{when}.")
    for rollout, problem in done.problems:
        call.show(f"  ! {rollout}: {problem}")


@top("builder", "wave builder", panel=PANEL, hidden=True)
def builder(ctx: typer.Context) -> None:
    """Build queued deltas until told to stop; `wave serve` starts its own."""
    settings = invocation(ctx).load_settings()
    log_to_stderr(settings.log)
    openers().run_builder(settings)


@top("version", "wave version", "wave version --json", panel=PANEL)
def version(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print the version."""
    import platform
    from importlib import metadata

    call = invocation(ctx, as_json=as_json)
    try:
        number = metadata.version("wave-orchestrator")
    except metadata.PackageNotFoundError:
        number = "0 (not installed)"
    if as_json:
        return call.answer("version", {"wave": number, "python": platform.python_version()})
    call.show(f"wave {number}")
