"""Taking a file to an orchestrator elsewhere, in pieces; an upload that was interrupted goes on where it stopped, also
in another run of the command.

Whatever can be refused is refused before the file is sent: it is read and summed up here first.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.adapters.remote.client import API, Client
from orchestrator.core.artifact import Artifact
from orchestrator.errors import Conflict, InvalidInput, NotFound, Unavailable
from orchestrator.services.artifact_store import Progress, silent
from orchestrator.services.artifacts import Added, Artifacts, Said

PIECE: Final = 8 << 20
"""Bytes of one request."""

TRIES: Final = 5
"""How often the connection may break without anything having arrived in between."""

_TUS: Final = {"tus-resumable": "1.0.0"}


class Uploading:
    """``pause`` waits before another try."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pause = time.sleep

    def add(self, path: Path, said: Said, *, dry_run: bool = False, progress: Progress = silent) -> Added:
        """As ``Artifacts.add``. Raises what that raises, and Unavailable when the connection breaks for good."""
        here = Artifacts(cast(Any, _There(self._client)), FolderStore(Path("nowhere")), self._client.now)
        planned = here.add(path, said, dry_run=True, progress=progress if dry_run else silent)
        if dry_run:
            return planned
        if not planned.new and said == Said() and self._client.call("artifacts.show", planned.artifact.sha256).there:
            return planned
        place = self._begin(path, planned.artifact, said)
        with _opened(path) as stream:
            ended = self._send(path, place, stream, planned.artifact, progress)
        if ended is None:
            # It was finished, and the answer was lost.
            return Added(self._client.call("artifacts.show", planned.artifact.sha256).artifact, True, planned.remark)
        artifact = self._client.call("artifacts.show", ended["wave-artifact"]).artifact
        remark = ended.get("wave-remark")
        return Added(artifact, ended["wave-new"] == "true", None if remark is None else unquote(remark))

    def _begin(self, path: Path, artifact: Artifact, said: Said) -> str:
        words = {
            "filename": path.name,
            "sha256": artifact.sha256,
            "name": said.name,
            "version": said.version,
            "hardware_ids": ",".join(said.hardware_ids) or None,
        }
        metadata = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items() if value is not None
        )
        headers = {**_TUS, "upload-length": str(artifact.size), "upload-metadata": metadata}
        return self._client.send("POST", f"{API}/uploads", headers=headers).headers["location"]

    def _send(self, path: Path, place: str, stream: Any, artifact: Artifact, progress: Progress) -> Any:
        """The headers of the last answer; None when the upload is there no more, for it is an artifact."""
        tries, stood = 0, -1
        while True:
            try:
                offset = self._stands(place)
                if offset is None:
                    return None
                tries, stood = (0, offset) if offset > stood else (tries, stood)
                progress(offset, artifact.size)
                stream.seek(offset)
                while True:
                    piece = stream.read(PIECE)
                    if offset + len(piece) > artifact.size or (not piece and offset < artifact.size):
                        raise InvalidInput(
                            f"{path} changed while it was sent.", remedy="Add it again when it is finished."
                        )
                    headers = {**_TUS, "upload-offset": str(offset), "content-type": "application/offset+octet-stream"}
                    answer = self._client.send("PATCH", place, content=piece, headers=headers)
                    offset = int(answer.headers["upload-offset"])
                    progress(offset, artifact.size)
                    if "wave-artifact" in answer.headers:
                        return answer.headers
            except (Unavailable, Conflict, NotFound):
                tries += 1
                if tries >= TRIES:
                    raise
                self._pause(min(2.0**tries, 15.0))

    def _stands(self, place: str) -> int | None:
        try:
            return int(self._client.send("HEAD", place, headers=_TUS).headers["upload-offset"])
        except NotFound:
            return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    with stream:
        yield stream


class _There:
    """As much of a snapshot as planning an artifact needs: whether it is known there."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @contextmanager
    def reading(self) -> Iterator[_There]:
        yield self

    def artifact(self, sha256: str) -> Artifact | None:
        try:
            found: Artifact = self._client.call("artifacts.show", sha256).artifact
        except NotFound:
            return None
        return found
