"""Targets and deltas for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph
from orchestrator.cli.render.words import STYLE, ago, digest, megabytes, number, plural
from orchestrator.core.fleet import Target
from orchestrator.services.delta_views import DeltaView
from orchestrator.services.deltas import Dropped
from orchestrator.services.static_deltas import StaticDeltaPlan
from orchestrator.services.targets import Import, Imported, TargetView


def targets(found: Sequence[Target]) -> RenderableType:
    if not found:
        return Text("No Target. `wave target add` or `wave target import` brings some.")
    grid = Grid([">VERSION", "~NAME", "~HARDWARE", "~TAGS", "COMMIT"])
    for each in found:
        grid.add(
            each.version, each.name, ", ".join(each.hardware_ids), ", ".join(each.tags) or "-", digest(each.commit)
        )
    return grid


def target(view: TargetView) -> RenderableType:
    return Group(*_target(view))


def _target(view: TargetView) -> Iterator[RenderableType]:
    t = view.target
    yield Text.assemble((t.name, "bold"), f"  version {t.version}")
    yield Paragraph(f"For {', '.join(t.hardware_ids)}; tags {', '.join(t.tags) or 'none'}; by {t.provider}", indent=2)
    yield Paragraph(f"Commit {t.commit}", indent=2)
    yield Paragraph(f"{plural(view.devices, 'device')} {'runs' if view.devices == 1 else 'run'} it.", indent=2)
    if view.deltas:
        grid = Grid(["DELTA FROM", ">MB", ">PARTS"], indent=2)
        for record in view.deltas:
            versions = view.from_versions.get(record.pair.from_commit or "", ())
            label = ", ".join(map(str, versions)) or digest(record.pair.from_commit)
            grid.add(label, megabytes(record.bytes + record.fallback_bytes), record.parts)
        yield grid


def imported(found: Sequence[Imported], *, dry_run: bool) -> RenderableType:
    count = {what: sum(each.what is what for each in found) for what in Import}
    said = ", ".join(f"{n} {what}" for what, n in count.items() if n) or "nothing in it"
    lines: list[RenderableType] = [Text(f"{'Dry run: ' if dry_run else ''}{said}.")]
    lines += [
        Paragraph(f"{_import_mark(each)} {each.name} {each.what}{f': {each.reason}' if each.reason else ''}", 2, 2)
        for each in found
        if each.what is not Import.UNCHANGED
    ]
    return Group(*lines)


def _import_mark(each: Imported) -> str:
    return "x" if each.what is Import.SKIPPED else "+"


def static_deltas_more(found: StaticDeltaPlan) -> Iterator[str]:
    """What ``fioctl`` does not say: on standard error, so that the lines stay what they are."""
    for item in found.items:
        ready = "is there already" if item.state == "ready" else f"about {megabytes(item.bytes)} MB, {item.state}"
        orphan = ", a version that is no Target any more" if item.orphan else ""
        who = f"{plural(item.devices, 'device')} ({', '.join(item.hardware_ids)}{orphan})"
        yield f"{item.label} -> {found.to_version} for {who}: {ready}."
    unknown = sum(count.devices for count in found.unknown)
    if unknown:
        yield f"{plural(unknown, 'device')} on commits that the repository does not have: they load everything."
    for hardware_id, devices in found.without_target.items():
        who = f"{plural(devices, 'device')} with hardware id {hardware_id}"
        yield f"{who}: version {found.to_version} is not made for them."
    if not found.items:
        yield "No delta is needed."


def deltas(found: Sequence[DeltaView]) -> RenderableType:
    if not found:
        return Text("No delta is there, and none is required.")
    grid = Grid(["FROM", "TO", "~STATE", ">MB", ">DEVICES", "~WAVES"])
    for each in found:
        grid.add(
            _label(each.from_versions, each.pair.from_commit),
            _label(each.to_versions, each.pair.to_commit),
            Text(each.state_text, style=STYLE.get(each.state.value, "")),
            megabytes(each.bytes),
            number(each.devices),
            ", ".join(each.waves) or "-",
            under=[Text(each.error, style="red")] if each.error else (),
        )
    return grid


def _label(versions: Sequence[int], commit: str | None) -> str:
    return f"{versions[0]} ({commit[:8]})" if versions and commit else commit[:12] if commit else "nothing"


def delta(view: DeltaView, now: datetime, *, log: bool) -> RenderableType:
    return Group(*_delta(view, now, log))


def _delta(view: DeltaView, now: datetime, log: bool) -> Iterator[RenderableType]:
    head = f"{_label(view.from_versions, view.pair.from_commit)} -> {_label(view.to_versions, view.pair.to_commit)}"
    yield Text.assemble((head, "bold"), "  ", (view.state_text, STYLE.get(view.state.value, "")))
    if view.error:
        yield Paragraph(Text(view.error, style="red"), indent=2)
    record, estimate, job = view.record, view.estimate, view.job
    if record is not None:
        fallback = f" with {record.fallbacks} whole objects" if record.fallbacks else ""
        yield Paragraph(
            f"{megabytes(record.bytes + record.fallback_bytes)} MB in {plural(record.parts, 'part')}{fallback}.",
            indent=2,
        )
        yield Paragraph(f"Path {record.path}", indent=2)
    if estimate is not None:
        guess = "" if record else f"About {megabytes(estimate.likely_bytes)} MB; "
        yield Paragraph(
            f"{guess}{megabytes(estimate.at_most_bytes)} MB in {plural(estimate.objects, 'request')} without it.",
            indent=2,
        )
    yield Paragraph(
        f"{plural(view.devices, 'device')} could use it; {number(view.waiting_devices)} wait for it.", indent=2
    )
    if view.waves:
        yield Paragraph(f"Needed by {', '.join(view.waves)}.", indent=2)
    if job is not None:
        when = ago(job.ended_at or job.started_at or job.queued_at, now)
        yield Paragraph(
            f"Last build: {job.status}, {when}, try {job.attempts}{f', by {job.owner}' if job.owner else ''}.", indent=2
        )
        if log and job.log:
            for line in job.log.rstrip().splitlines():
                yield Text(f"    {line}", style="dim")


def built(view: DeltaView) -> str:
    head = f"{_label(view.from_versions, view.pair.from_commit)} -> {_label(view.to_versions, view.pair.to_commit)}"
    size = f", {megabytes(view.bytes)} MB" if view.bytes is not None else ""
    return f"{head}: {view.state_text}{size}."


def dropped(found: Sequence[Dropped], *, dry_run: bool) -> RenderableType:
    if not found:
        return Text("Nothing to drop.")
    total = sum(each.bytes or 0 for each in found)
    lines = [
        f"  {digest(each.pair.from_commit)} -> {digest(each.pair.to_commit)}  {megabytes(each.bytes)} MB"
        for each in found
    ]
    head = f"{'Would drop' if dry_run else 'Dropped'} {plural(len(found), 'delta')}, {megabytes(total)} MB:"
    return Group(Text(head), *map(Text, lines))
