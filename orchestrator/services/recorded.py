"""What the journal keeps of a decision so that it can be made again, and how that is read back.

The first entry of a look holds the facts it saw, what it decided (``decided``) and the digest of the record it decided
from. The record itself is not repeated: every order's entry holds it whole as the order left it (``state``), with the
digest of the one it found, and every decision says what it made of it. When a look at deltas and when gates were asked
for, which is not worth an entry, stands in ``asked_at`` and ``gates_asked_at``. So entries stay small, each step is
exact, and a record that was changed behind the journal's back shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar, get_args

import msgspec

from orchestrator.core.decisions import Decision
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.log import Covered
from orchestrator.core.facts import BudgetFacts, Facts, RolloutState
from orchestrator.core.journal import Entry
from orchestrator.core.transitions import apply_all
from orchestrator.services.records import MonitorRow, RolloutRow

STATE: Final = "state"
STATE_DIGEST: Final = "state_digest"
ASKED_AT: Final = "asked_at"
GATES_ASKED_AT: Final = "gates_asked_at"
DECIDED: Final = "decided"
WITHHELD: Final = "withheld"
EVIDENCE: Final = "evidence"
WATCHED: Final = "watched"
AS_IN: Final = "as_in"

_DECISIONS: Final[Mapping[str, type]] = {kind.__name__: kind for kind in get_args(Decision)}
_T = TypeVar("_T")


def as_json(value: Any, *, short: bool = False) -> Any:
    """A frozen value as plain JSON types: dataclasses as objects, times as ISO 8601, enums as their words. ``short``
    leaves out what is empty and is so by default: it reads back as the same value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: as_json(each, short=short) for field, each in pairs if each or not short or _needed(field)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(as_json(key)): as_json(each, short=short) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(each, short=short) for each in value]
    return value


def _needed(field: dataclasses.Field[Any]) -> bool:
    """Whether an empty value must be written: it has no default, or another one."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return default is MISSING or bool(default)


def read(value: Any, kind: type[_T]) -> _T:
    """The inverse of ``as_json``. Raises ValueError for what is no such value."""
    return msgspec.convert(value, kind)


# ------------------------------------------------------------------------------------------------- written


def of_look(
    state: RolloutState, facts: Facts, decided: Sequence[Decision], withheld: Sequence[str] = ()
) -> dict[str, Any]:
    """What the first entry of a look holds. ``withheld``: waves that decisions were left out of, because a delta of
    theirs did not hold on the disk."""
    # By msgspec and back: five hundred monitors in a millisecond, which counts where a report halts.
    return {
        **msgspec.json.decode(msgspec.json.encode(facts)),
        STATE_DIGEST: state_digest(state),
        ASKED_AT: {wave.wave: wave.asked_at.isoformat() for wave in state.waves if wave.asked_at is not None},
        **({GATES_ASKED_AT: gates} if (gates := _gates_asked(state)) else {}),
        DECIDED: [{"decision": type(each).__name__, **as_json(each)} for each in decided],
        **({WITHHELD: list(withheld)} if withheld else {}),
    }


def _gates_asked(state: RolloutState) -> dict[str, str]:
    return {wave.wave: wave.gates_asked_at.isoformat() for wave in state.waves if wave.gates_asked_at is not None}


def of_order(before: RolloutState, after: RolloutState) -> dict[str, Any]:
    """What an order's entry holds: the record it left, and the digest of the one it found."""
    return {STATE: as_json(after, short=True), STATE_DIGEST: state_digest(before)}


def of_watched(
    devices: int, sizes: Mapping[str, int] | None, monitors: Sequence[MonitorRow], budgets: Sequence[BudgetFacts]
) -> dict[str, Any]:
    """The monitors and budgets that count from this entry on; ``sizes``: the eligible devices of each wave, where they
    were counted."""
    rows = [
        {"attempt": row.attempt, "from_place": row.from_place, "spec": as_json(row.spec)}
        for row in monitors
        if row.accepted_at is None
    ]
    shares = {} if sizes is None else {"sizes": dict(sizes)}
    return {WATCHED: {"devices": devices, **shares, "monitors": rows, "budgets": as_json(list(budgets))}}


