"""The answers of hawkBit's protocol. Small: Zephyr's client reads them into 1,100 bytes.

The names of links, the length of ``sleep``, ``part`` and the query on ``deploymentBase`` (and none on ``cancelAction``)
are what real clients demand; docs/devices/swupdate.md says which.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import msgspec

from orchestrator.core.artifact import Artifact
from orchestrator.core.update import Update
from orchestrator.services.ddi import Poll

_LONGEST_SLEEP: Final = 24 * 3600 - 1

_encode: Final = msgspec.json.Encoder().encode

PART: Final = "bApp"
"""The only part that Zephyr's client takes; the others do not read it."""


@lru_cache(maxsize=4_096)
def idle(seconds: int) -> bytes:
    """The answer to nearly every poll: come again, nothing else."""
    return b'{"config":{"polling":{"sleep":"%s"}},"_links":{}}' % sleep(seconds).encode()


@lru_cache(maxsize=4_096)
def sleep(seconds: int) -> str:
    """``HH:MM:SS``, always eight characters."""
    whole = max(1, min(seconds, _LONGEST_SLEEP))
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def poll(base: str, found: Poll) -> bytes:
    """``base``: the device's own address."""
    seconds = math.ceil(found.check_in_after)
    if found.action is None and not found.asks_config:
        return idle(seconds)
    links: dict[str, Any] = {}
    if found.action is not None and found.update is not None:
        if found.stops:
            links["cancelAction"] = {"href": f"{base}/cancelAction/{found.action}"}
        else:
            links["deploymentBase"] = {"href": f"{base}/deploymentBase/{found.action}?c={_state(found.update)}"}
    if found.asks_config:
        links["configData"] = {"href": f"{base}/configData"}
    return _encode({"config": {"polling": {"sleep": sleep(seconds)}}, "_links": links})


def _state(update: Update) -> int:
    """Another number for another state, so that a client sees that something changed."""
    return crc32(f"{update.status}{update.offered_at.timestamp()}".encode())


def deployment(base: str, action: int, artifact: Artifact) -> bytes:
    return _encode(
        {
            "id": str(action),
            "deployment": {
                "download": "forced",
                "update": "forced",
                "chunks": [
                    {
                        "part": PART,
                        "version": artifact.version,
                        "name": artifact.name,
                        "artifacts": [_file(base, action, artifact)],
                    }
                ],
            },
        }
    )


def files(base: str, action: int, artifact: Artifact) -> bytes:
    """The list of a software module's artifacts; a module has the number of the action here."""
    return _encode([_file(base, action, artifact)])


def _file(base: str, action: int, artifact: Artifact) -> dict[str, Any]:
    href = f"{base}/softwaremodules/{action}/artifacts/{artifact.filename}"
    sums = artifact.digests
    return {
        "filename": artifact.filename,
        "hashes": {"sha1": sums.sha1, "md5": sums.md5, "sha256": sums.sha256},
        "size": artifact.size,
        "_links": {
            "download": {"href": href},
            "download-http": {"href": href},
            "md5sum-http": {"href": f"{href}.MD5SUM"},
        },
    }


def md5sum(artifact: Artifact) -> bytes:
    """As ``md5sum`` prints it."""
    return f"{artifact.digests.md5}  {artifact.filename}\n".encode()


def cancellation(action: int) -> bytes:
    return _encode({"id": str(action), "cancelAction": {"stopId": str(action)}})


def failure(kind: str, message: str) -> bytes:
    return _encode({"errorCode": kind, "message": message})


NO_CONFIRMATION: Final = b'{"autoConfirm":{"active":true}}'
"""Nothing here waits for a person at the device: what is offered may be installed."""
