"""``wave artifact …``: the files that devices take instead of an OSTree commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.complete import artifact_names
from orchestrator.cli.context import AsJson, DryRun, Invocation, Yes, confirm, invocation, names_of
from orchestrator.cli.late import command, group
from orchestrator.cli.progress import Bar

app = group("artifact")

Which = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="Its sha256, its first digits, its name or file name.", autocompletion=artifact_names
    ),
]


@command(
    app,
    "add",
    "wave artifact add board-1.1.0.swu --hardware-id board:1.0",
    "wave artifact add rootfs.img --version 1.1.0 --hardware-id rpi4 --dry-run",
)
def add(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .swu, .raucb or .mender, or any other file.")],
    version: Annotated[
        str | None, typer.Option("--version", metavar="TEXT", help="What a device that runs it says; else the file's.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name; else the file's.")] = None,
    hardware_id: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware-id", "--hw-id", metavar="ID", help="What it is made for; else the file's; repeatable."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take a file in; an interrupted one goes on where it stopped, nothing is offered by that."""
    from orchestrator.services.artifacts import Said

    call = invocation(ctx, as_json=as_json)
    said = Said(name, version, names_of(hardware_id))
    with call.application() as house, Bar(call, "Reading" if dry_run else "Taking in") as bar:
        added = house.artifacts.add(file, said, dry_run=dry_run, progress=bar.bytes, by=call.by)
    artifact = added.artifact
    if as_json:
        from orchestrator.cli.render import shapes

        made = {**shapes.artifact(artifact), "new": added.new, "dry_run": dry_run, "remark": added.remark}
        return call.answer("artifact_added", made)
    what = ("Would add" if dry_run else "Added") if added.new else "There already:"
    for_ids = ", ".join(artifact.hardware_ids) or "whatever a Target says"
    call.show(
        f"{what} {artifact.filename}: {artifact.format} {artifact.name}, version {artifact.version}, for {for_ids}, "
        f"sha256 {artifact.sha256}."
    )
    if added.remark:
        call.tell(added.remark)


@command(app, "list", "wave artifact list", "wave artifact list --json")
def list_artifacts(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List artifacts, newest first."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.artifacts.list()
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("artifacts", [shapes.artifact_view(each) for each in found])
    from orchestrator.cli.render.artifacts import artifacts

    call.show(artifacts(found))


@command(app, "show", "wave artifact show board-1.1.0.swu", "wave artifact show 8f3c1a22 --json")
def show(ctx: typer.Context, which: Which, as_json: AsJson = False) -> None:
    """Show an artifact, its sums, and what needs it."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.artifacts.show(which)
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("artifact", shapes.artifact_view(found))
    from orchestrator.cli.render.artifacts import artifact

    call.show(artifact(found))


@command(app, "verify", "wave artifact verify", "wave artifact verify board-1.1.0.swu --json")
def verify(
    ctx: typer.Context,
    which: Annotated[
        str | None,
        typer.Argument(metavar="[ARTIFACT]", help="One of them; else all.", autocompletion=artifact_names),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read artifacts from end to end and compare their sha256."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house, Bar(call, "Reading") as bar:
        found = house.artifacts.verify(which, progress=bar.bytes)
    if as_json:
        shown = [{"sha256": each.sha256, "filename": each.filename, "problem": wrong} for each, wrong in found]
        call.answer("artifact_verification", shown)
    else:
        _tell(call, [f"{each.filename} ({each.sha256[:12]}): {wrong or 'it is whole.'}" for each, wrong in found])
    if any(wrong for _, wrong in found):
        raise typer.Exit(6)


def _tell(call: Invocation, lines: list[str]) -> None:
    call.lines(*(lines or ["No artifact."]))


@command(app, "remove", "wave artifact remove board-1.0.0.swu --dry-run", "wave artifact remove board-1.0.0.swu --yes")
def remove(
    ctx: typer.Context, which: Which, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Remove an artifact that no Target and no delta needs."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        chosen = house.artifacts.remove(which, dry_run=True)
        confirm(call, f"Remove {chosen.filename} ({chosen.sha256[:12]})?", yes=yes, dry_run=dry_run)
        removed = chosen if dry_run else house.artifacts.remove(chosen.sha256, by=call.by)
    if as_json:
        return call.answer("artifact_removed", {"sha256": removed.sha256, "dry_run": dry_run})
    call.show(f"{'Would remove' if dry_run else 'Removed'} {removed.filename} ({removed.sha256[:12]}).")
