"""Strict reading of GVariant containers, as far as OSTree's objects and static deltas need it.

Only cuts bytes into children; what they mean is the caller's business. GLib itself reads damaged input leniently (a bad
offset becomes a default value); here it is an error, because the question asked is "is this whole?".
All offsets inside a container are little-endian whatever the machine that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class Malformed(ValueError):
    """The bytes are no such GVariant. Never leaves this package: callers say what the bytes were meant to be."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What framing depends on: ``alignment`` in bytes, and ``size`` in bytes, None when values vary in size."""

    alignment: int
    size: int | None = None


BYTE = Kind(1, 1)
UINT32 = Kind(4, 4)
UINT64 = Kind(8, 8)
BYTES = Kind(1)  # ay, s, and containers of these
WIDE = Kind(8)  # a{sv}, and containers with a uint64 or a variant in them


def offset_width(size: int) -> int:
    """Bytes per framing offset in a container of ``size`` bytes."""
    if size <= 0xFF:
        return 1
    if size <= 0xFFFF:
        return 2
    return 4 if size <= 0xFFFF_FFFF else 8


def aligned(offset: int, alignment: int) -> int:
    """The next offset, or the same, that is a multiple of ``alignment``."""
    return -(-offset // alignment) * alignment


def children_of_tuple(container: bytes, kinds: Sequence[Kind]) -> list[bytes]:
    """One slice per member. Raises Malformed."""
    size = len(container)
    width = offset_width(size)
    varying = sum(kind.size is None for kind in kinds[:-1])
    limit = size - varying * width
    if limit < 0:
        raise Malformed(f"{size} bytes cannot hold {varying} offsets")
    children = []
    end = 0
    table = size
    for index, kind in enumerate(kinds):
        start = aligned(end, kind.alignment)
        if kind.size is not None:
            end = start + kind.size
        elif index == len(kinds) - 1:
            end = limit
        else:
            table -= width
            end = int.from_bytes(container[table : table + width], "little")
        if not start <= end <= limit:
            raise Malformed(f"member {index} would be at {start} to {end} of {limit} bytes")
        children.append(container[start:end])
    return children


def children_of_array(container: bytes, alignment: int) -> list[bytes]:
    """The elements of an array whose elements vary in size. Raises Malformed."""
    size = len(container)
    if size == 0:
        return []
    width = offset_width(size)
    if size < width:
        raise Malformed(f"an array of {size} bytes has no room for an offset")
    table = int.from_bytes(container[size - width :], "little")
    if table > size - width or (size - table) % width:
        raise Malformed(f"an array's offsets would start at {table} of {size} bytes")
    children = []
    end = 0
    for place in range(table, size, width):
        start = aligned(end, alignment)
        end = int.from_bytes(container[place : place + width], "little")
        if not start <= end <= table:
            raise Malformed(f"an element would be at {start} to {end} of {table} bytes")
        children.append(container[start:end])
    return children


def text(child: bytes) -> str:
    """A string member: UTF-8 up to its closing NUL. Raises Malformed."""
    if not child.endswith(b"\0"):
        raise Malformed("a string does not end in NUL")
    try:
        return child[:-1].decode()
    except UnicodeDecodeError as error:
        raise Malformed("a string is not UTF-8") from error


def dictionary(container: bytes) -> dict[str, tuple[str, bytes]]:
    """An ``a{sv}``: key to (type string, value bytes). Raises Malformed."""
    entries = {}
    for entry in children_of_array(container, 8):
        key, variant = children_of_tuple(entry, (BYTES, WIDE))
        value, separator, kind = variant.rpartition(b"\0")
        if not separator:
            raise Malformed("a variant without a type")
        entries[text(key)] = (kind.decode("latin-1"), value)
    return entries


def pack_tail(body: bytes, ends: Sequence[int]) -> bytes:
    """``body`` with the framing offsets of a tuple behind it, ``ends`` in the order of the members."""
    width = 1
    while offset_width(len(body) + len(ends) * width) > width:
        width *= 2
    return body + b"".join(end.to_bytes(width, "little") for end in reversed(ends))
