"""What Mender devices ask and tell, as check-ins and reports of ours.

::

    inventory            a check-in that only tells: labels, and what it runs
    next deployment      a check-in that asks
    status               a report; refused (409) when the device shall stop
    log                  a report that changes nothing

Which status means what is in ``deployments``. Answers for: who runs what by which words, and what of a device's story
is written down. Not for: HTTP (``gateway.mender``), who may offer what (the device path).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from msgspec import UNSET

from orchestrator.core.artifact import Artifact, Format
from orchestrator.core.fleet import check_name
from orchestrator.core.protocols import DeviceProtocol
from orchestrator.core.states import RolloutStatus
from orchestrator.core.update import EventKind, Update
from orchestrator.errors import NotFound, Refused
from orchestrator.services.chronicle import rules_of
from orchestrator.services.credentials import Shown
from orchestrator.services.devices import Devices, Heard, Kept
from orchestrator.services.futures import then
from orchestrator.services.mender.deployments import (
    TOLD_TO_STOP,
    Course,
    Deployment,
    DeploymentStatus,
    Judgement,
    course_of,
    end_of,
    event_id,
    event_of,
    judge,
)
from orchestrator.services.mender.inventory import Provides, labels_of, provides_of
from orchestrator.services.mender.logs import Line, gist
from orchestrator.services.messages import CheckIn, Offer, OwnEvent, Received, ReportedEvent
from orchestrator.services.remembered import Remembered
from orchestrator.services.running import as_offered, unknown_commit
from orchestrator.services.store import Store

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

KNOWN_FOR: Final = timedelta(minutes=1)
"""How long it is remembered what an artifact's name stands for."""

UNKNOWN_FOR: Final = timedelta(seconds=5)
"""The same for a name that stands for nothing: it may be added."""

MOST_NAMES: Final = 10_000
MOST_EVENTS: Final = 100
"""Of what was said of a deployment, the newest that are looked at; an attempt has no more than twelve."""

LOG_CODE: Final = "log"
URL_FOR: Final = timedelta(hours=24)
"""For how long the client is told that a download's address is good; ``Downloads`` makes it good for longer."""


@dataclass(frozen=True, slots=True)
class Told:
    """A deployment, as the client takes it."""

    id: str
    artifact_name: str
    device_types: tuple[str, ...]
    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _About:
    """A deployment that is this device's: the rollout, the update as it stands, and what was said of it."""

    rollout: str
    target: int
    status: RolloutStatus
    cancels: bool
    update: Update
    current: bool
    event_ids: tuple[str, ...]


