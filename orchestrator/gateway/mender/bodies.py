"""What a Mender client sends and gets, field by field. What is not named here is ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from msgspec import Meta, Struct, field

from orchestrator.gateway.http import Problem
from orchestrator.services.mender.conversation import Told
from orchestrator.services.mender.deployments import DeploymentStatus
from orchestrator.services.mender.logs import Line

MOST_ATTRIBUTES: Final = 1_000
MOST_LINES: Final = 20_000
LONGEST_QUERY: Final = 2_048


class Attribute(Struct, frozen=True):
    """One of the inventory: a text, a number, or a list of them."""

    name: str
    value: Any = None


Attributes = Annotated[list[Attribute], Meta(max_length=MOST_ATTRIBUTES)]


class Next(Struct, frozen=True):
    """Version 2 of the question for a deployment; version 1 is the inner object alone."""

    device_provides: dict[str, Any] = field(default_factory=dict)


class Status(Struct, frozen=True):
    status: DeploymentStatus
    substate: str | None = None


class Log(Struct, frozen=True):
    messages: Annotated[list[Line], Meta(max_length=MOST_LINES)]


class AuthRequest(Struct, frozen=True):
    """A request to be let in; it is read byte by byte for its signature (``services.mender.signatures``)."""

    id_data: str
    pubkey: str
    tenant_token: str = ""


class Source(Struct, frozen=True):
    """Where an artifact is fetched without a token, and until when."""

    uri: str
    expire: str


class NextArtifact(Struct, frozen=True):
    artifact_name: str
    device_types_compatible: list[str]
    source: Source


class NextDeployment(Struct, frozen=True):
    id: str
    artifact: NextArtifact


def texts(attributes: list[Attribute]) -> Iterator[tuple[str, str]]:
    """Each attribute's value as one text; what is neither text, number nor a list of such is left out."""
    for each in attributes:
        values = each.value if isinstance(each.value, list) else [each.value]
        plain = [_text(value) for value in values if isinstance(value, str | int | float)]
        if plain:
            yield each.name, ",".join(plain)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else str(value).lower()


def provided(said: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in said.items() if isinstance(value, str)}


def queried(query: bytes) -> dict[str, str]:
    """What version 1 says in its address. Raises Problem."""
    if len(query) > LONGEST_QUERY:
        raise Problem(400, "invalid_report", "The address is too long.")
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


def deployment(told: Told) -> NextDeployment:
    """A deployment as the client reads it."""
    source = Source(told.url, _rfc3339(told.expires_at))
    return NextDeployment(told.id, NextArtifact(told.artifact_name, list(told.device_types), source))


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
