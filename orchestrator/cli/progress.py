"""Bars for commands that read long logs or large files, on standard error and only when a person sits there."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.cli.context import Invocation

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Rows:
    """Shows how many rows of how many are read. Lines for standard output go around the bar."""

    def __init__(self, call: Invocation, what: str) -> None:
        self._call, self._what = call, what
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def told(self, rollout: str, rows: int, of: int) -> None:
        """So many of a rollout's rows are read."""
        if self._call.as_json or not self._call.err.is_terminal:
            return
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._call.err,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=of)
        assert self._task is not None
        self._progress.update(self._task, description=f"{self._what} of {rollout}", completed=rows, total=of)

    def lines(self, *lines: str) -> None:
        """Lines of the answer."""
        self._call.lines(*lines)


class Bytes:
    """Shows how many bytes of how many are done."""

    def __init__(self, call: Invocation, what: str) -> None:
        self._call, self._what = call, what
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def told(self, done: int, of: int) -> None:
        """So many bytes are done."""
        if self._call.as_json or not self._call.err.is_terminal:
            return
        if self._progress is None:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=self._call.err,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=of)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=of)
