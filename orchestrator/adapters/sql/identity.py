"""Enrolment and gateway tokens, and revoked certificates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from orchestrator.adapters.sql.codec import as_json, decode_names
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.errors import NotFound
from orchestrator.services.credentials import Grant, GrantKind, Revoked, RevokedKind

_COLUMNS: Final = (
    "name, kind, token_digest, tag, group_name, hardware_ids, labels, uses_left, used, until_at, may_replace, "
    "may_register, created_at, created_by, revoked_at"
)
_labels: Final = msgspec.json.Decoder(dict[str, str]).decode


def _grant(row: tuple[Any, ...]) -> Grant:
    (name, kind, digest, tag, group, hardware, labels, left, used, until, replace, register, at, by, revoked) = row
    return Grant(
        name=name,
        kind=GrantKind(kind),
        digest=bytes(digest),
        tag=tag,
        group=group,
        hardware_ids=decode_names(hardware),
        labels=_labels(labels),
        uses_left=left,
        used=used,
        until=moment(until),
        may_replace=replace == 1,
        may_register=register == 1,
        created_at=moment(int(at)),
        created_by=by,
        revoked_at=moment(revoked),
    )


class IdentityReading(Session):
    def grants(self) -> Sequence[Grant]:
        return [_grant(row) for row in self.link.rows(f"SELECT {_COLUMNS} FROM device_grant ORDER BY key")]

    def revoked_certificates(self) -> Sequence[Revoked]:
        rows = self.link.rows("SELECT kind, value, revoked_at, revoked_by FROM revoked_certificate")
        return sorted(
            (Revoked(RevokedKind(kind), value, moment(int(at)), by) for kind, value, at, by in rows),
            key=lambda each: (each.kind, each.value),
        )


class IdentityWriting(IdentityReading):
    def add_grant(self, grant: Grant) -> None:
        self.link.run(
            f"INSERT INTO device_grant ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                grant.name,
                grant.kind.value,
                grant.digest,
                grant.tag,
                grant.group,
                as_json(grant.hardware_ids),
                as_json(dict(grant.labels)),
                grant.uses_left,
                grant.used,
                stored(grant.until),
                int(grant.may_replace),
                int(grant.may_register),
                stored(grant.created_at),
                grant.created_by,
                stored(grant.revoked_at),
            ),
        )

    def revoke_grant(self, name: str, *, now: datetime) -> bool:
        changed = self.link.run(
            "UPDATE device_grant SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (stored(now), name)
        )
        if not changed and self.link.one("SELECT 1 FROM device_grant WHERE name = ?", (name,)) is None:
            raise NotFound(f"There is no enrolment token {name}.", remedy="`wave enrolment list` shows them.")
        return bool(changed)

    def lock_grants(self, digests: Collection[bytes]) -> dict[bytes, Grant]:
        found = {}
        # One by one in one order, so that two writers on PostgreSQL never wait for each other in a circle.
        for digest in sorted(set(digests)):
            asked = self.link.locked(f"SELECT {_COLUMNS} FROM device_grant WHERE token_digest = ?")
            row = self.link.one(asked, (digest,))
            if row is not None:
                found[digest] = _grant(row)
        return found

    def use_grant(self, digest: bytes, count: int) -> None:
        self.link.run(
            "UPDATE device_grant SET used = used + ?, uses_left = uses_left - ? WHERE token_digest = ?",
            (count, count, digest),
        )

    def revoke_certificates(self, revoked: Revoked) -> None:
        later = "CASE WHEN revoked_certificate.revoked_at > excluded.revoked_at THEN revoked_certificate.revoked_at "
        self.link.run(
            "INSERT INTO revoked_certificate (kind, value, revoked_at, revoked_by) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kind, value) DO UPDATE SET "
            f"revoked_at = {later} ELSE excluded.revoked_at END, revoked_by = excluded.revoked_by",
            (revoked.kind.value, revoked.value, stored(revoked.at), revoked.by),
        )

    def allow_certificates(self, kind: RevokedKind, value: str) -> bool:
        return bool(self.link.run("DELETE FROM revoked_certificate WHERE kind = ? AND value = ?", (kind.value, value)))
