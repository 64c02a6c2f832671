"""Tells a file's format by its content and has it read."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.artifacts.formats import mender, raucb, swu
from orchestrator.core.artifact import Described, Format
from orchestrator.errors import InvalidInput


def describe(stream: BinaryIO, size: int, path: Path, *, filename: str) -> Described:
    """What the file says of itself; ``stream`` is the file at ``path`` and can seek. Raises InvalidInput for a file
    that claims a format, by its first bytes or by its name alone, and breaks it."""
    stream.seek(0)
    block = stream.read(mender.BLOCK)
    if mender.looks_like(block):
        return mender.describe(stream, filename)
    if block.startswith(raucb.MAGIC) and (signature := raucb.signature_of(stream, size)) is not None:
        return raucb.describe(signature, path.absolute())
    if filename.endswith(".swu"):
        return swu.describe(stream, filename)
    if block.startswith(swu.MAGICS):
        # an initramfs is a cpio too; only what begins with a description is an image
        return swu.describe(stream, filename) if b"sw-description\0" in block[: swu.HEADER_BYTES + 15] else _plain()
    if filename.endswith((".mender", ".raucb")):
        kind = "Mender Artifact" if filename.endswith(".mender") else "RAUC bundle"
        raise InvalidInput(f"{filename} is no {kind}.", remedy="Fetch it again, or give it another name.")
    return _plain()


def _plain() -> Described:
    return Described(Format.PLAIN)
