"""TUF as aktualizr reads it, written for the tests alone and from what the client was seen to do: it shares no line
with what signs. It keeps what a device keeps on its disk, and refuses what a device refuses.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

MOST = {"root": 64 * 1024, "timestamp": 64 * 1024, "snapshot": 64 * 1024, "targets": 8 * 1024 * 1024}


class Rejected(Exception):
    """What the device would not take, and why."""


def written(value: Any) -> str:
    """JSON as the client's library writes it back: members by name, nothing between, only what must be escaped."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        plain = value.replace("\\", "\\\\").replace('"', '\\"')
        if not plain.isascii() or not plain.replace("\n", "").isprintable():
            raise Rejected("a text on which ways to write JSON differ")
        return '"' + plain.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        return "[" + ",".join(written(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{written(name)}:{written(value[name])}" for name in sorted(value)) + "}"
    raise Rejected(f"a value that no metadata has: {value!r}")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Key:
    kind: str
    public: Any

    @classmethod
    def read(cls, said: dict[str, Any]) -> Key:
        kind, text = said["keytype"], said["keyval"]["public"]
        if kind == "ED25519":
            return cls(kind, ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
        if kind == "RSA":
            public = serialization.load_pem_public_key(text.encode())
            assert isinstance(public, rsa.RSAPublicKey)
            return cls(kind, public)
        raise Rejected(f"a key of type {kind}")

    @property
    def id(self) -> str:
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.public.public_bytes(serialization.Encoding.DER, spki)).hexdigest()

    def verify(self, method: str, made: bytes, content: bytes) -> bool:
        try:
            if self.kind == "ED25519" and method == "ed25519":
                self.public.verify(made, content)
            elif self.kind == "RSA" and method == "rsassa-pss-sha256":
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
                self.public.verify(made, content, pss, hashes.SHA256())
            else:
                return False
        except InvalidSignature:
            return False
        return True


def parsed(raw: bytes, kind: str) -> dict[str, Any]:
    """The envelope of a role, its shape checked."""
    if len(raw) > MOST[kind.lower()]:
        raise Rejected(f"{kind} has {len(raw)} bytes")
    document = json.loads(raw)
    if set(document) != {"signatures", "signed"} or document["signed"]["_type"] != kind:
        raise Rejected(f"this is no {kind}")
    for each in document["signatures"]:
        if set(each) != {"keyid", "method", "sig"}:
            raise Rejected("a signature of another shape")
    version = document["signed"]["version"]
    if type(version) is not int or not 0 < version < 2**31:
        raise Rejected(f"{kind} has version {version!r}")
    return document


def expires(document: dict[str, Any]) -> datetime:
    return datetime.strptime(document["signed"]["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def check_signed(document: dict[str, Any], root: dict[str, Any], role: str) -> None:
    """By as many of the role's keys as its threshold asks."""
    keys, asked = root["signed"]["keys"], root["signed"]["roles"][role]
    content = written(document["signed"]).encode()
    good = set()
    for each in document["signatures"]:
        keyid = each["keyid"]
        if keyid not in asked["keyids"]:
            continue
        key = Key.read(keys[keyid])
        if key.id != keyid:
            raise Rejected("a key whose id is not that of its DER")
        if key.verify(each["method"], base64.b64decode(each["sig"], validate=True), content):
            good.add(keyid)
    if len(good) < asked["threshold"]:
        raise Rejected(f"{role}: {len(good)} good signatures of {asked['threshold']}")


@dataclass
class Repository:
    """What a device keeps. ``get`` fetches a file below ``repo``; None: not there."""

    get: Callable[[str], bytes | None]
    root: dict[str, Any] | None = None
    timestamp: dict[str, Any] | None = None
    snapshot: dict[str, Any] | None = None
    targets: dict[str, Any] | None = None
    fetched: list[str] = field(default_factory=list)

    def update(self, now: datetime) -> dict[str, Any]:
        """The Targets that the device may take now. Raises Rejected; what was kept before then stays."""
        self._root(now)
        assert self.root is not None
        timestamp = parsed(self._fetch("timestamp.json"), "Timestamp")
        check_signed(timestamp, self.root, "timestamp")
        self._forward("timestamp", self.timestamp, timestamp)
        self.timestamp = timestamp
        self._alive("timestamp", timestamp, now)
        meta = timestamp["signed"]["meta"]["snapshot.json"]
        if self.snapshot is None or not self._fits(self.snapshot, meta, whole=True):
            raw = self._fetch("snapshot.json")
            if len(raw) > meta["length"]:
                raise Rejected("snapshot: longer than said")
            snapshot = parsed(raw, "Snapshot")
            if not self._fits(snapshot, meta, whole=True):
                raise Rejected("snapshot: hash or version is not what the timestamp says")
            check_signed(snapshot, self.root, "snapshot")
            self._forward("snapshot", self.snapshot, snapshot)
            self.snapshot = snapshot
        check_signed(self.snapshot, self.root, "snapshot")
        self._alive("snapshot", self.snapshot, now)
        meta = self.snapshot["signed"]["meta"]["targets.json"]
        if self.targets is None or not self._fits(self.targets, meta, whole=False):
            raw = self._fetch("targets.json")
            if len(raw) > meta["length"]:
                raise Rejected("targets: longer than said")
            targets = parsed(raw, "Targets")
            if not self._fits(targets, meta, whole=False):
                raise Rejected("targets: hash or version is not what the snapshot says")
            check_signed(targets, self.root, "targets")
            self._forward("targets", self.targets, targets)
            self.targets = targets
        check_signed(self.targets, self.root, "targets")
        self._alive("targets", self.targets, now)
        found: dict[str, Any] = self.targets["signed"]["targets"]
        return found

    def _root(self, now: datetime) -> None:
        if self.root is None:
            first = self.get("1.root.json")
            if first is None:
                raise Rejected("no root to trust at first use")
            document = parsed(first, "Root")
            check_signed(document, document, "root")
            self.root = document
        while (raw := self.get(f"{self.root['signed']['version'] + 1}.root.json")) is not None:
            document = parsed(raw, "Root")
            if document["signed"]["version"] != self.root["signed"]["version"] + 1:
                raise Rejected("root: a version that does not follow")
            check_signed(document, self.root, "root")
            check_signed(document, document, "root")
            self.root, self.timestamp, self.snapshot, self.targets = document, None, None, None
        self._alive("root", self.root, now)

    def _fetch(self, name: str) -> bytes:
        self.fetched.append(name)
        raw = self.get(name)
        if raw is None:
            raise Rejected(f"{name} cannot be had")
        return raw

    @staticmethod
    def _fits(document: dict[str, Any], meta: dict[str, Any], *, whole: bool) -> bool:
        hashed = meta.get("hashes", {}).get("sha256")
        if hashed is None and whole:
            raise Rejected("no hash for snapshot.json")
        same = hashed is None or digest(written(document)).lower() == hashed.lower()
        return same and document["signed"]["version"] == meta["version"]

    @staticmethod
    def _forward(role: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        if before is not None and before["signed"]["version"] > after["signed"]["version"]:
            raise Rejected(f"{role}: rollback attempt")

    @staticmethod
    def _alive(role: str, document: dict[str, Any], now: datetime) -> None:
        if expires(document) <= now:
            raise Rejected(f"{role}: expired")
