"""Where static deltas lie in a repository, and whether one is whole.

``deltas/<2>/<rest>``: ``<from>-<to>``, or ``<to>`` alone from scratch; each commit in base64 without padding, with
``_`` for ``/``; the first two characters make the folder.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from orchestrator.adapters.ostree.gvariant import Malformed, dictionary
from orchestrator.adapters.ostree.objects import checked_commit, is_whole
from orchestrator.adapters.ostree.superblock import Superblock, parse
from orchestrator.errors import CorruptDelta
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord

_NAME = re.compile(r"[A-Za-z0-9+_]{43}(-[A-Za-z0-9+_]{43})?")
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What opening a piece that is not there says. Any other error is the machine's (too many open files, a broken disk)
and goes up as it is: it must not make a whole delta look broken."""

_REMEDY = "Build it again; that replaces it."


def delta_path(pair: DeltaPair) -> str:
    """Relative to the repository, with slashes. Raises InvalidInput for what is no commit."""
    commits = [pair.to_commit] if pair.from_commit is None else [pair.from_commit, pair.to_commit]
    name = "-".join(_encode(checked_commit(commit)) for commit in commits)
    return f"deltas/{name[:2]}/{name[2:]}"


def _encode(commit: str) -> str:
    return base64.b64encode(bytes.fromhex(commit), altchars=b"+_").decode().rstrip("=")


def _decode(name: str) -> str:
    return base64.b64decode(name + "=", altchars=b"+_", validate=True).hex()


def published_pairs(repository: Path) -> Iterator[DeltaPair]:
    """Every pair that has a folder, whole or not."""
    for folder in sorted((repository / "deltas").glob("??/*")):
        name = folder.parent.name + folder.name
        if not _NAME.fullmatch(name):
            continue
        try:
            *origin, target = map(_decode, name.split("-"))
        except binascii.Error:
            continue
        yield DeltaPair(origin[0] if origin else None, target)


def indexed_digest(repository: Path, pair: DeltaPair) -> str | None:
    """The sha256 of the superblock that the index names for a pair, None when it names none. Raises CorruptDelta.

    Devices refuse a superblock that has another one. (The index has a file per target commit, ``a{sv}`` with one key.)
    """
    path = delta_path(DeltaPair(None, pair.to_commit)).replace("deltas/", "delta-indexes/", 1) + ".index"
    name = "-".join(commit for commit in (pair.from_commit, pair.to_commit) if commit)
    try:
        deltas = dictionary((repository / path).read_bytes()).get("ostree.static-deltas")
        entry = dictionary(deltas[1]).get(name) if deltas else None
    except _ABSENT:
        return None
    except Malformed as error:
        raise CorruptDelta(f"The index {path} is damaged: {error}.", remedy=_REMEDY) from error
    return entry[1].hex() if entry else None


def read_superblock(folder: Path, pair: DeltaPair, *, digest: str | None = None) -> Superblock:
    """Raises CorruptDelta when there is none, or one that is damaged, for another pair, or has not this sha256."""
    try:
        content = (folder / "superblock").read_bytes()
    except _ABSENT as error:
        raise CorruptDelta(f"The delta {folder} has no superblock: {error.strerror}.", remedy=_REMEDY) from error
    superblock = parse(content)
    if digest is not None and sha256(content).hexdigest() != digest:
        raise CorruptDelta(f"The superblock of {folder} is not the one that the index names.", remedy=_REMEDY)
    if DeltaPair(superblock.from_commit, superblock.to_commit) != pair:
        raise CorruptDelta(f"The delta {folder} is for another pair of commits.", remedy=_REMEDY)
    return superblock


def inspect(repository: Path, folder: Path, pair: DeltaPair, *, digest: str | None = None) -> DeltaRecord:
    """The delta in ``folder`` if all of it is there with its size and checksum: parts, and the fallback objects in
    ``repository``; the superblock too when its ``digest`` is known. Reads every byte. Raises CorruptDelta that says
    what is wrong, and OSError when that cannot be found out."""
    superblock = read_superblock(folder, pair, digest=digest)
    size = (folder / "superblock").stat().st_size
    for part in superblock.parts:
        if part.inline:
            continue
        size += part.size
        file = folder / str(part.index)
        try:
            found = file.stat().st_size
            with file.open("rb") as content:
                found_digest = sha256()
                while piece := content.read(1 << 20):
                    found_digest.update(piece)
        except _ABSENT as error:
            raise CorruptDelta(f"Part {part.index} of {folder}: {error.strerror}.", remedy=_REMEDY) from error
        if found != part.size:
            raise CorruptDelta(f"Part {part.index} of {folder} has {found} bytes, not {part.size}.", remedy=_REMEDY)
        if found_digest.hexdigest() != part.sha256:
            raise CorruptDelta(f"Part {part.index} of {folder} is not what its checksum says.", remedy=_REMEDY)
    expected = {"superblock", *(str(part.index) for part in superblock.parts if not part.inline)}
    if stale := sorted({entry.name for entry in folder.iterdir()} - expected):
        raise CorruptDelta(f"{folder} holds leftovers of a killed build: {', '.join(stale[:3])}.", remedy=_REMEDY)
    for fallback in superblock.fallbacks:
        file = repository / fallback.path
        if not file.is_file():
            raise CorruptDelta(
                f"The delta {folder} needs {fallback.path}, which is not there.", remedy="Push the commit again."
            )
        if not is_whole(file, fallback.name):
            raise CorruptDelta(
                f"The delta {folder} needs {fallback.path}, which is damaged.",
                remedy="Run `ostree fsck --delete` and push the commit again.",
            )
    return DeltaRecord(
        pair=pair,
        path=delta_path(pair),
        parts=len(superblock.parts),
        bytes=size,
        fallbacks=len(superblock.fallbacks),
        fallback_bytes=sum((repository / fallback.path).stat().st_size for fallback in superblock.fallbacks),
    )
