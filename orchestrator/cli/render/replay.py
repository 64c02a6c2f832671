"""A replay, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Paragraph
from orchestrator.cli.render.words import moment, plural
from orchestrator.services.replayed import Divergence, Replayed, Stop

ANOTHER_WAY = (
    "From here on the fleet would have gone another way: what follows is decided on what really happened, with devices "
    "admitted as they were."
)


def replayed(found: Replayed, *, most: int) -> RenderableType:
    return Group(*(_same(found, most) if found.policy is None else _other(found, most)))


def _read(found: Replayed) -> str:
    looks = f"{plural(found.decisions, 'decision')} in {plural(found.looks, 'look')}"
    return f"{found.rollout}: {looks} and {plural(found.outcomes, 'outcome')}"


def _same(found: Replayed, most: int) -> Iterator[RenderableType]:
    if found.same:
        yield Paragraph(f"{_read(found)}, looked at again: nothing differs.", hang=2)
    else:
        yield Paragraph(f"{_read(found)}, looked at again: {plural(found.differs, 'difference')}.", hang=2)
    for each in found.divergences[:most]:
        yield Text.assemble(("x ", "red"), _point(each))
        if each.recorded:
            yield Paragraph(f"recorded: {each.recorded}", indent=4, hang=2)
        yield Paragraph(f"replayed: {each.replayed}" if each.recorded else each.replayed, indent=4, hang=2)
        if each.why:
            yield Paragraph(each.why, indent=4, hang=2)
    yield from _rest(found, most)


def _other(found: Replayed, most: int) -> Iterator[RenderableType]:
    yield Paragraph(f"{_read(found)}, under policy {found.policy}:")
    if found.same:
        yield Paragraph("It would have decided the same, each time.", indent=2)
    for number, each in enumerate(found.divergences[:most]):
        yield Text.assemble(("> ", "bold yellow"), _point(each))
        yield Paragraph(f"it did:   {each.recorded}.", indent=4, hang=10)
        stops = each.replayed in ("halt", "hold")
        yield Paragraph(Text.assemble("it would: ", (each.replayed, "red" if stops else ""), "."), indent=4, hang=10)
        if each.why:
            yield Paragraph(each.why, indent=14)
        if number == 0:
            yield Paragraph(ANOTHER_WAY, indent=4)
    yield from _rest(found, most)
    yield from _stops(found)


def _point(each: Divergence) -> str:
    """Where in the record: the moment, the journal's entry, and how many outcomes had been counted."""
    return f"{moment(each.at)}  after entry {each.entry} and {plural(each.evidence, 'outcome')}"


def _stops(found: Replayed) -> Iterator[RenderableType]:
    for who, stop in (("Recorded", found.stopped), (f"Under {found.policy}", found.would_stop)):
        yield Paragraph(f"{who}: {_stop(stop)}", hang=2)


def _stop(stop: Stop | None) -> str:
    if stop is None:
        return "not stopped."
    return f"first stopped {moment(stop.at)}, with {plural(stop.bad, 'bad outcome')} counted. {stop.sentence}"


def _rest(found: Replayed, most: int) -> Iterator[RenderableType]:
    if found.differs > min(most, len(found.divergences)):
        yield Text(f"… and {found.differs - min(most, len(found.divergences)):,} more.")
