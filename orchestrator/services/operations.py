"""What an operator can do from afar, one row each: the HTTP API is made from this table, and so is the command line
that drives another machine.

A row names a method of a service, or a function here where the wire wants another shape; the types of its parameters
and of its answer are what travels (``services.wire``). ``by`` is never sent: it is who asks. Answers for: which
operation, on which path, for whom. Not for: HTTP (``web.api``), or what an operation means (the services).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from types import GenericAlias, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from orchestrator.core.roles import Role
from orchestrator.services import remotely
from orchestrator.services.application import Application
from orchestrator.services.artifacts import Artifacts
from orchestrator.services.deltas import Deltas
from orchestrator.services.house_log import HouseLog
from orchestrator.services.identity import Identity
from orchestrator.services.mender.operating import Operating
from orchestrator.services.notices import Notices
from orchestrator.services.people_orders import People
from orchestrator.services.people_views import (
    NewToken,
    PersonView,
    TokenView,
    new_token,
    person_view,
    person_views,
    token_views,
)
from orchestrator.services.queries import Queries
from orchestrator.services.register import Register
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.targets import Targets

NOBODY: Final = "-"
"""In a path: what is left out, such as the name of the one live rollout. It can be nobody's name."""

NOT_SENT: Final = frozenset({"self", "app", "by", "progress", "subject"})
"""Parameters that are the server's own: whose order it is, and who somebody is at the provider of identities."""

_WHOLE: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""As large as a database keeps it."""

_MOMENT: Final = Annotated[datetime, msgspec.Meta(tz=True)]
"""Nobody knows when a time without a zone is."""


@dataclass(frozen=True, slots=True)
class Listing:
    """An answer that may be long. ``key`` names an item within its list. ``native``: the method itself goes on
    ``after`` a key and keeps to a ``limit``; else the list is cut here."""

    key: Callable[[Any], str | int]
    native: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do. ``service``: where it is in an ``Application``, dotted; empty for a function of the whole.
    ``listing``: the answer is a page of a list. ``secret``: the answer holds what is shown once, and is kept nowhere.
    ``confides``: what is sent holds a secret. ``clean``: what of the answer may go out, as an ``answer`` where that is
    of another type."""

    method: str
    path: str
    role: Role
    service: str
    call: Callable[..., Any]
    listing: Listing | None = None
    secret: bool = False
    confides: bool = False
    clean: Callable[[Any], Any] | None = None
    answer: Any = None

    @property
    def key(self) -> str:
        """``rollouts.halt``."""
        return f"{self.service}.{self.call.__name__}" if self.service else self.call.__name__

    @property
    def writes(self) -> bool:
        """Whether something may be other after it: what viewers may ask for changes nothing, though it is sent."""
        return self.method != "GET" and self.role is not Role.VIEWER

    def carry_out(self, app: Application, given: Mapping[str, Any], *, by: str) -> Any:
        """Do it. Raises what the service raises."""
        if "by" in inspect.signature(self.call).parameters:
            given = {**given, "by": by}
        subject: Any = app
        for part in self.service.split(".") if self.service else ():
            subject = getattr(subject, part)
        done = self.call(subject, **given)
        return done if self.clean is None else self.clean(done)


@dataclass(frozen=True, slots=True)
class Shape:
    """The types of an operation. ``path``: what stands in its path, ``rest``: in its query or its body, and ``fields``
    of that; ``answer``: of one item where it is a list."""

    path: Mapping[str, Any]
    rest: type[msgspec.Struct]
    fields: tuple[msgspec.structs.FieldInfo, ...]
    answer: Any


_SEVERAL: Final = (list, Sequence, Collection)


