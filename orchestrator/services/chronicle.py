"""Writing down what was decided or ordered: state, slices, journal, outbox and messages in one version-checked
transaction.

Everything that changes a rollout goes through ``commit`` or ``order``: there is no status without reason, since and
who, and no change without its journal entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from orchestrator.core.decisions import (
    AskGates,
    CompleteRollout,
    Decision,
    EnsureDeltas,
    ExcludeSegment,
    HaltRollout,
    HoldRollout,
    HoldWave,
    OpenSlice,
    OpenWave,
    PassWave,
    PrepareWave,
    StartBake,
    StartRollout,
)
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.facts import Facts, RolloutState
from orchestrator.core.journal import GENESIS, Entry
from orchestrator.core.policy import Policy
from orchestrator.core.reasons import CARRIES
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, bind
from orchestrator.core.slices import Slice
from orchestrator.core.states import LIVE_ROLLOUT, POLICY, Reason, ReasonKind, RolloutStatus, Standing
from orchestrator.core.transitions import apply_all, to_status
from orchestrator.services.clocks import dark_of, noted
from orchestrator.services.notices import ask
from orchestrator.services.recorded import AS_IN, of_evidence, of_look, of_order, of_watched
from orchestrator.services.records import Effect, EffectKind, RolloutRow
from orchestrator.services.starting import begin, refuse_overlap, watch_newcomers
from orchestrator.services.store import Writing

EVENTS: Final[Mapping[type, str]] = {
    StartRollout: "started",
    HaltRollout: "halted",
    ExcludeSegment: "excluded",
    HoldRollout: "held",
    CompleteRollout: "completed",
    PrepareWave: "prepared",
    OpenWave: "opened",
    OpenSlice: "slice_opened",
    StartBake: "bake_started",
    PassWave: "passed",
    HoldWave: "wave_held",
}
"""The journal's word for each decision; looks at deltas and asking gates are not worth an entry."""

MOST_COVERED: Final = 20_000
"""Rows of the evidence log that one entry's digest covers beyond the seal. The tick seals what there is, so there are
few; where there are more, the next entry covers them."""

MOST_NAMED: Final = 200
"""Bad devices that are looked at for what they have in common."""


@lru_cache(maxsize=256)
def _rules(spec: str, policy: str, dark: Darkness | None) -> Rules:
    return bind(RolloutFile.from_canonical(spec), Policy.from_canonical(policy), dark)


def rules_of(row: RolloutRow) -> Rules:
    """The rules a rollout is bound to, from its own copies of both files and what its clock has learnt."""
    return _rules(row.spec, row.policy, dark_of(row.clock))


def commit(
    w: Writing,
    row: RolloutRow,
    decisions: Sequence[Decision],
    facts: Facts,
    *,
    now: datetime,
    withheld: Sequence[str] = (),
) -> RolloutRow:
    """Carry out the machine's decisions inside this transaction: record, slices, journal, outbox. ``withheld``: waves
    whose decisions were left out. Raises Conflict when somebody was faster."""
    rules = rules_of(row)
    decisions = [_naming(w, row, each) if isinstance(each, HaltRollout) else each for each in decisions]
    entries: list[Entry] = []
    effects: list[Effect] = []
    after = replace(row, state=apply_all(row.state, decisions, now))
    for decision in decisions:
        extra: dict[str, Any] = {}
        wave = getattr(decision, "wave", None)
        match decision:
            case StartRollout():
                after, sizes = begin(w, after, now=now)
                extra = {**watching(w, after, sizes), **noted(after.clock)}
                # Who ordered the start ordered what it supersedes to end.
                claim(w, after, by=row.state.standing.by, now=now)
            case OpenSlice():
                opened = _open_slice(w, after, decision, rules, now)
                if opened is None:
                    continue
                extra = {"slice": {"number": opened.number, "members": opened.members, "upto": opened.upto}}
                if watch_newcomers(w, after, opened):
                    extra |= watching(w, after)
            case PrepareWave() | EnsureDeltas():
                effects.append(Effect(EffectKind.ENSURE_DELTAS, after.state.rollout, decision.wave))
            case AskGates():
                effects.append(Effect(EffectKind.ASK_GATES, after.state.rollout, decision.wave))
            case HaltRollout():
                effects.append(Effect(EffectKind.WITHDRAW, after.state.rollout))
            case ExcludeSegment():
                effects.append(Effect(EffectKind.LEAVE_OUT, after.state.rollout))
                extra = {"excluded": {"segment": decision.segment, "devices": decision.devices}}
            case _:
                pass
        if (event := EVENTS.get(type(decision))) is not None:
            # One look, one set of facts: the first entry holds it, those decided with it say which that is.
            shared = {AS_IN: entries[0].seq} if entries else of_look(row.state, facts, decisions, withheld)
            entry = _entry(w, after, entries, event, POLICY, decision.reason.sentence, now, wave, {**shared, **extra})
            entries.append(entry)
    return _save(w, after, entries, effects, facts)


