"""Editing a rollout that runs: its policy and its later waves, with no evidence reset and nothing un-halted.

One transaction: everything is worked out, written and decided upon; whoever asked without meaning it has it taken back.
A monitor whose class and scope stay is not touched and keeps the alpha it began with, also where its tolerance is
lowered or its answer becomes a halt: what it has seen would be forgotten otherwise. New ones count from the next slice
on and are paid from the reserve, beside an old one of the same name under a name with their tolerance. What a person's
word loosens is closed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import unified_diff

from orchestrator.core.approvals import lower
from orchestrator.core.decide import decide
from orchestrator.core.document import Document
from orchestrator.core.editing import LATER, Change, Wider, changes, fixed, weighed, wider
from orchestrator.core.evidence.allowance import BESIDE, MonitorSpec, newcomer_alpha
from orchestrator.core.evidence.clock import CLOCK, minute_of
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import BudgetFacts, Facts, RolloutState, WaveState
from orchestrator.core.fleet import Scope
from orchestrator.core.harmless import reason_given
from orchestrator.core.outcomes import Answer
from orchestrator.core.policy import Policy
from orchestrator.core.roles import folded
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import bind
from orchestrator.core.slices import dimension_of
from orchestrator.core.states import LIVE_ROLLOUT, Reason, ReasonKind, RolloutStatus, Standing, WaveStatus
from orchestrator.errors import InvalidInput, Refused, WrongState
from orchestrator.services.accepting import begin_monitors_anew
from orchestrator.services.chronicle import order, rules_of, watching
from orchestrator.services.clocks import as_text, dark_of, from_text, learn_clock, noted
from orchestrator.services.recorded import of_files
from orchestrator.services.records import RolloutRow
from orchestrator.services.replayed import described
from orchestrator.services.starting import (
    budgets_of,
    monitors_of,
    newcomers,
    refuse_overlap,
    segment_monitors,
    selector_of,
)
from orchestrator.services.stops import budget_key, stopping
from orchestrator.services.store import Writing

EDITABLE = frozenset({RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.HELD})

MOST_COUNTED = 1_000_000
"""Updates with a bad outcome that are counted for a budget that pools classes; only small fleets have one."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit is, or would be. ``would``: what is decided at once under the new rules; ``begins`` and ``closes``:
    monitors; ``wider``: rules of waves that have begun which it loosens on a person's word, ``lacks`` the options that
    are still to be given for that."""

    rollout: str
    status: RolloutStatus
    changes: tuple[Change, ...]
    wider: tuple[Wider, ...]
    begins: tuple[str, ...]
    closes: tuple[str, ...]
    would: str
    waits: tuple[str, ...]
    spec_digest: str
    policy_digest: str
    old_spec_digest: str
    old_policy_digest: str
    diff: tuple[str, ...]
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """What ``apply`` did. ``changes``: the lines that differ from what was applied before; empty when nothing does.
    ``edited``: of a rollout that runs, what the change is; not ``written`` without a person's yes."""

    rollout: str
    status: RolloutStatus
    created: bool
    changes: tuple[str, ...]
    spec_digest: str
    policy_digest: str
    edited: Edited | None = None
    written: bool = True


def applied(edited: Edited, *, written: bool) -> Applied:
    """What ``apply`` says of an edit."""
    return Applied(
        rollout=edited.rollout,
        status=edited.status,
        created=False,
        changes=tuple(str(each) for each in edited.changes),
        spec_digest=edited.spec_digest,
        policy_digest=edited.policy_digest,
        edited=edited,
        written=written,
    )


