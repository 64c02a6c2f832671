"""``wave help WORD``: what a word means here."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.complete import concepts
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import LATE, top
from orchestrator.errors import NotFound


@top("help", "wave help place", "wave help halted", "wave help", panel="Watch")
def help_(
    ctx: typer.Context,
    word: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]", help="The word; without one, all there are.", autocompletion=concepts),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a word means: wave, slice, place, amber, halted; commands have `--help`."""
    call = invocation(ctx, as_json=as_json)
    from rich.text import Text

    from orchestrator.cli.render.grid import Paragraph, heading
    from orchestrator.core.document import did_you_mean
    from orchestrator.core.glossary import explained, words

    known = words()
    asked = " ".join(word or ()).lower().replace("_", " ")
    if not asked:
        if as_json:
            return call.answer("words", {each: [list(pair) for pair in explained(each)] for each in known})
        call.show(heading("Words"), Paragraph(", ".join(known), indent=2), Text())
        return call.show(
            Paragraph("`wave help WORD` says what one means; --help behind a command says what that does.")
        )
    found = explained(asked)
    if not found:
        if asked in LATE and not as_json:
            return call.show(f"{asked} is a command: --help behind it says what it does.")
        raise NotFound(f"{asked} is no word here.{did_you_mean(asked, known)}", remedy="`wave help` lists them all.")
    if as_json:
        return call.answer("word", {"word": asked, "meanings": [list(pair) for pair in found]})
    call.show(Text(asked, style="bold"))
    for where, meaning in found:
        call.show(Paragraph(f"{where}: {meaning}" if where else meaning, indent=2))
