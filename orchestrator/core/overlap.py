"""Whether two rollouts could claim the same device (RULES 7.1): worked out from what they select, not from today's
devices."""

from __future__ import annotations

from orchestrator.core.fleet import Scope
from orchestrator.core.membership import WaveSelector


def could_share(one: Scope, other: Scope) -> bool:
    """True unless tags, hardware ids, groups or labels keep every wave of one apart from every wave of the other."""
    if one.tag != other.tag or not set(one.commits) & set(other.commits):
        return False
    if one.from_versions and other.from_versions and not set(one.from_versions) & set(other.from_versions):
        return False
    return any(not _apart(a, b) for a in one.selectors for b in other.selectors)


def _apart(a: WaveSelector, b: WaveSelector) -> bool:
    if a.group is not None and b.group is not None and a.group != b.group:
        return True
    theirs = dict(b.labels)
    return any(key in theirs and theirs[key] != value for key, value in a.labels)
