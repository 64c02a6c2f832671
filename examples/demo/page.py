"""The closing page: what happened, in figures that were measured while it happened, and how to look further."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.terminal_theme import MONOKAI
from rich.text import Text

from examples.demo.fleet import Member, Notes
from examples.demo.state import Halt, RolloutStory
from examples.demo.view import STATUS_STYLE, WIDTH

LABEL: Final = 11


@dataclass(frozen=True, slots=True)
class PairFetched:
    """One kind of update as real devices did it: how many, what each downloaded by delta, and what one did without."""

    name: str
    devices: int
    requests: int
    bytes: int
    loose_requests: int
    loose_bytes: int


@dataclass(frozen=True, slots=True)
class HaltFacts:
    """The halt, by the server's record and by what the devices saw.

    ``answer_after``: from the moment the proving device sent its report until it had the answer, which is given after
    the halt is committed. ``last_offer_before``: how long before the receipt of that report the last offer was given;
    ``offers_after``: offers given after it, by the server's record; ``asked_after``: check-ins sent between that answer
    and the cancel, ``got_after`` of them answered with an offer.
    """

    device: str
    real: bool
    hardware_id: str
    answer_after: timedelta | None
    last_offer_before: timedelta | None
    offers_after: int
    asked_after: int
    got_after: int


@dataclass(frozen=True, slots=True)
class Closing:
    """Everything the page shows."""

    took: float
    devices: int
    real: int
    content: str
    libostree: str
    deltas_built: int
    delta_cpu: float
    stories: Sequence[RolloutStory]
    halt: HaltFacts | None
    pairs: Sequence[PairFetched]
    bad_devices: Sequence[str]
    back_on: int


def halt_facts(halt: Halt, notes: Notes, members: Sequence[Member], until: datetime) -> HaltFacts | None:
    """Bring both sides together. None when the proving report is not in the record."""
    if halt.proof is None:
        return None
    member = next(each for each in members if each.id == halt.proof.device)
    seen = notes.answers.get(halt.proof.event_id)
    answered_at = seen.answered_at if seen else halt.proof.received_at
    last = halt.last_offer_at
    return HaltFacts(
        member.id,
        member.real,
        member.hardware_id,
        seen.answered_at - seen.sent_at if seen else None,
        halt.proof.received_at - last if last is not None and last <= halt.proof.received_at else None,
        halt.offers_after,
        sum(answered_at < at <= until for at, _ in notes.check_ins),
        sum(answered_at < at <= until and offered for at, offered in notes.check_ins),
    )


def page(closing: Closing) -> Group:
    """The page, 80 columns wide."""
    title = Text(" wave ", style="bold reverse").append("  The demo ", "bold not reverse")
    title.append(
        f"took {closing.took:.0f} s: two rollouts to {closing.devices} devices, {closing.real} of them real",
        "not reverse",
    )
    lines = [Text(), title, Text()]
    for story in closing.stories:
        lines += [*_rollout(story), *_said(story, closing), Text()]
    lines += [*_bytes(closing), Text(), *_further(closing)]
    return Group(*lines)


def _rollout(story: RolloutStory) -> list[Text]:
    head = Text(f" {story.name}", style="bold").append(f"  version {story.version}  ", "not bold")
    if story.halt:
        head.append("HALTED", STATUS_STYLE["halted"])
        head.append(f" after {_since(story, story.halt.at)}, ", "not bold")
        head.append(story.status, STATUS_STYLE.get(story.status, "bold"))
    else:
        head.append(story.status.upper(), STATUS_STYLE.get(story.status, "bold"))
        head.append(f" after {_since(story, story.ended_at)}", "not bold")
    bad = f"{sum(story.bad.values())} bad" if story.bad else "none bad"
    tail = f"{story.confirmed} of {story.devices} confirmed, {bad} "
    head.append(tail.rjust(WIDTH - head.cell_len), "not bold")
    lines = [head, Text("   wave       opened    passed   offered  confirmed   bad   deltas   verdict", style="dim")]
    for wave in story.waves:
        if wave.opened_at is None:
            continue
        deltas = f"{wave.deltas_ready} of {wave.deltas}" if wave.deltas else "-"
        line = Text(f"   {wave.wave:<8}{_since(story, wave.opened_at):>9}{_since(story, wave.ended_at):>10}")
        line.append(f"{wave.offered or '-':>10}{wave.confirmed or '-':>11}")
        line.append(f"{wave.bad or '-':>6}", "red" if wave.bad else "").append(f"{deltas:>9}   ")
        verdict = {"failed": "halted"}.get(wave.status, wave.status)
        lines.append(line.append(verdict, STATUS_STYLE.get(wave.status, "dim")))
    if closed := [wave.wave for wave in story.waves if wave.opened_at is None]:
        lines.append(Text(f"   {', '.join(closed)}: never opened", style="dim"))
    return lines


def _said(story: RolloutStory, closing: Closing) -> list[Text]:
    if story.halt is None:
        return _paragraph("", "Nobody touched it. No wave opened before its deltas were there and verified.", "green")
    lines = _paragraph("Why", story.halt.sentence, "red")
    back = story.bad.get("rolled_back", 0)
    lines += _paragraph(
        "Reach",
        f"{story.offered} of {story.devices} devices were ever offered version {story.version}: "
        f"{story.confirmed} run it, {back} went back to version {closing.back_on} by themselves.",
    )
    if closing.halt is not None:
        lines += _paragraph("Speed", _speed(closing.halt))
    return lines + _paragraph("Then", story.last, "magenta")


def _speed(halt: HaltFacts) -> str:
    kind = "real" if halt.real else "simulated"
    said = f"Proved by a report of {halt.device} ({kind}, {halt.hardware_id})"
    if halt.answer_after is not None:
        ms = halt.answer_after / timedelta(milliseconds=1)
        said += f", answered {ms:.0f} ms after it was sent: by then the halt was committed"
    said += ". "
    if halt.offers_after:
        said += f"{halt.offers_after} offers were given after it."
    elif halt.last_offer_before is not None:
        said += f"No offer after it; the last was {_seconds(halt.last_offer_before)} before. "
    return said + f"Of {halt.asked_after:,} check-ins from then to the cancel {halt.got_after or 'none'} got an offer."


def _bytes(closing: Closing) -> list[Text]:
    lines = [
        Text(" What a real device downloaded for its update", style="bold").append(
            f"   client: libostree {closing.libostree}", "not bold dim"
        ),
        Text("   update      devices       by its delta         as loose objects      saved", style="dim"),
    ]
    for each in closing.pairs:
        lines.append(_pair(each.name, each.devices, each.bytes, each.requests, each.loose_bytes, each.loose_requests))
    if closing.pairs:
        total = [
            sum(each.devices * getattr(each, name) for each in closing.pairs)
            for name in ("bytes", "requests", "loose_bytes", "loose_requests")
        ]
        lines.append(_pair("all", sum(each.devices for each in closing.pairs), *total))
    notes = (
        "By its delta: the device counts superblock and parts, which it fetches itself; `ostree pull` of this version "
        "would fetch loose objects beside them. As loose objects: one more device per pair, from the same server, as "
        "libostree says.",
        f"{closing.deltas_built} deltas built and verified in {closing.delta_cpu:.0f} s of CPU beside the rollouts, "
        f"from {closing.content} of this machine, changed by a script.",
    )
    return lines + [Text(f"   {row}", style="dim") for note in notes for row in textwrap.wrap(note, WIDTH - 4)]


def _pair(name: str, devices: int, size: int, requests: int, loose: int, loose_requests: int) -> Text:
    line = Text(f"   {name:<12}{devices:>7}{size / 1e6:>8.2f} MB{requests:>6,} req")
    line.append(f"{loose / 1e6:>8.2f} MB{loose_requests:>7,} req")
    return line.append(f"{100 * (1 - size / loose):>7.0f} %" if loose else "", "green")


def _further(closing: Closing) -> list[Text]:
    halted = next((story.name for story in closing.stories if story.halt), closing.stories[-1].name)
    some = closing.bad_devices[0] if closing.bad_devices else "lab-01"
    commands = [
        ("list", "both rollouts"),
        (f"status {halted}", "how it stands, wave by wave"),
        (f"explain {halted}", "why, with the evidence and the limits"),
        (f"journal {halted}", "every decision and order, chained"),
        (f"explain {some}", "what one device has gone through"),
        ("delta list", "what was built, and for whom"),
        ("db check", "recounts everything from the record"),
    ]
    lines = [Text(" Look further: ", style="bold").append("cd .demo", "not bold cyan")]
    return lines + [
        Text(f"   ../.venv/bin/wave {command:<22}", style="cyan").append(why, "dim") for command, why in commands
    ]


def _paragraph(label: str, text: str, style: str = "") -> list[Text]:
    indent = LABEL if label else 3
    rows = textwrap.wrap(text, WIDTH - indent - 1)
    return [
        Text(f"   {label:<{indent - 3}}" if number == 0 else " " * indent, style="bold").append(
            row, f"not bold {style}".strip()
        )
        for number, row in enumerate(rows)
    ]


def _since(story: RolloutStory, at: datetime | None) -> str:
    return "-" if at is None or story.started_at is None else f"{(at - story.started_at).total_seconds():.1f} s"


def _seconds(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def save_picture(closing: Closing, path: Path) -> None:
    """The page as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(page(closing))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = console.export_svg(title="make demo", theme=MONOKAI, unique_id="wave-demo")
    # Whoever looks at it asks no other host for a font: any monospaced one will do.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8")
