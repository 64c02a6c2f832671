"""JSON Schema (2020-12) of the files people write, for editors: generated from the models, descriptions included.

A schema says what one key may hold; what holds between keys (cycles, waves that no device can be in, a ceiling below
its floor, names of time zones) only the loader knows. So the schema never refuses what the loader takes.
"""

from __future__ import annotations

from typing import Any

from orchestrator.core.document import Document
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> dict[str, Any]:
    """For ``policies/*.yaml``."""
    return _schema(Policy, "wave policy")


def rollout_schema() -> dict[str, Any]:
    """For rollout files."""
    return _schema(RolloutFile, "wave rollout")


def fleet_schema() -> dict[str, Any]:
    """For fleet files."""
    return _schema(FleetFile, "wave fleet")


def _schema(kind: type[Document], title: str) -> dict[str, Any]:
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, **_for_editors(schema), "title": title}


def _for_editors(schema: Any) -> Any:
    """Without nulls (a key is left out, not emptied), and without what pydantic makes of field names and defaults."""
    if isinstance(schema, list):
        return [_for_editors(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {
        key: {name: _for_editors(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else value
        if key in ("examples", "const", "enum")
        else _for_editors(value)
        for key, value in schema.items()
        if key not in ("title", "default")
    }
    if isinstance(made.get("description"), str):
        made["description"] = made["description"].replace("``", "`").split("\n\n")[0]
    if isinstance(made.get("anyOf"), list):
        choices = [each for each in made["anyOf"] if each != {"type": "null"}]
        if len(choices) == 1:
            del made["anyOf"]
            made = {**choices[0], **made}
        else:
            made["anyOf"] = choices
    return made
