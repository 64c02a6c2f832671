"""What an order would come to, told from what is counted already: no device is read, nothing is written, and no report
waits meanwhile.

Most orders are looked at by carrying them out and taking them back (``rollouts``): they touch a few rows. Two look at
every device of a tag, or at every offer of a rollout, and a page that only asks must not: of these it is told here what
would be refused, and how many devices it is about as far as that was counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.core import transitions
from orchestrator.core.fleet import Device, Scope
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus
from orchestrator.core.words import ago, plural
from orchestrator.errors import NotFound
from orchestrator.services.chronicle import rules_of
from orchestrator.services.console_store import Census
from orchestrator.services.excluding import refuse_no_segment
from orchestrator.services.queries import row_of
from orchestrator.services.records import RolloutRow
from orchestrator.services.starting import commits_of, refuse_shared, refuse_started, unbounded_selector
from orchestrator.services.store import Reading, Store


@dataclass(frozen=True, slots=True)
class Foreseen:
    """``clock`` gives aware UTC."""

    store: Store
    clock: Callable[[], datetime]

    def start(self, name: str) -> str:
        """One sentence. Raises what ``Rollouts.start`` would, but for devices that cannot go back so far: they are
        looked for when it is given."""
        now = self.clock()
        with self.store.reading() as r:
            row = row_of(r, name)
            refuse_started(row)
            spec = RolloutFile.from_canonical(row.spec)
            scope = _scope(r, spec, row.salt)
            if spec.supersedes is not None:
                row_of(r, spec.supersedes)
            refuse_shared(r, replace(row, scope=scope), supersedes=spec.supersedes)
            census = r.census()
        at = row.state.start_at
        when = f"starts at {at:%Y-%m-%d %H:%M} UTC" if at is not None and at > now else "runs"
        return f"Rollout {name} {when}, for {_whom(census, scope, now)}."

    def exclude(self, name: str, segment: str, *, by: str) -> str:
        """One sentence. Raises what ``Rollouts.exclude`` would, as far as no device is asked."""
        now = self.clock()
        with self.store.reading() as r:
            row = row_of(r, name)
            refuse_no_segment(row, rules_of(row), segment)
            devices = _devices(r, row, segment)
            reason = Reason(ReasonKind.ORDERED, f"Segment {segment} excluded by {by}.")
            transitions.exclude(row.state, segment, devices, reason, now, by)
        goes_on = "goes on" if row.state.status is RolloutStatus.RUNNING else f"stays {row.state.status}"
        whose = f"its {plural(devices, 'device')}" if devices else "its devices, of which none has a place so far,"
        return (
            f"Segment {segment} of rollout {name} is excluded: {whose} will be offered nothing more, its offers not"
            f" started will be withdrawn, and the rest {goes_on} without, unless what is counted without it says"
            " otherwise."
        )


def _scope(r: Reading, spec: RolloutFile, salt: str) -> Scope:
    """Whom it is for, its waves without their bounds: those are counted when it starts. Raises NotFound."""
    targets = r.targets(version=spec.target)
    if not targets:
        raise NotFound(
            f"There is no Target of version {spec.target}.", remedy="Add it with `wave target add` or `target import`."
        )
    return Scope(
        rollout=spec.name,
        tag=spec.tag,
        version=spec.target,
        commits=commits_of(targets),
        selectors=tuple(unbounded_selector(wave, salt) for wave in spec.waves),
        from_versions=tuple(spec.running),
    )


def _whom(census: Census | None, scope: Scope, now: datetime) -> str:
    """How many active devices of the tag and its hardware ids do not run the Target or a newer version."""
    if census is None:
        return f"the devices of tag {scope.tag}, which have not been counted yet"
    able = sum(
        one.devices
        for one in census.running
        if scope.eligible(Device("any", one.hardware_id, one.tag, commit=one.commit, version=one.version))
    )
    return f"up to {plural(able, 'device')} of tag {scope.tag}, as counted {ago(census.at, now)}"


def _devices(r: Reading, row: RolloutRow, segment: str) -> int:
    """Of the segment, at the start or with a place since, the more."""
    at_start = (each.spec.devices for each in r.monitors(row.key) if each.spec.segment == segment)
    return max(r.populations(row.key).get(segment, 0), *at_start, 0)
