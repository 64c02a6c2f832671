"""A bar for commands that read long logs or large files, on standard error and only when a person sits there."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.cli.context import Invocation

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """Shows how much of how much is done; ``what`` is being done. It appears with the first word."""

    def __init__(self, call: Invocation, what: str) -> None:
        self._call, self._what = call, what
        self._silent = call.as_json or not call.err.is_terminal
        self._shown: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown[0].stop()

    def rows(self, rollout: str, done: int, of: int) -> None:
        """So many of a rollout's rows are read."""
        self._show(f"{self._what} of {rollout}", done, of, in_bytes=False)

    def bytes(self, done: int, of: int) -> None:
        """So many bytes are done."""
        self._show(self._what, done, of, in_bytes=True)

    def _show(self, what: str, done: int, of: int, *, in_bytes: bool) -> None:
        if self._silent:
            return
        if self._shown is None:
            self._shown = self._begun(in_bytes=in_bytes)
        progress, task = self._shown
        progress.update(task, description=what, completed=done, total=of)

    def _begun(self, *, in_bytes: bool) -> tuple[Progress, TaskID]:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn() if in_bytes else MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._call.err,
            transient=True,
        )
        progress.start()
        return progress, progress.add_task(self._what)
