"""Waves that wait for a person's word, to promote or to approve: told once, where the policy asks to be told.

Such a wait is no decision: nothing changes, and ``decide`` only says why. So it is noted here, as an entry of the
journal that leaves the rollout as it is, from which the message follows as from any other. Once: for each wave and kind
of word, for approvals once more after each edit, which voids those that were given, and after one was withdrawn. Where
nobody asked to be told there is no entry either.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from orchestrator.core.approvals import start_lacks
from orchestrator.core.approving import files_of
from orchestrator.core.decisions import Plan
from orchestrator.core.notices import On
from orchestrator.core.states import POLICY, ReasonKind
from orchestrator.services.approving import WITHDRAWN
from orchestrator.services.chronicle import order, rules_of
from orchestrator.services.locking import locked_by_key
from orchestrator.services.notices import policy_of
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading, Store, Writing

AWAITED: Final = On.AWAITED.value
"""The journal's word for a wait that only a person's word ends."""


Mark: TypeAlias = tuple[str | None, str, str]


class Wait(NamedTuple):
    """What is waited for. ``wave`` None: approval of the whole rollout. ``files``: what is to be approved; empty for a
    promotion, which no edit voids. ``command``: what to type."""

    wave: str | None
    kind: ReasonKind
    files: str
    sentence: str
    command: str

    @property
    def mark(self) -> Mark:
        """The same for the same wait."""
        return self.wave, self.kind.value, self.files


class Awaiting:
    """``look`` is called with each plan that decided nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[int, tuple[int, frozenset[Mark]]] = {}

    def look(self, row: RolloutRow, plan: Plan, *, now: datetime) -> None:
        """Note what is waited for since now. Raises Conflict."""
        if not policy_of(row).told_of(AWAITED, POLICY):
            return
        found = list(waits(row, plan))
        marks = frozenset(each.mark for each in found)
        # An order since may have made of the same wait another one.
        if not found or self._noted.get(row.key) == (row.journal_seq, marks):
            return
        with self._store.writing() as w:
            present = locked_by_key(w, row.key)
            if present is None or present.version != row.version:
                return  # somebody was faster: the next look sees what is waited for then
            before = noted(w, row.key)
            for each in found:
                if each.mark not in before:
                    present = _note(w, present, each, now=now)
        self._noted[row.key] = row.journal_seq, marks


def waits(row: RolloutRow, plan: Plan) -> Iterator[Wait]:
    """Those that a person ends with a word; one for the whole rollout where all its waves wait for the same."""
    files, name = files_of(row.spec_digest, row.policy_digest), row.state.rollout
    start = start_lacks(row.state, rules_of(row))
    seen = set()
    for each in plan.reasons:
        kind, sentence, wave = each.reason.kind, each.reason.sentence, each.wave
        if kind is ReasonKind.AWAITING_PROMOTION:
            found = Wait(wave, kind, "", sentence, f"wave promote {name} {wave}")
        elif kind is ReasonKind.AWAITING_APPROVAL and each.reason == start:
            found = Wait(None, kind, files, sentence, f"wave approve {name}")
        elif kind is ReasonKind.AWAITING_APPROVAL:
            found = Wait(wave, kind, files, sentence, f"wave approve {name} --wave {wave}")
        else:
            continue
        if found.mark not in seen:
            seen.add(found.mark)
            yield found


def noted(r: Reading, key: int) -> set[Mark]:
    """The marks of what the journal says was waited for; of approvals since the last that was withdrawn."""
    since = max((each.seq for each in r.journal_of(key, WITHDRAWN)), default=0)
    found = ((each.seq, each.wave, each.facts[AWAITED]) for each in r.journal_of(key, AWAITED))
    return {
        (wave, told["kind"], told["files"])
        for seq, wave, told in found
        if seq > since or told["kind"] != ReasonKind.AWAITING_APPROVAL
    }


def _note(w: Writing, row: RolloutRow, wait: Wait, *, now: datetime) -> RolloutRow:
    told = {AWAITED: {"kind": wait.kind.value, "files": wait.files, "command": wait.command}}
    return order(
        w, row, row.state, event=AWAITED, by=POLICY, sentence=wait.sentence, now=now, wave=wait.wave, facts=told
    )
