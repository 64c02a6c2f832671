"""Commits, trees and refs of an archive repository, read straight from its files.

Reading them here instead of by ``ostree ls`` saves a process per question and is safe against odd file names. Objects
are content-addressed, so what was read once stays true; refs are read anew every time.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from orchestrator.adapters.ostree.gvariant import (
    BYTES,
    UINT32,
    UINT64,
    WIDE,
    Malformed,
    children_of_array,
    children_of_tuple,
    pack_tail,
    text,
)
from orchestrator.errors import ContentUnavailable, InvalidInput
from orchestrator.services.delta_provider import CommitRecord

_COMMIT = (WIDE, BYTES, BYTES, BYTES, BYTES, UINT64, BYTES, BYTES)
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def checked_commit(commit: str) -> str:
    """``commit`` if it is 64 lower-case hex digits: nothing else may become a path or an argument."""
    if not _CHECKSUM.fullmatch(commit):
        raise InvalidInput(f"{commit[:80]!r} is no OSTree commit.", remedy="A commit is 64 lower-case hex digits.")
    return commit


def object_path(repository: Path, name: str) -> Path:
    """Of an object ``<64 hex>.<suffix>``."""
    return repository / "objects" / name[:2] / name[2:]


@dataclass(frozen=True, slots=True)
class CommitObject:
    """What a commit object says: parent commit or None, subject, unix seconds, root dirtree and dirmeta (hex)."""

    parent: str | None
    subject: str
    made_at: int
    dirtree: str
    dirmeta: str


@dataclass(frozen=True, slots=True)
class CommitContent:
    """All that a commit consists of: object names (``<hex>.<suffix>``); file names to the content objects so called."""

    objects: frozenset[str]
    by_basename: Mapping[str, frozenset[str]]


def read_object(repository: Path, name: str) -> bytes:
    """A metadata object, checked against its checksum. Raises ContentUnavailable."""
    try:
        content = object_path(repository, name).read_bytes()
    except OSError as error:
        raise ContentUnavailable(
            f"The repository {repository} lacks the object {name} ({error.strerror}).",
            remedy="Push or pull the commit again, or run `ostree fsck`.",
        ) from error
    if sha256(content).hexdigest() != name[:64]:
        raise ContentUnavailable(
            f"The object {name} in {repository} is damaged.", remedy="Run `ostree fsck --delete` and push it again."
        )
    return content


@lru_cache(maxsize=4096)
def read_commit(repository: Path, commit: str) -> CommitObject:
    """Raises ContentUnavailable."""
    try:
        _, parent, _, subject, _, made_at, dirtree, dirmeta = children_of_tuple(
            read_object(repository, f"{checked_commit(commit)}.commit"), _COMMIT
        )
        return CommitObject(
            parent=parent.hex() or None,
            subject=text(subject),
            made_at=int.from_bytes(made_at, "big"),
            dirtree=dirtree.hex(),
            dirmeta=dirmeta.hex(),
        )
    except Malformed as error:
        raise ContentUnavailable(f"The commit {commit} cannot be read: {error}.") from error


@lru_cache(maxsize=12)  # some 6 MB each for 14,000 files
def read_content(repository: Path, commit: str) -> CommitContent:
    """Every object of a commit, the commit itself included. Some 0.1 s for 10,000 files, then remembered.
    Raises ContentUnavailable."""
    root = read_commit(repository, commit)
    objects = {f"{commit}.commit", f"{root.dirmeta}.dirmeta"}
    by_basename: dict[str, set[str]] = {}
    waiting = [root.dirtree]
    while waiting:
        name = f"{waiting.pop()}.dirtree"
        if name in objects:
            continue
        objects.add(name)
        try:
            files, directories = children_of_tuple(read_object(repository, name), (BYTES, BYTES))
            for entry in children_of_array(files, 1):
                basename, checksum = children_of_tuple(entry, (BYTES, BYTES))
                content = f"{checksum.hex()}.filez"
                objects.add(content)
                by_basename.setdefault(text(basename), set()).add(content)
            for entry in children_of_array(directories, 1):
                _, dirtree, dirmeta = children_of_tuple(entry, (BYTES, BYTES, BYTES))
                objects.add(f"{dirmeta.hex()}.dirmeta")
                waiting.append(dirtree.hex())
        except Malformed as error:
            raise ContentUnavailable(f"The object {name} in {repository} cannot be read: {error}.") from error
    return CommitContent(frozenset(objects), {name: frozenset(found) for name, found in by_basename.items()})


def read_refs(repository: Path) -> dict[str, str]:
    """Local ref names to commits, sorted by name. Files that hold no commit (a ref being written) are left out."""
    top = repository / "refs" / "heads"
    refs = {}
    for folder, _, files in os.walk(top):
        for file in files:
            path = Path(folder, file)
            try:
                commit = path.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError):
                continue
            if _CHECKSUM.fullmatch(commit):
                refs[path.relative_to(top).as_posix()] = commit
    return dict(sorted(refs.items()))


def read_history(repository: Path) -> list[CommitRecord]:
    """Every commit that a ref reaches, newest first; a parent that was pruned ends its line."""
    refs = read_refs(repository)
    names: dict[str, list[str]] = {}
    for name, commit in refs.items():
        names.setdefault(commit, []).append(name)
    found: dict[str, CommitObject] = {}
    waiting = list(names)
    while waiting:
        commit = waiting.pop()
        if commit in found or not object_path(repository, f"{commit}.commit").exists():
            continue
        found[commit] = read_commit(repository, commit)
        if parent := found[commit].parent:
            waiting.append(parent)
    records = (CommitRecord(key, tuple(names.get(key, ())), of.subject, of.made_at) for key, of in found.items())
    return sorted(records, key=lambda record: (-record.made_at, record.commit))


def unpacked_size(repository: Path, name: str) -> int:
    """Bytes of a content object's file before compression, from its header."""
    with object_path(repository, name).open("rb") as file:
        header = file.read(16)
    return int.from_bytes(header[8:16], "big")


def is_whole(path: Path, name: str) -> bool:
    """Whether an object file has the content that its ``name`` promises; not when it is missing. Raises OSError."""
    try:
        digest = sha256()
        for piece in _canonical(path) if name.endswith(".filez") else _pieces(path):
            digest.update(piece)
    except (FileNotFoundError, Malformed, zlib.error):
        return False
    return digest.hexdigest() == name[:64]


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def _canonical(path: Path) -> Iterator[bytes]:
    """What OSTree hashes for a content object: the header without the size, then the file, unpacked.

    The object file is: header length (big-endian uint32), 4 zero bytes, header ``(tuuuusa(ayay))``, raw deflate.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) != 8 or (length := int.from_bytes(prefix[:4], "big")) > _CHUNK:
            raise Malformed("an object without a header")
        header = file.read(length)
        if len(header) != length:
            raise Malformed("an object with half a header")
        kinds = (UINT64, UINT32, UINT32, UINT32, UINT32, BYTES, BYTES)
        size, uid, gid, mode, rdev, symlink, xattrs = children_of_tuple(header, kinds)
        fixed = uid + gid + mode + rdev + symlink
        bare = pack_tail(fixed + xattrs, [len(fixed)])
        yield struct.pack(">II", len(bare), 0) + bare
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked = 0
        while piece := file.read(_CHUNK):
            out = inflate.decompress(piece)
            unpacked += len(out)
            yield out
        out = inflate.flush()
        if (unpacked + len(out)) != int.from_bytes(size, "big"):
            raise Malformed("an object of another size than its header says")
        yield out
