"""Where settings come from: the file, then the environment, then the command line; the last one wins.

The file is what ``--settings`` or ``WAVE_SETTINGS`` name, else ``wave.yaml`` in the directory that ``--root`` or
``WAVE_ROOT`` name, else in the working directory, else in ``.wave``. Every key of ``services.settings.Settings`` can be
written in it, or given as ``WAVE_`` and the key in capitals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from orchestrator.adapters.files.source import Source, read_source
from orchestrator.core.document import KeyPath, did_you_mean
from orchestrator.core.durations import duration_text, parse_duration
from orchestrator.errors import InvalidFile, InvalidInput
from orchestrator.services.settings import Settings

DEFAULT_FILE: Final = "wave.yaml"
PREFIX: Final = "WAVE_"
ELSEWHERE: Final = frozenset({"SERVER", "SETTINGS", "TOKEN", "TOKEN_FILE", "USER", "WORKER_OF"})
"""Variables with the prefix that are not settings."""

_DURATIONS: Final = frozenset(key for key, field in Settings.model_fields.items() if field.annotation is timedelta)
_PATHS: Final = frozenset(
    key for key, field in Settings.model_fields.items() if field.annotation in (Path, Path | None)
)
"""By their types, so that none can be forgotten here: a builder is handed all settings as text."""

_TEXTS: Final = frozenset(key for key, field in Settings.model_fields.items() if field.annotation == tuple[str, ...])
"""Lists of words; in the environment with a colon between."""


def load_settings(
    path: Path | None, overrides: Mapping[str, str], environment: Mapping[str, str], *, beside: Path | None = None
) -> Settings:
    """``beside``: the directory from which the file's paths count, when it does not lie where it belongs. Raises
    InvalidFile for the file's faults and InvalidInput for the environment's and the command line's."""
    file = settings_file(path, overrides, environment)
    source = None if file is None else read_source(file)
    values = {} if source is None or file is None else _from_file(source, beside or file.parent)
    given = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in ELSEWHERE
    }
    names: dict[str, str] = {}
    for found, written in ((given, f"{PREFIX}{{}} in the environment"), (dict(overrides), "{} in the command line")):
        for key, value in found.items():
            name = written.format(key.upper() if found is given else key)
            if key not in Settings.model_fields:
                raise InvalidInput(f"{name} is no setting.{did_you_mean(key, Settings.model_fields)}")
            names[key] = name
            try:
                values[key] = _read(key, value)
            except InvalidInput as error:
                raise InvalidInput(f"{name} {error.message}") from None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _refused(error, source, names) from None
    if settings.database is not None:
        from orchestrator.adapters.sql.address import read_address

        read_address(settings.database)
    return settings


