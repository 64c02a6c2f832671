"""What every command shares: who asks, which installation, where the answer goes, and how it is opened.

The command line stands on floor 4 and knows no concrete class: ``orchestrator.__main__`` installs the ``Openers``.
Nothing here imports the services; that is left to the command that needs them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import typer

from orchestrator.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from datetime import timedelta

    from rich.console import Console, RenderableType

    from orchestrator.services.application import Application, Files
    from orchestrator.services.backups import Backed, Restored
    from orchestrator.services.doctor import Finding
    from orchestrator.services.settings import Settings
    from orchestrator.services.tuf import Tuf

PIPED_WIDTH: Final = 1000
"""Columns when nobody sees the lines: a sentence stays on one line, for grep."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "--dryrun", help="Show what would happen; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Because = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the journal.")]


class Opens(Protocol):
    """Opens an installation. ``create``: make what is missing."""

    def __call__(self, settings: Settings, *, create: bool = False) -> Application: ...


class Elsewhere(Protocol):
    """An orchestrator that another machine runs. ``me``: who the token says that this is."""

    @property
    def application(self) -> Application: ...

    def me(self) -> str: ...

    def close(self) -> None: ...


class BacksUp(Protocol):
    """Makes a backup. ``file``: where the settings were read from."""

    def __call__(self, settings: Settings, file: Path | None, into: Path, *, content: bool) -> Backed: ...


class Restores(Protocol):
    """Restores one. ``file``: the settings file that was named; ``overrides``: settings of the command line."""

    def __call__(
        self, archive: Path, file: Path | None, overrides: Mapping[str, str], *, by: str, yes: bool, dry_run: bool
    ) -> Restored: ...


@dataclass(frozen=True, slots=True)
class Openers:
    """The doors to floor 5, each of which imports what it needs when it is called."""

    load_settings: Callable[[Path | None, Mapping[str, str]], Settings]
    open_application: Opens
    open_files: Callable[[Settings], Files]
    open_tuf: Callable[[Settings], Tuf]
    serve: Callable[[Settings], None]
    run_builder: Callable[[Settings], None]
    upgrade_database: Callable[[Settings], str]
    initialise: Callable[[Path], list[str]]
    open_elsewhere: Callable[[str, Path | None], Elsewhere]
    examine: Callable[[Settings, Path | None], list[Finding]]
    settings_file: Callable[[Path | None, Mapping[str, str]], Path | None]
    back_up: BacksUp
    restore: Restores
    copy_database: Callable[[Settings, Settings, str], dict[str, int]]


_installed: list[Openers] = []


def install(openers: Openers) -> None:
    """From now on commands open installations by these."""
    _installed[:] = [openers]


def openers() -> Openers:
    """Raises Unavailable when nobody installed any."""
    if not _installed:
        raise Unavailable(
            "This program was not put together.", remedy="Start it as `wave` or `python -m orchestrator`."
        )
    return _installed[0]


