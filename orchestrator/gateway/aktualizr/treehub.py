"""The repository under the paths by which aktualizr-lite asks for it: the same files as below ``/ostree``.

::

    /treehub/...     /d/{device}/{secret}/treehub/...     /d/{device}/{secret}/ostree/...

Content needs no secret: whoever knows a commit may fetch it, as below ``/ostree``; so the prefix is taken off, and
judged nowhere. ``download-urls`` and ``delta-stats``, which are no files, go on to the gateway.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.gateway.http import App, Receive, Scope, Send

_FILES: Final = re.compile(r"(?:/d/[^/]{1,128}/[^/]{16,256})?/(?:treehub|ostree)(?=/)")
_BEGIN: Final = ("/treehub/", "/d/", "/ostree/")
"""How all of these begin, which nearly no request does."""
_OTHERS: Final = re.compile(r"/(?:download-urls|delta-stats/[^/]*)")


class Treehub:
    """An ASGI application in front of another: ``files`` where a path means the repository, ``gateway`` otherwise."""

    at_once = True

    def __init__(self, gateway: App, files: App) -> None:
        self._gateway = gateway
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_BEGIN):
            path: str = scope["path"]
            found = _FILES.match(path)
            if found is not None:
                rest = path[found.end() :]
                if _OTHERS.fullmatch(rest) is None:
                    root = scope.get("root_path", "") + found[0]
                    await self._files({**scope, "root_path": root}, receive, send)
                    return
                if path.startswith("/ostree/"):
                    scope = {**scope, "path": f"/treehub{rest}"}  # below /ostree the gateway has only files
        await self._gateway(scope, receive, send)