def settings_file(path: Path | None, overrides: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    """The file that is read; None where there is none and none was named."""
    named = path or (Path(environment["WAVE_SETTINGS"]) if environment.get("WAVE_SETTINGS") else None)
    root = overrides.get("root") or environment.get("WAVE_ROOT")
    places = [Path(root)] if root else [Path(), Settings.model_fields["root"].default]
    return named or next((place / DEFAULT_FILE for place in places if (place / DEFAULT_FILE).is_file()), None)


def _refused(error: ValidationError, source: Source | None, names: Mapping[str, str]) -> InvalidInput:
    """What cannot be taken, by where it is written; ``names``: how each key is called that is not the file's."""
    problems: list[tuple[KeyPath, str]] = []
    for each in error.errors(include_url=False, include_input=False):
        said = each["msg"].removeprefix("Value error, ").rstrip(".")
        key = str(each["loc"][0]) if each["loc"] else None
        if key is None:
            return InvalidInput(f"The settings cannot be taken: {said}.")
        if key in names:
            return InvalidInput(f"{names[key]} cannot be taken: {said}.", remedy=_wanted(key))
        problems.append((each["loc"], f"cannot be taken: {said}. {_wanted(key)}"))
    assert source is not None, "what is written nowhere has its default"
    return source.invalid(problems)


def _wanted(key: str) -> str:
    return f"`{key}`: {Settings.model_fields[key].description}"


def _from_file(source: Source, beside: Path) -> dict[str, Any]:
    if source.value is None:
        return {}
    if not isinstance(source.value, dict):
        raise InvalidFile("must be a mapping of settings, `key: value`.", file=source.file)
    values: dict[str, Any] = {}
    problems: list[tuple[KeyPath, str]] = []
    for key, value in source.value.items():
        if key not in Settings.model_fields:
            problems.append(((str(key),), f"is no setting.{did_you_mean(str(key), Settings.model_fields)}"))
            continue
        try:
            values[key] = _read(key, value, beside=beside)
        except InvalidInput as error:
            problems.append(((key,), error.message))
    if problems or source.problems:
        raise source.invalid(problems)
    return values


def _read(key: str, value: Any, *, beside: Path | None = None) -> Any:
    """One setting; a path in a file counts from that file's directory."""
    if key in _DURATIONS:
        return parse_duration(value)
    if key in _PATHS and isinstance(value, str):
        return beside / value if beside is not None else Path(value)
    if key == "delta_program" and isinstance(value, str):
        # in the environment, where there is only text
        try:
            return json.loads(value)
        except ValueError:
            raise InvalidInput("must be a mapping; as text, in JSON.") from None
    if key in _TEXTS and isinstance(value, str):
        return tuple(value.split(":"))
    if key == "policies":
        many = value if isinstance(value, list) else str(value).split(":")
        return tuple(beside / each if beside is not None else Path(each) for each in many)
    return value


def as_environment(settings: Settings) -> dict[str, str]:
    """The same settings as variables, for a process of the same installation; paths absolute."""
    found: dict[str, str] = {}
    for key in Settings.model_fields:
        value = getattr(settings, key)
        if isinstance(value, Path):
            found[PREFIX + key.upper()] = str(value.absolute())
        elif isinstance(value, BaseModel):
            found[PREFIX + key.upper()] = value.model_dump_json()
        elif isinstance(value, tuple):
            found[PREFIX + key.upper()] = ":".join(
                str(each.absolute()) if isinstance(each, Path) else each for each in value
            )
        elif value is None and Settings.model_fields[key].default is not None:
            found[PREFIX + key.upper()] = "off"
        elif value is not None:
            found[PREFIX + key.upper()] = _shown(value)
    return {key: value for key, value in found.items() if value}


HEADINGS: Final = {
    "database": "Where things are kept",
    "host": "Where devices and people are served",
    "session_idle": "People who sign in",
    "public_url": "How devices reach it",
    "limit_per_device": "How much one may ask",
    "check_in_every": "How often devices come",
    "mender_token_for": "Devices with the Mender client",
    "tick_at_most": "Deciding and building",
    "gpg_sign": "Signing, artifacts and their deltas",
    "tuf": "Devices with aktualizr-lite",
    "ddi_tenant": "Devices with hawkBit's clients, such as SWUpdate and RAUC",
    "lease": "Several processes",
}
"""What the page says before a key."""


def settings_page() -> str:
    """A settings file in which everything is commented out but the root, with what each key means."""
    lines = [
        "# Settings of this installation. Every default is safe, so nothing has to be changed to begin.",
        "# To set a key, take away the mark before it. Then `wave doctor` says whether everything holds together.",
        "#",
        "# A path counts from the directory of this file. Every key can also be given as WAVE_KEY in the environment,",
        "# which wins over what stands here. A key that is no setting is refused.",
        "root: .",
    ]
    for key, field in Settings.model_fields.items():
        if key in HEADINGS:
            lines += ["", "", f"# ---- {HEADINGS[key]} {'-' * (100 - len(HEADINGS[key]))}"]
        if key != "root":
            lines += ["", f"# {field.description}", f"# {key}: {_shown(field.default)}".rstrip()]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, tuple):
        return "[]"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
