"""What a person may order: apply, start, pause, resume, promote, approve, complete, halt, cancel, skip, retry, freeze.

Every order is one transaction: it is allowed by the state tables or refused with what is allowed, it is written into
the journal with who and why, and it wakes the ticker. With ``dry_run`` everything happens and is then taken back: what
is shown is what would be.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.core import transitions
from orchestrator.core.facts import RolloutState, WaveState
from orchestrator.core.harmless import reason_given
from orchestrator.core.policy import Policy
from orchestrator.core.protocols import ONLY_FORWARD
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import (
    LIVE_ROLLOUT,
    Reason,
    ReasonKind,
    RolloutStatus,
    Standing,
    WaveStatus,
)
from orchestrator.errors import InvalidInput, NotFound, WrongState
from orchestrator.services.accepting import accept_stops
from orchestrator.services.approving import (
    approved,
    refuse_unapproved_completion,
    refuse_unapproved_resume,
    refuse_unapproved_wave,
    what_of,
)
from orchestrator.services.chronicle import cancel, claim, order, watching
from orchestrator.services.clocks import noted
from orchestrator.services.editing import Applied, Edited, applied, edit, lines_changed, with_author
from orchestrator.services.excluding import counted, exclude_segment, include_segment
from orchestrator.services.gatekeeping import SourceKind, check_sources, gates_of
from orchestrator.services.locking import again, lock_all, locked
from orchestrator.services.protocols import refuse_going_back
from orchestrator.services.recorded import of_files
from orchestrator.services.records import Effect, EffectKind, RolloutRow
from orchestrator.services.releasing import build_again, release
from orchestrator.services.retrying import retry_devices
from orchestrator.services.settling import settle
from orchestrator.services.starting import begin, check_names, preview, refuse_overlap, refuse_started
from orchestrator.services.store import Store, Writing


@dataclass(frozen=True, slots=True)
class Ordered:
    """What an order did, in one sentence, and the rollout's status after it."""

    rollout: str
    status: RolloutStatus
    sentence: str


