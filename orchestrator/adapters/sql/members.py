"""Membership in SQL: the conditions of ``core.membership`` and ``core.fleet.Scope`` as text, written once for both
databases.

Every function gives a piece of SQL with the parameters of its ``?`` in order. They speak of one row ``d`` of
``device``; what a device runs is asked of ``software`` by its key, so that "eligible" is decided once for each thing
the fleet runs and not once for each device. The contract tests hold these conditions equal to the Python ones over
random fleets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.adapters.sql.codec import update_key
from orchestrator.adapters.sql.times import stored
from orchestrator.core.fleet import DeviceStatus, Scope
from orchestrator.core.membership import WaveSelector
from orchestrator.core.position import SPACE, Salt
from orchestrator.core.slices import Staircase


@dataclass(frozen=True, slots=True)
class Piece:
    """A condition or a value in SQL with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()

    def __invert__(self) -> Piece:
        return Piece(f"NOT ({self.sql})", self.parameters)


ALWAYS: Final = Piece("1 = 1")
NEVER: Final = Piece("1 = 0")


def all_of(*pieces: Piece) -> Piece:
    kept = [piece for piece in pieces if piece is not ALWAYS]
    if not kept:
        return ALWAYS
    return Piece(" AND ".join(f"({piece.sql})" for piece in kept), _joined(kept))


def any_of(*pieces: Piece) -> Piece:
    if not pieces:
        return NEVER
    return Piece(" OR ".join(f"({piece.sql})" for piece in pieces), _joined(pieces))


def _joined(pieces: Iterable[Piece]) -> tuple[Any, ...]:
    return tuple(parameter for piece in pieces for parameter in piece.parameters)


def listed(values: Iterable[Any]) -> Piece:
    """A list for IN, of few values."""
    some = tuple(values)
    return Piece(", ".join("?" * len(some)) or "NULL", some)


def position(salt: Salt) -> Piece:
    """``core.position.position``. The salt's numbers are ours, so they stand in the text: it is evaluated for a
    million rows."""
    return Piece(f"(d.hash_high * {salt.a:d} + d.hash_low * {salt.b:d} + {salt.c:d}) % {SPACE:d}")


def asks_for(selector: WaveSelector) -> Piece:
    """``WaveSelector.asks_for``: group and labels, never NULL. A label is one look into the primary key of
    ``device_label``."""
    pieces = [] if selector.group is None else [Piece("coalesce(d.group_name, '') = ?", (selector.group,))]
    pieces += [
        Piece(
            "EXISTS (SELECT 1 FROM device_label l WHERE l.device_key = d.key AND l.key = ? AND l.value = ?)",
            (key, value),
        )
        for key, value in selector.labels
    ]
    return all_of(*pieces)


def within_bound(selector: WaveSelector) -> Piece:
    """``position < WaveSelector.bound_for(hardware id)``."""
    if selector.bounds is not None:
        where = position(selector.salt)
        cases = " ".join("WHEN ? THEN ?" for _ in selector.bounds)
        values = tuple(value for named in selector.bounds for value in named)
        if not values:
            return NEVER
        hardware = "(SELECT s.hardware_id FROM software s WHERE s.key = d.software_key)"
        return Piece(f"{where.sql} < CASE {hardware} {cases} ELSE 0 END", values)
    if selector.bound is None or selector.bound >= SPACE:
        return ALWAYS
    return Piece(f"{position(selector.salt).sql} < {selector.bound:d}")


def holds(selector: WaveSelector) -> Piece:
    return all_of(asks_for(selector), within_bound(selector))


def member(scope: Scope, wave: str, *, own_bounds: bool = True) -> Piece:
    """In this wave: its selector holds, and no earlier one. The bound is asked first where there is one: it is the
    cheapest question."""
    earlier: list[Piece] = []
    for selector in scope.selectors:
        if selector.wave == wave:
            asked = [within_bound(selector)] if own_bounds else []
            if selector.group is not None:
                asked.append(Piece("d.group_name = ?", (selector.group,)))
            # For the wave's own labels the list of their devices, which may be short; for "not" it is one look each.
            asked += [
                Piece("d.key IN (SELECT l.device_key FROM device_label l WHERE l.key = ? AND l.value = ?)", label)
                for label in selector.labels
            ]
            return all_of(*asked, *(~piece for piece in earlier))
        earlier.append(holds(selector))
    return NEVER


