"""The stop inside the transaction that counts the report which proves it (RULES 1.4): it does not wait for a tick."""

from __future__ import annotations

from datetime import datetime

from orchestrator.core.decide import safety
from orchestrator.core.decisions import ExcludeSegment
from orchestrator.core.states import WATCHED_ROLLOUT
from orchestrator.services.chronicle import commit, rules_of
from orchestrator.services.store import Writing


def settle(w: Writing, rollout_key: int, *, now: datetime) -> bool:
    """Stop the rollout, or segments of it, now if its budgets or monitors say so; whether anything was stopped. Part of
    the caller's transaction. A segment that is excluded has the others counted without it, so they are looked at once
    more: each time there is one segment fewer that could be."""
    stopped = False
    while True:
        row = w.rollout_by_key(rollout_key)
        if row is None or row.state.status not in WATCHED_ROLLOUT or row.scope is None:
            return stopped
        facts = w.facts(row, now=now)
        stop = safety(row.state, facts, rules_of(row))
        if stop is None:
            return stopped
        commit(w, row, (stop,), facts, now=now)
        stopped = True
        if not isinstance(stop, ExcludeSegment):
            return True
