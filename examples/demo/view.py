"""What one sees while the demo runs: in a terminal a page that is drawn anew, otherwise a line for what happens."""

from __future__ import annotations

import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from examples.demo.fleet import Notes
from examples.demo.state import Snapshot, under_way
from orchestrator.core.journal import Entry
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.records import JobStatus
from orchestrator.services.views import RolloutView, WaveView

WIDTH: Final = 80
BAR: Final = 26
COMFORTABLE: Final = 42
LOW: Final = 30
"""Lines of a terminal in which everything has room, and below which even blank lines are too many."""

STATUS_STYLE: Final = {
    "running": "bold cyan",
    "completed": "bold green",
    "halted": "bold red",
    "held": "bold yellow",
    "cancelled": "bold magenta",
    "passed": "green",
    "open": "cyan",
    "baking": "cyan",
    "preparing": "yellow",
    "failed": "red",
}
VERSION_STYLE: Final = {1: "grey50", 2: "steel_blue", 3: "green", 4: "magenta"}
DOING: Final = {
    "downloading": ("↓", "cyan"),
    "installing": ("»", "cyan"),
    "applied": ("↻", "yellow"),
    "rolled_back": ("✗", "red"),
}

STAGES: Final = {"verify": "verifying", "apply": "proving", "publish": "publishing"}
"""What people call the stages of a build."""

UNTOLD: Final = frozenset({"applied", "prepared", "bake_started", "slice_opened"})
"""Entries of the journal that the waves' lines show anyway."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: what the view must know beforehand. ``names`` gives a delta its name, such as ``rpi4 1→3``."""

    devices: int
    real: Sequence[str]
    names: Mapping[DeltaPair, str]
    notes: Notes
    running: Callable[[], Mapping[str, int]]


