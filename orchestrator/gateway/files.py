"""Serves files to devices: read-only, over HTTP, as a bare ASGI application. By itself it serves an OSTree archive
repository; ``artifact_files`` has it serve artifacts.

Answers for: which files leave the machine, ranges, validators and caching. Not for: who may ask (put it behind TLS, or
a proxy) nor what is in the files (commits are checked by the device).

Of a repository only what its clients ask for is there at all: ``config``, ``summary``, ``summary.sig``, and what lies
below ``refs/heads``, ``objects``, ``deltas`` and ``delta-indexes``. All else is 404, so that a name says nothing;
symbolic links too, wherever they lead (so aliases of refs are not served).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CHUNK_BYTES = 256 * 1024
"""Read and sent at a time: a device on a slow line costs this much memory."""

INLINE_BYTES = 64 * 1024
"""Files up to this size are read without a thread: they cost less than the change of threads."""

FOREVER = "public, max-age=31536000, immutable"
"""For objects, whose name is the checksum of what is in them."""

ASK_AGAIN = "no-cache"
"""For all that can change under its name. So can the parts of a delta: built again, part 0 is another part 0, and a
cache that kept the old one would hand it out beside the new superblock."""

_FILES = frozenset({"config", "summary", "summary.sig"})
_FOLDERS = ("refs/heads/", "objects/", "deltas/", "delta-indexes/")
_SEGMENT = re.compile(r"[A-Za-z0-9+_=@:~-][A-Za-z0-9+_=@:~.-]*")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_HEX = re.compile(r"objects/[0-9a-f]{2}/[0-9a-f]{62}\.(filez|dirtree|dirmeta|commit)")

_NOT_SERVED = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL})
"""What opening a file that may not be served says: a symbolic link, a name too long, a socket."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileSent:
    """One answer: the ``path`` asked for below the root, the HTTP status, and the bytes of body that were handed to the
    server (fewer than the file when the device hung up)."""

    path: str
    status: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the file of a URL lies: ``path`` below the root, each step of it a plain name; ``forever``: what lies there
    never changes."""

    path: str
    forever: bool


Place = Callable[[str], Placed | None]
"""From a name below the application's prefix, decoded and without ``..``, to the file; None: nothing is there."""


@dataclass(frozen=True, slots=True)
class _Opened:
    fd: int
    size: int
    modified_at: int
    etag: str


class FileServer:
    """An ASGI 3 application over the files below ``root``, a repository unless ``place`` says otherwise. ``on_sent`` is
    called once per answer, in the event loop, and must return at once. Mount it with ``root_path`` set to its prefix,
    or give it paths without a prefix."""

    def __init__(
        self, root: Path, *, place: Place | None = None, on_sent: Callable[[FileSent], None] | None = None
    ) -> None:
        self._root = root.absolute()
        self._place = place or in_repository
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"FileServer answers HTTP, not {scope['type']}")
        response = _Response(scope, receive, send)
        try:
            await self._answer(scope, response)
        finally:
            if self._on_sent is not None:
                self._on_sent(FileSent(_relative(scope), response.status, response.sent))

    async def _answer(self, scope: Scope, response: _Response) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await response.short(HTTPStatus.METHOD_NOT_ALLOWED, [(b"allow", b"GET, HEAD")])
            return
        placed = servable(scope, self._place)
        try:
            opened = _open(self._root, placed.path) if placed is not None else None
        except OSError as error:
            _log.warning("cannot read %s: %s", placed, error)
            await response.short(HTTPStatus.SERVICE_UNAVAILABLE, [(b"retry-after", b"30")])
            return
        if placed is None or opened is None:
            await response.short(HTTPStatus.NOT_FOUND)
            return
        try:
            await _serve(self._root / placed.path, opened, response, forever=placed.forever)
        finally:
            os.close(opened.fd)


class _Response:
    """One answer under way; counts what is sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        self.head = scope["method"] == "HEAD"
        self.can_send_paths = "http.response.pathsend" in scope.get("extensions", {})
        self.status = 0
        self.sent = 0
        self._receive = receive
        self._send = send

    async def gone(self) -> None:
        """Returns when the device has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: HTTPStatus, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status.value
        await self._send({"type": "http.response.start", "status": status.value, "headers": headers})

    async def body(self, piece: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})
        self.sent += len(piece)

    async def path(self, path: Path, size: int) -> None:
        await self._send({"type": "http.response.pathsend", "path": str(path)})
        self.sent += size

    async def short(self, status: HTTPStatus, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        text = b"" if status == HTTPStatus.NOT_MODIFIED else f"{status.phrase}\n".encode()
        length = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())] if text else []
        await self.start(status, [*(headers or []), *length])
        await self.body(b"" if self.head else text, more=False)


