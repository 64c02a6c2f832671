"""Artifacts: whole files for devices that take files instead of an OSTree commit.

The commit of a Target that is a file is the sha256 of that file, so that everything above (waves, deltas, the gate)
knows no difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator.errors import InvalidInput, Refused

FILES: Final = "files"
"""The name of the content system, as a Target's ``provider``."""

LARGEST: Final = 1 << 40
"""Bytes of an artifact at most."""

LONGEST_VERSION: Final = 128
_FILENAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+_=@~.-]{0,127}")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class Format(StrEnum):
    """What kind of file it is, by which its name, version and hardware are read."""

    SWU = "swu"
    RAUCB = "raucb"
    MENDER = "mender"
    PLAIN = "plain"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES: Final = {
    Format.SWU: "an SWUpdate image: version and hardware revisions are in its sw-description",
    Format.RAUCB: "a RAUC bundle: compatible and version are in its manifest",
    Format.MENDER: "a Mender Artifact: artifact name and device types are in its header",
    Format.PLAIN: "any other file: the operator says what it is",
}


@dataclass(frozen=True, slots=True)
class Digests:
    """What the bytes of a file come to; the protocols of devices ask for all three sums."""

    sha256: str
    sha1: str
    md5: str
    size: int


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says of itself. ``compatible``: the hardware it names, in its own words. ``remark``: why something
    could not be read, a sentence."""

    format: Format
    name: str | None = None
    version: str | None = None
    compatible: tuple[str, ...] = ()
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file in the store. ``version``: what a device that runs it says of itself, in the words of its protocol.
    ``hardware_ids``: what it is for, by the operator's word or else its own; empty: whatever a Target says."""

    digests: Digests
    format: Format
    filename: str
    name: str
    version: str
    hardware_ids: tuple[str, ...] = ()
    compatible: tuple[str, ...] = field(default=())
    added_at: datetime | None = None

    @property
    def sha256(self) -> str:
        """Its name in the store, and the commit of a Target that is this file."""
        return self.digests.sha256

    @property
    def size(self) -> int:
        return self.digests.size

    @property
    def said(self) -> tuple[str, ...]:
        """By which words of a device it is recognised: a Mender device says the artifact's name, others a version."""
        return tuple(dict.fromkeys((self.version, self.name) if self.format is Format.MENDER else (self.version,)))


def check_filename(text: str) -> str:
    """The text itself when it can be a file's name in a URL and on a device. Raises InvalidInput."""
    if not _FILENAME.fullmatch(text):
        raise InvalidInput(
            f"{text[:80]!r} cannot be an artifact's file name: use letters, digits and . _ + = @ ~ -, "
            "beginning with a letter or digit, 128 at most.",
            remedy="Rename the file.",
        )
    return text


def check_version(text: str) -> str:
    """The text itself when it can be a version as a device says it. Raises InvalidInput."""
    if not (1 <= len(text) <= LONGEST_VERSION and text.isprintable() and text == text.strip()):
        raise InvalidInput(
            f"{text[:80]!r} cannot be an artifact's version: 1 to {LONGEST_VERSION} printable characters on one line."
        )
    return text


def own_hardware_ids(described: Described) -> tuple[str, ...]:
    """The hardware ids that a file settles by itself.

    SWUpdate's list holds revisions (``1.0``) unless its boards are named (``board:1.0``): a bare revision is no
    hardware id. What is a pattern or cannot be an id settles nothing.
    """
    found = (text for text in described.compatible if _ID.fullmatch(text))
    if described.format is Format.SWU:
        found = (text for text in found if ":" in text)
    return tuple(dict.fromkeys(found))


def fits(described: Described, hardware_id: str) -> bool:
    """Whether a file that says this may go to this hardware. A file that names no hardware says nothing against it."""
    allowed = described.compatible
    if not allowed:
        return True
    match described.format:
        case Format.SWU:
            board, _, revision = hardware_id.rpartition(":")
            boards = [text.rpartition(":") for text in allowed]
            if any(text.startswith("#RE:") for _, _, text in boards) or any("#RE:" in text for text in allowed):
                return True  # a pattern is for the device to judge
            if not board:
                # named without its revision: it fits when the file names this board, or no board at all
                return any(not of or of == hardware_id for of, _, _ in boards)
            return any(of in ("", board) and known == revision for of, _, known in boards)
        case _:
            return hardware_id in allowed


def check_fits(described: Described, hardware_ids: Sequence[str], *, filename: str) -> None:
    """Raises Refused when the file says that it is for other hardware."""
    wrong = [each for each in hardware_ids if not fits(described, each)]
    if wrong:
        raise Refused(
            f"{filename} is for {', '.join(described.compatible)}, not for {', '.join(wrong)}.",
            remedy="Name the hardware it is made for, or add the file that is made for this one.",
        )
