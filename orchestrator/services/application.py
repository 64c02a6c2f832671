"""The services of one installation, put together: what the command line, the gateway and the console are handed.

``bootstrap`` makes it; nobody else knows the concrete store or provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.services.artifacts import Artifacts
from orchestrator.services.authority import Authority
from orchestrator.services.delta_provider import DeltaProvider
from orchestrator.services.deltas import Deltas
from orchestrator.services.devices import Devices
from orchestrator.services.downloads import Downloads
from orchestrator.services.gate_trials import GateTrials
from orchestrator.services.house_log import HouseLog
from orchestrator.services.measuring import Measuring
from orchestrator.services.mender.operating import Operating
from orchestrator.services.notices import Notices
from orchestrator.services.people_door import Door
from orchestrator.services.people_orders import People
from orchestrator.services.planning import Planner
from orchestrator.services.queries import Queries
from orchestrator.services.replaying import Replayer
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.settings import Settings
from orchestrator.services.store import Store
from orchestrator.services.targets import Targets
from orchestrator.services.tick import Ticker
from orchestrator.services.tuf import Tuf
from orchestrator.services.turn import Turn
from orchestrator.services.verifying import Verifier


class Files(Protocol):
    """Reads what people write. Raises InvalidFile with file, line and key, and NotFound."""

    def rollout(self, path: Path) -> tuple[RolloutFile, Policy]:
        """A rollout file and the policy it names, found beside it or among the installed ones."""

    def policy(self, name_or_path: str) -> Policy: ...

    def policies(self) -> tuple[str, ...]:
        """Names of the policies that can be used, the installation's own first."""

    def said(
        self, rollout: str | Mapping[str, Any], policy: str | Mapping[str, Any] | None
    ) -> tuple[RolloutFile, Policy]:
        """A rollout file that came over the wire, as its text or as what stands in it, and its policy: the one that
        came with it, or the installed one that it names. No path is followed."""

    def policy_said(self, policy: str | Mapping[str, Any]) -> Policy:
        """The same for a policy; a name is an installed one."""

    def fleet(self, path: Path) -> FleetFile: ...

    def check(self, path: Path) -> str:
        """Read a policy, rollout or fleet file, whichever it is, and say what it is in a sentence."""


@dataclass(frozen=True, slots=True)
class Application:
    """Everything an installation can do."""

    settings: Settings
    store: Store
    provider: DeltaProvider
    files: Files
    targets: Targets
    artifacts: Artifacts
    downloads: Downloads
    devices: Devices
    mender: Operating
    rollouts: Rollouts
    notices: Notices
    planner: Planner
    queries: Queries
    measuring: Measuring
    deltas: Deltas
    ticker: Ticker
    turn: Turn
    verifier: Verifier
    replayer: Replayer
    people: People
    house_log: HouseLog
    gates: GateTrials
    door: Door
    authority: Callable[[], Authority]
    tuf: Callable[[], Tuf]
    clock: Callable[[], datetime]

    def close(self) -> None:
        """End threads and connections."""
        self.devices.close()
        self.store.close()