def edit(
    w: Writing,
    row: RolloutRow,
    spec: RolloutFile,
    policy: Policy,
    *,
    by: str,
    reason: str | None,
    allow_wider: Collection[str],
    now: datetime,
    shown: bool = False,
) -> Edited:
    """Bind the rollout to these files from now on. Raises WrongState, and Refused with the remedy. ``shown``: it will
    be taken back, so a word that is lacking is only told."""
    if row.state.status not in EDITABLE or row.scope is None:
        raise _cannot(row)
    old_spec, old_policy = RolloutFile.from_canonical(row.spec), Policy.from_canonical(row.policy)
    new_rules = bind(spec, policy, dark_of(row.clock))
    begun = {wave.wave for wave in row.state.waves}
    for sentence in (*fixed(row.state, old_spec, spec), *lower(rules_of(row), new_rules, begun)):
        raise Refused(
            f"This cannot be changed while {row.state.rollout} is {row.state.status}: {sentence}",
            remedy="Leave it as it was, or cancel the rollout and apply the file under another name.",
        )
    after = replace(
        row,
        spec=spec.canonical().decode(),
        policy=policy.canonical().decode(),
        spec_digest=spec.digest(),
        policy_digest=policy.digest(),
        clock=_looked_at_again(w, row, policy, now),
    )
    facts = w.facts(row, now=now)
    looser = wider(row.state, rules_of(row), rules_of(after)) + _larger_budgets(row, after, policy, facts)
    lacks = _lacks(row, looser, allow_wider, reason)
    if lacks and not shown:
        raise _loosens(looser, allow_wider, lacks)
    after = replace(after, scope=_scope(w, row, old_spec, spec))
    refuse_overlap(w, after, supersedes=None)
    sizes = _sizes(w, after, row.state, facts, policy, now)
    added, begins, closes = _monitors(w, row, after, spec, policy, facts, sizes, now)
    text, paid, again = _clock(row, after, policy, facts, newcomers(w, row) + added)
    after = replace(after, clock=text)
    _budgets(w, after, policy, facts)
    w.name_classes(row.key, (name for name, _ in policy.tolerate.codes))
    found = changes((old_spec, old_policy), (spec, policy))
    sentence = _said(f"Edited by {by}: {_summary(found)}", reason)
    state = _state(row.state, spec, old_spec, Standing(Reason(ReasonKind.ORDERED, sentence), now, by), now)
    # Nobody has approved these files yet, and whoever edits is one of those who wrote them.
    authors = with_author(row.state.authors, by)
    state = replace(state, newcomers=row.state.newcomers + added + paid, approvals=(), authors=authors)
    if again:
        state = replace(state, clock_from=minute_of(now) + 1)
        begins, closes = (*begins, CLOCK), (*closes, CLOCK)
    about = {
        **of_files(after),
        "old_spec_digest": row.spec_digest,
        "old_policy_digest": row.policy_digest,
        "changes": [str(each) for each in found],
        "wider": [str(each) for each in looser],
        **watching(w, after, sizes),
        **noted(text),
    }
    saved = order(w, after, state, event="edited", by=by, sentence=sentence, now=now, facts=about)
    plan = decide(saved.state, w.facts(saved, now=now), rules_of(saved), now)
    return Edited(
        rollout=row.state.rollout,
        status=saved.state.status,
        changes=found,
        wider=looser,
        begins=begins,
        closes=closes,
        would=described(plan.decisions),
        waits=tuple(
            f"{each.wave}: {each.reason.sentence}" if each.wave else each.reason.sentence for each in plan.reasons
        ),
        spec_digest=after.spec_digest,
        policy_digest=after.policy_digest,
        old_spec_digest=row.spec_digest,
        old_policy_digest=row.policy_digest,
        diff=(*_diff("rollout", old_spec, spec), *_diff("policy", old_policy, policy)),
        lacks=lacks,
    )


def with_author(authors: tuple[str, ...], by: str) -> tuple[str, ...]:
    """Everybody once."""
    return authors if folded(by) in map(folded, authors) else (*authors, by)


def _diff(what: str, before: Document, after: Document) -> Iterator[str]:
    """The two as canonical YAML, in the manner of ``diff -u``."""
    import yaml

    def lines(document: Document) -> list[str]:
        text: str = yaml.safe_dump(document.document(), sort_keys=False, allow_unicode=True)
        return text.splitlines()

    return unified_diff(lines(before), lines(after), f"{what}, as bound", f"{what}, as applied", lineterm="")


def _cannot(row: RolloutRow) -> WrongState:
    name, status = row.state.rollout, row.state.status
    if status is RolloutStatus.HALTED:
        remedy = f"`wave resume {name} --accept NAME --reason TEXT` first, or cancel it."
    elif status in LIVE_ROLLOUT:
        remedy = "Cancel it and apply the new file under another name."
    else:
        remedy = "Apply the new file under another name."
    return WrongState(
        f"Rollout {name} is {status}: only one that is running, paused or held can be changed.", remedy=remedy
    )


