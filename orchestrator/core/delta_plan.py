"""Which deltas to build for a wave, in which order, and what that costs and saves.

The graph: nodes are commits; between two of them lie edges, each a way for a device to get from one to the other: a
*delta* (bytes, seconds to build, built or not), or *whole*: the loose objects that the device lacks, always there. What
devices need is a ``Required``: so many are on this commit and shall come to that one.

The graph carries ways by way of stepping stones as well (``cheapest_way(..., stones=...)``: such a way costs two deltas
and two installations). This version offers none: a device would have to be given two Targets one after the other. So
plans use direct edges only.

Answers for: choice, order, totals. Not for: which commits exist, what an edge costs, who builds it when.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

import networkx as nx

NOTHING: Final = ""
"""The node of a device whose commit nobody knows: it fetches everything."""

SHORTEST_BUILD: Final = 1.0
"""Seconds that a build takes at least, so that an estimate of zero makes no weight infinite."""


class EdgeState(StrEnum):
    """READY: verified and published. MISSING: can be built. FAILED: was tried and given up."""

    READY = "ready"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Edge:
    """One way from a commit to another. ``bytes`` are what a device downloads; ``seconds`` what building takes (0 for
    what is there). ``whole`` is True for the loose objects."""

    bytes: int
    seconds: float = 0.0
    state: EdgeState = EdgeState.READY
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """A chain of edges from one commit to another by way of ``commits``, both ends included."""

    commits: tuple[str, ...]
    edges: tuple[Edge, ...]

    @property
    def bytes(self) -> int:
        return sum(edge.bytes for edge in self.edges)


class CommitGraph:
    """Commits and the ways between them; at most one delta and one whole edge from one commit to another."""

    def __init__(self) -> None:
        self._graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()

    def add_delta(
        self, from_commit: str, to_commit: str, *, bytes: int, seconds: float = 0.0, state: EdgeState
    ) -> None:
        """A delta, built or not; replaces the one that was there."""
        self._graph.add_edge(from_commit, to_commit, key="delta", edge=Edge(bytes, seconds, state))

    def add_whole(self, from_commit: str, to_commit: str, *, bytes: int) -> None:
        """What a device on ``from_commit`` fetches without a delta."""
        self._graph.add_edge(from_commit, to_commit, key="whole", edge=Edge(bytes, whole=True))

    def delta(self, from_commit: str, to_commit: str) -> Edge | None:
        return self._edge(from_commit, to_commit, "delta")

    def whole(self, from_commit: str, to_commit: str) -> Edge | None:
        return self._edge(from_commit, to_commit, "whole")

    def cheapest_way(
        self,
        from_commit: str,
        to_commit: str,
        *,
        built: Collection[tuple[str, str]] = (),
        stones: Collection[str] = (),
    ) -> Way | None:
        """The way of fewest bytes over what is ready or in ``built``; None when there is none.

        ``stones``: commits a device may be led through, each of which it would have to install. On equal bytes the way
        with fewer steps.
        """
        if from_commit == to_commit:
            return Way((from_commit,), ())
        allowed = {from_commit, to_commit, *stones}
        usable: nx.DiGraph[str] = nx.DiGraph()
        edge: Edge
        for before, after, edge in self._graph.edges(allowed, data="edge"):
            if after not in allowed or (edge.state is not EdgeState.READY and (before, after) not in built):
                continue
            if not usable.has_edge(before, after) or edge.bytes < usable.edges[before, after]["edge"].bytes:
                usable.add_edge(before, after, edge=edge, cost=(edge.bytes << 16) + 1)
        try:
            commits: list[str] = nx.dijkstra_path(usable, from_commit, to_commit, weight="cost")
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return None
        steps = pairwise(commits)
        return Way(tuple(commits), tuple(usable.edges[step]["edge"] for step in steps))

    def _edge(self, from_commit: str, to_commit: str, key: str) -> Edge | None:
        if not self._graph.has_edge(from_commit, to_commit, key):
            return None
        edge: Edge = self._graph.edges[from_commit, to_commit, key]["edge"]
        return edge


@dataclass(frozen=True, slots=True, order=True)
class Required:
    """So many ``devices`` are on ``from_commit`` and shall come to ``to_commit``. ``known``: the repository has the
    from commit; otherwise no delta can be made, whatever the policy."""

    from_commit: str
    to_commit: str
    devices: int
    known: bool = True


@dataclass(frozen=True, slots=True)
class Build:
    """A delta to build. ``bytes`` estimated; ``saved``: bytes each device saves by it; ``seconds``: what it takes on
    one builder. ``to_open``: without it the wave's coverage is not reached; the others are for devices that wait."""

    from_commit: str
    to_commit: str
    devices: int
    bytes: int
    saved: int
    seconds: float
    to_open: bool

    @property
    def weight(self) -> float:
        """Devices times bytes saved per second of building: the order of the queue, heaviest first."""
        return self.devices * max(self.saved, 1) / max(self.seconds, SHORTEST_BUILD)


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """What to build, and what that comes to.

    ``builds`` in the order of building. ``ready``: required and there. ``left_out``: required, not built because the
    policy's coverage is reached without. ``failed``: given up. ``unknown``: from commits that the repository does not
    have. ``devices`` need a delta and have a known commit; ``covered`` of them have one, ``covered_after`` will have.
    Bytes: ``build_bytes`` of disk; ``bytes_without`` and ``bytes_with`` are what all these devices, the unknown
    included, download without any delta and once all is built. ``seconds`` on ``builders`` builders at once.
    """

    builds: tuple[Build, ...]
    ready: tuple[Required, ...]
    left_out: tuple[Required, ...]
    failed: tuple[Required, ...]
    unknown: tuple[Required, ...]
    devices: int
    covered: int
    covered_after: int
    build_bytes: int
    bytes_without: int
    bytes_with: int
    seconds: float
    builders: int

    @property
    def minutes(self) -> int:
        """Whole minutes, rounded up."""
        return math.ceil(self.seconds / 60)


