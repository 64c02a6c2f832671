"""``wave policy …``: what a release manager decides beforehand, read and checked without an installation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.complete import policy_names
from orchestrator.cli.context import AsJson, invocation
from orchestrator.cli.late import command, group

app = group("policy")


class Schema(StrEnum):
    """What a schema can be had of."""

    POLICY = "policy"
    ROLLOUT = "rollout"
    FLEET = "fleet"


@command(app, "check", "wave policy check policies/standard.yaml", "wave policy check policies/*.yaml examples/*.yaml")
def check(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Policy, rollout or fleet files.")],
    as_json: AsJson = False,
) -> None:
    """Read policy, rollout or fleet files as `apply` would, and say everything that is wrong with them."""
    call = invocation(ctx, as_json=as_json)
    library = call.files()
    said = [library.check(file) for file in files]
    if as_json:
        return call.answer(
            "files", [{"file": str(file), "sentence": each} for file, each in zip(files, said, strict=True)]
        )
    for sentence in said:
        call.show(sentence)


@command(app, "list", "wave policy list")
def list_policies(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the policies that a rollout file can name."""
    call = invocation(ctx, as_json=as_json)
    library = call.files()
    found = [library.policy(name) for name in library.policies()]
    if as_json:
        return call.answer("policies", [{"policy": each.name, "digest": each.digest()} for each in found])
    from orchestrator.cli.render.policy import policies

    call.show(policies(found))


@command(app, "show", "wave policy show standard", "wave policy show ./mine.yaml --json")
def show(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="A name, or a path.", autocompletion=policy_names)],
    as_json: AsJson = False,
) -> None:
    """Show a policy with every default filled in."""
    call = invocation(ctx, as_json=as_json)
    found = call.files().policy(policy)
    if as_json:
        return call.answer("policy", {"policy": found.document(), "digest": found.digest()})
    from orchestrator.cli.render.policy import policy as page

    call.show(page(found))


@command(app, "schema", "wave policy schema", "wave policy schema rollout > rollout.schema.json")
def schema(
    ctx: typer.Context,
    of: Annotated[
        Schema, typer.Argument(metavar="[policy|rollout|fleet]", help="What the schema is of.")
    ] = Schema.POLICY,
    as_json: AsJson = False,
) -> None:
    """Print the JSON Schema of policy, rollout or fleet files, for editors; it is JSON in any case."""
    import json
    import sys

    from orchestrator.core import schema as schemas

    invocation(ctx, as_json=as_json)
    made = {
        Schema.POLICY: schemas.policy_schema,
        Schema.ROLLOUT: schemas.rollout_schema,
        Schema.FLEET: schemas.fleet_schema,
    }[of]()
    sys.stdout.write(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
