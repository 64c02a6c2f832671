"""Operations whose parameters or answers travel in another shape than the service has them: files as their text or
their object, filters word by word, long runs as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypedDict, Unpack

from orchestrator.core.artifact import Artifact
from orchestrator.core.fleet import Device, DeviceStatus, Target, check_name
from orchestrator.errors import InvalidInput
from orchestrator.services.application import Application
from orchestrator.services.authority import DEVICE_FOR, Issued, earliest
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.delta_views import DeltaView
from orchestrator.services.editing import Applied
from orchestrator.services.failing import Failing
from orchestrator.services.gate_trials import GateTrial
from orchestrator.services.mender.sets import AuthSet
from orchestrator.services.notices import Delivered
from orchestrator.services.records import DeviceFilter
from orchestrator.services.replayed import Replayed
from orchestrator.services.targets import Imported
from orchestrator.services.tuf import RootView
from orchestrator.services.verifying import Verified
from orchestrator.services.views import RolloutPlan

Document = str | dict[str, Any]
"""A file that a person wrote: its text, or what stands in it; of a policy also the name of an installed one."""

MOST_AT_ONCE: Final = 2_000
"""Devices that one request enrols."""

MOST_VALUES: Final = 100
"""Of each kind, in what fails most."""

LONGEST_DAYS: Final = 36_500
"""For which a certificate may be good."""

_ALL: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device to enrol."""

    id: str
    hardware_id: str
    tag: str
    group: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A policy with every default filled in."""

    name: str
    digest: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ArtifactCheck:
    """What reading an artifact from end to end came to; ``problem``: what is wrong with it."""

    artifact: Artifact
    problem: str | None


@dataclass(frozen=True, slots=True)
class Destinations:
    """The names that a policy may send messages to, and the file there that says where they lead."""

    file: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TufRoots:
    """As ``services.tuf.TufView``; ``place``: the directory there."""

    place: str
    roots: tuple[RootView, ...]
    root_key: bool
    problem: str | None


# ------------------------------------------------------------------------------------------------- rollouts


def apply(
    app: Application,
    *,
    rollout: Document,
    policy: Document | None = None,
    by: str,
    reason: str | None = None,
    yes: bool = False,
    allow_wider: Sequence[str] = (),
    dry_run: bool = False,
) -> Applied:
    """Bind a rollout to copies of its file and its policy; without ``policy`` it is the installed one that the file
    names."""
    spec, bound = app.files.said(rollout, policy)
    return app.rollouts.apply(spec, bound, by=by, reason=reason, yes=yes, allow_wider=allow_wider, dry_run=dry_run)


def plan(app: Application, *, rollout: Document, policy: Document | None = None) -> RolloutPlan:
    """What a rollout would do, wave by wave; nothing is changed."""
    return app.planner.plan(*app.files.said(rollout, policy))


def replay(app: Application, *, name: str, policy: Document | None = None) -> Replayed:
    """Make every recorded decision again; with ``policy``, what that one would have decided."""
    return app.replayer.replay(name, policy=None if policy is None else app.files.policy_said(policy))


def ask_gates(
    app: Application,
    *,
    policy: Document | None = None,
    rollout: str | None = None,
    wave: str | None = None,
    gates: Sequence[str] = (),
    by: str,
) -> GateTrial:
    """Ask gates now, once: those of a policy, or of a rollout's wave. It decides nothing; a log says who asked."""
    asked = None if policy is None else app.files.policy_said(policy)
    return app.gates.ask(asked, by=by, rollout=rollout, wave=wave, only=gates)


def verify_journals(
    app: Application, *, name: str | None = None, after: str | None = None, limit: int = 100
) -> list[Verified]:
    """Find whatever was changed, removed, moved or cut off in journals, evidence logs and bound files."""
    return list(islice(app.verifier.verify(name, after=after), limit))


def failing(app: Application, *, name: str | None = None, limit: int = 5) -> Failing:
    """What fails most in a rollout; of each kind at most ``limit`` values."""
    if not 1 <= limit <= MOST_VALUES:
        raise InvalidInput(f"Of each kind there are 1 to {MOST_VALUES} values, not {limit:,}.")
    return app.queries.failing(name, limit=limit)


# ------------------------------------------------------------------------------------------------- devices


class Which(TypedDict, total=False):
    """Of which devices. ``label`` is KEY=VALUE; ``text``: part of the id."""

    tag: str | None
    group: str | None
    hardware_id: str | None
    label: str | None
    status: DeviceStatus | None
    version: int | None
    text: str | None


def _filter(*, label: str | None = None, **words: Any) -> DeviceFilter:
    if label is None:
        return DeviceFilter(**words)
    key, equals, value = label.partition("=")
    if not equals or not key or not value:
        raise InvalidInput(f"{label[:80]!r} is no label.", remedy="Write it KEY=VALUE, such as region=emea.")
    return DeviceFilter(label=(key, value), **words)


