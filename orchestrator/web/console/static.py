"""The console's files: style, script and icon, each under a name with the hash of its content, kept for ever by who
has it."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "static"

_KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file with its address under ``/static``."""

    name: str
    kind: str
    body: bytes
    packed: bytes


@cache
def files() -> dict[str, File]:
    """By address. Read once."""
    found: dict[str, File] = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _KINDS:
            body = path.read_bytes()
            name = f"{path.stem}.{hashlib.blake2b(body, digest_size=8).hexdigest()}{path.suffix}"
            found[name] = File(name, _KINDS[path.suffix], body, gzip.compress(body, 9, mtime=0))
    return found


@cache
def address(name: str) -> str:
    """``/static/console.0123456789abcdef.css`` for ``console.css``."""
    stem, _, suffix = name.rpartition(".")
    return next(f"/static/{each}" for each in files() if each.startswith(f"{stem}.") and each.endswith(f".{suffix}"))
