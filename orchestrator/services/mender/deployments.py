"""A deployment: one offer to one Mender device, its id, and what its statuses mean.

The id is a UUID (version 8) that says which rollout, which try and which offer it is, with a check that ties it to the
device: it is worked out, never stored, and a device cannot come in with another's. Nothing about it is secret.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from orchestrator.core.states import RolloutStatus
from orchestrator.core.stopping import STOPPED, told_to_stop
from orchestrator.core.update import EventKind, Update, UpdateStatus

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ROLLOUT_BITS, _TRY_BITS, _OFFER_BITS, _CHECK_BITS = 32, 5, 41, 44


class Deployment(NamedTuple):
    """``offered_ms``: milliseconds since 2020; with the try it tells one offer of a rollout from another."""

    rollout_key: int
    tries: int
    offered_ms: int

    @classmethod
    def of(cls, rollout_key: int, update: Update) -> Deployment:
        ms = (update.offered_at - _EPOCH) // timedelta(milliseconds=1)
        return cls(rollout_key % 2**_ROLLOUT_BITS, update.tries % 2**_TRY_BITS, ms % 2**_OFFER_BITS)

    @classmethod
    def parse(cls, text: str, device_id: str) -> Deployment | None:
        """None when no deployment of this device is called so."""
        if not _ID.fullmatch(text):
            return None
        number = int(text.replace("-", ""), 16)
        # the version's four bits and the variant's two are no part of it
        packed = (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & (2**62 - 1)
        facts, check = packed >> _CHECK_BITS, packed & (2**_CHECK_BITS - 1)
        if check != _check(facts, device_id):
            return None
        rest, offered = facts >> _OFFER_BITS, facts & (2**_OFFER_BITS - 1)
        return cls(rest >> _TRY_BITS, rest & (2**_TRY_BITS - 1), offered)

    def name(self, device_id: str) -> str:
        """Its id, for this device."""
        facts = (self.rollout_key << _TRY_BITS | self.tries) << _OFFER_BITS | self.offered_ms
        packed = facts << _CHECK_BITS | _check(facts, device_id)
        high, middle, low = packed >> 74, packed >> 62 & 0xFFF, packed & (2**62 - 1)
        digits = f"{high << 80 | 0x8 << 76 | middle << 64 | 0b10 << 62 | low:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _check(facts: int, device_id: str) -> int:
    digest = hashlib.sha256(f"{facts:x} {device_id}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - _CHECK_BITS)


class DeploymentStatus(StrEnum):
    """What a client may say of a deployment."""

    __hash__ = str.__hash__

    DOWNLOADING = "downloading"
    PAUSE_BEFORE_INSTALLING = "pause_before_installing"
    INSTALLING = "installing"
    PAUSE_BEFORE_REBOOTING = "pause_before_rebooting"
    REBOOTING = "rebooting"
    PAUSE_BEFORE_COMMITTING = "pause_before_committing"
    SUCCESS = "success"
    FAILURE = "failure"
    ALREADY_INSTALLED = "already-installed"


_EVENTS: Final = {
    DeploymentStatus.DOWNLOADING: EventKind.DOWNLOADING,
    DeploymentStatus.PAUSE_BEFORE_INSTALLING: EventKind.DOWNLOADING,
    DeploymentStatus.INSTALLING: EventKind.INSTALLING,
    DeploymentStatus.PAUSE_BEFORE_REBOOTING: EventKind.INSTALLING,
    DeploymentStatus.REBOOTING: EventKind.INSTALLING,
    DeploymentStatus.PAUSE_BEFORE_COMMITTING: EventKind.INSTALLING,
    DeploymentStatus.SUCCESS: EventKind.APPLIED,
    DeploymentStatus.ALREADY_INSTALLED: EventKind.APPLIED,
}
"""What each status is to us. A success is `applied`: only what the device says that it runs confirms (RULES 3.5)."""

_DONE: Final = (DeploymentStatus.SUCCESS, DeploymentStatus.ALREADY_INSTALLED)
_AFTER_A_BOOT: Final = (DeploymentStatus.REBOOTING, DeploymentStatus.PAUSE_BEFORE_COMMITTING)


class Judgement(StrEnum):
    """What to do with a status."""

    REPORT = "it counts"
    ABORT = "the device shall stop: its offer was withdrawn, another took its place, or the policy says so"
    STOPPED = "it has stopped as it was told to, which is no outcome"
    IGNORE = "it is the end of an offer before the one that stands, and says nothing about that"


def judge(
    status: DeploymentStatus,
    update: Update,
    rollout: RolloutStatus,
    *,
    current: bool,
    cancels: bool,
    told: bool = False,
) -> Judgement:
    """``current``: whether the deployment is the offer that stands, and none before it. ``cancels``: a halt tells
    started devices to stop. ``aborted``: this one was told to, though a person may have resumed since.

    A halt and a cancellation withdraw only from who has not started (RULES 1.2), also in the moment before the
    withdrawal is written. Who succeeded in spite of it did, and says so."""
    not_started = update.status is UpdateStatus.OFFERED and rollout in STOPPED
    over = update.status in (UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED)
    stops = not_started or over or told_to_stop(rollout, update, cancels=cancels)
    stops = stops or (told and status is DeploymentStatus.FAILURE)
    if status in _DONE or (current and not stops):
        return Judgement.REPORT
    if status is not DeploymentStatus.FAILURE:
        return Judgement.ABORT
    return Judgement.STOPPED if current else Judgement.IGNORE


def event_of(status: DeploymentStatus, update: Update, said_before: Iterable[str]) -> EventKind:
    """A failure before installing is one of the download: the device may try again. One after a restart is a
    rollback."""
    if status is not DeploymentStatus.FAILURE:
        return _EVENTS[status]
    if update.installing_at is None and update.confirmed_at is None:
        return EventKind.DOWNLOAD_FAILED
    return EventKind.ROLLED_BACK if set(said_before).intersection(_AFTER_A_BOOT) else EventKind.FAILED


TOLD_TO_STOP: Final = "told-to-stop"
"""What is kept among a deployment's events when its device is told to stop: whoever asks later, of whatever server,
finds it there."""

_KEPT: Final = frozenset({*DeploymentStatus, TOLD_TO_STOP})


class Course(NamedTuple):
    """What the device has said of a deployment: in its which attempt it is, and its statuses in that. ``told``: it was
    told to stop, and has said nothing since."""

    attempt: int
    said: tuple[str, ...]
    told: bool = False


def course_of(deployment_id: str, event_ids: Iterable[str], status: DeploymentStatus) -> Course:
    """From the events there are, oldest first: a download after a failure begins another attempt, and so does anything
    but a failure after an order to stop; all else belongs to the one under way, so that what is sent again has the id
    it had. A failure after something that came after a failure is of another as well: the download between them may not
    have been kept."""
    attempt, said, told = 0, list[str](), False
    for each in event_ids:
        of, _, rest = each.partition("/")
        number, _, what = rest.partition("/")
        if of != deployment_id or not number.isdecimal() or what not in _KEPT:
            continue
        if int(number) > attempt:
            attempt, said = int(number), []
        if what != TOLD_TO_STOP:
            said.append(what)
        told = what == TOLD_TO_STOP
    if told and status is not DeploymentStatus.FAILURE:
        return Course(attempt + 1, tuple(said), told)
    if said and said[-1] == DeploymentStatus.FAILURE and status is DeploymentStatus.DOWNLOADING:
        return Course(attempt + 1, ())
    if status is DeploymentStatus.FAILURE and DeploymentStatus.FAILURE in said[:-1] and said[-1] != status:
        return Course(attempt + 1, tuple(said[said.index(DeploymentStatus.FAILURE) + 1 :]), told)
    return Course(attempt, tuple(said), told)


def end_of(update: Update) -> EventKind:
    """What it is to us that a device has stopped as it was told to: of one that has not started nothing, for its offer
    is withdrawn."""
    return EventKind.CANCELLED if update.under_way else EventKind.NOTED


def event_id(deployment_id: str, course: Course, what: str) -> str:
    """The same for the same status, however often it is sent."""
    return f"{deployment_id}/{course.attempt}/{what}"
