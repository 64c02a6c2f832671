"""Commands that are built when they are used: `wave --help` names them all and makes none of them.

Typer reads every command's signature when it starts, which costs more than showing the help. So the top of the tree
holds names, sentences and a way to build; a group such as ``target`` is not even imported before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from typer._click import Command, Context
    from typer._click.core import Parameter

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {}
"""Every command's examples, by its whole name such as ``target add``: each is in its help, and parsed by a test."""

_F = TypeVar("_F", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Late:
    """One entry of the tree: ``short`` is its line in the help, ``build`` makes the command itself."""

    short: str
    build: Callable[[], typer.Typer]
    panel: str | None = None
    hidden: bool = False


LATE: Final[dict[str, Late]] = {}
"""The top of the tree, in the order of the help."""


def _plain(params: list[Parameter]) -> list[Parameter]:
    """Options that take no value have no type in the help."""
    for each in params:
        if isinstance(each, TyperOption) and each.is_flag and each.metavar is None:
            each.metavar = ""
    return params


class Plain(TyperGroup):
    """A group whose help says nothing of types of options that take no value."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return _plain(super().get_params(ctx))


class Worded(TyperCommand):
    """A command whose usage line names its arguments as the documentation does: FILE, [ROLLOUT]."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return _plain(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        arguments = [each for each in self.params if each.param_type_name == "argument"]
        named = ((each.metavar or str(each.name).upper()) + ("..." if each.nargs == -1 else "") for each in arguments)
        return [self.options_metavar or "", *named]


class LateGroup(Plain):
    """Holds placeholders for what ``LATE`` names and replaces one when it is called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, late in LATE.items():
            self.commands[name] = TyperCommand(
                name, short_help=late.short.rstrip("."), help=late.short, rich_help_panel=late.panel, hidden=late.hidden
            )

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The real command of that name."""
        if args and (late := LATE.get(args[0])) is not None:
            made = typer.main.get_command(late.build())
            made.name = args[0]
            self.commands[args[0]] = made
        return super().resolve_command(ctx, args)


def command(app: typer.Typer, name: str, *examples: str) -> Callable[[_F], _F]:
    """Register a command of a group; its help is its docstring, then its examples."""

    def register(function: _F) -> _F:
        EXAMPLES[f"{app.info.name} {name}"] = examples
        app.command(name, cls=Worded, help=_help(function, examples), short_help=_short(function))(function)
        return function

    return register


def top(name: str, *examples: str, panel: str, hidden: bool = False) -> Callable[[_F], _F]:
    """Register a command at the top of the tree."""

    def register(function: _F) -> _F:
        EXAMPLES[name] = examples

        def build() -> typer.Typer:
            alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
            alone.command(name, cls=Worded, help=_help(function, examples))(function)
            return alone

        LATE[name] = Late(_short(function), build, panel, hidden)
        return function

    return register


def late_group(name: str, module: str, short: str, *, panel: str) -> None:
    """Register a group whose module, with an ``app`` in it, is imported when it is used."""

    def build() -> typer.Typer:
        from importlib import import_module

        group = import_module(f"orchestrator.cli.{module}").app
        assert isinstance(group, typer.Typer)
        group.info.help = short
        return group

    LATE[name] = Late(short, build, panel)


def group(name: str) -> typer.Typer:
    """An empty group for a module to fill; its help stands where it is registered."""
    return typer.Typer(name=name, cls=Plain, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


def _text(function: Callable[..., None]) -> str:
    return " ".join((function.__doc__ or "").split())


def _short(function: Callable[..., None]) -> str:
    return _text(function).split(";")[0].rstrip(".")


def _help(function: Callable[..., None], examples: tuple[str, ...]) -> str:
    shown = "\n".join(f"  {example}" for example in examples)
    return f"{_text(function)}\n\n\b\nExample{'s' if len(examples) > 1 else ''}:\n{shown}"
