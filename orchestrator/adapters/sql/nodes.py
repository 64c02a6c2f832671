"""The crossing tree of ``core.evidence.crossing`` as rows, read: what is missing for each monitor to cross."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.adapters.sql.rollouts import RolloutReading
from orchestrator.core.evidence.crossing import DEPTH, Node, NodeKey, Step, next_step
from orchestrator.core.evidence.limits import staircase
from orchestrator.services.records import MonitorRow


class NodeReading(RolloutReading):
    def next_steps(self, rollout_key: int) -> Mapping[str, Step]:
        rows = [row for row in self.stained_and_open(rollout_key) if row.crossed_at is None]
        first = self._first_nodes([row.key for row in rows])
        found: dict[str, Step] = {}
        for row in rows:
            step = self._next_step(row, first[row.key])
            if step is not None:
                found[row.spec.key] = step
        return found

    def _next_step(self, row: MonitorRow, first: Mapping[NodeKey, Node]) -> Step | None:
        def read(key: NodeKey) -> Node | None:
            return first.get(key) if key.number == 0 else self.nodes(row.key, (key,)).get(key)

        return next_step(staircase(row.spec.tolerance, row.spec.alpha), read)

    def _first_nodes(self, monitor_keys: Sequence[int]) -> dict[int, dict[NodeKey, Node]]:
        """Of each monitor the first node of each level, in one statement: most have no others."""
        found: dict[int, dict[NodeKey, Node]] = {key: {} for key in monitor_keys}
        if found:
            condition, listed = self.link.within("monitor_key", sorted(found))
            levels = ", ".join(map(str, range(DEPTH)))
            for monitor, level, content in self.link.rows(
                f"SELECT monitor_key, level, content FROM monitor_node WHERE {condition} AND level IN ({levels}) "
                "AND number = 0",
                (listed,),
            ):
                found[monitor][NodeKey(level, 0)] = Node.from_bytes(bytes(content))
        return found

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
