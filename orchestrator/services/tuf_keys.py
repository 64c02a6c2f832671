"""The port to the keys and roots of a TUF repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.core.tuf import PublicKey, Role


class Signer(Protocol):
    """A private key in hand."""

    @property
    def key(self) -> PublicKey:
        """Its public half."""

    def sign(self, content: bytes) -> bytes:
        """By the method that belongs to the type of the key; twice the same for the same content with ED25519."""


class TufKeys(Protocol):
    """Where roots and private keys are kept. Files with private keys that others than their owner may read are refused,
    never used: Refused. What cannot be read or written is Unavailable."""

    @property
    def place(self) -> Path: ...

    def stamp(self) -> object:
        """Another value after any change, whichever process made it. Cheap; never raises."""

    def roots(self) -> Mapping[int, bytes]:
        """All roots by version; none before it is initialised."""

    def add_root(self, version: int, content: bytes) -> None:
        """For good: a root never changes. What was written is on the disk. Raises Refused when the version is there."""

    def online(self) -> Mapping[Role, Signer]:
        """The keys of the online roles, as far as they are there."""

    def stage(self, roles: Sequence[Role], *, given: Path | None = None) -> Mapping[Role, Signer]:
        """New keys for these roles, made or taken from files ROLE.key of the directory ``given``, which are not in use
        before ``commit``. Raises InvalidInput, NotFound."""

    def commit(self) -> None:
        """The staged keys are in use from now on. Idempotent."""

    def read(self, file: Path) -> Signer:
        """A private key that the operator gives: PEM (PKCS 8, ED25519 or RSA), or JSON as key sets of Foundries have
        it. Raises InvalidInput, NotFound, Refused."""

    def kept_root(self) -> Signer | None:
        """The root key, where it is kept beside the others."""

    def verified(self, key: PublicKey, made: bytes, content: bytes) -> bool:
        """Whether that is a signature of the content by that key."""
