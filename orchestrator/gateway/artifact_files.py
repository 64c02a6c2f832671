"""Serves artifacts and the deltas between them: which URL is which file, and who may have it.

::

    {sha256}/{any file name}                       an artifact; the name is for the device only
    deltas/{from}/{to}/{sha256}.{program}          a delta between two artifacts
    deltas/{from}/{to}/{sums}.{program}            one that is an artifact itself (``services.installable``)

All are named by the sha256 of what is in them, so they never change under their name. Whoever shows a good signature
may have it (``services.downloads``); ranges, validators and all else are ``files``'.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.errors import WaveError
from orchestrator.gateway.files import FileSent, FileServer, Placed, Receive, Scope, Send
from orchestrator.services.downloads import ARTIFACTS, Signer

_log = logging.getLogger(__name__)

PREFIX: Final = ARTIFACTS.rstrip("/")

_ARTIFACT: Final = re.compile(r"([0-9a-f]{2})([0-9a-f]{62})/[^/]+")
_DELTA: Final = re.compile(
    r"deltas/[0-9a-f]{64}/[0-9a-f]{64}/[0-9a-f]{64}(-[0-9a-f]{40}-[0-9a-f]{32})?\.[a-z0-9_-]{1,32}"
)
_LATER: Final = b"The server cannot do this now; ask again later.\n"
_REFUSED: Final = b"This address is not signed, or has ended; ask for the update again.\n"


def in_store(name: str) -> Placed | None:
    """What is served of a store of artifacts."""
    if found := _ARTIFACT.fullmatch(name):
        return Placed(f"{found[1]}/{found[1]}{found[2]}", forever=True)
    return Placed(name, forever=True) if _DELTA.fullmatch(name) else None


class ArtifactServer:
    """An ASGI application over the store at ``root``, mounted at ``PREFIX``. ``signer`` None: everybody may have
    everything whose sha256 he knows."""

    def __init__(
        self,
        root: Path,
        signer: Signer | None,
        clock: Callable[[], datetime],
        *,
        on_sent: Callable[[FileSent], None] | None = None,
    ) -> None:
        self._files = FileServer(root, place=in_store, on_sent=on_sent)
        self._on_sent = on_sent
        self._signer = signer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._signer is not None:
            query = scope.get("query_string", b"").decode("latin-1")
            path = ARTIFACTS + scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
            try:
                if not self._signer.check(path, query, self._clock()):
                    await self._refuse(scope, send, 403, _REFUSED)
                    return
            except WaveError as error:
                _log.warning("no artifact can be served: %s", error)
                await self._refuse(scope, send, 503, _LATER, (b"retry-after", b"30"))
                return
        await self._files(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send, status: int, text: bytes, *more: tuple[bytes, bytes]) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})
        if self._on_sent is not None:
            self._on_sent(FileSent(scope["path"], status, 0))
