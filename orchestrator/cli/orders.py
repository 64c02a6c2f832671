"""What all orders to a rollout share: the options, the question beforehand, and how it is told what they did."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypedDict

import typer

from orchestrator.cli.context import AsJson, Because, DryRun, Yes, confirm, invocation, is_asked
from orchestrator.cli.late import top

if TYPE_CHECKING:
    from orchestrator.services.rollouts import Ordered, Rollouts


class Given(TypedDict):
    """What goes with every order."""

    by: str
    reason: str | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Order:
    """``give`` hands it to the service; ``question`` is what a person is asked first."""

    give: Callable[[Rollouts, Given], Ordered]
    question: str | None = None


def order(
    name: str, *examples: str, panel: str, asks: bool = False
) -> Callable[[Callable[..., Order]], Callable[..., Order]]:
    """Register an order at the top of the tree: the function makes it out of what is its own. ``asks``: there is a
    question, and ``--yes`` not to be asked."""

    def register(function: Callable[..., Order]) -> Callable[..., Order]:
        @wraps(function)
        def run(
            ctx: typer.Context, *, reason: str | None, dry_run: bool, as_json: bool, yes: bool = True, **own: Any
        ) -> None:
            call = invocation(ctx, as_json=as_json)
            made = function(**own)
            given = Given(by=call.by, reason=reason, dry_run=dry_run)
            if made.question is not None and is_asked(call, yes=yes, dry_run=dry_run):
                # What cannot be ordered is refused before anybody is asked.
                with call.application() as app:
                    made.give(app.rollouts, Given(by=call.by, reason=reason, dry_run=True))
                confirm(call, made.question, yes=yes, dry_run=dry_run)
            with call.application() as app:
                done = made.give(app.rollouts, given)
            if as_json:
                return call.answer(
                    "ordered",
                    {
                        "rollout": done.rollout,
                        "status": done.status.value,
                        "sentence": done.sentence,
                        "by": given["by"],
                        "dry_run": dry_run,
                    },
                )
            call.show(f"Dry run, nothing was changed. It would say: {done.sentence}" if dry_run else done.sentence)

        own = inspect.signature(function, eval_str=True).parameters.values()
        shared = [each for each in _SHARED if asks or each.name != "yes"]
        setattr(run, "__signature__", inspect.Signature([_CONTEXT, *own, *shared]))  # noqa: B010 - what typer reads
        top(name, *examples, panel=panel)(run)
        return function

    return register


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


_CONTEXT: Final = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_SHARED: Final = (
    _option("reason", Because, None),
    _option("yes", Yes, False),
    _option("dry_run", DryRun, False),
    _option("as_json", AsJson, False),
)