def devices_to_cover(devices: int, cover: float) -> int:
    """The smallest number of devices whose share is at least ``cover``, by the very comparison ``decide`` makes."""
    if devices <= 0:
        return 0
    least = min(max(math.ceil(cover * devices), 0), devices)
    while least > 0 and (least - 1) / devices >= cover:
        least -= 1
    while least < devices and least / devices < cover:
        least += 1
    return least


def merge(required: Iterable[Required]) -> list[Required]:
    """One ``Required`` for each pair of commits, devices added up; without those who are there already and without
    pairs of no device."""
    found: dict[tuple[str, str], Required] = {}
    for need in required:
        if need.devices <= 0 or need.from_commit == need.to_commit:
            continue
        pair = need.from_commit, need.to_commit
        before = found.get(pair)
        total = need.devices + (before.devices if before else 0)
        found[pair] = Required(*pair, total, need.known and (before is None or before.known))
    return sorted(found.values())


def plan_deltas(
    graph: CommitGraph, required: Iterable[Required], *, cover: float = 1.0, build_rest: bool = True, builders: int = 1
) -> DeltaPlan:
    """Choose and order what to build.

    ``cover`` is the share of the devices with a known commit that must have a delta. What is ready counts first; then
    the heaviest are taken until enough devices are covered, and of those again every one without which it is enough.
    ``build_rest``: the others are built as well, after those of equal weight; False when their devices are served
    whole anyway. What failed is not counted on.
    """
    needs = merge(required)
    known = [need for need in needs if need.known]
    unknown = tuple(need for need in needs if not need.known)
    devices = sum(need.devices for need in known)
    by_state: dict[EdgeState, list[Required]] = {state: [] for state in EdgeState}
    for need in known:
        edge = graph.delta(need.from_commit, need.to_commit)
        by_state[edge.state if edge else EdgeState.MISSING].append(need)
    ready = by_state[EdgeState.READY]
    covered = sum(need.devices for need in ready)
    missing = sorted((_build(graph, need) for need in by_state[EdgeState.MISSING]), key=_order)
    to_open = _enough(missing, devices_to_cover(devices, cover) - covered)
    chosen = [_replaced(build, build in to_open) for build in missing if build_rest or build in to_open]
    chosen_pairs = {(build.from_commit, build.to_commit) for build in chosen}
    return DeltaPlan(
        builds=tuple(chosen),
        ready=tuple(ready),
        left_out=tuple(
            need for need in by_state[EdgeState.MISSING] if (need.from_commit, need.to_commit) not in chosen_pairs
        ),
        failed=tuple(by_state[EdgeState.FAILED]),
        unknown=unknown,
        devices=devices,
        covered=covered,
        covered_after=covered + sum(build.devices for build in chosen),
        build_bytes=sum(build.bytes for build in chosen),
        bytes_without=sum(_bytes_whole(graph, need) * need.devices for need in needs),
        bytes_with=sum(_bytes_once_built(graph, need, chosen_pairs) * need.devices for need in needs),
        seconds=makespan([build.seconds for build in chosen], builders),
        builders=builders,
    )


def makespan(seconds: Iterable[float], builders: int) -> float:
    """How long builds in this order take when each begins at the first builder that is free. Seconds."""
    free_at = [0.0] * max(builders, 1)
    for duration in seconds:
        heapq.heappush(free_at, heapq.heappop(free_at) + duration)
    return max(free_at)


def _build(graph: CommitGraph, need: Required) -> Build:
    edge = graph.delta(need.from_commit, need.to_commit) or Edge(0, 0.0, EdgeState.MISSING)
    saved = max(_bytes_whole(graph, need) - edge.bytes, 0)
    return Build(need.from_commit, need.to_commit, need.devices, edge.bytes, saved, edge.seconds, to_open=False)


def _order(build: Build) -> tuple[float, int, str, str]:
    return -build.weight, -build.devices, build.from_commit, build.to_commit


def _enough(builds: list[Build], devices: int) -> set[Build]:
    """Of ``builds``, heaviest first, a set for at least that many devices of which none is superfluous; all of them
    when that is not enough."""
    taken: list[Build] = []
    short = devices
    for build in builds:
        if short <= 0:
            break
        taken.append(build)
        short -= build.devices
    for build in reversed(taken.copy()):
        if short + build.devices <= 0:
            taken.remove(build)
            short += build.devices
    return set(taken)


def _replaced(build: Build, to_open: bool) -> Build:
    return Build(
        build.from_commit, build.to_commit, build.devices, build.bytes, build.saved, build.seconds, to_open=to_open
    )


def _bytes_whole(graph: CommitGraph, need: Required) -> int:
    edge = graph.whole(need.from_commit, need.to_commit) or graph.whole(NOTHING, need.to_commit)
    return edge.bytes if edge else 0


def _bytes_once_built(graph: CommitGraph, need: Required, built: Collection[tuple[str, str]]) -> int:
    way = graph.cheapest_way(need.from_commit, need.to_commit, built=built) if need.known else None
    return way.bytes if way else _bytes_whole(graph, need)