def in_some_wave(scope: Scope) -> Piece:
    return any_of(*(holds(selector) for selector in scope.selectors))


def wave_number(scope: Scope) -> Piece:
    """Which wave has the device, as its index in ``scope.selectors``; NULL: none."""
    cases = [holds(selector) for selector in scope.selectors]
    if not cases:
        return Piece("NULL")
    text = " ".join(f"WHEN {piece.sql} THEN {number}" for number, piece in enumerate(cases))
    return Piece(f"CASE {text} END", _joined(cases))


def follows(scope: Scope) -> Piece:
    """``Scope.follows``. Tag, status and software are the columns of ``device_runs``, in this order."""
    hardware = listed(sorted(scope.commits))
    return Piece(
        f"d.tag = ? AND d.status = ? AND d.software_key IN (SELECT s.key FROM software s WHERE s.hardware_id IN "
        f"({hardware.sql}))",
        (scope.tag, DeviceStatus.ACTIVE.value, *hardware.parameters),
    )


def eligible(scope: Scope) -> Piece:
    """``Scope.eligible``: follows, is not already there, runs what may be taken back where that is asked, and is in no
    excluded segment."""
    hardware = listed(sorted(scope.commits))
    there = _already_there(scope)
    allowed = ""
    versions: tuple[Any, ...] = ()
    if scope.from_versions:
        back = listed(scope.from_versions)
        allowed, versions = f" AND s.version IN ({back.sql})", back.parameters
    able = Piece(
        "d.tag = ? AND d.status = ? AND d.software_key IN (SELECT s.key FROM software s "
        f"WHERE s.hardware_id IN ({hardware.sql}) AND NOT ({there.sql}){allowed})",
        (scope.tag, DeviceStatus.ACTIVE.value, *hardware.parameters, *there.parameters, *versions),
    )
    return all_of(able, *(~in_segment(segment) for segment in scope.excluded))


def in_segment(segment: str) -> Piece:
    """``core.fleet.segment_value`` is the segment's."""
    dimension, _, value = segment.partition("=")
    match dimension:
        case "hardware_id":
            return Piece("d.software_key IN (SELECT s.key FROM software s WHERE s.hardware_id = ?)", (value,))
        case "source_version":
            if not value.isdecimal() or str(int(value)) != value:
                return NEVER
            return Piece("d.software_key IN (SELECT s.key FROM software s WHERE s.version = ?)", (int(value),))
        case _:
            return Piece(
                "EXISTS (SELECT 1 FROM device_label l WHERE l.device_key = d.key AND l.key = ? AND l.value = ?)",
                (dimension.removeprefix("label:"), value),
            )


def _already_there(scope: Scope) -> Piece:
    """``Scope.already_there`` of a row ``s`` of ``software``. A version that is not known is -1, and so never
    "newer"."""
    if not scope.commits:
        return NEVER
    commits = " ".join("WHEN ? THEN ?" for _ in scope.commits)
    named = tuple(value for pair in sorted(scope.commits.items()) for value in pair)
    newer = Piece("s.version >= ?", (scope.version,))
    if scope.from_versions:
        back = listed(scope.from_versions)
        newer = Piece(
            f"s.version >= ? AND (s.version NOT IN ({back.sql}) OR s.version = ?)",
            (scope.version, *back.parameters, scope.version),
        )
    return any_of(Piece(f"s.commit_id = CASE s.hardware_id {commits} ELSE '-' END", named), newer)


def covered(staircase: Staircase, salt: Salt) -> Piece:
    """In one of the slices opened so far: some step has ``since <= opened_at`` and ``position < upto``."""
    where = position(salt).sql
    return any_of(
        *(
            Piece(f"coalesce(d.since_at <= {stored(opened_at):d} AND {where} < {upto:d}, 1 = 0)")
            for opened_at, upto in staircase.steps
        )
    )


def without_update(rollout_key: int) -> Piece:
    return Piece("NOT EXISTS (SELECT 1 FROM device_update u WHERE u.key = ? + d.key)", (update_key(rollout_key, 0),))
