"""Roots and keys of a TUF repository in a directory.

::

    tuf/                    0700
      1.root.json ...       every root, for ever
      keys/                 0700
        timestamp.key       PKCS 8 in PEM, 0600; so are snapshot.key, targets.key, and root.key unless it is kept apart
        next/               keys of a root that is being made; moved up once it is written

A file is written beside its place, synced, and linked into it: a kill leaves the old or the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from orchestrator.adapters.durable import sync
from orchestrator.core.tuf import LARGEST_ROOT, ONLINE, PublicKey, Role
from orchestrator.errors import InvalidInput, NotFound, Refused, Unavailable
from orchestrator.services.tuf_keys import Signer

LARGEST_KEY: Final = 64 * 1024
SALT_BYTES: Final = 32

_ROOT: Final = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_PSS: Final = PSS(mgf=MGF1(hashes.SHA256()), salt_length=SALT_BYTES)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key in memory; its repr says only which."""

    private: Ed25519PrivateKey | RSAPrivateKey

    def __repr__(self) -> str:
        return f"PrivateKey({self.key.id[:12]})"

    @property
    def key(self) -> PublicKey:
        public = self.private.public_key()
        if isinstance(public, Ed25519PublicKey):
            return PublicKey("ED25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex())
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return PublicKey("RSA", pem)

    def sign(self, content: bytes) -> bytes:
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(content)
        return self.private.sign(content, _PSS, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class TufFolder:
    """See the module."""

    place: Path
    _watched: tuple[Path, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys = (self._keys / f"{role}.key" for role in ONLINE)
        object.__setattr__(self, "_watched", (self.place, self._keys, *keys))

    @property
    def _keys(self) -> Path:
        return self.place / "keys"

    @property
    def _next(self) -> Path:
        return self._keys / "next"

    def stamp(self) -> object:
        # Folders for what came or went, keys for what was written over; a root never is.
        return tuple(map(_stamp, self._watched))

    def roots(self) -> Mapping[int, bytes]:
        try:
            names = [each.name for each in self.place.iterdir()]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unavailable(self.place, error) from None
        versions = sorted(int(found[1]) for name in names if (found := _ROOT.fullmatch(name)))
        return {version: _read(self.place / f"{version}.root.json", LARGEST_ROOT) for version in versions}

    def add_root(self, version: int, content: bytes) -> None:
        self._folder(self.place)
        _write(self.place / f"{version}.root.json", content, mode=0o644, what=f"Root {version}")

    def online(self) -> Mapping[Role, Signer]:
        found: dict[Role, Signer] = {}
        for role in ONLINE:
            with contextlib.suppress(NotFound):
                found[role] = _load(self._keys / f"{role}.key")
        return found

    def kept_root(self) -> Signer | None:
        try:
            return _load(self._keys / f"{Role.ROOT}.key")
        except NotFound:
            return None

    def stage(self, roles: Sequence[Role], *, given: Path | None = None) -> Mapping[Role, Signer]:
        self._folder(self._next)
        for old in self._next.iterdir():
            old.unlink()
        found: dict[Role, Signer] = {}
        for role in roles:
            made = PrivateKey(Ed25519PrivateKey.generate()) if given is None else _load(given / f"{role}.key")
            _write(self._next / f"{role}.key", made.pem, mode=0o600, what=f"The key {role}.key")
            found[role] = made
        return found

    def commit(self) -> None:
        try:
            staged = sorted(self._next.glob("*.key"))
            for each in staged:
                each.replace(self._keys / each.name)
            if staged:
                sync(self._keys)
        except OSError as error:
            raise _unavailable(self._keys, error) from None

    def read(self, file: Path) -> Signer:
        return _load(file)

    def verified(self, key: PublicKey, made: bytes, content: bytes) -> bool:
        try:
            public = load_der_public_key(key.der)
            if isinstance(public, Ed25519PublicKey):
                public.verify(made, content)
            elif isinstance(public, RSAPublicKey):
                public.verify(made, content, _PSS, hashes.SHA256())
            else:
                return False
        except (InvalidSignature, InvalidInput, ValueError):
            return False
        return True

    def _folder(self, folder: Path) -> None:
        try:
            for each in (self.place, self._keys, folder):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unavailable(folder, error) from None


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _load(file: Path) -> PrivateKey:
    content = _read(file, LARGEST_KEY, private=True)
    private: object
    try:
        private = _from_json(content) if content.lstrip().startswith(b"{") else load_pem_private_key(content, None)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{file} is no private key: {str(error)[:80] or type(error).__name__}.",
            remedy="Give a PEM file (PKCS 8, not encrypted) with an ED25519 or RSA key.",
        ) from None
    if isinstance(private, RSAPrivateKey) and private.key_size < 2048:
        raise InvalidInput(f"{file} has an RSA key of {private.key_size} bits; 2048 are the least.")
    if not isinstance(private, Ed25519PrivateKey | RSAPrivateKey):
        raise InvalidInput(f"{file} is neither an ED25519 nor an RSA key: aktualizr-lite takes no other.")
    return PrivateKey(private)


def _from_json(content: bytes) -> object:
    """As fioctl and garage-sign write keys: ED25519 as hex of the seed, with or without the public half behind it."""
    key = json.loads(content)
    text = key["keyval"]["private"]
    if str(key["keytype"]).upper() == "ED25519":
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text)[:32])
    return load_pem_private_key(text.encode(), None)


def _read(file: Path, most: int, *, private: bool = False) -> bytes:
    """Raises NotFound, Refused for a private key that others may read, Unavailable."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"There is no file {file}.") from None
    except OSError as error:
        raise _unavailable(file, error) from None
    with os.fdopen(opened, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise InvalidInput(f"{file} is no file of at most {most // 1024} KiB.")
        if private and stat.S_IMODE(status.st_mode) & 0o077:
            raise Refused(
                f"The private key {file} can be read by others than its owner (mode "
                f"{stat.S_IMODE(status.st_mode):04o}); it is not used.",
                remedy=f"Run `chmod 600 {file}`, and make a new key if somebody may have read it.",
            )
        return stream.read(most)


def _write(file: Path, content: bytes, *, mode: int, what: str) -> None:
    """Under its name all at once, and only where nothing is."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(beside, file)
        finally:
            beside.unlink(missing_ok=True)
        sync(file.parent)
    except FileExistsError:
        raise Refused(f"{what} is there already: {file}.") from None
    except OSError as error:
        raise _unavailable(file, error) from None


def _unavailable(file: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{file} cannot be used: {error.strerror}.", remedy="Check who owns it, and its disk.")
