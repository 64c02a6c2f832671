"""Making a new, empty repository for an installation."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.ostree.command import CommandFailed, OstreeCommand
from orchestrator.errors import ContentUnavailable


def make_repository(path: Path) -> bool:
    """Make an archive repository at ``path``; False when one is there already.

    Archive is the mode that devices can pull from over HTTP. Raises ContentUnavailable.
    """
    if (path / "config").is_file():
        return False
    command = OstreeCommand()
    command.check()
    try:
        command.run("init", "--mode=archive", f"--repo={path}")
        command.run("summary", "--update", f"--repo={path}")
    except CommandFailed as error:
        raise ContentUnavailable(f"No repository could be made at {path}: {error.reason}.") from None
    return True
