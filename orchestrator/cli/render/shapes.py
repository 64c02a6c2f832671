"""The JSON shapes of rollouts, waves, devices and the rest: flat, as people name them, apart from our own classes.

README documents them; ``tests/cli/test_json.py`` pins their keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.cli.render.json import iso, plain
from orchestrator.core.outcomes import Answer, OutcomeClass, in_order

if TYPE_CHECKING:
    from orchestrator.core.artifact import Artifact
    from orchestrator.core.evidence.clock import ClockFacts
    from orchestrator.core.evidence.crossing import Step
    from orchestrator.core.facts import BudgetFacts, MonitorFacts
    from orchestrator.core.fleet import Device, Target
    from orchestrator.core.states import Reason, Standing
    from orchestrator.services.artifacts import ArtifactView
    from orchestrator.services.delta_views import DeltaView
    from orchestrator.services.records import UpdateRow
    from orchestrator.services.targets import TargetView
    from orchestrator.services.views import DeviceView, RolloutSummary, RolloutView, WaveView, WhyNot


def standing(value: Standing) -> dict[str, Any]:
    return {"since": iso(value.since), "by": value.by, "reason": reason(value.reason)}


def reason(value: Reason | None) -> dict[str, str] | None:
    return None if value is None else {"kind": value.kind.value, "sentence": value.sentence}


def waits(value: Sequence[tuple[Reason, datetime | None]]) -> list[dict[str, Any]]:
    return [{"kind": why.kind.value, "sentence": why.sentence, "until": iso(until)} for why, until in value]


def summary(value: RolloutSummary) -> dict[str, Any]:
    return {
        "rollout": value.rollout,
        "status": value.status.value,
        **standing(value.standing),
        "version": value.target_version,
        "tag": value.tag,
        "policy": value.policy,
        "devices": value.devices,
        "offered": value.offered,
        "confirmed": value.confirmed,
        "bad": value.bad,
        "created_at": iso(value.created_at),
    }


def wave(value: WaveView) -> dict[str, Any]:
    state, facts = value.state, value.facts
    deltas = facts.deltas
    return {
        "wave": state.wave,
        "status": state.status.value,
        **standing(state.standing),
        "hold": None if state.hold is None else standing(state.hold),
        "after": list(value.after),
        "promoted": state.promoted,
        "opened_at": iso(state.opened_at),
        "baking_at": iso(state.baking_at),
        "eligible": facts.eligible,
        "already_there": facts.already_there,
        "members": facts.members,
        "waiting_for_slice": facts.waiting,
        "offered": facts.offered,
        "in_flight": facts.in_flight,
        "resolved": facts.resolved,
        "confirmed": facts.confirmed,
        "bad": {str(outcome): facts.bad(outcome) for outcome in in_order([*OutcomeClass, *facts.bad_classes])},
        "apart": plain(facts.apart),
        "slices": plain(facts.slices),
        "deltas": None if deltas is None else {**plain(deltas), "coverage": deltas.coverage},
        "waiting": waits(value.waiting),
        "needs": [
            {"from": n.pair.from_commit, "to": n.pair.to_commit, "devices": n.devices, "known": n.known}
            for n in value.needs
        ],
    }


def monitor(value: MonitorFacts, step: Step | None) -> dict[str, Any]:
    from orchestrator.core.reasons import monitor_state, step_of

    crossed = value.crossed_at
    waits = crossed is None and not value.accepted and value.answer is not Answer.COUNT
    return {
        "monitor": value.monitor,
        "outcomes": [str(outcome) for outcome in value.outcomes],
        "wave": value.wave,
        "segment": value.segment,
        "tolerance": value.tolerance,
        "alpha": value.alpha,
        "answer": value.answer.value,
        "places": value.places,
        "bad": value.bad,
        "next_limit": value.next_limit,
        "next": plain(step_of(value, step)) if waits else None,
        "crossed_at": None if crossed is None else {"bad": crossed[0], "place": crossed[1]},
        "accepted": value.accepted,
        "amber": value.amber,
        "sentence": monitor_state(value, step),
    }


def budget(value: BudgetFacts) -> dict[str, Any]:
    return {
        "budget": f"budget/{value.name}",
        "outcomes": [str(outcome) for outcome in value.outcomes],
        "limit": value.limit,
        "bad": value.bad,
        "accepted": value.base,
        "answer": value.answer.value,
        "reached": value.reached,
    }


def silence(value: ClockFacts | None) -> dict[str, Any] | None:
    """The clock test for silence; ``checkpoint`` is the one with the most evidence, in ``seen`` by hardware id."""
    from orchestrator.core.evidence.clock import CLOCK, limit, reading
    from orchestrator.core.reasons import clock_state

    if value is None:
        return None
    found = reading(value)
    return {
        "monitor": CLOCK,
        "tolerance": value.tolerance,
        "alpha": value.alpha,
        "answer": value.answer.value,
        "learnt_from": value.devices,
        "dark": value.dark,
        "next_at": iso(value.next_at),
        "checkpoint": None
        if found is None
        else {
            "minutes": found.minutes,
            "devices": found.devices,
            "silent": found.silent,
            "usual": found.usual,
            "limit": limit(found),
            "crossed": found.crossed,
            "amber": found.amber,
        },
        "seen": [
            {
                "hardware_id": each.hardware_id,
                "minutes": each.checkpoint.minutes,
                "silent": each.silent,
                "reported": each.reported,
            }
            for each in value.seen
        ],
        "untouched": plain(value.untouched),
        "sentence": clock_state(value),
    }


def rollout(value: RolloutView) -> dict[str, Any]:
    return {
        **summary(value.summary),
        "attempt": value.attempt,
        "frozen": reason(value.frozen),
        "waves": [wave(each) for each in value.waves],
        "monitors": [monitor(each, value.steps.get(each.monitor)) for each in value.monitors],
        "budgets": [budget(each) for each in value.budgets],
        "clock": silence(value.clock),
        "excluded": [
            {"segment": each.segment, "devices": each.devices, **standing(each.standing)} for each in value.excluded
        ],
        "waiting": waits(value.waiting),
        "would": list(value.outlook.now),
        "advances": list(value.outlook.advances),
        "halts": list(value.outlook.halts),
        "excludes": list(value.outlook.excludes),
        "holds": list(value.outlook.holds),
        "wake_at": iso(value.wake_at),
        "problems": list(value.problems),
        "pace": list(value.pace),
        "spec_digest": value.spec_digest,
        "policy_digest": value.policy_digest,
    }


def device(value: Device) -> dict[str, Any]:
    return {
        "device": value.id,
        "status": value.status.value,
        "held_because": value.held_because,
        "hardware_id": value.hardware_id,
        "tag": value.tag,
        "group": value.group,
        "labels": dict(value.labels),
        "version": value.version,
        "commit": value.commit,
        "healthy": value.healthy,
        "enrolled_at": iso(value.enrolled_at),
        "last_seen_at": iso(value.last_seen_at),
        "usual_gap_seconds": value.usual_gap.total_seconds(),
    }


def update(row: UpdateRow) -> dict[str, Any]:
    made = row.update
    return {
        "status": made.status.value,
        "wave": row.wave,
        "slice": row.slice,
        "place": row.places[0],
        "offered_at": iso(made.offered_at),
        "started_at": iso(made.started_at),
        "confirmed_at": iso(made.confirmed_at),
        "deadline_at": iso(made.deadline_at),
        "bad": [str(outcome) for outcome in in_order(made.bad)],
        "unhealthy_before": row.unhealthy_before,
        "apart": row.apart,
        "from_version": row.from_version,
        "from_commit": made.from_commit,
        "to_commit": made.to_commit,
        "by_delta": row.by_delta,
    }


def why_not(value: WhyNot) -> dict[str, Any]:
    return {
        "rollout": value.rollout,
        "status": value.status.value,
        "wave": value.wave,
        "wave_status": None if value.wave_status is None else value.wave_status.value,
        "position": value.position,
        "slice": value.slice,
        "place": value.place,
        "kind": value.kind,
        "sentence": value.sentence,
        "why_wave": list(value.why_wave),
        "waits": list(value.waits),
        "update": None if value.update is None else update(value.update),
    }


def device_view(value: DeviceView) -> dict[str, Any]:
    return {
        **device(value.device),
        "rollouts": [why_not(each) for each in value.rollouts],
        "updates": [{"rollout": name, **update(row)} for name, row in value.updates],
        "events": [plain(event) for event in value.events],
        "protocol": value.spoken.protocol.value,
        "highest_version": value.spoken.highest_version,
        "told": [plain(told) for told in value.told],
    }


def target(value: Target) -> dict[str, Any]:
    return {
        "target": value.name,
        "version": value.version,
        "commit": value.commit,
        "hardware_ids": list(value.hardware_ids),
        "tags": list(value.tags),
        "provider": value.provider,
        "added_at": iso(value.added_at),
    }


def artifact(value: Artifact) -> dict[str, Any]:
    return {
        "sha256": value.sha256,
        "sha1": value.digests.sha1,
        "md5": value.digests.md5,
        "bytes": value.size,
        "format": value.format.value,
        "filename": value.filename,
        "name": value.name,
        "version": value.version,
        "hardware_ids": list(value.hardware_ids),
        "compatible": list(value.compatible),
        "added_at": iso(value.added_at),
    }


def artifact_view(value: ArtifactView) -> dict[str, Any]:
    return {
        **artifact(value.artifact),
        "targets": list(value.targets),
        "deltas": value.deltas,
        "devices": value.devices,
        "there": value.there,
    }


def target_view(value: TargetView) -> dict[str, Any]:
    return {
        **target(value.target),
        "devices": value.devices,
        "running": plain(value.running),
        "deltas": [
            {
                "from": record.pair.from_commit,
                "from_versions": list(value.from_versions.get(record.pair.from_commit or "", ())),
                "bytes": record.bytes + record.fallback_bytes,
                "parts": record.parts,
            }
            for record in value.deltas
        ],
    }


def delta(value: DeltaView, *, log: bool = False) -> dict[str, Any]:
    job = value.job
    made = {
        "from": value.pair.from_commit,
        "to": value.pair.to_commit,
        "state": value.state.value,
        "from_versions": list(value.from_versions),
        "to_versions": list(value.to_versions),
        "devices": value.devices,
        "waiting_devices": value.waiting_devices,
        "waves": list(value.waves),
        "bytes": value.bytes,
        "path": None if value.record is None else value.record.path,
        "error": value.error,
        "job": None
        if job is None
        else {
            "status": job.status.value,
            "stage": job.stage,
            "done": job.done,
            "attempts": job.attempts,
            "owner": job.owner,
            "queued_at": iso(job.queued_at),
            "started_at": iso(job.started_at),
            "ended_at": iso(job.ended_at),
        },
        "estimate": plain(value.estimate),
    }
    return {**made, "log": job.log if job else ""} if log else made