class _TakenBack(Exception):
    """Ends a dry run's transaction without a commit."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The orders. ``clock`` gives aware UTC; ``poke`` wakes the ticker and the gateway's snapshot after a commit;
    ``destinations``: names that a policy may send messages to; ``sources``: those that its gates may ask."""

    store: Store
    clock: Callable[[], datetime]
    poke: Callable[[], None] = lambda: None
    destinations: Callable[[], Collection[str]] = tuple
    sources: Callable[[], Mapping[str, SourceKind]] = dict

    # ------------------------------------------------------------------------------------------ apply and start

    @again
    def apply(
        self,
        spec: RolloutFile,
        policy: Policy,
        *,
        by: str,
        reason: str | None = None,
        yes: bool = False,
        allow_wider: Collection[str] = (),
        dry_run: bool = False,
    ) -> Applied:
        """Bind a rollout to copies of both files. A draft may be applied again; of one that runs, is paused or held the
        policy and the later waves may change, with ``yes``; ``allow_wider`` names waves that have begun whose rules may
        become looser.

        Raises NotFound for a version without Target or a tag nobody follows, WrongState for one that has ended or was
        halted, Refused for a change of what is fixed, that would un-halt, or that nobody's word allows.
        """
        now = self.clock()
        canonical, bound_policy = spec.canonical().decode(), policy.canonical().decode()
        spec_digest, policy_digest = spec.digest(), policy.digest()
        edited: Edited | None = None
        with self._writing(dry_run) as w:
            check_names(w, spec)
            self._check_destinations(policy)
            check_sources(gates_of(spec, policy), self.sources)
            row = locked(w, spec.name)
            if row is not None and row.state.status is not RolloutStatus.DRAFT:
                if (row.spec_digest, row.policy_digest) == (spec_digest, policy_digest):
                    return Applied(spec.name, row.state.status, False, (), spec_digest, policy_digest)
                shown = dry_run or not yes
                edited = edit(w, row, spec, policy, by=by, reason=reason, allow_wider=allow_wider, now=now, shown=shown)
                if shown:
                    raise _TakenBack
                return applied(edited, written=True)
            changes = lines_changed(row, canonical, bound_policy)
            if row is not None and not changes:
                return Applied(spec.name, RolloutStatus.DRAFT, False, (), spec_digest, policy_digest)
            why = Reason(ReasonKind.APPLIED, f"Applied by {by} under policy {policy.name}.")
            standing = Standing(why, now, by)
            state = RolloutState(
                rollout=spec.name,
                status=RolloutStatus.DRAFT,
                standing=standing,
                epoch=0,
                waves=tuple(WaveState(wave.name, WaveStatus.PENDING, standing) for wave in spec.waves),
                start_at=spec.start_at,
                authors=with_author(row.state.authors if row else (), by),
            )
            fresh = RolloutRow(
                key=row.key if row else 0,
                version=row.version if row else 0,
                state=state,
                spec=canonical,
                policy=bound_policy,
                spec_digest=spec_digest,
                policy_digest=policy_digest,
                salt=row.salt if row else secrets.token_hex(16),
                tag=spec.tag,
                target_version=spec.target,
                created_at=row.created_at if row else now,
                journal_seq=row.journal_seq if row else 0,
                journal_hash=row.journal_hash if row else "",
            )
            if row is None:
                fresh = w.add_rollout(fresh)
            facts = {**of_files(fresh), "changes": list(changes)}
            order(w, fresh, state, event="applied", by=by, sentence=why.sentence, now=now, facts=facts)
        if edited is not None:
            return applied(edited, written=False)
        return Applied(spec.name, RolloutStatus.DRAFT, row is None, changes, spec_digest, policy_digest)

    @again
    def start(self, name: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """Let a draft run, now or at its ``start_at``. Raises Overlap when another live rollout could claim the same
        devices, Refused when some of its devices cannot go back so far."""
        now = self.clock()
        with self._writing(dry_run) as w:
            # It may supersede another, and all are locked by rising key.
            lock_all(w, LIVE_ROLLOUT | {RolloutStatus.DRAFT})
            row = self._row(w, name)
            refuse_started(row)
            spec = RolloutFile.from_canonical(row.spec)
            waits = row.state.start_at is not None and row.state.start_at > now
            # A scheduled rollout is bound when it really begins; whom it would claim is looked at now all the same.
            begun, sizes = (preview(w, row, now=now), None) if waits else begin(w, row, now=now)
            if begun.scope is not None:
                refuse_going_back(w, begun.scope, ONLY_FORWARD)
            if spec.supersedes is not None:
                self._row(w, spec.supersedes)
            if waits:
                # What it supersedes runs on until then.
                refuse_overlap(w, begun, supersedes=spec.supersedes)
            else:
                claim(w, begun, by=by, now=now)
            status = RolloutStatus.SCHEDULED if waits else RolloutStatus.RUNNING
            sentence = _said(f"Started by {by}", reason)
            state = transitions.to_status(row.state, status, Reason(ReasonKind.STARTED, sentence), now, by)
            state = replace(state, authors=with_author(state.authors, by))
            saved = order(
                w,
                begun,
                state,
                event="scheduled" if waits else "started",
                by=by,
                sentence=sentence,
                now=now,
                facts={} if waits else {**watching(w, begun, sizes), **noted(begun.clock)},
            )
        when = f"starts at {row.state.start_at:%Y-%m-%d %H:%M} UTC" if waits else "runs"
        return Ordered(
            name, saved.state.status, f"Rollout {name} {when}, for {begun.devices} devices of tag {row.tag}."
        )

    # ------------------------------------------------------------------------------------------ quiet and again

    @again
    def pause(self, name: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """No new offer, nothing opens; devices that started may finish."""
        return self._move(name, RolloutStatus.PAUSED, "paused", by, reason, dry_run, "gives no new offers")

    @again
    def halt(self, name: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """The safety stop by hand: offers whose device has not started are withdrawn."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            sentence = _said(f"Halted by {by}", reason)
            state = transitions.halt(row.state, Reason(ReasonKind.ORDERED, sentence), now, by)
            effects = (Effect(EffectKind.WITHDRAW, name),)
            order(w, row, state, event="halted", by=by, sentence=sentence, now=now, effects=effects)
        return Ordered(name, state.status, f"Rollout {name} is halted: nothing more is offered.")

    @again
    def resume(
        self,
        name: str,
        *,
        by: str,
        reason: str | None = None,
        accept: Sequence[str] = (),
        wave: str | None = None,
        dry_run: bool = False,
    ) -> Ordered:
        """Leave a pause, a hold or a halt; or one wave's hold.

        What stopped it must be accepted by name (``accept``: monitors such as ``rollout/failed``, budgets such as
        ``budget/failed``) with a reason.
        Raises Refused, naming what is missing.
        """
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            if row.state.status in (RolloutStatus.RUNNING, RolloutStatus.COMPLETED):
                if wave is not None:
                    _wave(row, wave)
                state, sentence = release(row.state, wave, by, reason, now)
                build_again(w, row, state, now)
                order(w, row, state, event="wave_resumed", by=by, sentence=sentence, now=now, wave=wave)
                return Ordered(name, state.status, sentence)
            if row.state.status not in (RolloutStatus.PAUSED, RolloutStatus.HELD, RolloutStatus.HALTED):
                raise WrongState(f"Rollout {name} is {row.state.status}: only a paused, held or halted one is resumed.")
            if wave is not None:
                raise WrongState(f"Rollout {name} is {row.state.status}: resume the rollout itself first.")
            refuse_unapproved_resume(row, by)
            row, accepted = accept_stops(w, row, accept, reason, now)
            sentence = _said(f"Resumed by {by}", reason)
            why = Reason(ReasonKind.ACCEPTED if accepted else ReasonKind.ORDERED, sentence)
            if row.state.status is RolloutStatus.HALTED:
                state = transitions.resume_halted(row.state, why, now, by)
            else:
                state = transitions.resume(row.state, why, now, by)
            facts = {"accepted": list(accepted), "attempt": state.attempt, **watching(w, row)}
            order(w, row, state, event="resumed", by=by, sentence=sentence, now=now, facts=facts)
        again = "is completed again" if state.status is RolloutStatus.COMPLETED else "runs again"
        return Ordered(name, state.status, f"Rollout {name} {again}.")

    # ------------------------------------------------------------------------------------------ waves

    @again
    def promote(self, name: str, wave: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """Let a wave open that waits for a person; given beforehand, it need not wait."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            before = _wave(row, wave)
            if row.state.status in (RolloutStatus.HALTED, RolloutStatus.CANCELLED, RolloutStatus.COMPLETED):
                raise WrongState(f"Rollout {name} is {row.state.status}: its waves stand still.")
            if before.status not in (WaveStatus.PENDING, WaveStatus.PREPARING):
                raise WrongState(f"Wave {wave} is {before.status}: only one that has not opened can be promoted.")
            sentence = _said(f"Wave {wave} promoted by {by}", reason)
            state = transitions.with_wave(row.state, replace(before, promoted=True))
            order(w, row, state, event="promoted", by=by, sentence=sentence, now=now, wave=wave)
        return Ordered(name, state.status, f"Wave {wave} opens when all else allows it.")

    @again
    def approve(
        self,
        name: str,
        *,
        by: str,
        wave: str | None = None,
        reason: str | None = None,
        files: str | None = None,
        dry_run: bool = False,
    ) -> Ordered:
        """A second person's word where the policy asks for it (``approve``): for one wave's opening; else for going on
        after a halt, or for the rollout as a whole. ``files``: what was looked at (``core.approving.files_of``)."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            named = None if wave is None else _wave(row, wave)
            state, fresh, more = approved(w, row, named, by=by, files=files, now=now)
            sentence = _said(f"{what_of(fresh)} approved by {by}", reason)
            facts = {"approved": fresh.deed.value, "files": fresh.files}
            order(w, row, state, event="approved", by=by, sentence=sentence, now=now, wave=wave, facts=facts)
        left = "Nothing more is asked for." if more == 0 else f"{more} more must approve it."
        return Ordered(name, state.status, f"{what_of(fresh)} is approved by {by}. {left}")

    @again
    def skip(self, name: str, wave: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """Let what comes after a wave go on without it."""
        return self._move_wave(name, wave, WaveStatus.SKIPPED, "skipped", by, reason, dry_run)

    @again
    def complete(
        self,
        name: str,
        *,
        by: str,
        reason: str | None = None,
        wave: str | None = None,
        at_once: bool = False,
        accept: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Ordered:
        """Make the Target generally available now, or let one wave pass. ``at_once`` serves whole what has no delta
        (RULES 7.2)."""
        if wave is not None:
            return self._move_wave(name, wave, WaveStatus.PASSED, "passed", by, reason, dry_run)
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            if row.state.status in (RolloutStatus.DRAFT, RolloutStatus.SCHEDULED):
                raise WrongState(f"Rollout {name} is {row.state.status}: start it before completing it.")
            refuse_unapproved_resume(row, by)
            refuse_unapproved_completion(row)
            facts: dict[str, Any] = {}
            if row.state.status in (RolloutStatus.HALTED, RolloutStatus.HELD):
                row, accepted = accept_stops(w, row, accept, reason, now)
                facts = {"accepted": list(accepted), **watching(w, row)}
            sentence = _said(f"Completed by {by}", reason)
            state = transitions.complete(row.state, Reason(ReasonKind.ORDERED, sentence), now, by, serve_whole=at_once)
            order(w, row, state, event="completed", by=by, sentence=sentence, now=now, facts=facts)
        return Ordered(name, state.status, f"Rollout {name} is completed: every eligible device may be offered now.")

    @again
    def cancel(
        self, name: str, *, by: str, reason: str | None = None, wave: str | None = None, dry_run: bool = False
    ) -> Ordered:
        """End a rollout, or one wave of it, early. Updated devices stay; offers not started are withdrawn."""
        if wave is not None:
            return self._move_wave(name, wave, WaveStatus.CANCELLED, "cancelled", by, reason, dry_run)
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            sentence = _said(f"Cancelled by {by}", reason)
            state = cancel(w, row, sentence, by=by, now=now)
        return Ordered(
            name, state.status, f"Rollout {name} is cancelled: nothing more is offered, updated devices stay."
        )

    @again
    def exclude(self, name: str, segment: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """Leave a segment such as ``hardware_id=rpi4`` out; the rest goes on. It may show that more must be stopped."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            sentence = exclude_segment(w, row, segment, by=by, reason=reason, now=now)
            settle(w, row.key, now=now)
            after = self._row(w, name).state
        if after.status is not row.state.status:
            sentence = f"{sentence} The rollout is {after.status}: {after.standing.reason.sentence}"
        return Ordered(name, after.status, sentence)

    @again
    def include(self, name: str, segment: str, *, by: str, reason: str | None = None, dry_run: bool = False) -> Ordered:
        """Take an excluded segment back in, as a new attempt."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            sentence = include_segment(w, row, segment, by=by, reason=reason, now=now)
        return Ordered(name, row.state.status, sentence)

    # ------------------------------------------------------------------------------------------ devices and the house

    @again
    def retry(
        self, name: str, devices: Sequence[str] = (), *, by: str, reason: str | None = None, dry_run: bool = False
    ) -> Ordered:
        """Let devices with a bad outcome try once more: those named, or all. What was counted stays counted."""
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            if row.state.status in (RolloutStatus.DRAFT, RolloutStatus.SCHEDULED, RolloutStatus.CANCELLED):
                raise WrongState(f"Rollout {name} is {row.state.status}: there is nothing to try again.")
            many, for_good = retry_devices(w, row, devices, now=now)
            sentence = _said(f"{counted(many, 'device')} may try again, by {by}", reason)
            order(w, row, row.state, event="retried", by=by, sentence=sentence, now=now, facts={"devices": many})
        told = f"{counted(many, 'device')} of rollout {name} may try again."
        return Ordered(name, row.state.status, f"{told} {for_good}" if for_good else told)

    @again
    def freeze(self, *, by: str, reason: str) -> None:
        """Stop all offers of all rollouts with the next commit."""
        said = reason_given(reason)
        if not said:
            raise InvalidInput("A freeze needs a reason that others can read: `--reason TEXT`.")
        self._freeze(Reason(ReasonKind.FROZEN, f"{said} ({by})"), "frozen", by, said)

    @again
    def unfreeze(self, *, by: str, reason: str | None = None) -> None:
        """Let offers go on."""
        with self.store.reading() as r:
            if r.frozen() is None:
                raise WrongState("Nothing is frozen.")
        self._freeze(None, "unfrozen", by, reason)

    def _freeze(self, frozen: Reason | None, event: str, by: str, reason: str | None = None) -> None:
        now = self.clock()
        offering = LIVE_ROLLOUT | {RolloutStatus.COMPLETED}
        with self.store.writing() as w:
            # Rollouts before the house: an offer holds its rollout when it asks whether there is frost.
            lock_all(w, offering)
            w.freeze(frozen)
            sentence = _said(f"All rollouts {event} by {by}", reason)
            for row in w.rollouts(offering):
                # The epoch grows: an offer prepared before the freeze cannot be given after it.
                state = replace(row.state, epoch=row.state.epoch + 1)
                order(w, row, state, event=event, by=by, sentence=sentence, now=now)
        self.poke()

    # ------------------------------------------------------------------------------------------ inside

    @contextmanager
    def _writing(self, dry_run: bool) -> Iterator[Writing]:
        try:
            with self.store.writing() as w:
                if dry_run:
                    w.rehearse()
                yield w
                if dry_run:
                    raise _TakenBack
        except _TakenBack:
            return
        self.poke()

    def _check_destinations(self, policy: Policy) -> None:
        named = [asked.to for asked in policy.notify or ()]
        known = self.destinations() if named else ()
        unknown = next((name for name in named if name not in known), None)
        if unknown is not None:
            raise NotFound(
                f"Policy {policy.name} notifies {unknown}, and no destination is called so.",
                remedy=f"The installation's are {', '.join(sorted(known))}." if known else "The installation has none.",
            )

    def _row(self, w: Writing, name: str) -> RolloutRow:
        row = locked(w, name)
        if row is None:
            raise NotFound(f"There is no rollout {name}.", remedy="`wave list` shows them all.")
        return row

    def _move(
        self, name: str, status: RolloutStatus, event: str, by: str, reason: str | None, dry_run: bool, meaning: str
    ) -> Ordered:
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            sentence = _said(f"{event.capitalize()} by {by}", reason)
            state = transitions.to_status(row.state, status, Reason(ReasonKind.ORDERED, sentence), now, by)
            order(w, row, state, event=event, by=by, sentence=sentence, now=now)
        return Ordered(name, state.status, f"Rollout {name} is {status}: it {meaning}.")

    def _move_wave(
        self, name: str, wave: str, status: WaveStatus, event: str, by: str, reason: str | None, dry_run: bool
    ) -> Ordered:
        now = self.clock()
        with self._writing(dry_run) as w:
            row = self._row(w, name)
            before = _wave(row, wave)
            if row.state.status not in (RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.HELD):
                raise WrongState(f"Rollout {name} is {row.state.status}: its waves stand still.")
            refuse_unapproved_wave(row, before, status)
            sentence = _said(f"Wave {wave} {event} by {by}", reason)
            state = transitions.move(row.state, wave, status, Reason(ReasonKind.ORDERED, sentence), now, by)
            effects = (Effect(EffectKind.WITHDRAW, name, wave),) if status is WaveStatus.CANCELLED else ()
            event = f"wave_{event}" if status is WaveStatus.CANCELLED else event
            order(w, row, state, event=event, by=by, sentence=sentence, now=now, wave=wave, effects=effects)
        return Ordered(name, row.state.status, f"Wave {wave} of rollout {name} is {status}.")


def _wave(row: RolloutRow, name: str) -> WaveState:
    for wave in row.state.waves:
        if wave.wave == name:
            return wave
    known = ", ".join(wave.wave for wave in row.state.waves)
    raise NotFound(f"Rollout {row.state.rollout} has no wave {name}.", remedy=f"Its waves: {known}.")


def _said(head: str, reason: str | None) -> str:
    said = reason_given(reason)
    return f"{head}: {said}" if said else f"{head}."