@cache
def shape_of(operation: Operation) -> Shape:
    """Worked out when it is first asked for."""
    hints = get_type_hints(operation.call)
    answer = operation.answer or hints["return"]
    sent: dict[str, tuple[Any, Any]] = {}
    for name, given in inspect.signature(operation.call).parameters.items():
        if given.kind is inspect.Parameter.VAR_KEYWORD:
            # Unpack[…] of a TypedDict, each of whose words may be left out
            (words,) = get_args(hints[name])
            sent |= {word: (_bounded(kind), None) for word, kind in get_type_hints(words).items()}
        elif name not in NOT_SENT:
            sent[name] = (_bounded(hints[name]), given.default)
    in_path = {name: kind for name, (kind, _) in sent.items() if f"{{{name}}}" in operation.path}
    taken = {name: each for name, each in sent.items() if name not in in_path}
    if operation.listing is not None and operation.listing.native:
        taken.pop("limit")
    fields = [
        (name, kind) if default is inspect.Parameter.empty else (name, kind, _default(default))
        for name, (kind, default) in taken.items()
    ]
    name = "".join(part.capitalize() for part in operation.key.replace(".", "_").split("_"))
    rest = msgspec.defstruct(f"{name}Given", fields, kw_only=True, forbid_unknown_fields=True)
    if operation.listing is not None:
        answer = get_args(answer)[0]
    elif get_origin(answer) is Iterator:
        answer = GenericAlias(list, get_args(answer))
    return Shape(in_path, rest, msgspec.structs.fields(rest), answer)


def _bounded(kind: Any) -> Any:
    """The same, with numbers no larger than can be kept, and times with a zone."""
    if kind in (int, datetime):
        return _WHOLE if kind is int else _MOMENT
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(_bounded(each) for each in get_args(kind))]  # noqa: UP007 - made of what is found
    if get_origin(kind) in _SEVERAL and get_args(kind) == (int,):
        return GenericAlias(list, (_WHOLE,))
    return kind


def _default(value: Any) -> Any:
    return {} if isinstance(value, Mapping) else value


def _without_digests(grants: Any) -> Any:
    """What a token's text is compared with is nobody's business."""
    match grants:
        case tuple():
            grant, token = grants
            return replace(grant, digest=b""), token
        case _:
            return [replace(grant, digest=b"") for grant in grants]


_VIEWER, _RELEASER, _ADMIN = Role.VIEWER, Role.RELEASER, Role.ADMIN
_NEXT: Final = Listing(lambda each: int(each.number), native=True)
_BY_NAME: Final = Listing(lambda each: str(each.name))


def _order(path: str, call: Callable[..., Any]) -> Operation:
    return Operation("POST", path, _RELEASER, "rollouts", call)


def _register(path: str, call: Callable[..., Any], *, secret: bool = False) -> Operation:
    return Operation("POST", path, _ADMIN, "devices.register", call, secret=secret)


def _person(path: str, call: Callable[..., Any], *, confides: bool = False) -> Operation:
    """Names of people stand in no path: they may hold anything that can be printed."""
    return Operation("POST", path, _ADMIN, "people", call, confides=confides, clean=person_view, answer=PersonView)