@dataclass(slots=True)
class Invocation:
    """One run of ``wave``: the global options, and the two consoles.

    ``as_json`` is set by the command; from then on errors are told as JSON as well.
    """

    settings_file: Path | None = None
    root: Path | None = None
    user: str | None = None
    server: str | None = None
    token_file: Path | None = None
    colour: bool = True
    as_json: bool = False
    _elsewhere: Elsewhere | None = None
    _consoles: dict[str, Console] = field(default_factory=dict)

    @property
    def by(self) -> str:
        """Who gives the order: ``--by``, or ``WAVE_USER``, or the login name; elsewhere, whom the token names."""
        import getpass

        if self.server is not None:
            if self.user is not None:
                raise InvalidInput("With --server the token says who you are.", remedy="Leave out --by.")
            return self._there().me()

        name = self.user or os.environ.get("WAVE_USER")
        if name is None:
            try:
                name = getpass.getuser()
            except (KeyError, OSError):
                raise InvalidInput("Nobody knows who you are: say it with --by NAME or WAVE_USER.") from None
        if not name.strip() or not name.isprintable() or len(name) > 128:
            raise InvalidInput("A name for --by is printable and 128 characters long at most.")
        return name.strip()

    @property
    def out(self) -> Console:
        return self._console("out")

    @property
    def err(self) -> Console:
        return self._console("err")

    def _console(self, which: str) -> Console:
        from orchestrator.cli.render.terminal import Terminal

        stream = sys.stdout if which == "out" else sys.stderr
        known = self._consoles.get(which)
        if known is None or known.file is not stream:
            seen = stream.isatty() or "COLUMNS" in os.environ
            known = Terminal(
                file=stream,
                no_color=True if not self.colour else None,
                highlight=False,
                markup=False,
                emoji=False,
                soft_wrap=False,
                width=None if seen else PIPED_WIDTH,
            )
            self._consoles[which] = known
        return known

    def load_settings(self, **overrides: str) -> Settings:
        """The settings of the installation that is meant."""
        self.require_here()
        return openers().load_settings(self.settings_file, overrides | self.given())

    def found_settings(self) -> Path | None:
        """The file that they are read from."""
        self.require_here()
        return openers().settings_file(self.settings_file, self.given())

    def given(self) -> dict[str, str]:
        """Settings that the command line names."""
        return {} if self.root is None else {"root": str(self.root)}

    @contextmanager
    def application(self, *, create: bool = False) -> Iterator[Application]:
        """The installation, opened; closed again when the block ends."""
        import logging

        # What goes wrong is told by the command itself; `serve` sets up a log of its own.
        logging.getLogger("orchestrator").addHandler(logging.NullHandler())
        if self.server is not None:
            app = self._there().application
        else:
            app = openers().open_application(self.load_settings(), create=create)
        try:
            yield app
        finally:
            app.close()

    def files(self) -> Files:
        """Reads policy, rollout and fleet files; no database is opened."""
        if self.server is not None:
            return self._there().application.files
        return openers().open_files(self.load_settings())

    def tuf(self) -> Tuf:
        """Roots and keys for aktualizr-lite; no database is opened."""
        if self.server is not None:
            return self._there().application.tuf()
        return openers().open_tuf(self.load_settings())

    def _there(self) -> Elsewhere:
        """The other machine, over one connection for as long as the command runs."""
        if self._elsewhere is None:
            assert self.server is not None
            self._elsewhere = openers().open_elsewhere(self.server, self.token_file)
        return self._elsewhere

    def close(self) -> None:
        """End what is open."""
        if self._elsewhere is not None:
            self._elsewhere.close()

    def require_here(self) -> None:
        """Raises InvalidInput when another machine is meant: this command works on the installation's own."""
        if self.server is not None:
            raise InvalidInput(
                "This works on the machine of the installation itself, and --server or WAVE_SERVER names another.",
                remedy="Run it there, without them.",
            )

    # ------------------------------------------------------------------------------------------ answers

    def show(self, *what: RenderableType) -> None:
        """Lines for people, on standard output."""
        for each in what:
            self.out.print(each)

    def lines(self, *lines: str) -> None:
        """Lines that other programs read, never broken."""
        for line in lines:
            self.out.print(line, soft_wrap=True)

    def tell(self, sentence: str) -> None:
        """A remark that is not the answer, on standard error."""
        self.err.print(sentence)

    def answer(self, kind: str, result: Any) -> None:
        """The answer as JSON."""
        from orchestrator.cli.render.json import envelope

        sys.stdout.write(envelope(kind, result) + "\n")


def invocation(ctx: typer.Context, *, as_json: bool = False) -> Invocation:
    """The run that a command belongs to."""
    call = ctx.find_root().obj
    assert isinstance(call, Invocation)
    call.as_json = call.as_json or as_json
    return call


def is_asked(call: Invocation, *, yes: bool, dry_run: bool = False) -> bool:
    """Whether a person sits there who is to be asked first."""
    return not (yes or dry_run or call.as_json) and sys.stdin.isatty() and sys.stderr.isatty()


def confirm(call: Invocation, question: str, *, yes: bool, dry_run: bool = False) -> None:
    """Ask before something dangerous, when a person sits there. Raises typer.Abort on a no."""
    if is_asked(call, yes=yes, dry_run=dry_run):
        typer.confirm(question, abort=True, err=True)


def duration_of(option: str, text: str | None) -> timedelta | None:
    """What an option says in words such as 90m. Raises InvalidInput, with the option's name."""
    from orchestrator.core.durations import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except InvalidInput as error:
        raise InvalidInput(f"{option} {error.message}") from None


def names_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """Words given one by one or with commas between, each once, in order."""
    return tuple(dict.fromkeys(part.strip() for word in words or () for part in word.split(",") if part.strip()))
