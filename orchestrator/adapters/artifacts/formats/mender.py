"""Mender Artifacts, versions 2 and 3: a tar of ``version``, ``manifest``, ``header.tar`` (gzip, xz or plain) and data.

An own reader of tar headers: the library's reads extended headers of any size into memory.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, Final

from orchestrator.core.artifact import LARGEST, Described, Format
from orchestrator.errors import InvalidInput

BLOCK: Final = 512
MOST_MEMBERS: Final = 16
"""Members looked at in each archive; the header is among the first four."""

LARGEST_HEADER: Final = 16 << 20
"""Bytes of the header's archive, compressed and not."""

LARGEST_INFO: Final = 1 << 20
LZMA_MEMORY: Final = 128 << 20
MOST_COMPATIBLE: Final = 256


def looks_like(block: bytes) -> bool:
    """Whether the first 512 bytes are a tar header of a member called ``version``, as no other tar begins."""
    return len(block) == BLOCK and block[257:262] == b"ustar" and block[:100].rstrip(b"\0") == b"version"


def describe(stream: BinaryIO, filename: str) -> Described:
    """Raises InvalidInput when it is no Mender Artifact."""
    seen: list[str] = []
    for name, size in _members(stream, filename):
        if name == "version":
            said = _json(_content(stream, size, LARGEST_INFO, filename), filename, "version")
            if said.get("format") != "mender":
                return Described(Format.PLAIN)
            if said.get("version") not in (2, 3):
                raise _broken(filename, f"its format's version is {str(said.get('version'))[:20]}, not 2 or 3")
        elif name.startswith("header.tar"):
            return _header(_content(stream, size, LARGEST_HEADER, filename), name.removeprefix("header.tar"), filename)
        seen.append(name)
    raise _broken(filename, f"no header.tar is among {', '.join(seen)[:200]}")


def _header(content: bytes, suffix: str, filename: str) -> Described:
    match suffix:
        case "":
            plain = content
        case ".gz" | ".xz":
            plain = _unpacked(content, suffix, filename)
        case _:
            return Described(Format.MENDER, remark=f"Its header is packed as {suffix[:8]}, which is not read here.")
    stream = BytesIO(plain)
    for name, size in _members(stream, filename):
        if name == "header-info":
            return _info(_json(_content(stream, size, LARGEST_INFO, filename), filename, "header-info"))
    raise _broken(filename, "its header has no header-info")


def _info(info: dict[str, Any]) -> Described:
    provides, depends = info.get("artifact_provides"), info.get("artifact_depends")
    provides = provides if isinstance(provides, dict) else info
    depends = depends if isinstance(depends, dict) else {"device_type": info.get("device_types_compatible")}
    types = depends.get("device_type")
    listed = [text for each in (types if isinstance(types, list) else [types]) if (text := _text(each))]
    name = _text(provides.get("artifact_name"))
    return Described(Format.MENDER, name, name, tuple(dict.fromkeys(listed))[:MOST_COMPATIBLE])


def _unpacked(content: bytes, suffix: str, filename: str) -> bytes:
    """As much as is allowed: what would become larger is no header."""
    try:
        if suffix == ".gz":
            plain = zlib.decompressobj(wbits=31).decompress(content, LARGEST_HEADER + 1)
        else:
            plain = lzma.LZMADecompressor(memlimit=LZMA_MEMORY).decompress(content, LARGEST_HEADER + 1)
    except (zlib.error, lzma.LZMAError, EOFError, MemoryError) as error:
        raise _broken(filename, f"its header cannot be unpacked ({str(error)[:100]})") from None
    if len(plain) > LARGEST_HEADER:
        raise _broken(filename, f"its header unpacks to more than {LARGEST_HEADER} bytes")
    return plain


def _members(stream: BinaryIO, filename: str) -> Iterator[tuple[str, int]]:
    """Name and size of the first members; the stream stands at each one's content."""
    at = 0
    for _ in range(MOST_MEMBERS):
        stream.seek(at)
        block = stream.read(BLOCK)
        if not block or not block.strip(b"\0"):
            return
        size = _size(block[124:136])
        if len(block) != BLOCK or size is None:
            raise _broken(filename, "a tar header in it is cut off or damaged")
        # what follows extended headers is a member again; of their content nothing is needed
        if block[156:157] in (b"0", b"\0"):
            yield block[:100].split(b"\0")[0].decode("ascii", "replace"), size
        at += BLOCK + -(-size // BLOCK) * BLOCK


def _size(field: bytes) -> int | None:
    if field[:1] == b"\x80":
        found = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if not digits or not set(digits) <= set(b"01234567"):
            return None
        found = int(digits, 8)
    return found if found <= LARGEST else None


def _content(stream: BinaryIO, size: int, most: int, filename: str) -> bytes:
    if size > most:
        raise _broken(filename, f"a member of {size} bytes is there; {most} are read at most")
    content = stream.read(size)
    if len(content) != size:
        raise _broken(filename, "it ends too early")
    return content


def _json(content: bytes, filename: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _broken(filename, f"its {what} is no JSON object")
    return found


def _text(value: Any) -> str | None:
    return value.strip()[:128] or None if isinstance(value, str) else None


def _broken(filename: str, why: str) -> InvalidInput:
    return InvalidInput(f"{filename} is no Mender Artifact: {why}.", remedy="Build it again, or fetch it again.")
