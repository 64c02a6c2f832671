"""``wave doctor | backup | restore``: looking after an installation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.context import AsJson, DryRun, Invocation, Yes, confirm, invocation, is_asked, openers
from orchestrator.cli.late import top

if TYPE_CHECKING:
    from orchestrator.services.doctor import Finding

PANEL = "Installation"


@top("doctor", "wave doctor", "wave doctor --strict --json", panel=PANEL)
def doctor(
    ctx: typer.Context,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 for warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything the installation needs and say what to do; ends with 1 for a failure, and changes nothing."""
    call = invocation(ctx, as_json=as_json)
    found = openers().examine(call.load_settings(), call.found_settings())
    from orchestrator.services.doctor import Level, worst

    verdict = worst(found)
    if as_json:
        call.answer("doctor", {"verdict": verdict, "findings": found})
    else:
        _show(call, found)
    if verdict is Level.FAIL or (strict and verdict is Level.WARN):
        raise typer.Exit(1)


def _show(call: Invocation, found: Sequence[Finding]) -> None:
    from rich.text import Text

    from orchestrator.cli.render.grid import wrapped
    from orchestrator.cli.render.words import plural
    from orchestrator.services.doctor import Level

    marks = {Level.OK: ("ok  ", "green"), Level.WARN: ("warn", "yellow"), Level.FAIL: ("FAIL", "bold red")}
    wide = max(len(each.area) for each in found)
    indent = wide + 8
    before = None
    for each in found:
        head = Text.assemble((f"{each.area if each.area is not before else '':<{wide}}  ", "bold"), marks[each.level])
        before = each.area
        for line in wrapped(call.out, each.sentence, indent, call.out.width):
            call.show(Text.assemble(head, line[len(head) :], no_wrap=True, overflow="ignore"))
            head = Text()
        if each.remedy is not None:
            call.show(*wrapped(call.out, Text(each.remedy, style="dim"), indent, call.out.width))
    fails, warnings = (sum(each.level is level for each in found) for level in (Level.FAIL, Level.WARN))
    call.show(f"{plural(fails, 'failure')}, {plural(warnings, 'warning')}." if fails or warnings else "All is well.")


@top("backup", "wave backup /backup/wave-monday.tar.gz", panel=PANEL)
def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file on another disk; it holds secrets.")],
    content: Annotated[
        bool, typer.Option("--content", help="The repository and the artifacts as well; deltas are made again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one file with database, settings, keys and policies; `wave serve` may go on."""
    call = invocation(ctx, as_json=as_json)
    made = openers().back_up(call.load_settings(), call.found_settings(), file, content=content)
    if as_json:
        return call.answer("backup", made)
    from orchestrator.cli.render.words import plural

    call.lines(f"{made.file} holds {plural(made.members, 'file')} in {made.bytes:,} bytes, and was read back.")
    if not content:
        call.show("The repository and the artifacts are not in it (--content).")
    call.show("It holds secrets: whoever has it can speak for this installation.")


@top("restore", "wave restore /backup/wave-monday.tar.gz --dry-run", panel=PANEL)
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `wave backup` has written.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the installation, whose files are set aside; offers are frozen until you have
    looked."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    if is_asked(call, yes=yes, dry_run=dry_run):
        confirm(call, "What is there now is set aside, and the backup takes its place. Go on?", yes=yes)
        yes = True
    done = openers().restore(file, call.settings_file, call.given(), by=call.by, yes=yes, dry_run=dry_run)
    if as_json:
        return call.answer("restored", {**_plain(done), "dry_run": dry_run})
    from orchestrator.cli.render.grid import Paragraph
    from orchestrator.cli.render.words import plural

    when = f"{done.made_at:%Y-%m-%d %H:%M} UTC"
    if dry_run:
        return call.show(f"{file} is whole: {plural(done.members, 'file')} of {when}. Nothing was changed.")
    call.lines(f"{done.root} is as it was at {when}.")
    if done.set_aside is not None:
        call.lines(f"What was there lies in {done.set_aside}.")
    for each in done.warnings:
        call.show(Paragraph(f"! {each}", hang=2))


def _plain(value: object) -> dict[str, object]:
    from orchestrator.cli.render.json import plain

    told = plain(value)
    assert isinstance(told, dict)
    return told
