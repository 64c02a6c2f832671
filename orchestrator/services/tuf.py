"""The TUF repository of an installation: beginning one, taking one over, new keys, and signing what devices are shown.

Every root is signed by the keys of the root before it and by its own, and kept for ever; so a device that trusts any of
them finds its way to the newest. A new root and its keys change in this order: the keys are staged, the root is
written, the keys are moved into use; a kill between the last two is mended by whoever uses the keys next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from orchestrator.core.editions import Edition, Lifetimes
from orchestrator.core.tuf import (
    LARGEST_ROOT,
    ONLINE,
    PublicKey,
    Role,
    Root,
    canonical,
    envelope,
    read_root,
    root_document,
    signature,
    signatures_of,
    snapshot_document,
    targets_document,
    timestamp_document,
)
from orchestrator.errors import InvalidInput, Refused, Unavailable
from orchestrator.services.tuf_keys import Signer, TufKeys

ROOT_LIFETIME: Final = timedelta(days=365)

NOT_BEGUN: Final = "This installation has no TUF repository for aktualizr-lite."
_BEGIN: Final = "Make one with `wave tuf init`."


@dataclass(frozen=True, slots=True)
class RootView:
    """One root for people. ``online``: whether the keys at hand are those it names."""

    version: int
    expires_at: datetime
    root_keys: tuple[str, ...]
    threshold: int
    online_keys: tuple[tuple[Role, str], ...]


@dataclass(frozen=True, slots=True)
class TufView:
    """The repository for people; ``roots`` newest first. ``root_key``: whether the root's private key lies beside the
    others. ``problem``: why devices cannot be served now."""

    place: Path
    roots: tuple[RootView, ...]
    root_key: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Bodies:
    """What is served of an edition."""

    timestamp: bytes
    snapshot: bytes
    targets: bytes


@dataclass(frozen=True, slots=True)
class Mint:
    """Signs editions with the keys of one root. The same edition is signed to the same bytes, wherever."""

    root: Root
    roots: Mapping[int, bytes]
    signers: Mapping[Role, Signer]

    def bodies(self, edition: Edition) -> Bodies:
        targets = self._targets(edition)
        snapshot = self._signed(
            Role.SNAPSHOT,
            snapshot_document(
                version=edition.number,
                expires_at=edition.expires_at,
                targets=targets,
                root_version=edition.root_version,
            ),
        )
        timestamp = timestamp_document(
            version=edition.timestamp_version,
            expires_at=edition.timestamp_expires_at,
            snapshot=snapshot,
            snapshot_version=edition.number,
        )
        return Bodies(self._signed(Role.TIMESTAMP, timestamp), snapshot, targets)

    def _targets(self, edition: Edition) -> bytes:
        targets = json.loads(edition.body)
        document = targets_document(version=edition.number, expires_at=edition.expires_at, targets=targets)
        return self._signed(Role.TARGETS, document)

    def _signed(self, role: Role, document: Mapping[str, object]) -> bytes:
        signer = self.signers[role]
        return envelope(document, [signature(signer.key, signer.sign(canonical(document)))])


@dataclass(slots=True)
class Tuf:
    """The use cases. ``clock`` gives aware UTC."""

    keys: TufKeys
    clock: Callable[[], datetime]
    root_lifetime: timedelta = ROOT_LIFETIME
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    _minted: tuple[object, Mint | None] | None = None

    # --------------------------------------------------------------------------------------------- serving

    def mint(self) -> Mint | None:
        """What signs now; None before ``init``. Read anew when files change. Raises Unavailable, Refused."""
        stamp = self.keys.stamp()
        if self._minted is None or self._minted[0] != stamp:
            self._minted = (stamp, self._read())
        return self._minted[1]

    def _read(self) -> Mint | None:
        roots = self.keys.roots()
        if not roots:
            return None
        root = read_root(roots[max(roots)])
        signers = self.keys.online()
        if not _fits(root, signers):
            # A kill may have come between the root and its keys.
            self.keys.commit()
            signers = self.keys.online()
        if not _fits(root, signers):
            raise Unavailable(
                f"The keys in {self.keys.place} are not those that root {root.version} names.",
                remedy="Put the right ones there, or make new ones with `wave tuf rotate`.",
            )
        return Mint(root, roots, signers)

    # --------------------------------------------------------------------------------------------- people's orders

    def init(self, *, keys: Path | None = None, root_key: Path | None = None) -> TufView:
        """Begin one: root 1 and its keys, which are made unless they are taken from the directory ``keys``. Without
        ``root_key`` a root key is made as well, and lies beside the others until somebody moves it away. Raises
        Refused when there is one."""
        self._must_be_new()
        roles = ONLINE if root_key is not None else (Role.ROOT, *ONLINE)
        given = None if root_key is None else self.keys.read(root_key)
        staged = self.keys.stage(roles, given=keys)
        roots = [given or staged[Role.ROOT]]
        self._publish(1, [signer.key for signer in roots], 1, staged, roots)
        return self.show()

    def take_over(self, files: Sequence[bytes], *, root_keys: Sequence[Path], keys: Path | None = None) -> TufView:
        """Go on with the roots of another repository: devices that trust one of them take the next, which names our
        online keys. ``root_keys`` are of the newest of them, as many as its threshold asks. Raises Refused when there
        is a repository, InvalidInput when the roots are no chain."""
        self._must_be_new()
        chain = sorted((read_root(each) for each in files), key=lambda root: root.version)
        if not chain:
            raise InvalidInput("There is no root to take over.")
        self._check_chain(chain)
        newest = chain[-1]
        signers = self._enough(newest, [self.keys.read(each) for each in root_keys])
        staged = self.keys.stage(ONLINE, given=keys)
        by_version = {read_root(each).version: each for each in files}
        for root in chain:
            self.keys.add_root(root.version, by_version[root.version])
        self._succeed(newest, staged, signers, newest.public_keys(Role.ROOT), newest.roles[Role.ROOT].threshold)
        return self.show()

    def rotate(
        self,
        *,
        root_keys: Sequence[Path] = (),
        new_root_key: Path | None = None,
        keys: Path | None = None,
        same_keys: bool = False,
    ) -> TufView:
        """A new root with new online keys, or with ``same_keys`` only a later end. ``root_keys``: of the present root,
        where they are not kept here; ``new_root_key`` takes their place from now on. Raises Refused without enough of
        them, NotFound."""
        roots = self.keys.roots()
        if not roots:
            raise Refused(NOT_BEGUN, remedy=_BEGIN)
        newest = read_root(roots[max(roots)])
        kept = self.keys.kept_root()
        at_hand = [self.keys.read(each) for each in root_keys] or ([kept] if kept is not None else [])
        signers = self._enough(newest, at_hand)
        named, threshold = newest.public_keys(Role.ROOT), newest.roles[Role.ROOT].threshold
        if new_root_key is not None:
            fresh = self.keys.read(new_root_key)
            signers, named, threshold = [*signers, fresh], (fresh.key,), 1
        online = self.keys.online() if same_keys else self.keys.stage(ONLINE, given=keys)
        if same_keys and not _fits(newest, online):
            raise Refused("The online keys at hand are not those that the root names.", remedy="Make new ones.")
        self._succeed(newest, online, signers, named, threshold)
        return self.show()

    def show(self) -> TufView:
        """How it stands. Raises Refused before ``init``."""
        roots = self.keys.roots()
        if not roots:
            raise Refused(NOT_BEGUN, remedy=_BEGIN)
        problem = None
        try:
            self.mint()
            kept = self.keys.kept_root() is not None
        except (Unavailable, Refused) as error:
            problem, kept = str(error), False
        views = [_view(read_root(content)) for _, content in sorted(roots.items(), reverse=True)]
        now = self.clock()
        if problem is None and views[0].expires_at <= now:
            problem = f"Root {views[0].version} is over; devices take nothing. `wave tuf rotate --same-keys` renews it."
        return TufView(self.keys.place, tuple(views), kept, problem)

    # --------------------------------------------------------------------------------------------- roots

    def _must_be_new(self) -> None:
        roots = self.keys.roots()
        if roots:
            raise Refused(
                f"There is a TUF repository in {self.keys.place} already, with {len(roots)} roots.",
                remedy="`wave tuf rotate` gives it new keys.",
            )

    def _check_chain(self, chain: Sequence[Root]) -> None:
        for before, after in pairwise(chain):
            if after.version != before.version + 1:
                raise InvalidInput(f"Root {before.version + 1} is missing between those that were given.")
            if not self._signed_by(after, before):
                raise InvalidInput(f"Root {after.version} is not signed by the keys of root {before.version}.")
        for root in chain:
            if not self._signed_by(root, root):
                raise InvalidInput(f"Root {root.version} is not signed by its own keys.")

    def _signed_by(self, root: Root, by: Root) -> bool:
        made = signatures_of(root.document)
        good = {
            key.id
            for key in by.public_keys(Role.ROOT)
            if key.id in made and self.keys.verified(key, made[key.id], root.signed)
        }
        return len(good) >= by.roles[Role.ROOT].threshold

    def _enough(self, root: Root, at_hand: Sequence[Signer]) -> list[Signer]:
        """Those that may sign for the root; as many as its threshold. Raises Refused."""
        named = {key.id for key in root.public_keys(Role.ROOT)}
        good = {signer.key.id: signer for signer in at_hand if signer.key.id in named}
        needed = root.roles[Role.ROOT].threshold
        if len(good) < needed:
            raise Refused(
                f"Root {root.version} takes {needed} of its keys to be followed by another; "
                f"{len(good)} of them {'is' if len(good) == 1 else 'are'} at hand.",
                remedy="Give the root's private keys with --root-key FILE.",
            )
        return list(good.values())

    def _succeed(
        self,
        before: Root,
        online: Mapping[Role, Signer],
        signers: Sequence[Signer],
        named: Sequence[PublicKey],
        threshold: int,
    ) -> None:
        self._publish(before.version + 1, named, threshold, online, signers)

    def _publish(
        self,
        version: int,
        named: Sequence[PublicKey],
        threshold: int,
        online: Mapping[Role, Signer],
        signers: Sequence[Signer],
    ) -> None:
        document = root_document(
            version=version,
            expires_at=self.clock() + self.root_lifetime,
            keys={Role.ROOT: named, **{role: [online[role].key] for role in ONLINE}},
            root_threshold=threshold,
        )
        signed = canonical(document)
        by_id = {signer.key.id: signer for signer in signers}
        content = envelope(document, [signature(each.key, each.sign(signed)) for each in by_id.values()])
        if len(content) > LARGEST_ROOT:
            raise Refused(f"The root would have {len(content)} bytes; clients read {LARGEST_ROOT}.")
        self.keys.add_root(version, content)
        self.keys.commit()


def _fits(root: Root, signers: Mapping[Role, Signer]) -> bool:
    return all(role in signers and signers[role].key.id in root.roles[role].keyids for role in ONLINE)


def _view(root: Root) -> RootView:
    own = root.roles[Role.ROOT]
    online = tuple((role, root.roles[role].keyids[0]) for role in ONLINE if root.roles[role].keyids)
    return RootView(root.version, root.expires_at, own.keyids, own.threshold, online)