def of_files(row: RolloutRow) -> dict[str, Any]:
    """Both bound files and their digests."""
    return {
        "spec": row.spec,
        "policy": row.policy,
        "spec_digest": row.spec_digest,
        "policy_digest": row.policy_digest,
    }


def of_evidence(covered: Covered) -> dict[str, Any]:
    return {EVIDENCE: covered._asdict()} if covered.rows else {}


def state_digest(state: RolloutState) -> str:
    """SHA-256 of a record; when a look or its gates were asked is no part of it: that is not worth an entry."""
    waves = (replace(wave, asked_at=None, gates_asked_at=None) for wave in state.waves)
    settled = replace(state, waves=tuple(waves))
    text = json.dumps(as_json(settled, short=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------- read back


@dataclass(frozen=True, slots=True)
class Watched:
    """A monitor that counts from an entry on: its places are those above ``from_place``."""

    spec: MonitorSpec
    attempt: int
    from_place: int


@dataclass(frozen=True, slots=True)
class Watching:
    """What counts from an entry on, and of how many devices. ``sizes``: eligible devices of each wave, None where they
    were not counted anew."""

    devices: int
    monitors: tuple[Watched, ...]
    budgets: tuple[BudgetFacts, ...]
    sizes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A look as recorded. ``state``: the record it decided from."""

    state: RolloutState
    facts: Facts
    decided: tuple[Decision, ...]
    withheld: tuple[str, ...]


def watched(entry: Entry) -> Watching | None:
    """The monitors and budgets that count from this entry on; None: as before. Raises ValueError."""
    found = entry.facts.get(WATCHED)
    return None if found is None else read(found, Watching)


def covered(entry: Entry) -> Covered | None:
    """How far and with which digest the evidence log was covered; None when there was none, or another entry of the
    same look says it. Raises ValueError."""
    found = entry.facts.get(EVIDENCE)
    return None if found is None else Covered(int(found["seq"]), int(found["rows"]), str(found["digest"]))


class Following:
    """The rollout's record as the journal tells it, entry by entry, from the first one on. ``state``: after the entry
    taken last; ``told``: whether that entry found the record which the ones before it leave. Once one did not, it is
    not said again until an order's entry holds the whole record."""

    def __init__(self) -> None:
        self.state: RolloutState | None = None
        self.told = True
        self._lost = False

    def take(self, entry: Entry) -> Look | None:
        """The next entry; the look that it is the first of. Afterwards ``state`` is the record after it. Raises
        ValueError when the entry does not hold what such an entry holds."""
        if STATE in entry.facts:
            found = entry.facts.get(STATE_DIGEST)
            self.told = self._lost or self.state is None or found == state_digest(self.state)
            self._lost = False
            self.state = read(entry.facts[STATE], RolloutState)
            return None
        if DECIDED not in entry.facts:
            if AS_IN not in entry.facts:
                raise ValueError("it holds neither facts nor a record")
            self.told = True
            return None
        if self.state is None:
            raise ValueError("no entry before it holds a record")
        asked = {wave: read(at, datetime) for wave, at in entry.facts[ASKED_AT].items()}
        gates = {wave: read(at, datetime) for wave, at in entry.facts.get(GATES_ASKED_AT, {}).items()}
        waves = tuple(
            replace(wave, asked_at=asked.get(wave.wave), gates_asked_at=gates.get(wave.wave))
            for wave in self.state.waves
        )
        state = replace(self.state, waves=waves)
        decided = tuple(_decision(each) for each in entry.facts[DECIDED])
        look = Look(
            state=state,
            facts=read(entry.facts, Facts),
            decided=decided,
            withheld=tuple(entry.facts.get(WITHHELD, ())),
        )
        self.told = self._lost or entry.facts[STATE_DIGEST] == state_digest(state)
        self._lost = self._lost or not self.told
        self.state = apply_all(state, decided, entry.at)
        return look


def _decision(value: Mapping[str, Any]) -> Decision:
    kind = _DECISIONS.get(value.get("decision", ""))
    if kind is None:
        raise ValueError(f"there is no decision {value.get('decision')!r}")
    found: Decision = read({key: each for key, each in value.items() if key != "decision"}, kind)
    return found
