"""A replay, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph
from orchestrator.cli.render.words import clock, plural
from orchestrator.services.replayed import Divergence, Replayed, Stop

ANOTHER_WAY = (
    "From here on the fleet would have gone another way: what follows is decided on what really happened, with devices "
    "admitted as they were."
)


def replayed(found: Replayed, *, most: int) -> RenderableType:
    return Group(*(_same(found, most) if found.policy is None else _other(found, most)))


def _read(found: Replayed) -> str:
    looks = f"{plural(found.decisions, 'decision')} of {plural(found.looks, 'look')}"
    return f"{looks} and {plural(found.outcomes, 'outcome')} of {found.rollout}"


def _same(found: Replayed, most: int) -> Iterator[RenderableType]:
    if found.same:
        yield Paragraph(f"{_read(found)}, looked at again: nothing differs.", hang=2)
    else:
        yield Paragraph(f"{_read(found)}, looked at again: {plural(found.differs, 'difference')}.", hang=2)
    for each in found.divergences[:most]:
        yield Text.assemble(("x ", "red"), f"{clock(each.at)}  entry {each.entry}, evidence {each.evidence}")
        if each.recorded:
            yield Paragraph(f"recorded: {each.recorded}", indent=4, hang=2)
        yield Paragraph(f"replayed: {each.replayed}" if each.recorded else each.replayed, indent=4, hang=2)
        if each.why:
            yield Paragraph(each.why, indent=4, hang=2)
    yield from _rest(found, most)


def _other(found: Replayed, most: int) -> Iterator[RenderableType]:
    yield Paragraph(f"{_read(found)}, under policy {found.policy}:", hang=2)
    if found.same:
        yield Paragraph("It would have decided the same, each time.", indent=2)
    grid = Grid(["", "WHEN", ">ENTRY", ">EVIDENCE", "RECORDED", "IT WOULD"], indent=2)
    for number, each in enumerate(found.divergences[:most]):
        under = [each.why] if each.why else []
        if number == 0:
            under.append(ANOTHER_WAY)
        mark = Text(">" if number == 0 else " ", style="bold yellow")
        grid.add(mark, clock(each.at), each.entry, each.evidence, each.recorded, _would(each), under=under)
    if found.divergences:
        yield grid
    yield from _rest(found, most)
    yield from _stops(found)


def _would(each: Divergence) -> Text:
    return Text(each.replayed, style="red" if each.replayed in ("halt", "hold") else "")


def _stops(found: Replayed) -> Iterator[RenderableType]:
    for who, stop in (("Recorded", found.stopped), (f"Under {found.policy}", found.would_stop)):
        yield Paragraph(f"{who}: {_stop(stop)}", hang=2)


def _stop(stop: Stop | None) -> str:
    if stop is None:
        return "not stopped."
    return f"first stopped {clock(stop.at)}, with {plural(stop.bad, 'bad outcome')} counted. {stop.sentence}"


def _rest(found: Replayed, most: int) -> Iterator[RenderableType]:
    if found.differs > min(most, len(found.divergences)):
        yield Text(f"… and {found.differs - min(most, len(found.divergences)):,} more.")
