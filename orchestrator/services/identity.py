"""Who may speak as whom: enrolment and gateway tokens, client certificates, revocations.

What is handed out and taken back is in the store; each process keeps a picture of it (``Keys``), which a mark makes it
read again within a second. So judging a request costs no look into the store, and what was revoked is worth nothing
from the next request on in this process, and a second later in every other. A device's own token is judged by its row
(``DeviceRow.token_digest``), wherever that was read.

Answers for: whether a credential speaks for a device, scopes, ends, revocations, making devices known. Not for: how a
protocol carries a credential (``gateway``), certificates' signatures (the TLS handshake).
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeVar

from orchestrator.core.fleet import check_label, check_name
from orchestrator.core.states import POLICY
from orchestrator.errors import InvalidInput, NotFound, Unauthorized, WaveError
from orchestrator.services.credentials import (
    REGISTERED,
    Certificate,
    GatewayToken,
    Grant,
    GrantKind,
    Revoked,
    RevokedKind,
    Shown,
    digest_of,
    new_secret,
)
from orchestrator.services.house_log import note
from orchestrator.services.mender.tokens import has_ended
from orchestrator.services.records import DeviceRow
from orchestrator.services.store import Reading, Store, Writing

_log = logging.getLogger(__name__)

FRESH_FOR: Final = timedelta(seconds=1)
"""How old the picture may be before it is read again."""

LONGEST: Final = timedelta(days=36_500)
"""For which a token may be good that has an end: a time much further away is none in another zone."""

MARK: Final = "identity"
"""The mark that every change leaves."""

NOBODY: Final = "The device is not known here, or its token is wrong."

_EMPTY: Final = b""
_HEX: Final = frozenset("0123456789abcdef")

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Keys:
    """What stands at one moment. Spent tokens are in it as well: whose uses are over is decided where they are
    counted."""

    mark: object = None
    grants: Mapping[bytes, Grant] = field(default_factory=dict)
    devices: Mapping[str, datetime] = field(default_factory=dict)
    serials: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()

    def good(self, shown: Certificate, now: datetime) -> bool:
        """Whether a verified certificate is neither over nor revoked."""
        if not shown.not_before <= now < shown.not_after:
            return False
        if shown.serial in self.serials or shown.fingerprint in self.fingerprints:
            return False
        revoked_at = self.devices.get(shown.device_id)
        return revoked_at is None or shown.not_before > revoked_at

    def grant(self, token: str, kind: GrantKind, now: datetime) -> Grant | None:
        """The grant of that kind that a token is for, while it stands."""
        digest = digest_of(token)
        found = self.grants.get(digest)
        if found is None or found.kind is not kind or not hmac.compare_digest(found.digest, digest):
            return None
        return found if found.stands(now) else None


class Identity:
    """Judges credentials, and keeps what people hand out. ``later`` runs work soon in another thread, for a caller that
    must not wait for the store (without it, it is read at once)."""

    def __init__(
        self, store: Store, clock: Callable[[], datetime], *, later: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._later = later or (lambda work: work())
        self._guard = threading.Lock()
        self._asked = False
        self._read_at: datetime | None = None
        self._spent: set[bytes] = set()
        self.keys = Keys()

    # --------------------------------------------------------------------------------------------- judging

    def admits(self, person: DeviceRow | None, shown: Shown, now: datetime) -> bool:
        """Whether a credential speaks for this device. Tokens are compared by digest and in constant time; a stranger
        (None) costs as much as a wrong token."""
        match shown:
            case Certificate():
                return person is not None and shown.device_id == person.device.id and self.look(now).good(shown, now)
            case GatewayToken():
                grant = self.look(now).grant(shown.token, GrantKind.GATEWAY, now)
                return grant is not None and person is not None and grant.covers(person.device)
            case str():
                token = shown
            case _:
                token = shown.token
        digest = person.token_digest if person is not None else None
        good = hmac.compare_digest(digest_of(token), digest or _EMPTY)
        return good and person is not None and not has_ended(token, person.device.id, now)

    def enrolment(self, token: str, now: datetime, *, spent: bool = True) -> Grant:
        """The enrolment token that this is, before anything is read of who wants in. ``spent``: one without uses left
        will do as well, for a device that may be known by it already. Raises Unauthorized for one that is unknown, over
        or revoked, all alike."""
        grant = self.look(now).grant(token, GrantKind.ENROLMENT, now)
        if grant is None or (not spent and grant.digest in self._spent):
            raise Unauthorized("The enrolment token is wrong, or it is over.")
        return grant

    def registers(self, shown: Shown, now: datetime) -> Grant | None:
        """The gateway token that makes unknown devices known, if this is one."""
        if not isinstance(shown, GatewayToken):
            return None
        grant = self.look(now).grant(shown.token, GrantKind.GATEWAY, now)
        if grant is None or not grant.may_register or grant.left == 0 or grant.digest in self._spent:
            return None
        return grant

    def spent(self, digest: bytes) -> None:
        """No uses are left: until people change something, who comes with it costs no look into the store."""
        self._spent.add(digest)

    def look(self, now: datetime) -> Keys:
        """The picture, a second old at most unless the store cannot be read. The first one is waited for."""
        if self._read_at is None:
            self.refresh()
        elif abs(now - self._read_at) >= FRESH_FOR and not self._asked:
            self._asked = True
            self._later(self._read_quietly)
        return self.keys

    def refresh(self) -> None:
        """Read it now. Raises StoreUnavailable, Busy."""
        with self._guard:
            read_at = self._clock()
            with self._store.reading() as r:
                keys = _keys(r, self.keys)
            if keys is not self.keys:
                self.keys, self._spent = keys, set()
            self._read_at = read_at

    def _read_quietly(self) -> None:
        try:
            self.refresh()
        except WaveError as error:
            self._read_at = self._clock()
            _log.warning("what was handed out and revoked could not be read: %s", error)
        finally:
            self._asked = False

    # --------------------------------------------------------------------------------------------- people's orders

    def add(
        self,
        kind: GrantKind,
        *,
        by: str,
        tag: str | None = None,
        group: str | None = None,
        hardware_ids: Sequence[str] = (),
        labels: Mapping[str, str] = MappingProxyType({}),
        uses: int | None = None,
        until: datetime | None = None,
        may_replace: bool = False,
        may_register: bool = False,
    ) -> tuple[Grant, str]:
        """A new enrolment or gateway token, and its text, which is known nowhere else. Raises InvalidInput for a scope
        that says nothing or cannot be."""
        now = self._clock()
        token, digest = new_secret()
        grant = Grant(
            name=f"{'enr' if kind is GrantKind.ENROLMENT else 'gw'}-{secrets.token_hex(4)}",
            kind=kind,
            digest=digest,
            tag=tag,
            group=group,
            hardware_ids=tuple(dict.fromkeys(hardware_ids)),
            labels=dict(labels),
            uses_left=REGISTERED if uses is None and may_register else uses,
            until=until,
            may_replace=may_replace,
            may_register=may_register,
            created_at=now,
            created_by=by,
        )
        _check(grant, now)

        def work(w: Writing) -> None:
            w.add_grant(grant)
            note(w, now, "grant_added", grant.name, f"made the {kind} token {grant.name}", by=by)

        self._change(work)
        return grant, token

    def grants(self) -> Sequence[Grant]:
        """All that were ever handed out, the oldest first."""
        with self._store.reading() as r:
            return r.grants()

    def revoke(self, name: str, *, by: str = POLICY) -> bool:
        """An enrolment or gateway token is worth nothing from now on; False when it was revoked before. Devices that
        were made known by it keep their own tokens. Raises NotFound."""
        now = self._clock()

        def work(w: Writing) -> bool:
            fresh = w.revoke_grant(name, now=now)
            if fresh:
                note(w, now, "grant_revoked", name, f"revoked {name}", by=by)
            return fresh

        return self._change(work)

    def revoke_certificates(self, kind: RevokedKind, value: str, *, by: str) -> Revoked:
        """All certificates that a device has had until now, or one by its serial number or its fingerprint. Raises
        InvalidInput."""
        revoked = Revoked(kind, _named(kind, value), self._clock(), by)
        whose = f"certificates by the {kind} {revoked.value}"

        def work(w: Writing) -> None:
            w.revoke_certificates(revoked)
            note(w, revoked.at, "certificates_revoked", revoked.value, f"revoked {whose}", by=by)

        self._change(work)
        return revoked

    def allow_certificates(self, kind: RevokedKind, value: str, *, by: str = POLICY) -> None:
        """Take such an order back. Raises InvalidInput, NotFound."""
        known = _named(kind, value)

        def work(w: Writing) -> bool:
            changed = w.allow_certificates(kind, known)
            if changed:
                deed = f"allowed certificates by the {kind} {known} again"
                note(w, self._clock(), "certificates_allowed", known, deed, by=by)
            return changed

        if not self._change(work):
            raise NotFound(
                f"No certificate was revoked by the {kind} {known}.", remedy="`wave ca list` shows what was."
            )

    def revoked_certificates(self) -> Sequence[Revoked]:
        with self._store.reading() as r:
            return r.revoked_certificates()

    def _change(self, work: Callable[[Writing], Done]) -> Done:
        now = self._clock()
        with self._store.writing() as w:
            done = work(w)
            # A lease that is over at once: its owner is what is looked at.
            w.take_lease(MARK, secrets.token_hex(8), now=now, until=now)
        self._read_at = None
        return done


def _keys(r: Reading, before: Keys) -> Keys:
    mark = r.lease_holder(MARK)
    if mark == before.mark and mark is not None:
        return before
    revoked = r.revoked_certificates()
    return Keys(
        mark,
        {grant.digest: grant for grant in r.grants() if grant.revoked_at is None},
        {each.value: each.at for each in revoked if each.kind is RevokedKind.DEVICE},
        frozenset(each.value for each in revoked if each.kind is RevokedKind.SERIAL),
        frozenset(each.value for each in revoked if each.kind is RevokedKind.FINGERPRINT),
    )


def _named(kind: RevokedKind, value: str) -> str:
    """A device's id, or hex digits as certificates are compared by."""
    if kind is RevokedKind.DEVICE:
        return check_name(value, "device id")
    digits = value.replace(":", "").lower()
    if kind is RevokedKind.SERIAL:
        digits = digits.lstrip("0")
    most = 40 if kind is RevokedKind.SERIAL else 64
    if not digits or not set(digits) <= _HEX or len(digits) > most or (most == 64 and len(digits) < most):
        raise InvalidInput(
            f"{value[:80]!r} is no {kind} of a certificate: that is {'up to ' if most == 40 else ''}{most} hex digits."
        )
    return digits


