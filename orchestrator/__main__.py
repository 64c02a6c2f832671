"""``wave`` and ``python -m orchestrator``: the command line gets its doors to the rest, opened when they are used."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.app import run
from orchestrator.cli.context import Openers, install

if TYPE_CHECKING:
    from orchestrator.cli.context import Elsewhere
    from orchestrator.services.application import Application, Files
    from orchestrator.services.backups import Backed, Restored
    from orchestrator.services.doctor import Finding
    from orchestrator.services.settings import Settings
    from orchestrator.services.tuf import Tuf


def _load_settings(path: Path | None, overrides: Mapping[str, str]) -> Settings:
    from orchestrator import bootstrap

    return bootstrap.load_settings(path, overrides)


def _open_application(settings: Settings, *, create: bool = False) -> Application:
    from orchestrator import bootstrap

    return bootstrap.open_application(settings, create=create)


def _open_files(settings: Settings) -> Files:
    from orchestrator.adapters.files.library import Library

    return Library(settings.policies)


def _open_tuf(settings: Settings) -> Tuf:
    from orchestrator import bootstrap

    return bootstrap.open_tuf(settings)


def _open_elsewhere(server: str, token_file: Path | None) -> Elsewhere:
    from orchestrator import bootstrap

    return bootstrap.open_elsewhere(server, token_file)


def _serve(settings: Settings) -> None:
    from orchestrator import serving

    serving.serve(settings)


def _run_builder(settings: Settings) -> None:
    from orchestrator import bootstrap

    bootstrap.run_builder(settings)


def _upgrade_database(settings: Settings) -> str:
    from orchestrator import bootstrap

    return bootstrap.upgrade_database(settings)


def _initialise(root: Path) -> list[str]:
    from orchestrator import bootstrap

    return bootstrap.initialise(root)


def _examine(settings: Settings, file: Path | None) -> list[Finding]:
    from orchestrator import bootstrap

    return bootstrap.examine(settings, file)


def _settings_file(path: Path | None, overrides: Mapping[str, str]) -> Path | None:
    from orchestrator import bootstrap

    return bootstrap.settings_file(path, overrides)


def _back_up(settings: Settings, file: Path | None, into: Path, *, content: bool) -> Backed:
    from orchestrator import bootstrap

    return bootstrap.back_up(settings, file, into, content=content)


def _restore(
    archive: Path, file: Path | None, overrides: Mapping[str, str], *, by: str, yes: bool, dry_run: bool
) -> Restored:
    from orchestrator import bootstrap

    return bootstrap.restore(archive, file, overrides, by=by, yes=yes, dry_run=dry_run)


def _copy_database(settings: Settings, to: Settings, by: str) -> dict[str, int]:
    from orchestrator import bootstrap

    return bootstrap.copy_database(settings, to, by)


def main() -> int:
    """What the installed ``wave`` calls; the exit code."""
    # The interpreter's last look for cycles through everything that was loaded takes 0.3 s of CPU, a third of
    # `wave list`, and it ends the server and each builder that much later. The process is over: nothing needs it.
    atexit.register(gc.freeze)
    install(
        Openers(
            load_settings=_load_settings,
            open_application=_open_application,
            open_files=_open_files,
            open_tuf=_open_tuf,
            serve=_serve,
            run_builder=_run_builder,
            upgrade_database=_upgrade_database,
            initialise=_initialise,
            open_elsewhere=_open_elsewhere,
            examine=_examine,
            settings_file=_settings_file,
            back_up=_back_up,
            restore=_restore,
            copy_database=_copy_database,
        )
    )
    return run()


if __name__ == "__main__":
    sys.exit(main())
