"""What ``device.py`` fetches with: downloads that are taken up again, and the table of contents of a static delta."""

from __future__ import annotations

import errno
import hashlib
import os
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path


class UpdateFailed(Exception):
    """An update cannot go on. ``event`` and ``code`` are what the server is told."""

    def __init__(self, event: str, code: str, message: str) -> None:
        super().__init__(message)
        self.event = event
        self.code = code


class Downloads:
    """Fetches files and counts what came. ``attempts`` times each, with waits of ``retry_seconds`` times 1, 2, 4 ..."""

    stopping: threading.Event
    tls: ssl.SSLContext | None
    http_seconds: float
    attempts: int
    retry_seconds: float
    requests: int
    bytes: int

    def _download(self, url: str, file: Path, *, checksum: str | None) -> None:
        """A file, taken up where it broke off. Raises UpdateFailed when it cannot be had."""
        if file.exists():
            return
        partial, problem = file.with_name(file.name + ".partial"), ("stopped", f"{url}: the device was stopped")
        for attempt in range(self.attempts):
            if attempt and self.stopping.wait(self.retry_seconds * 2 ** (attempt - 1)):
                break
            try:
                self._get(url, partial)
                if checksum is None or hashlib.sha256(partial.read_bytes()).hexdigest() == checksum:
                    partial.replace(file)
                    return
                problem = "bad_checksum", f"{url} is not what its checksum says"
                partial.unlink()
            except urllib.error.HTTPError as error:
                problem = f"http_{error.code}", f"{url}: {error.reason}"
                partial.unlink(missing_ok=True)
                if error.code in (401, 403, 404, 410):  # asking again gives the same answer
                    break
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise
                problem = "network", f"{url}: {error}"
        raise UpdateFailed("download_failed", *problem)

    def _get(self, url: str, partial: Path) -> None:
        done = partial.stat().st_size if partial.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        self.requests += 1
        with urllib.request.urlopen(request, timeout=self.http_seconds, context=self.tls) as response:
            left = int(response.headers["Content-Length"])
            with partial.open("ab" if response.status == 206 else "wb") as file:
                while piece := response.read(min(left, 64 * 1024)):
                    file.write(piece)
                    self.bytes += len(piece)
                    left -= len(piece)
                file.flush()
                os.fsync(file.fileno())
        if left:
            raise ConnectionError(f"the connection broke {left} bytes before the end")


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