@dataclass(slots=True)
class Conversations:
    """``known`` is everywhere what ``Devices.let_in`` said, so nobody gets here without a good token."""

    store: Store
    devices: Devices
    clock: Callable[[], datetime]
    _names: Remembered[tuple[str, str], tuple[str | None, datetime]] = field(
        default_factory=lambda: Remembered(MOST_NAMES)
    )

    # ------------------------------------------------------------------------------------------ check-ins

    def tell(self, shown: Shown, attributes: Sequence[tuple[str, str]], known: Kept, *, keep: bool) -> Future[Heard]:
        """Its inventory; with ``keep`` what it does not name stays. Raises InvalidInput, Busy, Unauthorized, at once or
        in the future."""
        device = known.person.device
        labels = labels_of(attributes)
        if keep:
            labels = labels_of([*device.labels.items(), *labels.items()])
        provides = provides_of(dict(attributes))

        def say(commit: str | None) -> Future[Heard]:
            version = device.version if provides is None else None
            hardware_id = None if provides is None else provides.device_type
            said = CheckIn(commit, version, hardware_id, labels=labels, healthy=device.healthy)
            return self._check_in(device.id, shown, said, known, asks=False)

        return say(device.commit) if provides is None else self._runs(known, provides, say)

    def ask(self, shown: Shown, provided: Mapping[str, str], known: Kept) -> Future[Told | None]:
        """Its next deployment, if there is one. Raises as ``tell``."""
        device_id = known.person.device.id
        provides = provides_of(provided)

        def say(commit: str | None) -> Future[Heard]:
            said = None if provides is None else CheckIn(commit, None, provides.device_type)
            return self._check_in(device_id, shown, said, known, asks=True)

        heard = say(None) if provides is None else self._runs(known, provides, say)
        return then(heard, lambda found: self._told(device_id, found))

    def _check_in(
        self, device_id: str, shown: Shown, said: CheckIn | None, known: Kept, *, asks: bool
    ) -> Future[Heard]:
        found = self.devices.check_in(device_id, shown, said, known=known, over=DeviceProtocol.MENDER, asks=asks)
        return found if isinstance(found, Future) else _done(found)

    def _runs(self, known: Kept, provides: Provides, say: Callable[[str | None], Future[Heard]]) -> Future[Heard]:
        """Go on with the commit that the device runs by its own words: one of its own that nobody has, where they stand
        for nothing here; None when it does not know itself."""
        hardware_id = provides.device_type or known.person.device.hardware_id
        check_name(hardware_id, "hardware id")
        now = self.clock()

        def runs(commit: str | None) -> Future[Heard]:
            if not provides.names:
                return say(None)
            name = provides.names[0]
            updates = (earlier.update for earlier, _ in known.had.values())
            return say(as_offered(hardware_id, name, commit or unknown_commit(hardware_id, name), updates))

        for name in provides.names:
            commit, until = self._names.get((hardware_id, name)) or (None, now)
            if now >= until:
                return self.devices.aside(lambda: runs(self._look_up(hardware_id, provides.names, now)))
            if commit is not None:
                return runs(commit)
        return runs(None)

    def _look_up(self, hardware_id: str, names: Sequence[str], now: datetime) -> str | None:
        with self.store.reading() as r:
            for name in names:
                commit = r.artifact_of_version(hardware_id, name)
                self._names.put((hardware_id, name), (commit, now + (UNKNOWN_FOR if commit is None else KNOWN_FOR)))
                if commit is not None:
                    return commit
        return None

    def _told(self, device_id: str, heard: Heard) -> Told | None:
        offer = heard.offer
        if offer is None:
            return None
        snapshot = self.devices.board.look(self.clock())
        row = snapshot.by_name.get(offer.rollout)
        update = None if row is None else heard.update(row.key)
        if row is None or update is None or offer.artifact is UNSET:
            _log.warning("device %s was offered %s, which is no Mender Artifact", device_id, offer.target.name)
            return None
        artifact = self._artifact(row.key, offer)
        if artifact is None or artifact.format is not Format.MENDER:
            _log.warning("device %s was offered %s, which is no Mender Artifact", device_id, offer.target.name)
            return None
        name = Deployment.of(row.key, update).name(device_id)
        # A delta is offered over this protocol only where it is an artifact that the client installs as it is.
        url = offer.artifact.url if offer.delta is None or offer.delta.url is UNSET else offer.delta.url
        return Told(name, artifact.name, artifact.compatible, url, self.clock() + URL_FOR)

    def _artifact(self, rollout_key: int, offer: Offer) -> Artifact | None:
        listed = self.devices.board.look(self.clock()).listed.get(rollout_key)
        found = None if listed is None else listed.artifacts.get(offer.target.commit)
        if found is not None:
            return found
        with self.store.reading() as r:
            return r.artifact(offer.target.commit)

    # ------------------------------------------------------------------------------------------ reports

    def status(
        self, shown: Shown, deployment_id: str, status: DeploymentStatus, substate: str | None, known: Kept
    ) -> Future[None]:
        """How far it is, once that is committed. The future raises NotFound for a deployment that is not this device's,
        Refused when the device shall stop; Unauthorized, Busy."""
        return self.devices.aside(lambda: self._status(shown, deployment_id, status, substate, known))

    def _status(
        self, shown: Shown, deployment_id: str, status: DeploymentStatus, substate: str | None, known: Kept
    ) -> Future[None]:
        about = self._about(known, deployment_id)
        course = course_of(deployment_id, about.event_ids, status)
        match judge(status, about.update, about.status, current=about.current, cancels=about.cancels, told=course.told):
            case Judgement.ABORT:
                return self._stop(shown, deployment_id, course, about, known)
            case Judgement.IGNORE:
                return _done(None)
            case Judgement.STOPPED:
                kind = end_of(about.update)
            case Judgement.REPORT:
                kind = event_of(status, about.update, course.said)
        code = course.said[-1] if status is DeploymentStatus.FAILURE and course.said else None
        event = ReportedEvent(
            event_id(deployment_id, course, status), about.rollout, about.target, kind, code=code, message=substate
        )
        return then(self.devices.report(known.person.device.id, shown, [event], known=known), _taken)

    def _stop(self, shown: Shown, deployment_id: str, course: Course, about: _About, known: Kept) -> Future[None]:
        """Tell it to stop, once that is written down: a failure that follows is of our making, whoever hears of it. Of
        an offer before the one that stands no failure counts in any case."""
        if course.told or not about.current:
            raise _stops()
        known_by = event_id(deployment_id, course, TOLD_TO_STOP)
        event = OwnEvent(known_by, about.rollout, about.target, EventKind.NOTED, code=TOLD_TO_STOP)

        def refuse(received: Received) -> None:
            raise _stops()

        return then(self.devices.report(known.person.device.id, shown, [event], known=known), refuse)

    def log(self, shown: Shown, deployment_id: str, lines: Sequence[Line], known: Kept) -> Future[None]:
        """What the client has written about it; of each attempt once. The future raises as that of ``status``."""
        return self.devices.aside(lambda: self._keep_log(shown, deployment_id, lines, known))

    def _keep_log(self, shown: Shown, deployment_id: str, lines: Sequence[Line], known: Kept) -> Future[None]:
        about = self._about(known, deployment_id)
        course = course_of(deployment_id, about.event_ids, DeploymentStatus.FAILURE)
        event = ReportedEvent(
            event_id(deployment_id, course, LOG_CODE),
            about.rollout,
            about.target,
            EventKind.NOTED,
            code=LOG_CODE,
            message=gist(lines),
        )
        return then(self.devices.report(known.person.device.id, shown, [event], known=known), _taken)

    def _about(self, known: Kept, deployment_id: str) -> _About:
        """Read from the store: what is kept of the device may not know yet that its offer was withdrawn."""
        device_id = known.person.device.id
        deployment = Deployment.parse(deployment_id, device_id)
        if deployment is None:
            raise NotFound("There is no such deployment for this device.")
        with self.store.reading() as r:
            row = r.rollout_by_key(deployment.rollout_key)
            update = None if row is None else r.update(row.key, known.person.key)
            if row is None or update is None:
                raise NotFound("There is no such deployment for this device.")
            event_ids = r.event_ids(known.person.key, f"{deployment_id}/", limit=MOST_EVENTS)
        return _About(
            rollout=row.state.rollout,
            target=row.target_version,
            status=row.state.status,
            cancels=rules_of(row).cancels,
            update=update.update,
            current=Deployment.of(row.key, update.update) == deployment,
            event_ids=tuple(event_ids),
        )


def _stops() -> Refused:
    return Refused("This deployment is over: stop, and ask for the next one.")


def _taken(received: Received) -> None:
    if received.refused:
        raise NotFound("There is no such deployment for this device.")


def _done(result: Result) -> Future[Result]:
    done: Future[Result] = Future()
    done.set_result(result)
    return done