def _naming(w: Writing, row: RolloutRow, halt: HaltRollout) -> HaltRollout:
    """The halt with what its bad devices have in common, where that is less than the whole rollout: the first thing
    anybody asks. A monitor that names a segment has said it already."""
    if halt.reason.kind is ReasonKind.SEGMENT or CARRIES in halt.reason.sentence:
        return halt
    bad = [update for _, update in w.list_updates(row.key, bad=True, limit=MOST_NAMED)]
    commons = (
        ("are", {each.hardware_id for each in bad}, len(row.scope.commits) if row.scope else 0),
        ("ran version", {str(each.from_version) for each in bad if each.from_version is not None}, MOST_NAMED),
    )
    for verb, values, others in commons:
        if len(bad) > 1 and len(values) == 1 and others > 1:
            sentence = f"{halt.reason.sentence} All {len(bad)} bad devices {verb} {next(iter(values))}."
            return replace(halt, reason=replace(halt.reason, sentence=sentence))
    return halt


def order(
    w: Writing,
    row: RolloutRow,
    state: RolloutState,
    *,
    event: str,
    by: str,
    sentence: str,
    now: datetime,
    wave: str | None = None,
    facts: Mapping[str, Any] | None = None,
    effects: Sequence[Effect] = (),
) -> RolloutRow:
    """Write down a person's order and what it made of the rollout."""
    after = replace(row, state=state)
    before = w.rollout_by_key(row.key)
    assert before is not None  # whoever gives an order has read it, or just added it
    told = {**(facts or {}), **of_order(before.state, state)}
    return _save(w, after, [_entry(w, after, [], event, by, sentence, now, wave, told)], effects)


def watching(w: Writing, row: RolloutRow, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """For the journal: the monitors and budgets that count from this entry on, and how many devices each wave has."""
    return of_watched(row.devices, sizes, w.monitors(row.key), w.budgets(row.key))


def claim(w: Writing, row: RolloutRow, *, by: str, now: datetime) -> None:
    """Take the devices of a rollout that starts now, in its start's own transaction: what it supersedes is cancelled,
    any other live rollout that could have them is refused with Overlap."""
    supersedes = RolloutFile.from_canonical(row.spec).supersedes
    refuse_overlap(w, row, supersedes=supersedes)
    old = None if supersedes is None else w.rollout(supersedes)
    if old is not None and old.state.status in LIVE_ROLLOUT:
        cancel(w, old, f"Superseded by rollout {row.state.rollout}.", by=by, now=now)


def cancel(w: Writing, row: RolloutRow, sentence: str, *, by: str, now: datetime) -> RolloutState:
    """End a rollout early; offers not started are withdrawn."""
    state = to_status(row.state, RolloutStatus.CANCELLED, Reason(ReasonKind.ORDERED, sentence), now, by)
    effects = (Effect(EffectKind.WITHDRAW, row.state.rollout),)
    order(w, row, state, event="cancelled", by=by, sentence=sentence, now=now, effects=effects)
    return state


def put_off(w: Writing, row: RolloutRow, why: str, *, now: datetime) -> None:
    """A start whose time has come is refused: it stays scheduled, with the reason beside its status, and is tried again
    by every tick. Written once for each reason."""
    sentence = f"Its start time has come, and it cannot start: {why} It is tried again."
    if row.state.standing.reason.sentence != sentence:
        standing = Standing(Reason(ReasonKind.START_AT, sentence), now, row.state.standing.by)
        order(w, row, replace(row.state, standing=standing), event="put_off", by=POLICY, sentence=sentence, now=now)


def _open_slice(w: Writing, row: RolloutRow, decision: OpenSlice, rules: Rules, now: datetime) -> Slice | None:
    assert row.scope is not None  # a rollout whose waves open has begun
    return w.open_slice(
        row,
        row.scope,
        decision.wave,
        size=decision.size,
        seen_since=now - rules.reach,
        dimensions=rules.dimensions,
        now=now,
    )


def _save(
    w: Writing, row: RolloutRow, entries: Sequence[Entry], effects: Sequence[Effect], facts: Facts | None = None
) -> RolloutRow:
    if row.scope is not None:
        # Whom a rollout is for follows from its state: this is the one place where they meet.
        row = replace(row, scope=replace(row.scope, excluded=tuple(sorted(row.state.excluded_segments))))
    if entries:
        row = replace(row, journal_seq=entries[-1].seq, journal_hash=entries[-1].hash)
    before = w.rollout_by_key(row.key)
    saved = w.save_rollout(row)
    if before is not None and before.state.excluded_segments != saved.state.excluded_segments:
        w.count_again(saved)
    w.append_journal(saved, entries)
    w.add_effects(effects)
    ask(w, saved, entries, facts)
    return saved


def _entry(
    w: Writing,
    row: RolloutRow,
    entries: Sequence[Entry],
    event: str,
    by: str,
    sentence: str,
    now: datetime,
    wave: str | None,
    facts: Mapping[str, Any],
) -> Entry:
    seq = entries[-1].seq if entries else row.journal_seq
    before = entries[-1].hash if entries else (row.journal_hash or GENESIS)
    evidence_seq = w.evidence_head(row.key)
    if evidence_seq and AS_IN not in facts:
        facts = {**facts, **of_evidence(w.seal_evidence(row.key, at_most=MOST_COVERED))}
    entry = Entry(
        seq=seq + 1,
        at=now,
        event=event,
        by=by,
        sentence=sentence,
        wave=wave,
        facts=facts,
        policy_digest=row.policy_digest,
        evidence_seq=evidence_seq,
        before=before,
    )
    return entry.sealed()
