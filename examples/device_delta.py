"""Reads the table of contents of an OSTree static delta, as far as ``device.py`` needs it."""

from __future__ import annotations

import hashlib


def read_superblock(superblock: bytes, commit: str) -> tuple[list[str], list[str], bytes]:
    """Of a static delta to ``commit``: the sha256 of each part, the objects it needs besides (their file names), and
    the same superblock without these. Raises ValueError for what is none.

    A GVariant ``(a{sv}tayay(commit)aya(uayttay)a(yaytt))``: at its end, backwards, are the ends of its members of
    varying size except the last, each in ``width`` bytes. Members with 8-byte numbers start at multiples of 8.
    """
    width = _width(superblock)
    ends = [_end(superblock, len(superblock) - width * place, width) for place in range(1, 7)]
    if superblock[ends[1] : ends[2]].hex() != commit:
        raise ValueError(f"it does not make {commit}")
    if hashlib.sha256(superblock[_align(ends[2]) : ends[3]]).hexdigest() != commit:
        raise ValueError("the commit in it does not have its checksum")
    headers = _elements(superblock[_align(ends[4]) : ends[5]])
    fallbacks = _elements(superblock[_align(ends[5]) : len(superblock) - width * 6])
    suffixes = {1: "filez", 2: "dirtree", 3: "dirmeta", 4: "commit"}
    if not all(len(entry) > 33 and entry[0] in suffixes for entry in fallbacks):
        raise ValueError("it names objects of an unknown kind")
    names = [f"{entry[1:33].hex()}.{suffixes[entry[0]]}" for entry in fallbacks]
    body = superblock[: ends[5]].ljust(_align(ends[5]), b"\0")
    new = next(w for w in (1, 2, 4, 8) if len(body) + 6 * w < 256**w)
    applicable = body + b"".join(end.to_bytes(new, "little") for end in reversed(ends))
    return [header[4:36].hex() for header in headers], names, applicable


def _elements(array: bytes) -> list[bytes]:
    if not array:
        return []
    width = _width(array)
    table = _end(array, len(array) - width, width)
    ends = [_end(array, place, width) for place in range(table, len(array), width)]
    return [array[start:end] for start, end in zip([0, *map(_align, ends)], ends, strict=False)]


def _width(container: bytes) -> int:
    return next(width for width in (1, 2, 4, 8) if len(container) < 256**width)


def _end(container: bytes, place: int, width: int) -> int:
    end = int.from_bytes(container[place : place + width], "little")
    if place < 0 or end > len(container):
        raise ValueError(f"an offset of {end} in {len(container)} bytes")
    return end


def _align(offset: int) -> int:
    return -(-offset // 8) * 8
