"""Names for the shell's completion, asked of the installation; silence when there is none."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

import typer

from orchestrator.cli.context import Invocation

MOST = 50


def rollout_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Rollouts whose name begins so."""
    return [name for name in _rollouts(ctx) if name.startswith(incomplete)]


def wave_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Waves of the rollout that stands before, whose name begins so."""
    rollout = ctx.params.get("rollout")
    with suppress(Exception), _call(ctx).application() as app:
        return [w.state.wave for w in app.queries.rollout(rollout).waves if w.state.wave.startswith(incomplete)]
    return []


def segment_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Segments of the rollout that stands before, which are excluded or have something bad, whose name begins so."""
    rollout = ctx.params.get("rollout")
    with suppress(Exception), _call(ctx).application() as app:
        view = app.queries.rollout(rollout)
        known = {each.segment for each in view.excluded} | {each.segment for each in view.monitors if each.segment}
        return sorted(name for name in known if name.startswith(incomplete))
    return []


def device_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Devices whose id begins so."""
    from orchestrator.services.records import DeviceFilter

    with suppress(Exception), _call(ctx).application() as app:
        found = app.queries.devices(DeviceFilter(text=incomplete or None), limit=MOST)
        return [device.id for device in found if device.id.startswith(incomplete)]
    return []


def artifact_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """File names of artifacts that begin so."""
    with suppress(Exception), _call(ctx).application() as app:
        return sorted({v.artifact.filename for v in app.artifacts.list() if v.artifact.filename.startswith(incomplete)})
    return []


def devices_and_rollouts(ctx: typer.Context, incomplete: str) -> list[str]:
    """What `explain` takes."""
    return rollout_names(ctx, incomplete) + device_ids(ctx, incomplete)


def _rollouts(ctx: typer.Context) -> list[str]:
    with suppress(Exception), _call(ctx).application() as app:
        return [each.rollout for each in app.queries.summaries()]
    return []


def _call(ctx: typer.Context) -> Invocation:
    """The run as the words before the cursor describe it: no callback has read the global options."""
    logging.disable(logging.CRITICAL)
    root = ctx.find_root()
    server = root.params.get("server") or os.environ.get("WAVE_SERVER") or None
    token_file = root.params.get("token_file")
    return Invocation(
        settings_file=root.params.get("settings"), root=root.params.get("root"), server=server, token_file=token_file
    )


def target_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names and versions of Targets that begin so."""
    with suppress(Exception), _call(ctx).application() as app:
        found = app.targets.list()
        names = [target.name for target in found] + [str(target.version) for target in found]
        return [name for name in dict.fromkeys(names) if name.startswith(incomplete)][:MOST]
    return []


def target_versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Versions of Targets that begin so."""
    with suppress(Exception), _call(ctx).application() as app:
        versions = dict.fromkeys(str(target.version) for target in app.targets.list())
        return [version for version in versions if version.startswith(incomplete)][:MOST]
    return []


def policy_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Policies whose name begins so."""
    with suppress(Exception):
        return [name for name in _call(ctx).files().policies() if name.startswith(incomplete)]
    return []


def concepts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words that `wave help` explains and that begin so."""
    from orchestrator.core.glossary import words

    return [word for word in words() if word.lower().startswith(incomplete.lower())]


def destination_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Destinations of messages whose name begins so."""
    with suppress(Exception), _call(ctx).application() as app:
        return [name for name in app.notices.destinations() if name.startswith(incomplete)]
    return []
