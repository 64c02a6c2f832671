"""TUF metadata in the dialect that aktualizr-lite takes: what is signed, byte for byte.

It differs from TUF's own text in that ``_type`` is capitalised, signatures are base64 and name their method, a key's id
is the SHA-256 of its DER SubjectPublicKeyInfo, files are not named after their version (but roots), and hashes are of
the canonical JSON of a whole document. What is served is that canonical JSON itself, so both ways of hashing agree.

Answers for: documents. Not for: keys (a port), versions (``core.editions``), and who sees what.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from orchestrator.errors import InvalidInput

LARGEST_ROOT: Final = 64 * 1024
"""Bytes; clients read no more."""

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
_PEM_BEGINS, _PEM_ENDS = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


class Role(StrEnum):
    ROOT = "root"
    TIMESTAMP = "timestamp"
    SNAPSHOT = "snapshot"
    TARGETS = "targets"


ONLINE: Final = (Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS)
"""The roles whose keys the gateway holds."""

METHODS: Final[Mapping[str, str]] = {"ED25519": "ed25519", "RSA": "rsassa-pss-sha256"}
"""How a key of each type signs."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """``keytype`` ED25519 with 64 hex digits, or RSA with PEM."""

    keytype: str
    public: str

    @property
    def id(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    @property
    def der(self) -> bytes:
        """Its SubjectPublicKeyInfo. Raises InvalidInput."""
        try:
            if self.keytype == "ED25519":
                raw = bytes.fromhex(self.public)
                if len(raw) == 32:
                    return _ED25519_SPKI + raw
            elif self.keytype == "RSA":
                text = self.public.strip()
                if text.startswith(_PEM_BEGINS) and text.endswith(_PEM_ENDS):
                    inner = text.removeprefix(_PEM_BEGINS).removesuffix(_PEM_ENDS)
                    return base64.b64decode("".join(inner.split()), validate=True)
        except ValueError:
            pass
        raise InvalidInput(f"A key of type {self.keytype[:20]!r} is not one that aktualizr-lite takes.")

    @property
    def method(self) -> str:
        return METHODS[self.keytype]

    @property
    def document(self) -> dict[str, Any]:
        return {"keytype": self.keytype, "keyval": {"public": self.public}}


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who signs for a role, and how many of them it takes."""

    keyids: tuple[str, ...]
    threshold: int = 1


@dataclass(frozen=True, slots=True)
class Root:
    """A root as read: ``document`` is the whole envelope."""

    version: int
    expires_at: datetime
    keys: Mapping[str, PublicKey]
    roles: Mapping[Role, RoleKeys]
    document: Mapping[str, Any]

    @property
    def signed(self) -> bytes:
        return canonical(self.document["signed"])

    def public_keys(self, role: Role) -> tuple[PublicKey, ...]:
        return tuple(self.keys[keyid] for keyid in self.roles[role].keyids if keyid in self.keys)


def canonical(value: Any) -> bytes:
    """Sorted keys, no spaces. Texts of ours are ASCII, where all ways to write JSON agree."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def moment_text(at: datetime) -> str:
    """Whole seconds: clients read no fractions."""
    return at.astimezone(UTC).replace(microsecond=0).strftime(_TIME)


def root_document(
    *, version: int, expires_at: datetime, keys: Mapping[Role, Sequence[PublicKey]], root_threshold: int = 1
) -> dict[str, Any]:
    """What is signed of a root. The threshold of every other role is 1."""
    every = {key.id: key.document for role in Role for key in keys[role]}
    roles = {
        role.value: {
            "keyids": [key.id for key in keys[role]],
            "threshold": root_threshold if role is Role.ROOT else 1,
        }
        for role in Role
    }
    return {
        "_type": "Root",
        "consistent_snapshot": False,
        "expires": moment_text(expires_at),
        "keys": every,
        "roles": roles,
        "version": version,
    }


def targets_document(*, version: int, expires_at: datetime, targets: Mapping[str, Any]) -> dict[str, Any]:
    return {"_type": "Targets", "expires": moment_text(expires_at), "targets": targets, "version": version}


def snapshot_document(*, version: int, expires_at: datetime, targets: bytes, root_version: int) -> dict[str, Any]:
    """``targets`` is the whole signed document as served; its version is the snapshot's own."""
    return {
        "_type": "Snapshot",
        "expires": moment_text(expires_at),
        "meta": {"root.json": {"version": root_version}, "targets.json": _meta(targets, version)},
        "version": version,
    }


