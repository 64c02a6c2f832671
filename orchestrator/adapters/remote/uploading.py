"""Taking a file to an orchestrator elsewhere."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.remote.client import Client
from orchestrator.errors import InvalidInput
from orchestrator.services.artifact_store import Progress, silent
from orchestrator.services.artifacts import Added, Said


class Uploading:
    def __init__(self, client: Client) -> None:
        self._client = client

    def add(self, path: Path, said: Said, *, dry_run: bool = False, progress: Progress = silent) -> Added:
        raise InvalidInput("Files cannot be sent elsewhere yet.")