class Show:
    """Takes what happens and shows it. Used as a context; ``say`` and ``update`` may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.cast: Cast | None = None
        self.snapshot: Snapshot | None = None
        self.act = "Setting the stage"
        self._started = time.monotonic()
        self._lines: list[tuple[float, str, str]] = []
        self._last_progress = (0.0, "")
        self._lock = threading.Lock()
        self._page = Live(
            console=console, get_renderable=self.render, refresh_per_second=4, screen=True, redirect_stderr=False
        )

    def __enter__(self) -> Show:
        if self.live:
            self._page.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self.live:
            self._page.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def say(self, text: str, style: str = "") -> None:
        """One line of the story."""
        with self._lock:
            self._lines.append((self.elapsed, text, style))
            if not self.live:
                self.console.print(_line(*self._lines[-1]))

    def update(self, snapshot: Snapshot) -> None:
        """A new look at the installation."""
        self.snapshot = snapshot
        for rollout, entry in snapshot.entries:
            if entry.event not in UNTOLD:
                self.say(*_told(rollout, entry))
        if not self.live and self.elapsed - self._last_progress[0] > 3:
            text = _progress(snapshot)
            if text and text != self._last_progress[1]:
                self.say(text, "dim")
                self._last_progress = (self.elapsed, text)

    # ------------------------------------------------------------------------------------------ the page

    def render(self) -> RenderableType:
        """The whole page, as high as the terminal; in a low one, what matters least is left out."""
        height = self.console.height
        above: list[Text] = [*self._head()]
        if self.snapshot is not None:
            views = self.snapshot.rollouts
            for view in views:
                above += _rollout(view, whole=height >= COMFORTABLE or view is views[-1])
            if self.cast is not None:
                above += [*_deltas(self.snapshot, self.cast), *_versions(self.snapshot)]
                above += _real(self.cast) if height >= LOW else []
        if height < LOW:
            above = [line for line in above if line.plain.strip()]
        room = max(3, height - len(above) - 2)
        return Group(*above, _rule("What happened"), *self._story(room))

    def _head(self) -> list[Text]:
        title = Text(" wave ", style="bold reverse").append("  ", "none").append(self.act, "bold not reverse")
        title.truncate(WIDTH - 7)
        minutes, seconds = divmod(int(self.elapsed), 60)
        title.append(f"{minutes}:{seconds:02} ".rjust(WIDTH - title.cell_len), "not reverse")
        return [title, Text()]

    def _story(self, room: int) -> list[Text]:
        found: list[Text] = []
        for line in reversed(self._lines[-room:]):
            rows = _line(*line).split("\n")
            if len(found) + len(rows) > room:
                break
            found[:0] = rows
        return found


def _line(at: float, text: str, style: str) -> Text:
    wrapped = textwrap.wrap(text, WIDTH - 9, break_long_words=True) or [""]
    said = Text(f"{int(at // 60):2}:{at % 60:04.1f}  ", style="dim").append(wrapped[0], style)
    for more in wrapped[1:]:
        said.append(f"\n{'':9}{more}", style)
    return said


def _told(rollout: str, entry: Entry) -> tuple[str, str]:
    style = {
        "halted": "bold red",
        "cancelled": "bold magenta",
        "completed": "bold green",
        "passed": "green",
        "opened": "cyan",
    }
    where = f"{rollout} {entry.wave}" if entry.wave else rollout
    return f"{where} {entry.event.replace('_', ' ')}: {entry.sentence}", style.get(entry.event, "")


def _progress(snapshot: Snapshot) -> str:
    for view in snapshot.rollouts:
        if view.summary.status.value == "running":
            waves = [f"{w.state.wave} {w.facts.confirmed}/{w.facts.members}" for w in view.waves if w.facts.members]
            builds = sum(job.status is JobStatus.RUNNING for job in snapshot.jobs)
            return f"{view.summary.rollout}: " + ", ".join(
                [*waves, f"{len(snapshot.deltas)} deltas ready", *([f"{builds} being built"] if builds else [])]
            )
    return ""


def _rule(title: str) -> Text:
    return Text(f"── {title} ", style="dim").append("─" * (WIDTH - len(title) - 4), "dim")


def _rollout(view: RolloutView, *, whole: bool) -> list[Text]:
    summary = view.summary
    status = summary.status.value
    head = Text(f" {summary.rollout}", style="bold").append(f"  version {summary.target_version}  ", "not bold")
    head.append(status.upper(), STATUS_STYLE.get(status, "bold"))
    tail = f"{summary.confirmed} of {summary.devices} confirmed, {summary.bad or 'none'} bad "
    head.append(tail.rjust(WIDTH - head.cell_len), "not bold")
    if not whole:
        return [head, Text()]
    lines = [head, *(_wave(wave, running=status == "running") for wave in view.waves)]
    if status in ("halted", "cancelled", "held"):
        for row in textwrap.wrap(summary.standing.reason.sentence, WIDTH - 4):
            lines.append(Text(f"   {row}", style=STATUS_STYLE[status].removeprefix("bold ")))
    return [*lines, Text()]


def _wave(wave: WaveView, *, running: bool) -> Text:
    facts, status = wave.facts, wave.state.status.value
    bad = sum(facts.bad(each) for each in OutcomeClass)
    total = max(facts.members, facts.eligible or 0, 1)
    line = Text(f"   {wave.state.wave:<7}").append(f"{status:<10}", STATUS_STYLE.get(status, "dim"))
    flying = max(0, facts.in_flight)
    line.append_text(_bar(total, [(facts.confirmed, "█", "green"), (bad, "█", "red"), (flying, "▓", "cyan")]))
    line.append(f" {facts.confirmed:>3} of {total:<3}" if facts.members else f" {'':10}")
    if bad:
        line.append(f" {bad} bad", "red")
    elif status == "preparing" and facts.deltas is not None:
        line.append(f" {facts.deltas.ready} of {facts.deltas.pairs} deltas", "dim")
    elif status in ("open", "baking") and running and facts.slices:
        line.append(
            " watched" if status == "baking" else f" slice {facts.slices[-1].number}: {facts.offered} offered", "dim"
        )
    return line


def _bar(total: int, parts: Sequence[tuple[int, str, str]], width: int = BAR) -> Text:
    """Stretches in proportion, at least one cell for what is not nothing; what is left is empty."""
    bar, done, used = Text(), 0, 0
    for count, cell, style in parts:
        done += count
        cells = min(width - used, max(round(width * done / total) - used, 1 if count else 0))
        bar.append(cell * cells, style)
        used += cells
    return bar.append("░" * (width - used), "grey30")


def _deltas(snapshot: Snapshot, cast: Cast) -> list[Text]:
    cells = [
        Text(f"{cast.names.get(record.pair, '?'):<9} ")
        .append("ready", "green")
        .append(f" {(record.bytes + record.fallback_bytes) / 1e6:4.1f} MB")
        for record in sorted(snapshot.deltas, key=lambda record: cast.names.get(record.pair, "?"))
    ]
    for job in under_way(snapshot.jobs):
        name = Text(f"{cast.names.get(job.pair, '?'):<9} ")
        if job.status is JobStatus.RUNNING:
            took = (snapshot.at - (job.started_at or snapshot.at)).total_seconds()
            cells.append(name.append(STAGES.get(job.stage, "building"), "yellow").append(f" {took:.0f} s"))
        else:
            cells.append(name.append("queued", "dim"))
    if not cells:
        return []
    return [*_columns("Deltas", cells, 3, 24), Text()]


def _versions(snapshot: Snapshot) -> list[Text]:
    if not snapshot.running:
        return []
    counts: dict[str, Counter[int]] = {}
    for each in snapshot.running:
        counts.setdefault(each.hardware_id, Counter())[each.version or 0] += each.devices
    widest = max(sum(counter.values()) for counter in counts.values())
    lines = []
    for number, hardware_id in enumerate(sorted(counts)):
        counter = counts[hardware_id]
        line = Text(" Runs   " if number == 0 else " " * 8).append(f"{hardware_id:<6}")
        parts = [(counter[version], "█", VERSION_STYLE.get(version, "grey30")) for version in sorted(counter)]
        line.append_text(_bar(widest, parts, 30)).append(" ")
        for version in sorted(counter):
            said = f" v{version} {counter[version]}" if version else f" not heard {counter[version]}"
            line.append(said, VERSION_STYLE.get(version, "dim"))
        lines.append(line)
    return [*lines, Text()]


def _real(cast: Cast) -> list[Text]:
    running = cast.running()
    cells = []
    for device in cast.real:
        version = running.get(device)
        mark, style = DOING.get(cast.notes.doing.get(device, ""), ("", ""))
        cell = Text(f"{device:<9}").append(f"v{version}" if version else "  ", VERSION_STYLE.get(version or 0, "dim"))
        cells.append(cell.append(f" {mark}", style))
    return [*_columns("Real", cells, 5, 14), Text()] if cells else []


def _columns(title: str, cells: Sequence[Text], columns: int, width: int) -> list[Text]:
    lines = []
    for start in range(0, len(cells), columns):
        line = Text(f" {title:<7}" if start == 0 else " " * 8)
        for cell in cells[start : start + columns]:
            cell.truncate(width - 1)
            cell.pad_right(width - cell.cell_len)
            line.append_text(cell)
        lines.append(line)
    return lines