def _loosens(looser: Sequence[Wider], allow: Collection[str], lacks: str) -> Refused | InvalidInput:
    asked = [each for each in looser if each.wave not in allow]
    if not asked:
        return InvalidInput("Loosening a wave that has begun needs a reason: `--reason TEXT`.")
    first = "; ".join(str(each) for each in asked if each.wave == asked[0].wave)
    return Refused(
        f"It would loosen what a wave that has begun is held to: {first}.",
        remedy=f"If that is meant, say so: `{lacks}`.",
    )


def _lacks(row: RolloutRow, looser: Sequence[Wider], allow: Collection[str], reason: str | None) -> str:
    """The options that a person has yet to give for what becomes looser; empty when none is lacking."""
    known = [wave.wave for wave in row.state.waves]
    for name in allow:
        if name not in known:
            raise InvalidInput(
                f"Rollout {row.state.rollout} has no wave {name}.", remedy=f"Its waves: {', '.join(known)}."
            )
    asked = list(dict.fromkeys(each.wave for each in looser))
    missing = [wave for wave in asked if wave not in allow]
    because = ["--reason TEXT"] if asked and not reason_given(reason) else []
    return " ".join([*(f"--allow-wider {wave}" for wave in missing), *because])


def _state(state: RolloutState, spec: RolloutFile, old: RolloutFile, standing: Standing, now: datetime) -> RolloutState:
    """The record with the new waves. The epoch grows: an offer prepared under the old files cannot be given."""
    known = {wave.wave: wave for wave in state.waves}
    before = {wave.name: wave for wave in old.waves}
    waves = []
    for wave in spec.waves:
        kept = known.get(wave.name)
        if kept is None:
            kept = WaveState(wave.name, WaveStatus.PENDING, standing)
        elif kept.status is WaveStatus.PREPARING and before[wave.name].devices != wave.devices:
            # What was seen of its devices was seen of others: they are looked at again before it opens.
            kept = replace(kept, asked_at=None, granted_at=now)
        waves.append(kept)
    return replace(state, waves=tuple(waves), epoch=state.epoch + 1)


def _scope(w: Writing, row: RolloutRow, old: RolloutFile, new: RolloutFile) -> Scope:
    """The selectors with their bounds: those fixed at the start as far down as nothing differs, from there on fixed
    from the fleet as it is now."""
    assert row.scope is not None
    kept = {selector.wave: selector for selector in row.scope.selectors}
    scope = replace(row.scope, selectors=())
    same = True
    for place, wave in enumerate(new.waves):
        same = (
            same
            and place < len(old.waves)
            and (old.waves[place].name, old.waves[place].devices)
            == (
                wave.name,
                wave.devices,
            )
        )
        selector = kept[wave.name] if same else selector_of(w, scope, wave, row.salt)
        scope = replace(scope, selectors=(*scope.selectors, selector))
    return scope


def _sizes(
    w: Writing, row: RolloutRow, before: RolloutState, facts: Facts, policy: Policy, now: datetime
) -> dict[str, int]:
    """How many devices each wave has: with a place, where it has begun, else eligible now."""
    assert row.scope is not None
    begun = {wave.wave for wave in before.waves if wave.status not in LATER}
    placed = {wave.wave: wave.members + wave.waiting for wave in facts.waves}
    return {
        selector.wave: placed.get(selector.wave, 0)
        if selector.wave in begun
        else w.look(row.scope, selector.wave, seen_since=now - policy.reach).eligible
        for selector in row.scope.selectors
    }


