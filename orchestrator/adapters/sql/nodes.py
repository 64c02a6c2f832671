"""The crossing tree of ``core.evidence.crossing`` as rows, read: what is missing for each monitor to cross."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.adapters.sql.rollouts import RolloutReading
from orchestrator.core.evidence.crossing import Node, NodeKey, Step, next_step
from orchestrator.core.evidence.limits import staircase
from orchestrator.services.records import MonitorRow


class NodeReading(RolloutReading):
    def next_steps(self, rollout_key: int) -> Mapping[str, Step]:
        found: dict[str, Step] = {}
        for row in self.monitors(rollout_key):
            if row.bad and row.crossed_at is None and row.accepted_at is None:
                step = self._next_step(row)
                if step is not None:
                    found[row.spec.key] = step
        return found

    def _next_step(self, row: MonitorRow) -> Step | None:
        stairs = staircase(row.spec.tolerance, row.spec.alpha)
        return next_step(stairs, lambda key: self.nodes(row.key, (key,)).get(key))

    def nodes(self, monitor_key: int, keys: Iterable[NodeKey]) -> dict[NodeKey, Node]:
        """Those of the nodes that are stored."""
        numbers: dict[int, list[int]] = {}
        for key in keys:
            numbers.setdefault(key.level, []).append(key.number)
        found = {}
        for level, these in numbers.items():
            condition, listed = self.link.within("number", sorted(these))
            for number, content in self.link.rows(
                f"SELECT number, content FROM monitor_node WHERE monitor_key = ? AND level = ? AND {condition}",
                (monitor_key, level, listed),
            ):
                found[NodeKey(level, number)] = Node.from_bytes(bytes(content))
        return found
