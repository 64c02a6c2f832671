"""RAUC bundles: a squashfs with a CMS signature behind it, whose length the last eight bytes say.

A ``verity`` bundle carries its manifest inside the signature, where it is read; of a ``plain`` one the manifest is in
the squashfs, and ``unsquashfs`` is asked where there is one. The signature itself is the device's to check.
"""

from __future__ import annotations

import configparser
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO, Final

from orchestrator.adapters.commands import Cancelled, TimedOut, start, watch
from orchestrator.core.artifact import Described, Format

MAGIC: Final = b"hsqs"
LARGEST_SIGNATURE: Final = 4 << 20
LARGEST_MANIFEST: Final = 60_000
SECONDS: Final = 20.0
"""For ``unsquashfs``, which reads what somebody else has made."""

_MEMORY: Final = 512 << 20


def signature_of(stream: BinaryIO, size: int) -> bytes | None:
    """The CMS signature behind the squashfs; None when there is none, so that this is no bundle."""
    if size < 96 + 8:
        return None
    stream.seek(size - 8)
    length = int.from_bytes(stream.read(8), "big")
    if not 16 <= length <= min(LARGEST_SIGNATURE, size - 96 - 8):
        return None
    stream.seek(size - 8 - length)
    found = stream.read(length)
    # a DER sequence with a long length, as every signature is
    return found if found[:1] == b"\x30" and found[1] & 0x80 else None


def describe(signature: bytes, path: Path) -> Described:
    """What the manifest says; where it cannot be read a remark, for the operator can say it all."""
    manifest = _within(signature) or _unsquashed(path)
    if manifest is None:
        return Described(Format.RAUCB, remark="Its manifest cannot be read here; `unsquashfs` would read a plain one.")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(manifest)
    except configparser.Error:
        return Described(Format.RAUCB, remark="Its manifest breaks the syntax.")
    compatible = parser.get("update", "compatible", fallback="").strip()[:128]
    version = parser.get("update", "version", fallback="").strip()[:128]
    return Described(Format.RAUCB, None, version or None, (compatible,) if compatible else ())


def _within(signature: bytes) -> str | None:
    """The manifest as it stands in the signed content."""
    start_at = signature.find(b"[update]\n")
    if start_at < 0:
        return None
    text = signature[start_at : start_at + LARGEST_MANIFEST]
    # it ends where what is no text begins: the certificates
    end = next((i for i, byte in enumerate(text) if byte < 9 or 13 < byte < 32 or byte > 126), len(text))
    return text[:end].rpartition(b"\n")[0].decode("ascii")


def _unsquashed(path: Path) -> str | None:
    program, limit = shutil.which("unsquashfs"), shutil.which("prlimit")
    if program is None or limit is None:
        return None
    argv = [limit, f"--as={_MEMORY}", "--fsize=0", "--core=0", program, "-cat", "-processors", "1", os.fspath(path)]
    try:
        result = watch(start([*argv, "manifest.raucm"]), time.monotonic() + SECONDS, None, None)
    except (OSError, TimedOut, Cancelled):
        return None
    return result.stdout if result.returncode == 0 and "[update]" in result.stdout else None
