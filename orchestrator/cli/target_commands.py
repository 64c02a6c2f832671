"""``wave target …``: the software there is, its tags, and the deltas that bring a tag to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.complete import target_names
from orchestrator.cli.context import AsJson, DryRun, Invocation, invocation, names_of
from orchestrator.cli.delta_commands import Here, Log, NoWait, wait_for
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.core.artifact import Artifact
    from orchestrator.services.application import Application

app = group("target")

HardwareId = Annotated[
    str | None, typer.Option("--hardware-id", "--hw-id", metavar="ID", help="Only for this hardware id.")
]


@command(
    app,
    "add",
    "wave target add 42 8f3c1a --hardware-id intel-corei7-64 --tag main",
    "wave target add 42 lmp/rpi --hardware-id raspberrypi4-64 --tag main,promoted",
    "wave target add 42 --artifact board-1.1.0.swu --tag main",
)
def add(
    ctx: typer.Context,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Its version, a whole number.", min=1)],
    commit: Annotated[
        str | None, typer.Argument(metavar="[COMMIT]", help="The commit, its first digits, or a ref of the repository.")
    ] = None,
    hardware_id: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware-id", "--hw-id", metavar="ID", help="What it is made for; repeatable; else the file's."
        ),
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option("--artifact", metavar="FILE", help="It is this file: a path, or an artifact's sha256 or name."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "--tags", "-T", metavar="TAG", help="The line it belongs to; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name; else hardware id and version.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add a Target that is a commit of the repository, or a file; nothing is offered by that."""
    if (commit is None) == (artifact is None):
        raise InvalidInput("A Target is a commit, or a file by --artifact: give one of both.")
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        if commit is not None:
            target, new = house.targets.add(
                version=version,
                commit=commit,
                hardware_ids=names_of(hardware_id),
                tags=names_of(tag),
                name=name,
                dry_run=dry_run,
                by=call.by,
            )
        else:
            assert artifact is not None
            target, new = house.targets.add_artifact(
                version=version,
                artifact=_artifact(call, house, artifact, dry_run=dry_run),
                hardware_ids=names_of(hardware_id),
                tags=names_of(tag),
                name=name,
                dry_run=dry_run,
                by=call.by,
            )
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("target_added", {**shapes.target(target), "new": new, "dry_run": dry_run})
    what = ("Would add" if dry_run else "Added") if new else "There already:"
    tags = f", tags {', '.join(target.tags)}" if target.tags else ""
    for_ids = ", ".join(target.hardware_ids)
    call.show(f"{what} {target.name}: version {target.version} for {for_ids}, commit {target.commit[:12]}{tags}.")


def _artifact(call: Invocation, house: Application, which: str, *, dry_run: bool) -> Artifact:
    """The artifact that is meant: one that is there, or a file, which is then taken in."""
    from orchestrator.cli.progress import Bar

    path = Path(which)
    if not path.is_file():
        return house.artifacts.find(which)
    with Bar(call, "Reading" if dry_run else "Taking in") as bar:
        return house.artifacts.take_in(path, dry_run=dry_run, progress=bar.bytes)


@command(app, "list", "wave target list", "wave target list --tag promoted --json")
def list_targets(
    ctx: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only this version.")] = None,
    as_json: AsJson = False,
) -> None:
    """List Targets, newest version first."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.targets.list(version=version, tag=tag)
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("targets", [shapes.target(each) for each in found])
    from orchestrator.cli.render.content import targets

    call.show(targets(found))


@command(app, "show", "wave target show 42", "wave target show intel-corei7-64-lmp-42 --json")
def show(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="TARGET", help="A name, or a version.", autocompletion=target_names)],
    as_json: AsJson = False,
) -> None:
    """Show a Target, who runs it, and the deltas that lead to it."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        found = house.targets.show(which)
    if as_json:
        from orchestrator.cli.render import shapes

        return call.answer("target", [shapes.target_view(each) for each in found])
    from orchestrator.cli.render.content import target

    for each in found:
        call.show(target(each))


