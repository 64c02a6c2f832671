"""The files of one installation: policies by name, and what people hand to commands by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchestrator.adapters.files.loader import (
    find_policy,
    load_fleet,
    load_policy,
    policy_names,
    policy_of,
    rollout_under,
    said_policy,
    said_rollout,
)
from orchestrator.adapters.files.source import read_source
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidFile


def shipped_policies() -> Path:
    """The directory of the policies that come with the program."""
    return Path(str(files("orchestrator") / "_policies"))


class Library:
    """Reads rollout, policy and fleet files; ``directories`` of policies come before the shipped ones."""

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        self._directories = (*directories, shipped_policies())

    def rollout(self, path: Path) -> tuple[RolloutFile, Policy]:
        return rollout_under(read_source(path), lambda found: policy_of(found, self._directories, beside=path))

    def policy(self, name_or_path: str) -> Policy:
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json")):
            return load_policy(Path(name_or_path))
        return find_policy(name_or_path, self._directories)

    def policies(self) -> tuple[str, ...]:
        return policy_names(self._directories)

    def said(
        self, rollout: str | Mapping[str, Any], policy: str | Mapping[str, Any] | None
    ) -> tuple[RolloutFile, Policy]:
        return said_rollout(rollout, policy, self._directories)

    def policy_said(self, policy: str | Mapping[str, Any]) -> Policy:
        return said_policy(policy, self._directories)

    def fleet(self, path: Path) -> FleetFile:
        return load_fleet(path)

    def check(self, path: Path) -> str:
        return check_file(path, self.rollout)


def check_file(path: Path, read_rollout: Callable[[Path], tuple[RolloutFile, Policy]]) -> str:
    """What a file is, by its first word; it is read as that and must hold together."""
    value = read_source(path, most_bytes=16_000_000).value
    if isinstance(value, dict) and "rollout" in value:
        rollout, policy = read_rollout(path)
        return f"{path} is a rollout: {rollout.name}, {len(rollout.waves)} waves under policy {policy.name}."
    if isinstance(value, dict) and "devices" in value:
        return f"{path} is a fleet of {len(load_fleet(path).devices)} devices."
    if isinstance(value, dict) and "policy" in value:
        return f"{path} is a policy: {load_policy(path).name}."
    raise InvalidFile(
        "is neither a policy, a rollout nor a fleet: it begins with none of the keys policy, rollout, devices.",
        file=str(path),
    )
