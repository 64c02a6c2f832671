"""All looks of ``wave doctor``, one after the other; one that fails is a finding and keeps no other from being made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.adapters.doctor import content, database, machine, secrets
from orchestrator.errors import WaveError
from orchestrator.services.doctor import Area, Finding, broken
from orchestrator.services.settings import Settings

Look = Callable[[Settings, datetime], Iterator[Finding]]

LOOKS: Final[tuple[tuple[Area, Look], ...]] = (
    (Area.STORE, database.store),
    (Area.DISK, machine.disk),
    (Area.CONTENT, content.repository),
    (Area.DELTAS, content.delta_program),
    (Area.CLOCK, machine.clock),
    (Area.CERTIFICATES, secrets.certificates),
    (Area.TUF, secrets.tuf),
    (Area.SECRETS, secrets.files),
    (Area.PORTS, machine.ports),
    (Area.LIMITS, machine.limits),
)


def examine(settings: Settings, now: datetime, *, file: Path | None = None) -> list[Finding]:
    """Everything that was looked at, in order. ``file``: the one that the settings were read from. Changes nothing, and
    takes seconds at most."""
    found = list(secrets.settings_file(settings, file))
    for area, look in LOOKS:
        try:
            found += look(settings, now)
        except WaveError as error:
            found.append(broken(area, error.message, error.remedy or "See the log of the machine."))
        except OSError as error:
            what = f"{error.filename or 'It'} cannot be looked at: {error.strerror or type(error).__name__}."
            found.append(broken(area, what, "Run this as the user that `wave serve` runs as."))
    return found
