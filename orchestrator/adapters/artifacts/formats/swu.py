"""SWUpdate images: a cpio archive (newc or crc) whose first member is ``sw-description``."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

from orchestrator.adapters.artifacts.formats.libconfig import NotLibconfig, parse
from orchestrator.core.artifact import Described, Format
from orchestrator.errors import InvalidInput

MAGICS: Final = (b"070701", b"070702")
HEADER_BYTES: Final = 110
LARGEST_DESCRIPTION: Final = 1 << 20
LARGEST_NAME: Final = 256
MOST_COMPATIBLE: Final = 256
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")

_COMPATIBLE: Final = "hardware-compatibility"


def describe(stream: BinaryIO, filename: str) -> Described:
    """Raises InvalidInput when it is no SWUpdate image."""
    text = _description(stream, filename)
    if text is None:
        return Described(Format.SWU, remark="Its sw-description is encrypted or not libconfig text in UTF-8.")
    try:
        software = parse(text).get("software")
    except NotLibconfig as error:
        if "software" not in text:
            return Described(Format.SWU, remark="Its sw-description is encrypted or not libconfig text in UTF-8.")
        raise _broken(filename, f"its sw-description breaks the syntax: {error}") from None
    if not isinstance(software, dict):
        raise _broken(filename, "its sw-description has no group `software`")
    return Described(
        Format.SWU,
        name=_text(software.get("name")),
        version=_text(software.get("version")),
        compatible=tuple(dict.fromkeys(_compatible(software)))[:MOST_COMPATIBLE],
    )


def _description(stream: BinaryIO, filename: str) -> str | None:
    stream.seek(0)
    header = stream.read(HEADER_BYTES)
    try:
        # nothing but digits: to Python a sign and an underscore make numbers too
        if len(header) != HEADER_BYTES or header[:6] not in MAGICS or not set(header[6:]) <= _HEX:
            raise ValueError
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)
    except ValueError:
        raise _broken(filename, "its first cpio header is cut off or damaged") from None
    if not 1 < name_size <= LARGEST_NAME:
        raise _broken(filename, f"its first member has a name of {name_size} bytes")
    name = stream.read(name_size).rstrip(b"\0")
    if name != b"sw-description":
        raise _broken(filename, "its first member is not sw-description")
    if size > LARGEST_DESCRIPTION:
        raise _broken(filename, f"its sw-description has {size} bytes; {LARGEST_DESCRIPTION} are read at most")
    stream.seek(-(HEADER_BYTES + name_size) % 4, 1)
    content = stream.read(size)
    if len(content) != size:
        raise _broken(filename, "it ends within its sw-description")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _compatible(software: dict[str, Any]) -> list[str]:
    """Revisions as they stand; of a board's own part with the board before them."""
    found = _texts(software.get(_COMPATIBLE))
    for board, part in software.items():
        if isinstance(part, dict):
            found += [f"{board}:{revision}" for revision in _texts(part.get(_COMPATIBLE))]
    return found


def _texts(value: Any) -> list[str]:
    return [text for each in value if (text := _text(each))] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value.strip()[:128] or None if isinstance(value, str) else None


def _broken(filename: str, why: str) -> InvalidInput:
    return InvalidInput(f"{filename} is no SWUpdate image: {why}.", remedy="Build it again, or fetch it again.")