OPERATIONS: Final = (
    # rollouts, and what people order
    Operation("GET", "/rollouts", _VIEWER, "queries", Queries.summaries, Listing(lambda each: f"{each.rollout}")),
    Operation("POST", "/rollouts", _RELEASER, "", remotely.apply),
    Operation("GET", "/rollouts/{name}", _VIEWER, "queries", Queries.rollout),
    Operation(
        "GET", "/rollouts/{name}/journal", _VIEWER, "queries", Queries.journal, Listing(lambda e: int(e.seq), True)
    ),
    Operation("GET", "/rollouts/{name}/failing", _VIEWER, "", remotely.failing),
    Operation("POST", "/rollouts/{name}/replay", _VIEWER, "", remotely.replay),
    _order("/rollouts/{name}/start", Rollouts.start),
    _order("/rollouts/{name}/pause", Rollouts.pause),
    _order("/rollouts/{name}/resume", Rollouts.resume),
    _order("/rollouts/{name}/waves/{wave}/promote", Rollouts.promote),
    Operation("POST", "/rollouts/{name}/approve", Role.APPROVER, "rollouts", Rollouts.approve),
    _order("/rollouts/{name}/waves/{wave}/skip", Rollouts.skip),
    _order("/rollouts/{name}/complete", Rollouts.complete),
    _order("/rollouts/{name}/halt", Rollouts.halt),
    _order("/rollouts/{name}/cancel", Rollouts.cancel),
    _order("/rollouts/{name}/exclude", Rollouts.exclude),
    _order("/rollouts/{name}/include", Rollouts.include),
    _order("/rollouts/{name}/retry", Rollouts.retry),
    _order("/freeze", Rollouts.freeze),
    _order("/unfreeze", Rollouts.unfreeze),
    Operation("POST", "/plans", _VIEWER, "", remotely.plan),
    Operation(
        "GET", "/journal/verification", _VIEWER, "", remotely.verify_journals, Listing(lambda v: f"{v.rollout}", True)
    ),
    Operation("POST", "/gates/ask", _RELEASER, "", remotely.ask_gates),
    Operation("GET", "/log", _VIEWER, "house_log", HouseLog.events, _NEXT),
    # the fleet
    Operation("GET", "/devices", _VIEWER, "", remotely.devices, Listing(lambda each: str(each.id), True)),
    Operation("GET", "/counts/devices", _VIEWER, "", remotely.count_devices),
    Operation("GET", "/devices/{device_id}", _VIEWER, "queries", Queries.device),
    Operation("POST", "/devices", _ADMIN, "", remotely.enroll, secret=True),
    _register("/devices/group", Register.set_group),
    _register("/devices/label", Register.set_label),
    _register("/devices/status", Register.set_status),
    _register("/groups", Register.add_group),
    _register("/devices/{old_id}/replace", Register.replace, secret=True),
    _register("/devices/{device_id}/token", Register.new_token, secret=True),
    _register("/devices/{device_id}/revoke", Register.revoke),
    Operation(
        "GET",
        "/enrolments",
        _VIEWER,
        "devices.identity",
        Identity.grants,
        _BY_NAME,
        clean=_without_digests,
    ),
    Operation("POST", "/enrolments", _ADMIN, "devices.identity", Identity.add, secret=True, clean=_without_digests),
    Operation("DELETE", "/enrolments/{name}", _ADMIN, "devices.identity", Identity.revoke),
    Operation("GET", "/mender/sets", _VIEWER, "mender", Operating.sets, Listing(lambda each: str(each.id), True)),
    Operation("POST", "/mender/sets/{which}/accept", _ADMIN, "mender", Operating.accept),
    Operation("POST", "/mender/sets/{which}/reject", _ADMIN, "mender", Operating.reject),
    Operation("POST", "/mender/sets/{which}/decommission", _ADMIN, "mender", Operating.decommission),
    Operation("POST", "/mender/sets", _ADMIN, "mender", Operating.preauthorize),
    Operation("GET", "/mender/waiting", _VIEWER, "", remotely.sets_that_wait, Listing(lambda each: str(each.id))),
    Operation("POST", "/mender/waiting/reject", _ADMIN, "mender", Operating.reject_waiting),
    Operation(
        "GET",
        "/certificates/revoked",
        _VIEWER,
        "devices.identity",
        Identity.revoked_certificates,
        Listing(lambda each: f"{each.kind} {each.value}"),
    ),
    Operation("POST", "/certificates/revoke", _ADMIN, "devices.identity", Identity.revoke_certificates),
    Operation("POST", "/certificates/allow", _ADMIN, "devices.identity", Identity.allow_certificates),
    Operation("GET", "/certificates/authority", _VIEWER, "", remotely.authority_certificate),
    Operation("POST", "/certificates", _ADMIN, "", remotely.issue_certificate),
    Operation("GET", "/tuf", _VIEWER, "", remotely.tuf_roots),
    # people, for admins alone
    Operation(
        "GET",
        "/people",
        _ADMIN,
        "people",
        People.all,
        _BY_NAME,
        clean=person_views,
        answer=list[PersonView],
    ),
    Operation("GET", "/person", _ADMIN, "people", People.get, clean=person_view, answer=PersonView),
    _person("/people", People.add, confides=True),
    _person("/people/roles", People.set_roles),
    _person("/people/password", People.set_password, confides=True),
    _person("/people/disable", People.disable),
    _person("/people/enable", People.enable),
    Operation("GET", "/people/log", _ADMIN, "people", People.events, _NEXT),
    Operation(
        "GET",
        "/tokens",
        _ADMIN,
        "people",
        People.tokens,
        _BY_NAME,
        clean=token_views,
        answer=list[TokenView],
    ),
    Operation("POST", "/tokens", _ADMIN, "people", People.add_token, secret=True, clean=new_token, answer=NewToken),
    Operation("DELETE", "/tokens/{name}", _ADMIN, "people", People.revoke_token),
    # messages
    Operation("GET", "/notices", _VIEWER, "notices", Notices.list, Listing(lambda each: int(each.key), True)),
    Operation("GET", "/counts/notices", _VIEWER, "notices", Notices.counts),
    Operation("GET", "/destinations", _VIEWER, "", remotely.destinations),
    Operation("POST", "/notices/retry", _RELEASER, "notices", Notices.retry),
    Operation("POST", "/notices/test", _RELEASER, "notices", Notices.test),
    Operation("POST", "/notices/deliver", _RELEASER, "", remotely.deliver_notices),
    # content
    Operation("GET", "/targets", _VIEWER, "targets", Targets.list, _BY_NAME),
    Operation("POST", "/targets", _RELEASER, "targets", Targets.add),
    Operation("GET", "/targets/{which}", _VIEWER, "targets", Targets.show, Listing(lambda v: str(v.target.name))),
    Operation("POST", "/targets/of-artifact", _RELEASER, "", remotely.add_target_of_artifact),
    Operation("POST", "/targets/tags", _RELEASER, "targets", Targets.tag),
    Operation("POST", "/targets/import", _RELEASER, "", remotely.import_targets),
    Operation("GET", "/artifacts", _VIEWER, "artifacts", Artifacts.list, Listing(lambda v: str(v.artifact.sha256))),
    Operation("GET", "/artifacts/{which}", _VIEWER, "artifacts", Artifacts.show),
    Operation("POST", "/artifacts/verify", _VIEWER, "", remotely.verify_artifacts),
    Operation("DELETE", "/artifacts/{which}", _RELEASER, "artifacts", Artifacts.remove),
    Operation(
        "GET", "/deltas", _VIEWER, "deltas", Deltas.list, Listing(lambda v: f"{v.pair.from_commit}-{v.pair.to_commit}")
    ),
    Operation("POST", "/deltas", _RELEASER, "", remotely.request_deltas),
    Operation("GET", "/deltas/{before}/{after}", _VIEWER, "", remotely.show_delta),
    Operation("GET", "/delta-pairs", _VIEWER, "deltas", Deltas.resolve_pair),
    Operation("GET", "/static-deltas", _VIEWER, "deltas", Deltas.static_deltas),
    Operation("POST", "/deltas/drop", _RELEASER, "deltas", Deltas.drop),
    Operation("POST", "/deltas/verify", _RELEASER, "deltas", Deltas.verify),
    # policies, and the time
    Operation("GET", "/now", _VIEWER, "", remotely.now),
    Operation("GET", "/policies", _VIEWER, "", remotely.policies, _BY_NAME),
    Operation("GET", "/policies/{name}", _VIEWER, "", remotely.policy),
)

BY_KEY: Final[Mapping[str, Operation]] = {operation.key: operation for operation in OPERATIONS}