def _monitors(
    w: Writing,
    row: RolloutRow,
    after: RolloutRow,
    spec: RolloutFile,
    policy: Policy,
    facts: Facts,
    sizes: Mapping[str, int],
    now: datetime,
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Close what is gone, begin what is new; how many were paid from the reserve, and the keys of both.

    New is what watches a class whose tolerance or answer has changed, a wave that was not there, or a dimension that
    was not watched. What was left without a monitor at the start, because it could never fire, stays without. A release
    within a lower tolerance is within the one before: a monitor that was paid for that may go on.
    """
    assert after.scope is not None
    old_spec, old_policy = RolloutFile.from_canonical(row.spec), Policy.from_canonical(row.policy)
    old, new = (rules_of(each).tolerate for each in (row, after))
    changed = {each for each in (*old, *new) if old.get(each) != new.get(each)}
    dark = dark_of(after.clock)
    old_waves, new_waves = ({wave.name for wave in each.waves} for each in (old_spec, spec))
    old_segments, new_segments = set(old_policy.segments), set(policy.segments)

    def stays(each: MonitorSpec) -> bool:
        if each.wave is not None and each.wave not in new_waves:
            return False
        if each.segment is not None and dimension_of(each.segment) not in new_segments:
            return False
        return changed.isdisjoint(each.outcomes) or _bears(each, policy, dark)

    running = {each.spec.key: each.spec for each in w.monitors(row.key) if each.accepted_at is None}
    kept = {key: each for key, each in running.items() if stays(each)}
    same = {(each.scope, each.outcomes, each.tolerance, each.answer) for each in kept.values()}
    gone = [key for key in running if key not in kept]
    stopped = stopping(row.state, facts)
    for key in gone:
        if key in stopped:
            raise _would_free(row, key, stopped[key])
    wanted = [
        each
        for each in monitors_of(spec, policy, sizes, row.devices, dark)
        if not stays(each) or not changed.isdisjoint(each.outcomes) or (each.wave and each.wave not in old_waves)
    ]
    if changed or new_segments - old_segments:
        wanted += [
            each
            for each in segment_monitors(w, after.scope, policy, row.devices, dark)
            if not changed.isdisjoint(each.outcomes) or dimension_of(each.segment or "") not in old_segments
        ]
    fresh: list[MonitorSpec] = []
    number = first = newcomers(w, row)
    for each in wanted:
        if (each.scope, each.outcomes, each.tolerance, each.answer) in same:
            continue
        paid = replace(each, key=_beside(each, kept), alpha=newcomer_alpha(_allowance(each, policy), number + 1))
        if each.wave is not None and sizes[each.wave] < staircase(paid.tolerance, paid.alpha).first:
            continue  # it could never fire, and what never fires is given nothing
        number += 1
        fresh.append(paid)
    w.close_monitors(row.key, gone, now=now)
    begin_monitors_anew(w, row, fresh, facts)
    return number - first, tuple(each.key for each in fresh), tuple(gone)


def _beside(spec: MonitorSpec, kept: Collection[str]) -> str:
    """A key that none of those that go on has: its own, with its tolerance, or with its tolerance and answer."""
    named = f"{spec.key}{BESIDE}{100 * spec.tolerance:g}%"
    return next(key for key in (spec.key, named, f"{named}-{spec.answer}") if key not in kept)


def _looked_at_again(w: Writing, row: RolloutRow, policy: Policy, now: datetime) -> str | None:
    """The clock with the darkness at another hard stop, where the policy has moved that; else as it was."""
    if row.clock is None or policy.silent_after == Policy.from_canonical(row.policy).silent_after:
        return row.clock
    fresh = learn_clock(w, policy, row.devices, now=now)
    return row.clock if fresh is None else as_text(replace(from_text(row.clock), dark=fresh.dark))


def _bears(spec: MonitorSpec, policy: Policy, dark: Darkness | None) -> bool:
    """Whether what it tolerates is no less than the policy tolerates now, and its answer no more severe."""
    tolerate = policy.tolerances_over(dark, segment=spec.segment is not None)
    now = [tolerate[outcome] for outcome in spec.outcomes if outcome in tolerate]
    if len(now) < len(spec.outcomes) or any(
        each.then is Answer.COUNT or _weaker(spec.answer, each.then) for each in now
    ):
        return False
    return math.fsum(each.at_most for each in now) <= spec.tolerance


def _clock(
    row: RolloutRow, after: RolloutRow, policy: Policy, facts: Facts, newcomers: int
) -> tuple[str | None, bool, bool]:
    """The clock of silence under the policy's word; whether that is paid from the reserve, as what comes after so many
    newcomers, and whether the clock begins anew by it.

    It goes on where it tolerates no less than the policy now: it would forget what it has seen. Where it held and is
    to halt, it goes on too, holds as before, and halts beside that by a part of the reserve. What a person's word
    loosens begins anew; what was learnt stays."""
    old, silent = (each.tolerate.silence(learnt=True) for each in (Policy.from_canonical(row.policy), policy))
    if after.clock is None or silent == old:
        return after.clock, False, False
    before = from_text(after.clock)
    alpha = newcomer_alpha(policy.false_halt, newcomers + 1)
    if silent.at_most <= before.tolerance:
        if silent.then is (before.answer if before.halts is None else Answer.HALT):
            return after.clock, False, False
        if silent.then is Answer.HALT:
            return as_text(replace(before, halts=alpha)), True, False
    stopped = stopping(row.state, facts)
    if CLOCK in stopped:
        raise _would_free(row, CLOCK, stopped[CLOCK])
    return as_text(before.under(tolerance=silent.at_most, alpha=alpha, answer=silent.then)), True, True


def _allowance(spec: MonitorSpec, policy: Policy) -> float:
    return policy.false_exclude if spec.segment is not None else policy.false_halt


def _budgets(w: Writing, row: RolloutRow, policy: Policy, facts: Facts) -> None:
    """The new limits on the old counts; a budget that is new counts what was bad so far."""
    before = {budget.name: budget for budget in facts.budgets}
    after = {budget.name: budget for budget in budgets_of(policy, row.devices, dark_of(row.clock))}
    found = []
    for name, budget in after.items():
        old = before.get(name)
        counted = (
            replace(budget, bad=_bad(w, row, budget)) if old is None else replace(budget, bad=old.bad, base=old.base)
        )
        found.append(counted)
    for name, old in before.items():
        now_is = next((budget for budget in found if budget.name == name), None)
        if old.reached and (now_is is None or not now_is.reached or _weaker(old.answer, now_is.answer)):
            raise _would_free(row, budget_key(old), f"{old.bad} of at most {old.limit - 1} devices")
    w.set_budgets(row.key, found)


def _larger_budgets(row: RolloutRow, edited: RolloutRow, policy: Policy, facts: Facts) -> tuple[Wider, ...]:
    """Budgets that would stop later, or not at all, each told for the waves that have begun."""
    after = {budget.name: budget for budget in budgets_of(policy, row.devices, dark_of(edited.clock))}
    begun = weighed(row.state)
    found = []
    for old in facts.budgets:
        new = after.get(old.name)
        if new is None or new.limit > old.limit or _weaker(old.answer, new.answer):
            said = "no limit" if new is None else f"{new.limit} then {new.answer}"
            found += [Wider(wave, f"budget {old.name}", f"{old.limit} then {old.answer}", said) for wave in begun]
    return tuple(found)


def _bad(w: Writing, row: RolloutRow, budget: BudgetFacts) -> int:
    updates = w.list_updates(row.key, bad=True, limit=MOST_COUNTED)
    return sum(1 for _, update in updates if not update.apart and not update.update.bad.isdisjoint(budget.outcomes))


def _weaker(before: Answer, after: Answer) -> bool:
    return before is Answer.HALT and after is not Answer.HALT


def _would_free(row: RolloutRow, name: str, why: str) -> Refused:
    return Refused(
        f"It would un-stop {row.state.rollout}: {name} stands against it ({why.rstrip('.')}), and would not any more.",
        remedy=f"Accept it first, by name: `wave resume {row.state.rollout} --accept {name} --reason TEXT`.",
    )


def _summary(found: Sequence[Change]) -> str:
    return str(found[0]) if len(found) == 1 and len(str(found[0])) < 100 else f"{len(found)} changes"


def _said(head: str, reason: str | None) -> str:
    said = reason_given(reason)
    return f"{head}. {said}" if said else f"{head}."


def lines_changed(row: RolloutRow | None, spec: str, policy: str) -> tuple[str, ...]:
    """Lines of a draft's files that differ from those applied before; none of a new one."""

    def lines(text: str) -> list[str]:
        return json.dumps(json.loads(text), indent=1, sort_keys=True).splitlines()

    if row is None:
        return ()
    pairs = ((row.spec, spec), (row.policy, policy))
    found = [line for old, new in pairs for line in unified_diff(lines(old), lines(new), lineterm="", n=0)]
    return tuple(line for line in found if line[0] in "+-" and not line.startswith(("+++", "---")))