def servable(scope: Scope, place: Place) -> Placed | None:
    """The file below the root that a request means, or None when nothing is served under that name.

    Decoded only once, by the server; a path in which anything but plain letters would have to be decoded is refused, so
    that no proxy in front and no file system below can read it differently.
    """
    raw = scope.get("raw_path")
    if raw is not None and re.search(rb"%(2f|5c|00|2e)", raw, re.IGNORECASE):
        return None
    name = _relative(scope)
    return place(name) if all(_SEGMENT.fullmatch(segment) for segment in name.split("/")) else None


def in_repository(name: str) -> Placed | None:
    """What is served of an OSTree repository."""
    if name not in _FILES and not name.startswith(_FOLDERS):
        return None
    return Placed(name, forever=_HEX.fullmatch(name) is not None)


def _relative(scope: Scope) -> str:
    path: str = scope["path"]
    # ASGI leaves the prefix of a mounted application in the path
    return path.removeprefix(scope.get("root_path", "")).removeprefix("/")


def _open(root: Path, name: str) -> _Opened | None:
    """The file, or None when there is none that may be served; each step without following a symbolic link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, file = name.split("/")
        for step in folders:
            below = os.open(step, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        fd = os.open(file, flags, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NOT_SERVED:
            return None
        raise
    finally:
        os.close(folder)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
    return _Opened(fd, status.st_size, int(status.st_mtime), etag)


async def _serve(path: Path, file: _Opened, response: _Response, *, forever: bool) -> None:
    headers = [
        (b"etag", file.etag.encode()),
        (b"last-modified", formatdate(file.modified_at, usegmt=True).encode()),
        (b"cache-control", (FOREVER if forever else ASK_AGAIN).encode()),
        (b"accept-ranges", b"bytes"),
    ]
    if _unchanged(response.request, file):
        await response.short(HTTPStatus.NOT_MODIFIED, headers)
        return
    headers.append((b"content-type", b"application/octet-stream"))
    wanted = _range(response.request, file)
    if wanted is not None and len(wanted) == 0:
        await response.short(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, [(b"content-range", f"bytes */{file.size}".encode())]
        )
        return
    status, piece = HTTPStatus.OK, range(file.size)
    if wanted is not None:
        status, piece = HTTPStatus.PARTIAL_CONTENT, wanted
        headers.append((b"content-range", f"bytes {piece[0]}-{piece[-1]}/{file.size}".encode()))
    headers.append((b"content-length", str(len(piece)).encode()))
    await response.start(status, headers)
    if response.head:
        await response.body(b"", more=False)
    elif forever and response.can_send_paths and wanted is None:
        # only what never changes: by a path the server opens the file once more, perhaps another one
        await response.path(path, file.size)
    else:
        await _send_piece(file.fd, piece, response)


async def _send_piece(fd: int, piece: range, response: _Response) -> None:
    if len(piece) <= INLINE_BYTES:
        content = os.pread(fd, len(piece), piece.start)
        if len(content) != len(piece):
            raise OSError("a file became shorter while it was sent")
        await response.body(content, more=False)
        return
    gone = asyncio.ensure_future(response.gone())
    try:
        for start in range(piece.start, piece.stop, CHUNK_BYTES):
            size = min(CHUNK_BYTES, piece.stop - start)
            content = await asyncio.to_thread(os.pread, fd, size, start)
            if len(content) != size:
                raise OSError("a file became shorter while it was sent")
            if gone.done():
                return  # nobody listens: to read on would only warm the disk
            await response.body(content, more=start + size < piece.stop)
    finally:
        gone.cancel()


def _unchanged(request: dict[bytes, str], file: _Opened) -> bool:
    if (tags := request.get(b"if-none-match")) is not None:
        return tags.strip() == "*" or file.etag in (tag.strip().removeprefix("W/") for tag in tags.split(","))
    since = _http_date(request.get(b"if-modified-since"))
    return since is not None and file.modified_at <= since


def _range(request: dict[bytes, str], file: _Opened) -> range | None:
    """The bytes asked for; None for all of them, an empty range when there are none such.

    Several ranges at once, and what is no range, are answered whole, as the standard allows.
    """
    found = _RANGE.fullmatch(request.get(b"range", "").strip())
    if found is None or found[0] == "bytes=-":
        return None
    guard = request.get(b"if-range", file.etag)
    # a date is as good as the tag only when it is exactly the one that was sent
    if guard.strip() != file.etag and _http_date(guard) != file.modified_at:
        return None
    first, last = found.groups()
    if len(first) > 18 or len(last) > 18:
        return range(0) if first else None
    if not first:
        return range(max(0, file.size - int(last)), file.size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, file.size) if last else file.size)


def _http_date(value: str | None) -> int | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return int(parsedate_to_datetime(value or "").timestamp())
    return None


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
