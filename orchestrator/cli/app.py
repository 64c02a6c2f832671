"""The tree of commands, the global options, and how errors end: a sentence, a remedy, an exit code, no traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.cli.context import Invocation
from orchestrator.cli.late import LateGroup, late_group
from orchestrator.cli.streams import answer, complain, not_shown, silenced, steady
from orchestrator.errors import InvalidFile, WaveError

ANYWHERE: Final = {
    "--settings": True,
    "--root": True,
    "--by": True,
    "--server": True,
    "--token-file": True,
    "--no-color": False,
}
"""Global options, which may also stand behind the command; True for those with a value."""

USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


class WaveGroup(LateGroup):
    """The top of the tree. Global options may stand anywhere; whatever goes wrong is told in one sentence."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = hoisted(list(sys.argv[1:] if args is None else args))
        if words == ["--version"]:  # as every other program is asked
            words = ["version"]
        call = Invocation(as_json=wants_json(words))
        try:
            code = super().main(
                args=words,
                prog_name=prog_name or "wave",
                complete_var=complete_var or "_WAVE_COMPLETE",
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                obj=call,
                **extra,
            )
            sys.stdout.flush()  # what finds no room is told now, not by the interpreter's end
        except BaseException as error:
            code = told(error, call)
        finally:
            call.close()
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            sys.exit(code)
        return code


def hoisted(words: list[str]) -> list[str]:
    """The words with the global options in front, wherever they stood before a ``--``."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            rest += [word, *waiting]
        elif (name := word.partition("=")[0]) in ANYWHERE:
            front.append(word)
            if ANYWHERE[name] and "=" not in word and (value := next(waiting, None)) is not None:
                front.append(value)
        else:
            rest.append(word)
    return front + rest


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``--json`` was given, known even when the words cannot be parsed."""
    return "--json" in words[: words.index("--") if "--" in words else len(words)]


def told(error: BaseException, call: Invocation) -> int:
    """Tell a person, and a program that asked for JSON, what went wrong; the exit code."""
    match error:
        case WaveError():
            return _tell(call, error.kind, error.message, error.remedy, error.exit_code, error)
        case typer.Abort() | EOFError():
            return _tell(call, "aborted", "Nothing was done.", None, 1)
        case typer.Exit():
            return error.exit_code
        case KeyboardInterrupt():
            return INTERRUPTED
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case BrokenPipeError():
            silenced()  # whoever read us has gone; nothing is left to say
            return 1
    if (full := not_shown(error)) is not None:
        silenced()
        return _tell(call, full.kind, full.message, full.remedy, full.exit_code, full)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        if context is not None and type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(context.get_help())
            return 0
        where = f"{context.command_path} --help" if context is not None else "wave --help"
        return _tell(call, "usage", _sentence(error.format_message()), f"`{where}` shows how.", USAGE_ERROR)
    log = written(error)
    place = f"What it was is in {log}." if log else "It could not even be written down."
    return _tell(call, "internal", f"A fault in wave itself: {type(error).__name__}.", f"{place} Please report it.", 1)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _tell(
    call: Invocation, kind: str, message: str, remedy: str | None, code: int, error: WaveError | None = None
) -> int:
    said = str(error) if error is not None else f"{message} {remedy}" if remedy else message
    from orchestrator.core.harmless import harmless

    complain(_as_seen(harmless(f"wave: {said}")))
    if call.as_json:
        from orchestrator.cli.render.json import error_envelope

        more: dict[str, Any] = {}
        if isinstance(error, InvalidFile):
            more["problems"] = [
                {"file": each.file, "line": each.line, "path": each.path, "message": each.message}
                for each in error.problems
            ]
        answer(error_envelope(kind, message, remedy, **more))
    return code


def _as_seen(text: str) -> str:
    """Broken at words for a person at a terminal; as it is for a log."""
    if not sys.stderr.isatty():
        return text
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    lines = (
        textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
    return "\n".join("\n".join(each) for each in lines)


def written(error: BaseException) -> str | None:
    """Write the traceback into a file of the user's own and give its name; None when that fails as well."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="wave-fault-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.write(f"wave {' '.join(sys.argv[1:])}\n\n{''.join(traceback.format_exception(error))}")
            return log.name
    except OSError:
        return None


# The daily commands, first in the help.
from orchestrator.cli import rollout_commands, simulate_commands  # noqa: E402, F401

late_group("journal", "journal_commands", "Journals: show, verify.", panel="Watch")

from orchestrator.cli import log_commands, replay_commands  # noqa: E402, F401

late_group("target", "target_commands", "Targets: add, list, tag, import, and their static deltas.", panel="Content")
late_group("artifact", "artifact_commands", "Artifacts: add, list, show, verify, remove.", panel="Content")
late_group("delta", "delta_commands", "Deltas: list, show, build, drop, verify.", panel="Content")
late_group(
    "device",
    "device_commands",
    "Devices: list, show, enroll, group, label, hold, retire, replace, token.",
    panel="Fleet",
)
late_group(
    "enrolment",
    "enrolment_commands",
    "Tokens with which devices make themselves known: add, list, revoke.",
    panel="Fleet",
)
late_group(
    "mender",
    "mender_commands",
    "Devices with the Mender client: list, accept, reject, preauthorize, decommission.",
    panel="Fleet",
)
late_group("policy", "policy_commands", "Policies: check, list, show, and the schemas for editors.", panel="Fleet")

late_group("gate", "gate_commands", "Gates: ask them now, for a try.", panel="Fleet")

from orchestrator.cli import care_commands, help_commands, house_commands  # noqa: E402, F401 - and the installation, last

late_group(
    "notify",
    "notify_commands",
    "Messages to people: list, destinations, retry, test, send.",
    panel="Installation",
)
late_group(
    "user",
    "user_commands",
    "People: add, list, show, roles, disable, enable, password, log.",
    panel="Installation",
)
late_group("token", "token_commands", "Tokens for programs of people: add, list, revoke.", panel="Installation")
late_group("ca", "ca_commands", "Certificates: init, issue, server, revoke, list.", panel="Installation")
late_group("tuf", "tuf_commands", "Roots and keys for aktualizr-lite: init, rotate, show.", panel="Installation")
late_group("db", "db_commands", "The database: upgrade, check, copy.", panel="Installation")

app = typer.Typer(
    name="wave",
    cls=WaveGroup,
    help="Bring one Target to a fleet in waves: deltas first, evidence always, and a person can stop it at any time.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings", metavar="FILE", help="Settings file; else WAVE_SETTINGS, or wave.yaml here or under the root."
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Directory of the installation; else WAVE_ROOT, or .wave."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Your name for the journal; else WAVE_USER or the login name."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", help="Drive the orchestrator there; else WAVE_SERVER, or none."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Holds the token for it; else WAVE_TOKEN, WAVE_TOKEN_FILE."),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour; NO_COLOR does the same.")] = False,
) -> None:
    """Take the global options."""
    call = ctx.obj
    assert isinstance(call, Invocation)
    call.settings_file, call.root, call.user, call.colour = settings, root, by, not no_color
    call.server, call.token_file = server or os.environ.get("WAVE_SERVER") or None, token_file


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    steady()
    try:
        app(args=args, prog_name="wave")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0