def _check(grant: Grant, now: datetime) -> None:
    for name, what in (
        (grant.tag, "tag"),
        (grant.group, "group"),
        *((each, "hardware id") for each in grant.hardware_ids),
    ):
        if name is not None:
            check_name(name, what)
    for key, value in grant.labels.items():
        check_label(key, value)
    if grant.uses_left is not None and grant.uses_left < 1:
        raise InvalidInput("A token that makes no device known is none.", remedy="Give --uses 1 or more.")
    if grant.until is not None and grant.until <= now:
        raise InvalidInput("The token would be over before it is used.", remedy="Give --until a later end.")
    if grant.until is not None and grant.until - now > LONGEST:
        raise InvalidInput("No token is good for a hundred years.", remedy="Without an end it is good for ever.")
    if grant.kind is GrantKind.ENROLMENT:
        if grant.tag is None:
            raise InvalidInput("An enrolment token says which tag its devices follow.", remedy="Give --tag.")
        return
    if grant.may_replace:
        raise InvalidInput("A gateway token gives devices no tokens of their own: there is nothing to replace.")
    if grant.tag is None and grant.group is None and not grant.hardware_ids:
        raise InvalidInput(
            "A gateway token without a scope would speak for every device.",
            remedy="Give --tag, --group or --hardware-id.",
        )
    if grant.may_register and (grant.tag is None or not grant.hardware_ids):
        raise InvalidInput(
            "A gateway token that makes devices known says what they are.", remedy="Give --tag and --hardware-id."
        )
    if grant.labels and not grant.may_register:
        raise InvalidInput("Labels are for devices that are made known by the token.", remedy="Give --register too.")
