"""Policies, rollouts and fleets from files: every refusal names file, line, key path and what is allowed.

All problems of a file are found at once: the error's ``problems`` has them in the order of their lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestrator.adapters.files.source import Source, parse_source, read_raw, read_source
from orchestrator.core.document import NAME_PATTERN, Document, InvalidDocument, did_you_mean
from orchestrator.core.durations import shown
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.wave_policy import wave_policy_problems
from orchestrator.errors import InvalidFile, NotFound

ENDINGS = (".yaml", ".yml", ".json")
"""In the order in which a policy's name is looked for."""

MOST_FLEET_BYTES = 16_000_000
"""A fleet file may be larger than a page: about 100,000 devices."""

Said = str | Mapping[str, Any]
"""A file that came over the wire: its text, or what stands in it."""

_Document = TypeVar("_Document", bound=Document)


def load_policy(path: Path | str) -> Policy:
    """The policy at ``path``. Raises InvalidFile."""
    return _taken(read_source(Path(path)), Policy)


def load_rollout(path: Path | str, policies: Sequence[Path | str] | None = None) -> RolloutFile:
    """The rollout at ``path``. With ``policies`` (directories), its policy must exist and fit each wave's override.

    Raises InvalidFile, also when there is no policy of that name.
    """
    source = read_source(Path(path))
    if policies is None:
        return _taken(source, RolloutFile)
    return rollout_under(source, lambda rollout: policy_of(rollout, policies, beside=Path(path)))[0]


def rollout_under(source: Source, policy_for: Callable[[RolloutFile], Policy]) -> tuple[RolloutFile, Policy]:
    """The rollout that this is, and the policy that ``policy_for`` finds for it (or raises NotFound), which must fit
    each wave's override. Raises InvalidFile."""
    rollout = _taken(source, RolloutFile)
    try:
        policy = policy_for(rollout)
    except NotFound as error:
        raise source.invalid([(("policy",), error.message)]) from None
    problems = [
        (each.path, each.sentence)
        for index, wave in enumerate(rollout.waves)
        if wave.override is not None
        for each in wave_policy_problems(policy, wave.override, ("waves", index, "policy"))
    ]
    if problems:
        raise source.invalid(problems)
    return rollout, policy


def said_rollout(rollout: Said, policy: Said | None, policies: Sequence[Path | str]) -> tuple[RolloutFile, Policy]:
    """A rollout that came over the wire, under a policy that came with it or an installed one. A path in it leads
    nowhere: it is not for whoever sends it to name files here. Raises InvalidFile."""
    source = _source(rollout, "rollout")

    def find(found: RolloutFile) -> Policy:
        if policy is not None:
            return said_policy(policy, policies)
        if found.policy_is_path:
            raise NotFound(
                "is a path, which leads nowhere from here: send the policy itself, or name an installed one."
            )
        return find_policy(found.policy, policies)

    return rollout_under(source, find)


def said_policy(policy: Said, policies: Sequence[Path | str]) -> Policy:
    """A policy that came over the wire: the name of an installed one, the text of a file, or what stands in it. Raises
    InvalidFile, NotFound."""
    if isinstance(policy, str) and re.fullmatch(NAME_PATTERN, policy):
        return find_policy(policy, policies)
    return _taken(_source(policy, "policy"), Policy)


def _source(said: Said, name: str) -> Source:
    if isinstance(said, str):
        return parse_source(said.encode(), file=name)
    return Source(name, said, {})


def load_fleet(path: Path | str) -> FleetFile:
    """The fleet at ``path``. Raises InvalidFile."""
    return _taken(read_source(Path(path), most_bytes=MOST_FLEET_BYTES), FleetFile)


@lru_cache(maxsize=64)
def parse_policy(raw: bytes, *, file: str) -> Policy:
    """A policy from bytes that came some other way; ``file`` is for messages, YAML unless it ends in ``.json``."""
    return _taken(parse_source(raw, file=file), Policy)


def parse_rollout(raw: bytes, *, file: str) -> RolloutFile:
    """A rollout from bytes that came some other way; its policy is not looked for."""
    return _taken(parse_source(raw, file=file), RolloutFile)


def policy_of(rollout: RolloutFile, policies: Sequence[Path | str], *, beside: Path) -> Policy:
    """The policy that a rollout file names: by name in ``policies``, or by path from the directory of ``beside``.

    Only for files of the person at the keyboard: a path may lead anywhere that person may read.
    """
    if not rollout.policy_is_path:
        return find_policy(rollout.policy, policies)
    path = Path(rollout.policy)
    return load_policy(path if path.is_absolute() else beside.parent / path)


def find_policy(name: str, directories: Sequence[Path | str]) -> Policy:
    """The policy of that name in the first directory that has one. Raises NotFound, or InvalidFile."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise NotFound(f"{shown(name)} is no name for a policy: small letters, digits, '.', '_' and '-' are allowed.")
    for directory in directories:
        for ending in ENDINGS:
            path = Path(directory) / f"{name}{ending}"
            try:
                if not path.is_file():
                    continue
            except OSError as error:
                raise InvalidFile(f"cannot be read: {error.strerror}.", file=str(path)) from None
            raw, file = read_raw(path)
            policy = parse_policy(raw, file=file)
            if policy.name != name:
                sentence = f"says {policy.name}, but the file's name says {name}; make them the same."
                raise parse_source(raw, file=file).invalid([(("policy",), sentence)])
            return policy
    names = policy_names(directories)
    known = f"There are {', '.join(names)}." if names else "No directory of policies has any."
    raise NotFound(f"There is no policy {shown(name)}. {known}{did_you_mean(name, names)}")


def policy_names(directories: Sequence[Path | str]) -> tuple[str, ...]:
    """The names that find_policy can find, sorted."""
    names: set[str] = set()
    for directory in map(Path, directories):
        with suppress(OSError):
            names.update(path.stem for path in directory.iterdir() if path.suffix in ENDINGS)
    return tuple(sorted(name for name in names if re.fullmatch(NAME_PATTERN, name)))


_KINDS: Final[dict[type[Document], str]] = {RolloutFile: "rollout", FleetFile: "fleet", Policy: "policy"}


def _kind_of(value: object) -> type[Document] | None:
    """What a file plainly is, by its keys; None for what is neither, or a bit of each."""
    keys = value if isinstance(value, dict) else {}
    if "rollout" in keys:  # no other file has it; it names a policy, too
        return RolloutFile
    if ("devices" in keys) == ("policy" in keys):
        return None
    return FleetFile if "devices" in keys else Policy


def _taken(source: Source, kind: type[_Document]) -> _Document:
    found = _kind_of(source.value)
    if found is not None and found is not kind:
        raise source.invalid([((), f"is a {_KINDS[found]} file; a {_KINDS[kind]} file is asked for.")])
    try:
        document = kind.parse(source.value)
    except InvalidDocument as error:
        raise source.invalid((each.path, each.sentence) for each in error.problems) from None
    if source.problems:
        raise source.invalid()
    return document


__all__ = [
    "find_policy",
    "load_fleet",
    "load_policy",
    "load_rollout",
    "parse_policy",
    "parse_rollout",
    "policy_names",
    "policy_of",
    "rollout_under",
    "said_policy",
    "said_rollout",
]
