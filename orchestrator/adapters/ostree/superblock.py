"""The superblock of a static delta: what a device must fetch, and how to know that it is whole.

Type ``(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))``: metadata, time (big-endian), from, to, the new commit
object itself, parents, parts, fallbacks. Sizes in parts and fallbacks are in the byte order of the machine that made
the delta, named by the metadata key ``ostree.endianness`` (``l`` or ``B``).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from orchestrator.adapters.ostree.gvariant import (
    BYTE,
    BYTES,
    UINT32,
    UINT64,
    WIDE,
    Malformed,
    aligned,
    children_of_array,
    children_of_tuple,
    dictionary,
    offset_width,
    pack_tail,
)
from orchestrator.errors import CorruptDelta

_SUPERBLOCK = (WIDE, UINT64, BYTES, BYTES, WIDE, BYTES, WIDE, WIDE)
_PART = (UINT32, BYTES, UINT64, UINT64, BYTES)
_FALLBACK = (BYTE, BYTES, UINT64, UINT64)

OBJECT_SUFFIXES = {1: "filez", 2: "dirtree", 3: "dirmeta", 4: "commit"}
"""OSTree's object types by number, as the suffixes of files in an archive repository."""

MAX_SIZE = 1 << 50
"""Bytes. A size above this is taken for damage or for the wrong byte order, not for a part."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part file ``index``: its size in bytes, its sha256 in hex, how many objects it makes. ``inline`` parts lie in
    the superblock and have no file."""

    index: int
    size: int
    unpacked_size: int
    sha256: str
    objects: int
    inline: bool


@dataclass(frozen=True, slots=True)
class Fallback:
    """An object that a device fetches by itself: ``name`` as in ``objects/`` without the slash, ``size`` in bytes."""

    name: str
    size: int
    unpacked_size: int

    @property
    def path(self) -> str:
        """Relative to the repository."""
        return f"objects/{self.name[:2]}/{self.name[2:]}"


@dataclass(frozen=True, slots=True)
class Superblock:
    """A delta's table of contents. ``from_commit`` None: from scratch."""

    from_commit: str | None
    to_commit: str
    parts: tuple[Part, ...]
    fallbacks: tuple[Fallback, ...]
    without_fallbacks: bytes
    """The same superblock naming no fallbacks. ``ostree static-delta apply-offline`` refuses a delta that has some, and
    they only say what to fetch besides: with this in its place the parts can be applied, the objects added after."""


def parse(superblock: bytes) -> Superblock:
    """Raises CorruptDelta for anything that is not exactly a superblock."""
    try:
        return _parse(superblock)
    except Malformed as error:
        raise CorruptDelta(f"The delta's superblock is damaged: {error}.", remedy="Build the delta again.") from error


def _parse(superblock: bytes) -> Superblock:
    if superblock.startswith(b"OSTSGNDT"):
        raise Malformed("it is wrapped in a signature, which this version does not read")
    metadata, _, origin, target, commit, _, headers, entries = children_of_tuple(superblock, _SUPERBLOCK)
    to_commit = _checksum(target)
    if sha256(commit).hexdigest() != to_commit:
        raise Malformed(f"the commit object in it is not {to_commit}")
    keys = dictionary(metadata)
    parts = children_of_array(headers, 8)
    fallbacks = children_of_array(entries, 8)
    order = _byte_order(keys, parts)
    # ostree keys an inline part by the path its file would have
    inline = {key.rsplit("/", 1)[-1] for key, (kind, _) in keys.items() if kind == "(yay)"}
    return Superblock(
        from_commit=_checksum(origin) if origin else None,
        to_commit=to_commit,
        parts=tuple(_part(index, part, order, str(index) in inline) for index, part in enumerate(parts)),
        fallbacks=tuple(_fallback(entry, order) for entry in fallbacks),
        without_fallbacks=_without_fallbacks(superblock),
    )


def _byte_order(keys: dict[str, tuple[str, bytes]], parts: list[bytes]) -> Literal["little", "big"]:
    match keys.get("ostree.endianness"):
        case ("y", b"l"):
            return "little"
        case ("y", b"B"):
            return "big"
        case None:
            # deltas from before 2016 do not say; read the wrong way round a real size is astronomical
            sizes = [children_of_tuple(part, _PART)[2] for part in parts]
            little = sum(int.from_bytes(size, "little") for size in sizes)
            return "little" if little <= sum(int.from_bytes(size, "big") for size in sizes) else "big"
        case _:
            raise Malformed("it names an unknown byte order")


def _part(index: int, part: bytes, order: Literal["little", "big"], inline: bool) -> Part:
    _, checksum, size, unpacked, objects = children_of_tuple(part, _PART)
    if len(objects) % 33:
        raise Malformed(f"part {index} lists objects in {len(objects)} bytes, no multiple of 33")
    return Part(index, _size(size, order), _size(unpacked, order), _checksum(checksum), len(objects) // 33, inline)


def _fallback(entry: bytes, order: Literal["little", "big"]) -> Fallback:
    kind, checksum, size, unpacked = children_of_tuple(entry, _FALLBACK)
    suffix = OBJECT_SUFFIXES.get(kind[0])
    if suffix is None:
        raise Malformed(f"a fallback object of the unknown type {kind[0]}")
    return Fallback(f"{_checksum(checksum)}.{suffix}", _size(size, order), _size(unpacked, order))


def _size(size: bytes, order: Literal["little", "big"]) -> int:
    number = int.from_bytes(size, order)
    if number > MAX_SIZE:
        raise Malformed(f"a size of {number} bytes")
    return number


def _checksum(checksum: bytes) -> str:
    if len(checksum) != 32:
        raise Malformed(f"a checksum of {len(checksum)} bytes")
    return checksum.hex()


def _without_fallbacks(superblock: bytes) -> bytes:
    # fallbacks are the last member, so that only they and the framing offsets behind them go
    size, width = len(superblock), offset_width(len(superblock))
    varying = sum(kind.size is None for kind in _SUPERBLOCK[:-1])
    places = range(size - width, size - width * (varying + 1), -width)
    ends = [int.from_bytes(superblock[place : place + width], "little") for place in places]
    body = superblock[: ends[-1]]
    return pack_tail(body.ljust(aligned(len(body), 8), b"\0"), ends)