@command(
    app,
    "tag",
    "wave target tag --tags main,promoted --by-version 42",
    "wave target tag -T promoted --append intel-corei7-64-lmp-42",
)
def tag(
    ctx: typer.Context,
    which: Annotated[
        list[str],
        typer.Argument(metavar="TARGET", help="Names; versions with --by-version.", autocompletion=target_names),
    ],
    tags: Annotated[
        list[str], typer.Option("--tags", "--tag", "-T", metavar="TAG,…", help="The tags; with commas or repeated.")
    ],
    append: Annotated[bool, typer.Option("--append", help="Keep the tags there are.")] = False,
    by_version: Annotated[bool, typer.Option("--by-version", help="What is named are versions.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change the tags of Targets; nothing is offered by that, only rollouts offer."""
    call = invocation(ctx, as_json=as_json)
    with call.application() as house:
        changes = house.targets.tag(
            names_of(which), names_of(tags), append=append, by_version=by_version, dry_run=dry_run, by=call.by
        )
    if as_json:
        return call.answer("target_tags", {"dry_run": dry_run, "changes": changes})
    call.lines(*(f"Dry run: {change.line}" if dry_run else change.line for change in changes))


@command(app, "import", "wave target import targets.json --dry-run", "wave target import targets.json")
def import_targets(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Foundries targets.json; - is standard input.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take over the OSTree Targets of a Foundries targets.json."""
    call = invocation(ctx, as_json=as_json)
    document = read_bytes(file)
    with call.application() as house:
        found = house.targets.import_foundries(document, dry_run=dry_run, by=call.by)
    if as_json:
        return call.answer("target_import", {"dry_run": dry_run, "targets": found})
    from orchestrator.cli.render.content import imported

    call.show(imported(found, dry_run=dry_run))


def read_bytes(file: Path) -> bytes:
    """The file's bytes. Raises InvalidInput with the system's own words."""
    import sys

    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None


@command(
    app,
    "static-deltas",
    "wave target static-deltas --dry-run --by-tag promoted 42",
    "wave target static-deltas --by-tag promoted 42",
    "wave target static-deltas 42 22 32",
)
def static_deltas(
    ctx: typer.Context,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to come to.", min=1)],
    from_versions: Annotated[list[int] | None, typer.Argument(metavar="[FROM]", help="Versions to come from.")] = None,
    by_tag: Annotated[
        str | None, typer.Option("--by-tag", metavar="TAG", help="From whatever the devices of this tag run.")
    ] = None,
    hardware_id: HardwareId = None,
    here: Here = False,
    no_wait: NoWait = False,
    log: Log = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Find out which deltas bring the devices of a tag to a version, and have them built."""
    call = invocation(ctx, as_json=as_json)
    if here:
        call.require_here()
    with call.application() as house:
        found = house.deltas.static_deltas(
            version, tag=by_tag, from_versions=tuple(from_versions or ()), hardware_id=hardware_id
        )
        queued = 0 if dry_run else house.deltas.queue(found, by=call.by)
        if not as_json:
            from orchestrator.cli.render.content import static_deltas_more

            head = f"Dry run: {found.heading}" if dry_run else found.heading.replace("Would generate", "Generating")
            call.lines(head, *found.lines)
            for remark in static_deltas_more(found):
                call.tell(remark)
        failed: list[str] = []
        if not dry_run and not no_wait:
            failed = wait_for(call, house, [item.pair for item in found.items], here=here, log=log)
    if as_json:
        call.answer("static_deltas", {**_plain(found), "dry_run": dry_run, "queued": queued, "failed": failed})
    if failed:
        raise typer.Exit(6)


def _plain(found: object) -> dict[str, object]:
    from orchestrator.cli.render.json import plain

    made = plain(found)
    assert isinstance(made, dict)
    return {**made, "lines": [line.strip() for line in getattr(found, "lines", ())]}
