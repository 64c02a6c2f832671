"""Several content systems in one installation: each question goes to the one that has the commit in question.

A pair whose two commits lie in different systems has no delta: its devices fetch the new content whole, and the gate
does not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

from orchestrator.errors import ContentUnavailable
from orchestrator.services.delta_provider import (
    BuildProgress,
    CommitRecord,
    DeltaEstimate,
    DeltaPair,
    DeltaProvider,
    DeltaRecord,
)

Result = TypeVar("Result")

_NO_REFS: Final[Mapping[str, str]] = MappingProxyType({})

NO_PATH: Final = ""
"""``path`` of a record that devices fetch the content whole."""


class Providers:
    """Implements ``DeltaProvider`` over ``systems``; the first is the one that a commit belongs to when none says that
    it has it.

    ``in_use`` names the systems that some Target needs. One that nobody needs may be missing altogether: it is then as
    if it held nothing. While there is no Target at all, the first is needed.
    """

    def __init__(self, systems: Sequence[DeltaProvider], in_use: Callable[[], Collection[str]]) -> None:
        self._systems = tuple(systems)
        self._in_use = in_use
        self.name = systems[0].name

    def check(self) -> None:
        for system in self._systems:
            self._ask(system, system.check, None)

    def refs(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for system in self._systems:
            found |= self._ask(system, system.refs, _NO_REFS)
        return found

    def commits(self) -> Sequence[CommitRecord]:
        found: list[CommitRecord] = []
        for system in self._systems:
            found += self._ask(system, system.commits, found[:0])
        return found

    def has_commit(self, commit: str) -> bool:
        return self._system(commit) is not None

    def estimate(self, pair: DeltaPair) -> DeltaEstimate:
        system = self._of(pair)
        if self._crosses(pair, system):
            whole = system.estimate(DeltaPair(None, pair.to_commit))
            return DeltaEstimate(whole.at_most_bytes, whole.at_most_bytes, whole.objects, 0.0)
        return system.estimate(pair)

    def settled(self, pair: DeltaPair) -> DeltaRecord | None:
        system = self._of(pair)
        return self._whole(pair, system) if self._crosses(pair, system) else system.settled(pair)

    def find(self, pair: DeltaPair) -> DeltaRecord | None:
        system = self._of(pair)
        return self._whole(pair, system) if self._crosses(pair, system) else system.find(pair)

    def published(self) -> Sequence[DeltaPair]:
        found: list[DeltaPair] = []
        for system in self._systems:
            found += self._ask(system, system.published, found[:0])
        return found

    def build(
        self, pair: DeltaPair, *, progress: Callable[[BuildProgress], None], cancelled: Callable[[], bool]
    ) -> DeltaRecord:
        system = self._of(pair)
        if self._crosses(pair, system):
            progress(BuildProgress("publish", 1.0, "The devices run another kind of content: they load everything."))
            return self._whole(pair, system)
        return system.build(pair, progress=progress, cancelled=cancelled)

    def verify(self, pair: DeltaPair) -> DeltaRecord:
        system = self._of(pair)
        return self._whole(pair, system) if self._crosses(pair, system) else system.verify(pair)

    def drop(self, pair: DeltaPair) -> bool:
        dropped = [self._ask(system, partial(system.drop, pair), False) for system in self._systems]
        return any(dropped)

    def sweep(self) -> int:
        return sum(self._ask(system, system.sweep, 0) for system in self._systems)

    def _system(self, commit: str) -> DeltaProvider | None:
        """Asked from the last to the first: files answer without a repository."""
        for system in reversed(self._systems):
            if self._ask(system, partial(system.has_commit, commit), False):
                return system
        return None

    def _of(self, pair: DeltaPair) -> DeltaProvider:
        return self._system(pair.to_commit) or self._systems[0]

    def _crosses(self, pair: DeltaPair, system: DeltaProvider) -> bool:
        if pair.from_commit is None:
            return False
        other = self._system(pair.from_commit)
        return other is not None and other is not system

    def _whole(self, pair: DeltaPair, system: DeltaProvider) -> DeltaRecord:
        size = system.estimate(DeltaPair(None, pair.to_commit)).at_most_bytes
        return DeltaRecord(pair, NO_PATH, 0, 0, 1, size)

    def _ask(self, system: DeltaProvider, question: Callable[[], Result], nothing: Result) -> Result:
        try:
            return question()
        except ContentUnavailable:
            needed = self._in_use()
            if system.name in needed or (not needed and system is self._systems[0]):
                raise
            return nothing
