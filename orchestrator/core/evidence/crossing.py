"""Where a monitor's bad places cross its staircase, found in O(log s) per report and kept as rows.

Answers for: the tree that finds the crossing as reports come, in whatever order; the recount that proves it offline.
Does not answer for: the limits (``limits``), what a place is (``RULES.md`` 3.2), who stores the nodes.

A bad outcome at place x falls in **bucket** ``need(x)``, the smallest k with b_k >= x. The k-th smallest bad place is
within b_k exactly when at least k outcomes lie in buckets 1 … k. So the monitor has crossed when, for some k,
``(outcomes in buckets 1…k) - k >= 0``: the highest prefix sum of ``count - 1`` over the buckets is not negative.

The buckets are the leaves of a radix tree, 64 children a node and four levels: 2**24 buckets. A node keeps for each
child that has outcomes its **total** and its **peak**, the highest prefix sum that ends at a bucket with an outcome:
elsewhere a prefix sum only falls. An empty child of width w has total -w and is not stored, so an empty region has no
nodes. Adding an outcome reads and writes the four nodes of its path; the answer is the root's peak. The tree depends
only on the multiset of buckets, never on the order.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from orchestrator.core.evidence.limits import Staircase
from orchestrator.errors import InvalidInput

FAN_BITS: Final = 6
FAN_OUT: Final = 1 << FAN_BITS
"""Children of a node."""
DEPTH: Final = 4
"""Nodes on a path, root and last node included."""
BUCKETS: Final = FAN_OUT**DEPTH
"""The highest bucket there is: 16,777,216. Ten million devices stay below it at any tolerance to 95 %."""

_FORMAT: Final = 1
_CHILD: Final = struct.Struct("<Bii")


class NodeKey(NamedTuple):
    """``level`` 0 is the root, 3 the nodes whose children are buckets; ``number`` counts from 0 within the level."""

    level: int
    number: int


ROOT: Final = NodeKey(0, 0)


class Child(NamedTuple):
    """What a node knows of one child that has outcomes: its ``slot`` 0 … 63, its ``total`` and its ``peak``."""

    slot: int
    total: int
    peak: int


@dataclass(frozen=True, slots=True)
class Node:
    """One row of a tree: the children that have outcomes, by rising slot. The empty node need not be stored."""

    children: tuple[Child, ...] = ()

    def to_bytes(self) -> bytes:
        """One byte of format, then 9 bytes a child, little-endian: at most 577."""
        return bytes((_FORMAT,)) + b"".join(_CHILD.pack(*child) for child in self.children)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Node:
        """The node that ``to_bytes`` wrote. Raises ``InvalidInput`` when the bytes are not one."""
        if not stored or stored[0] != _FORMAT or (len(stored) - 1) % _CHILD.size:
            raise InvalidInput("A stored piece of evidence cannot be read: it was cut short or is of another version.")
        children = tuple(Child(*row) for row in _CHILD.iter_unpack(stored[1:]))
        slots = [child.slot for child in children]
        if slots != sorted(set(slots)) or any(slot >= FAN_OUT for slot in slots):
            raise InvalidInput("A stored piece of evidence cannot be read: its parts are out of order.")
        return cls(children)


EMPTY: Final = Node()


@dataclass(frozen=True, slots=True)
class Added:
    """What :func:`add` came to: nodes to write, all bad outcomes so far, and whether the staircase is crossed."""

    changed: dict[NodeKey, Node]
    bad: int
    crossed: bool


@dataclass(frozen=True, slots=True)
class Crossing:
    """The first crossing: the ``bad``-th bad device is at ``place``, among the first ``limit`` places."""

    bad: int
    place: int
    limit: int


class Step(NamedTuple):
    """The next crossing: ``more`` bad devices ``within`` so many first places, where ``there`` bad ones are already.

    No fewer than ``more`` cross, wherever they are; and of all places among which so few do, these are the most.
    """

    more: int
    within: int
    there: int


def place_since(place: int, from_place: int) -> int | None:
    """``place`` as a monitor sees it that started anew after ``from_place``; None if it lies before that."""
    return place - from_place if place > from_place else None


def path(bucket: int) -> tuple[NodeKey, ...]:
    """The four nodes, root first, that an outcome in ``bucket`` changes.

    Raises ``InvalidInput`` for a bucket outside 1 … 2**24.
    """
    if not 1 <= bucket <= BUCKETS:
        raise InvalidInput(f"Evidence is kept for bad counts from 1 to {BUCKETS}; {bucket} is outside.")
    return tuple(NodeKey(level, (bucket - 1) >> (FAN_BITS * (DEPTH - level))) for level in range(DEPTH))


def paths(buckets: Iterable[int]) -> frozenset[NodeKey]:
    """Every node that :func:`add` reads for ``buckets``; always has the root. Raises as :func:`path`."""
    return frozenset({ROOT}.union(*(path(bucket) for bucket in buckets)))


def add(nodes: Mapping[NodeKey, Node], buckets: Iterable[int]) -> Added:
    """Count one more bad outcome in each of ``buckets`` (a bucket may come several times).

    ``nodes`` holds at least those of :func:`paths` that exist; one it lacks is empty. Nothing else is read, nothing is
    changed in place. Raises as :func:`path`.
    """
    arrived: dict[NodeKey, dict[int, int]] = {}
    for bucket, count in Counter(buckets).items():
        arrived.setdefault(path(bucket)[-1], {})[(bucket - 1) % FAN_OUT] = count
    if not arrived:
        total, peak = _summary(nodes.get(ROOT, EMPTY), BUCKETS // FAN_OUT)
        return Added(changed={}, bad=total + BUCKETS, crossed=peak >= 0)

    changed: dict[NodeKey, Node] = {}
    summaries: dict[NodeKey, tuple[int, int]] = {}
    for key, counts in arrived.items():
        slots = {child.slot: child for child in nodes.get(key, EMPTY).children}
        for slot, count in counts.items():
            total = (slots[slot].total if slot in slots else -1) + count
            slots[slot] = Child(slot, total, total)
        changed[key] = Node(tuple(slots[slot] for slot in sorted(slots)))
        summaries[key] = _summary(changed[key], 1)

    width = 1
    for level in reversed(range(DEPTH - 1)):
        width *= FAN_OUT
        parents: dict[NodeKey, dict[int, Child]] = {}
        for key, (total, peak) in summaries.items():
            parent, slot = NodeKey(level, key.number // FAN_OUT), key.number % FAN_OUT
            if parent not in parents:
                parents[parent] = {child.slot: child for child in nodes.get(parent, EMPTY).children}
            parents[parent][slot] = Child(slot, total, peak)
        summaries = {}
        for key, slots in parents.items():
            changed[key] = Node(tuple(slots[slot] for slot in sorted(slots)))
            summaries[key] = _summary(changed[key], width)

    total, peak = summaries[ROOT]
    return Added(changed=changed, bad=total + BUCKETS, crossed=peak >= 0)


def first_crossing(read: Callable[[NodeKey], Node | None]) -> int | None:
    """The smallest k at which the tree crosses, or None while it does not.

    ``read`` gives a stored node (``dict.get`` will do); it is called at most four times, root first. Needed once in a
    monitor's life, for the sentence that says why: the path to that k is in general not the path of the report that
    proved it. Raises ``InvalidInput`` when a node is missing that its parent counts.
    """
    return _descend(read, _first_reaching)


def next_step(staircase: Staircase, read: Callable[[NodeKey], Node | None]) -> Step | None:
    """What is missing for a crossing; None when the tree has crossed. ``read`` and errors as :func:`first_crossing`."""
    _, peak = _summary(read(ROOT) or EMPTY, BUCKETS // FAN_OUT)
    if peak >= 0:
        return None
    if peak < -staircase.first:
        return first_step(staircase)
    # Every prefix sum is missing that much or more, and past the last bucket that misses least they only fall.
    bucket = _descend(read, lambda node, running, width: _last_at(peak, node, running, width))
    assert bucket is not None
    return Step(more=-peak, within=staircase.limit(bucket), there=bucket + peak)


def first_step(staircase: Staircase) -> Step:
    """The next step while nothing is bad."""
    return Step(more=staircase.first, within=staircase.limit(staircase.first), there=0)


def recount(places: Iterable[int], staircase: Staircase) -> Crossing | None:
    """The first crossing of a finished list of bad ``places`` (from 1, any order), without the tree; None if none is.

    "First" is by the smallest bad count, as :func:`first_crossing`. One sort and one evaluation a place.
    """
    for bad, place in enumerate(sorted(places), start=1):
        if staircase.reaches(place, bad):
            return Crossing(bad=bad, place=place, limit=staircase.limit(bad))
    return None


def buckets_of(places: Sequence[int], staircase: Staircase) -> Counter[int]:
    """How many of ``places``, in rising order, fall in each bucket: ``staircase.need`` of all of them, with one limit
    asked for each bucket and not one need for each place."""
    found: Counter[int] = Counter()
    counted, bad = 0, staircase.first
    while counted < len(places):
        upto = bisect_right(places, staircase.limit(bad), counted)
        if upto > counted:
            found[bad] = upto - counted
        else:
            bad = staircase.need(places[counted]) - 1  # nothing before it: a sparse monitor has large gaps
        counted, bad = upto, bad + 1
    return found


def _summary(node: Node, width: int) -> tuple[int, int]:
    """Total and peak of a node whose children are ``width`` buckets wide."""
    total, peak, next_slot = 0, -FAN_OUT * width, 0
    for child in node.children:
        total -= (child.slot - next_slot) * width
        peak = max(peak, total + child.peak)
        total += child.total
        next_slot = child.slot + 1
    return total - (FAN_OUT - next_slot) * width, peak


def _first_reaching(node: Node, running: int, width: int) -> tuple[int, int] | None:
    """The first child in which ``running`` plus a prefix sum is not negative, and the running sum before it."""
    next_slot = 0
    for child in node.children:
        running -= (child.slot - next_slot) * width
        if running + child.peak >= 0:
            return child.slot, running
        running += child.total
        next_slot = child.slot + 1
    return None


def _last_at(peak: int, node: Node, running: int, width: int) -> tuple[int, int] | None:
    """The last child in which ``running`` plus a prefix sum is ``peak``, and the running sum before it."""
    next_slot, found = 0, None
    for child in node.children:
        running -= (child.slot - next_slot) * width
        if running + child.peak == peak:
            found = child.slot, running
        running += child.total
        next_slot = child.slot + 1
    return found


def _descend(
    read: Callable[[NodeKey], Node | None], pick: Callable[[Node, int, int], tuple[int, int] | None]
) -> int | None:
    """The bucket at the end of the children that ``pick`` names, root first; None when it names none at the root."""
    node = read(ROOT) or EMPTY
    number, running, width = 0, 0, BUCKETS // FAN_OUT
    for level in range(DEPTH):
        found = pick(node, running, width)
        if found is None:
            if level:
                raise InvalidInput("Stored evidence contradicts itself: a node does not reach what its parent says.")
            return None
        slot, running = found
        number, width = number * FAN_OUT + slot, width // FAN_OUT
        if level < DEPTH - 1:
            below = read(NodeKey(level + 1, number))
            if below is None:
                raise InvalidInput(f"Stored evidence is incomplete: node {number} of level {level + 1} is missing.")
            node = below
    return number + 1