def timestamp_document(*, version: int, expires_at: datetime, snapshot: bytes, snapshot_version: int) -> dict[str, Any]:
    """``snapshot`` is the whole signed document as served."""
    return {
        "_type": "Timestamp",
        "expires": moment_text(expires_at),
        "meta": {"snapshot.json": _meta(snapshot, snapshot_version)},
        "version": version,
    }


def _meta(document: bytes, version: int) -> dict[str, Any]:
    hashes = {"sha256": hashlib.sha256(document).hexdigest()}
    return {"hashes": hashes, "length": len(document), "version": version}


def signature(key: PublicKey, made: bytes) -> dict[str, str]:
    """One entry of an envelope's signatures."""
    return {"keyid": key.id, "method": key.method, "sig": base64.b64encode(made).decode()}


def envelope(signed: Mapping[str, Any], signatures: Iterable[Mapping[str, str]]) -> bytes:
    """The document as it is served."""
    return canonical({"signatures": list(signatures), "signed": signed})


def signatures_of(document: Mapping[str, Any]) -> Mapping[str, bytes]:
    """By key id; what is no signature is left out."""
    found: dict[str, bytes] = {}
    entries = document.get("signatures")
    for entry in entries if isinstance(entries, list) else ():
        try:
            found[str(entry["keyid"])] = base64.b64decode(entry["sig"], validate=True)
        except (KeyError, TypeError, ValueError):
            continue
    return found


def read_root(content: bytes) -> Root:
    """A root from its document; signatures are not judged. Raises InvalidInput."""
    try:
        document: dict[str, Any] = json.loads(content) if len(content) <= LARGEST_ROOT else {}
        signed = document["signed"]
        if signed["_type"] not in ("Root", "root"):
            raise ValueError("_type")
        keys = {
            str(keyid): PublicKey(str(key["keytype"]).upper(), str(key["keyval"]["public"]))
            for keyid, key in signed["keys"].items()
        }
        roles = {
            role: RoleKeys(tuple(map(str, signed["roles"][role.value]["keyids"])), _whole(signed["roles"][role.value]))
            for role in Role
        }
        expires_at = datetime.strptime(signed["expires"], _TIME).replace(tzinfo=UTC)
        version = signed["version"]
        if type(version) is not int or version < 1:
            raise ValueError("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"This is no root of a TUF repository: {str(error)[:80]}.", remedy="Give N.root.json files."
        ) from None
    return Root(version, expires_at, keys, roles, document)


def _whole(role: Mapping[str, Any]) -> int:
    threshold = role["threshold"]
    if type(threshold) is not int or threshold < 1:
        raise ValueError("threshold")
    return threshold


def target_entry(
    *,
    name: str,
    version: int,
    commit: str,
    hardware_id: str,
    tags: Iterable[str],
    stats: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One Target for one hardware id: clients leave aside a Target that lists several. ``stats`` names the file that
    says how large deltas to it are."""
    custom: dict[str, Any] = {
        "hardwareIds": [hardware_id],
        "name": name.removesuffix(f"-{version}") or name,
        "tags": sorted(set(tags)),
        "targetFormat": "OSTREE",
        "uri": "",
        "version": str(version),
    }
    if stats is not None:
        custom["delta-stats"] = dict(stats)
    return {"custom": custom, "hashes": {"sha256": commit}, "length": 0}
