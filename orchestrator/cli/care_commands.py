"""``wave doctor``: looking after an installation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.context import AsJson, Invocation, invocation, openers
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
