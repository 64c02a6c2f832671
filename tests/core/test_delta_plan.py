"""The planner of deltas, against brute force on small graphs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, pairwise, permutations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.delta_plan import (
    NOTHING,
    Build,
    CommitGraph,
    EdgeState,
    Required,
    devices_to_cover,
    makespan,
    merge,
    plan_deltas,
)

TO = "t"


def subsets(items: list[Build]) -> Iterator[tuple[Build, ...]]:
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))


@st.composite
def fleets(draw: st.DrawFn) -> tuple[CommitGraph, list[Required]]:
    graph, needs = CommitGraph(), []
    graph.add_whole(NOTHING, TO, bytes=draw(st.integers(500, 2000)))
    for number in range(draw(st.integers(0, 6))):
        commit = f"c{number}"
        whole = draw(st.integers(1, 1000))
        graph.add_whole(commit, TO, bytes=whole)
        graph.add_delta(
            commit,
            TO,
            bytes=draw(st.integers(0, 1200)),
            seconds=draw(st.integers(1, 60)),
            state=draw(st.sampled_from(list(EdgeState))),
        )
        needs.append(Required(commit, TO, draw(st.integers(1, 30)), known=draw(st.booleans()) or draw(st.booleans())))
    return graph, needs


shares = st.sampled_from([0.0, 0.01, 1 / 3, 0.5, 0.9, 0.95, 0.999, 1.0])


@given(fleets(), shares)
def test_what_is_built_to_open_reaches_the_coverage_and_nothing_of_it_is_superfluous(
    fleet: tuple[CommitGraph, list[Required]], cover: float
) -> None:
    plan = plan_deltas(*fleet, cover=cover, build_rest=False)
    everything = list(plan_deltas(*fleet, cover=cover).builds)

    def enough(builds: tuple[Build, ...]) -> bool:
        return not plan.devices or (plan.covered + sum(b.devices for b in builds)) / plan.devices >= cover

    possible = any(enough(chosen) for chosen in subsets(everything))
    assert enough(plan.builds) == possible
    if possible:
        assert not any(enough(tuple(b for b in plan.builds if b is not left_out)) for left_out in plan.builds)
    else:
        assert {(b.from_commit, b.devices) for b in plan.builds} == {(b.from_commit, b.devices) for b in everything}


@given(fleets(), shares)
def test_nothing_is_lost_between_the_lists(fleet: tuple[CommitGraph, list[Required]], cover: float) -> None:
    for build_rest in (True, False):
        plan = plan_deltas(*fleet, cover=cover, build_rest=build_rest)
        listed = [
            need.from_commit for group in (plan.ready, plan.left_out, plan.failed, plan.unknown) for need in group
        ]
        assert sorted([*listed, *(b.from_commit for b in plan.builds)]) == sorted(n.from_commit for n in fleet[1])
        assert plan.devices == sum(need.devices for need in fleet[1] if need.known)
        assert plan.covered <= plan.covered_after <= plan.devices
        assert not (build_rest and plan.left_out)


@given(fleets())
def test_the_order_saves_the_most_bytes_the_soonest(fleet: tuple[CommitGraph, list[Required]]) -> None:
    """Of all orders of building, none has the devices wait for their savings less."""
    builds = plan_deltas(*fleet).builds[:5]

    def waited(order: tuple[Build, ...]) -> float:
        at, total = 0.0, 0.0
        for build in order:
            at += build.seconds
            total += at * build.devices * max(build.saved, 1)
        return total

    assert waited(builds) <= min(map(waited, permutations(builds))) * (1 + 1e-9)


@given(fleets(), shares)
def test_the_bytes_are_those_of_each_devices_best_way(fleet: tuple[CommitGraph, list[Required]], cover: float) -> None:
    graph, needs = fleet
    plan = plan_deltas(graph, needs, cover=cover, build_rest=False)
    built = {build.from_commit for build in plan.builds} | {need.from_commit for need in plan.ready}
    without = with_deltas = 0
    for need in needs:
        delta, whole = graph.delta(need.from_commit, TO), graph.whole(need.from_commit, TO)
        assert delta is not None and whole is not None
        without += need.devices * whole.bytes
        usable = need.known and need.from_commit in built
        with_deltas += need.devices * (min(delta.bytes, whole.bytes) if usable else whole.bytes)
    assert (plan.bytes_without, plan.bytes_with) == (without, with_deltas)
    assert plan.bytes_with <= plan.bytes_without


@given(st.lists(st.integers(1, 100), max_size=8), st.integers(1, 4))
def test_builders_are_never_idle_while_something_waits(seconds: list[int], builders: int) -> None:
    took = makespan(map(float, seconds), builders)
    longest = max(seconds, default=0)
    assert max(longest, sum(seconds) / builders) <= took <= sum(seconds) / builders + longest
    assert makespan(map(float, seconds), 1) == sum(seconds)


@given(st.integers(0, 5000), st.floats(0, 1))
def test_coverage_is_met_by_the_comparison_decide_makes(devices: int, cover: float) -> None:
    least = devices_to_cover(devices, cover)
    assert 0 <= least <= devices
    if devices:
        assert least / devices >= cover
        assert least == 0 or (least - 1) / devices < cover


def test_one_commit_needs_no_delta_and_the_same_pair_is_counted_once() -> None:
    needs = [Required("a", "a", 5), Required("a", "b", 2), Required("a", "b", 3), Required("c", "b", 0)]
    assert merge(needs) == [Required("a", "b", 5)]


def test_unknown_from_commits_are_apart_and_fetch_everything() -> None:
    graph = CommitGraph()
    graph.add_whole(NOTHING, TO, bytes=1000)
    plan = plan_deltas(graph, [Required("x", TO, 2, known=False), Required(NOTHING, TO, 3, known=False)])
    assert (plan.devices, plan.builds, len(plan.unknown)) == (0, (), 2)
    assert (plan.bytes_without, plan.bytes_with) == (5000, 5000)


def test_no_device_costs_nothing() -> None:
    plan = plan_deltas(CommitGraph(), [])
    assert (plan.builds, plan.devices, plan.seconds, plan.minutes) == ((), 0, 0.0, 0)


@st.composite
def webs(draw: st.DrawFn) -> tuple[CommitGraph, dict[tuple[str, str], int]]:
    """Small graphs whose edges all are ready deltas, with their bytes."""
    graph, edges = CommitGraph(), {}
    for before, after in permutations("abcd", 2):
        if draw(st.booleans()):
            edges[before, after] = draw(st.integers(1, 50))
            graph.add_delta(before, after, bytes=edges[before, after], state=EdgeState.READY)
    return graph, edges


@given(webs(), st.sets(st.sampled_from("bc")))
def test_a_way_may_lead_over_stepping_stones_only(
    web: tuple[CommitGraph, dict[tuple[str, str], int]], stones: set[str]
) -> None:
    graph, edges = web
    plain: nx.DiGraph = nx.DiGraph(pair for pair in edges if set(pair) <= {"a", "d", *stones})
    paths = nx.all_simple_paths(plain, "a", "d") if plain.has_node("a") and plain.has_node("d") else []
    costs = [sum(edges[step] for step in pairwise(path)) for path in paths]
    way = graph.cheapest_way("a", "d", stones=stones)
    assert (way.bytes if way else None) == min(costs, default=None)
    if way is not None and not stones:
        assert way.commits == ("a", "d")


def test_what_is_not_built_is_no_way_unless_it_will_be() -> None:
    graph = CommitGraph()
    graph.add_whole("a", "b", bytes=100)
    graph.add_delta("a", "b", bytes=10, seconds=5, state=EdgeState.MISSING)
    here, later = graph.cheapest_way("a", "b"), graph.cheapest_way("a", "b", built={("a", "b")})
    assert here is not None and later is not None
    assert (here.bytes, later.bytes) == (100, 10)


@pytest.mark.parametrize("builders", [0, 1, 3])
def test_the_time_is_that_of_the_builders(builders: int) -> None:
    graph = CommitGraph()
    for commit in "abc":
        graph.add_whole(commit, TO, bytes=100)
        graph.add_delta(commit, TO, bytes=10, seconds=60, state=EdgeState.MISSING)
    plan = plan_deltas(graph, [Required(commit, TO, 1) for commit in "abc"], builders=builders)
    assert plan.minutes == {0: 3, 1: 3, 3: 1}[builders]
