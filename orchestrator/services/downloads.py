"""Where devices fetch content: URLs of the repository, of artifacts and of the deltas between them.

A URL of an artifact is signed and ends: devices of several protocols send no token with a download (Mender), or only
sometimes (SWUpdate), so the URL itself is the right to it. The end is the same for an hour's devices, so that a cache
in front sees one URL.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestrator.core.artifact import Artifact
from orchestrator.services.messages import Offer, OfferedArtifact, OfferedDelta, OfferedTarget

_QUERY: Final = re.compile(r"until=([0-9]{1,12})&signature=([A-Za-z0-9_-]{1,64})")

ARTIFACTS: Final = "/artifacts/"
"""Path below which the gateway serves them."""

SHORTEST: Final = timedelta(hours=24)
"""How long a URL is good for at least; a device that takes longer asks again and gets another."""

_SAME_FOR: Final = 3600
"""Seconds for which all URLs end at one moment."""

_DIGEST_BYTES: Final = 16
"""Of the HMAC: enough against guessing, and short for devices with small buffers."""


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """Signs paths. ``key`` gives 32 secret bytes, the same on all replicas; asked when something is first signed."""

    key: Callable[[], bytes]

    def sign(self, path: str, until: datetime) -> str:
        """The query string that makes ``path`` good until then (whole seconds)."""
        end = int(until.timestamp())
        return f"until={end}&signature={self._digest(path, end)}"

    def check(self, path: str, query: str, now: datetime) -> bool:
        """Whether the query string of a request makes the path good now; in constant time for whoever guesses."""
        given = _QUERY.fullmatch(query)
        if given is None:
            return False
        end = int(given[1])
        return hmac.compare_digest(self._digest(path, end), given[2]) and now.timestamp() < end

    def _digest(self, path: str, end: int) -> str:
        made = hmac.new(self.key(), f"{end}\n{path}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(made[:_DIGEST_BYTES]).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Downloads:
    """URLs below ``url``, which is how devices reach the gateway. Without a signer they are not signed.
    ``makes_artifacts``: whether deltas between artifacts are artifacts themselves, for devices of every protocol."""

    url: str
    signer: Signer | None = None
    makes_artifacts: bool = False

    @property
    def repository(self) -> str:
        return f"{self.url}/ostree"

    def artifact(self, artifact: Artifact, *, now: datetime) -> str:
        return self._signed(f"{ARTIFACTS}{artifact.sha256}/{artifact.filename}", now)

    def delta(self, path: str, *, now: datetime) -> str:
        """Of a delta between artifacts, by the path that its record names."""
        return self._signed(ARTIFACTS + path, now)

    def offer(
        self, rollout: str, target: OfferedTarget, artifact: Artifact, delta: OfferedDelta | None, *, now: datetime
    ) -> Offer:
        """The offer of a Target that is a file; ``delta`` as for any Target, by its path."""
        if delta is not None:
            sums, _, program = delta.path.rpartition("/")[2].partition(".")
            sha256 = sums.partition("-")[0]
            delta = OfferedDelta(
                delta.from_commit, delta.path, delta.bytes, self.delta(delta.path, now=now), sha256, program
            )
        whole = OfferedArtifact(self.artifact(artifact, now=now), artifact.filename, artifact.size, artifact.sha256)
        return Offer(rollout, target, None, delta, whole)

    def _signed(self, path: str, now: datetime) -> str:
        if self.signer is None:
            return self.url + path
        end = -(-(now + SHORTEST).timestamp() // _SAME_FOR) * _SAME_FOR
        return f"{self.url}{path}?{self.signer.sign(path, datetime.fromtimestamp(end, UTC))}"