def devices(
    app: Application, *, after: str | None = None, limit: int = 100, **which: Unpack[Which]
) -> Sequence[Device]:
    """Devices by id. ``label`` is KEY=VALUE; ``text``: part of the id."""
    return app.queries.devices(_filter(**which), after=after, limit=limit)


def count_devices(app: Application, **which: Unpack[Which]) -> int:
    """How many devices there are like that."""
    return app.queries.count_devices(_filter(**which))


def enroll(
    app: Application, *, devices: Sequence[Enrolled], by: str, tokens: bool = True, renew: bool = False
) -> list[tuple[str, str | None]]:
    """Add devices, or bring known ones up to date; each id with its new token, which is shown this once."""
    if len(devices) > MOST_AT_ONCE:
        raise InvalidInput(f"{len(devices):,} devices at once are too many.", remedy=f"Send {MOST_AT_ONCE:,} at most.")
    wanted = [Device(one.id, one.hardware_id, one.tag, group=one.group, labels=one.labels) for one in devices]
    return list(app.devices.register.enroll(wanted, tokens=tokens, renew=renew, by=by))


def sets_that_wait(app: Application, *, asked_within: timedelta | None = None) -> list[AuthSet]:
    """Authentication sets of the Mender protocol that wait for a person, who asked last coming first."""
    return list(app.mender.waiting(asked_within=asked_within, limit=_ALL))


def issue_certificate(app: Application, *, device_id: str, request: str, by: str, days: int | None = None) -> Issued:
    """Sign a device's certificate for the key in its request: no private key travels."""
    check_name(device_id, "device id")
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise InvalidInput(f"A certificate is good for 1 to {LONGEST_DAYS:,} days, not {days:,}.")
    since = earliest(device_id, app.devices.identity.revoked_certificates(), app.clock())
    lasts = DEVICE_FOR if days is None else timedelta(days=days)
    app.house_log.note("certificate_signed", device_id, f"had a certificate signed for device {device_id}", by=by)
    return app.authority().device(device_id, request=request, lasts=lasts, since=since)


def authority_certificate(app: Application) -> str:
    """What devices and the gateway trust, in PEM."""
    return app.authority().certificate()


def tuf_roots(app: Application) -> TufRoots:
    """The roots by which aktualizr-lite devices trust what they are shown, newest first."""
    found = app.tuf().show()
    return TufRoots(str(found.place), found.roots, found.root_key, found.problem)


# ------------------------------------------------------------------------------------------------- messages


def destinations(app: Application) -> Destinations:
    """The names that a policy may send messages to; addresses are not told."""
    return Destinations(str(app.settings.destinations_path), tuple(app.notices.destinations()))


def deliver_notices(app: Application) -> Delivered:
    """Send the messages that are due, once, there and now."""
    return app.notices.deliver()


# ------------------------------------------------------------------------------------------------- content


def add_target_of_artifact(
    app: Application,
    *,
    version: int,
    artifact: str,
    by: str,
    hardware_ids: Sequence[str] = (),
    tags: Sequence[str] = (),
    name: str | None = None,
    dry_run: bool = False,
) -> tuple[Target, bool]:
    """Add a Target that is a file; ``artifact``: its sha256, its name or its file name."""
    found = app.artifacts.find(artifact)
    return app.targets.add_artifact(
        version=version, artifact=found, hardware_ids=hardware_ids, tags=tags, name=name, dry_run=dry_run, by=by
    )


def import_targets(app: Application, *, document: str, by: str, dry_run: bool = False) -> Sequence[Imported]:
    """Take over the OSTree Targets of a Foundries ``targets.json``, whose text this is."""
    return app.targets.import_foundries(document.encode(), dry_run=dry_run, by=by)


def verify_artifacts(app: Application, *, which: str | None = None) -> list[ArtifactCheck]:
    """Read one, or all, from end to end."""
    return [ArtifactCheck(artifact, wrong) for artifact, wrong in app.artifacts.verify(which)]


def request_deltas(app: Application, *, pairs: Sequence[DeltaPair], by: str) -> int:
    """Have these built; how many builds were queued."""
    return app.deltas.request(pairs, by=by)


def show_delta(app: Application, *, before: str, after: str, hardware_id: str | None = None) -> DeltaView:
    """One delta, with its estimate and its log. ``before`` and ``after``: versions, commits, or their first digits;
    ``nothing``: from scratch."""
    return app.deltas.show(app.deltas.resolve_pair(before, after, hardware_id))


# ------------------------------------------------------------------------------------------------- policies, time


def now(app: Application) -> datetime:
    """What time it is there."""
    return app.clock()


def policies(app: Application) -> list[PolicyView]:
    """The policies that a rollout file can name."""
    return [policy(app, name=name) for name in app.files.policies()]


def policy(app: Application, *, name: str) -> PolicyView:
    """One of them."""
    found = app.files.policy_said(name)
    return PolicyView(found.name, found.digest(), found.document())
