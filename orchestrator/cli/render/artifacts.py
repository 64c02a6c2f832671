"""Artifacts for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.render.grid import Grid, Paragraph
from orchestrator.cli.render.words import megabytes, plural
from orchestrator.services.artifacts import ArtifactView


def artifacts(found: Sequence[ArtifactView]) -> RenderableType:
    if not found:
        return Text("No artifact. `wave artifact add` takes a file in.")
    grid = Grid(["VERSION", "~FILE", "~HARDWARE", "FORMAT", ">MB", "SHA256", ">TARGETS", ">DEVICES"])
    for each in found:
        artifact = each.artifact
        grid.add(
            artifact.version,
            artifact.filename,
            ", ".join(artifact.hardware_ids) or "-",
            artifact.format.value,
            megabytes(artifact.size),
            artifact.sha256[:12] if each.there else f"{artifact.sha256[:12]} (not there)",
            len(each.targets),
            each.devices,
        )
    return grid


def artifact(view: ArtifactView) -> RenderableType:
    return Group(*_artifact(view))


def _artifact(view: ArtifactView) -> Iterator[RenderableType]:
    a = view.artifact
    yield Text.assemble((a.filename, "bold"), f"  {a.name}, version {a.version}")
    yield Paragraph(f"It is {a.format.sentence}.", indent=2)
    yield Paragraph(f"For {', '.join(a.hardware_ids) or 'whatever a Target says'}.", indent=2)
    if a.compatible:
        yield Paragraph(f"It says that it is compatible with {', '.join(a.compatible)}.", indent=2)
    grid = Grid(["", ""], indent=2)
    for name, value in (("sha256", a.sha256), ("sha1", a.digests.sha1), ("md5", a.digests.md5), ("bytes", str(a.size))):
        grid.add(name, value)
    yield grid
    if not view.there:
        yield Paragraph("The file is not in the store: add it again.", indent=2)
    yield Paragraph(f"Targets: {', '.join(view.targets) or 'none'}; {plural(view.deltas, 'delta')}.", indent=2)
    yield Paragraph(f"{plural(view.devices, 'device')} {'runs' if view.devices == 1 else 'run'} it.", indent=2)
