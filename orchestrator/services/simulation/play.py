"""One rollout played over a virtual fleet and a virtual clock, decided by the real core.

The same pure functions decide here as in an installation: ``decide``, ``safety``, ``transitions``, slices and places,
staircases and their crossing, budgets, the door, the update machine. Only the store, the network and the devices are
simulated: an event queue stands for them. No SQL, no threads, no clock: the same setting and run always play alike.

Nobody sits beside it: who waits for a person waits for ever, except that a wave which asks to be promoted is promoted
at once. Deltas are always ready.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Final

from orchestrator.core.decide import decide, safety
from orchestrator.core.decisions import (
    Decision,
    EnsureDeltas,
    ExcludeSegment,
    HaltRollout,
    HoldRollout,
    HoldWave,
    OpenSlice,
    PrepareWave,
)
from orchestrator.core.evidence.allowance import clock_alpha
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.facts import DeltaFacts, RolloutState, WaveState
from orchestrator.core.offers import NoOfferKind
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, bind, by_itself
from orchestrator.core.states import (
    OFFERING_ROLLOUT,
    OFFERING_WAVE,
    Reason,
    ReasonKind,
    RolloutStatus,
    Standing,
    WaveStatus,
)
from orchestrator.core.transitions import apply_all, move, to_status, with_wave
from orchestrator.errors import WaveError
from orchestrator.services.simulation.conduct import DAY, HOUR, Conduct, Fate
from orchestrator.services.simulation.ending import came_of_it, exclusion
from orchestrator.services.simulation.fleet import allotted, made
from orchestrator.services.simulation.machine import HEARD, Happening, Machine
from orchestrator.services.simulation.opening import begun, opened_slice
from orchestrator.services.simulation.pacing import Crowd, Pacing
from orchestrator.services.simulation.setting import START, Exclusion, Played, Setting, Watcher
from orchestrator.services.simulation.silence import Silence, learnt, untouched
from orchestrator.services.simulation.tally import Evidence, Member

LATE_AFTER: Final = HOUR
"""For so long a slice is the last one, before devices that came since get another."""

LOOK_HOLDS: Final = timedelta(days=1)
"""For how long a look at the deltas of a virtual wave is as good as new: nothing changes there."""

MOST_ROUNDS: Final = 1_000

_PERSON: Final = "person"
_CHECK_IN, _INSTALLING, _OUTCOME, _DEADLINE, _BACK, _AGAIN = range(6)
_CODE_BITS: Final = 3
_DEVICE_BITS: Final = 20
_DEVICE: Final = (1 << _DEVICE_BITS) - 1
_CODE: Final = (1 << _CODE_BITS) - 1

_ENDS: Final = frozenset({OutcomeClass.FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.SILENT})
"""What every rule but ours calls a failure."""

_WAITS_FOR_ROOM: Final = frozenset({NoOfferKind.PACE, NoOfferKind.EVIDENCE, NoOfferKind.AMBER})
"""Here a device waits until somebody else is done; elsewhere it comes back by itself."""

BAD_HAPPENING: Final = {Fate.FAILED: Happening.FAILED, Fate.ROLLED_BACK: Happening.ROLLED_BACK}


def play(setting: Setting, run: int, watcher: Watcher | None = None) -> Played:
    """Play one run; its number and the setting's seed alone decide on chance. With a ``watcher`` the policy's monitors
    and budgets are off and the watcher halts."""
    return Run(setting, run, watcher).played()


@lru_cache(maxsize=64)
def _rules(spec: bytes, policy: bytes, dark: Darkness | None) -> Rules:
    # Whoever is to promote or approve does so at once, and every gate says yes.
    return by_itself(bind(RolloutFile.from_canonical(spec.decode()), Policy.from_canonical(policy.decode()), dark))


@lru_cache(maxsize=1)
def _machine() -> Machine:
    return Machine()


class Run:
    """The state of one run while it is played. Times are whole seconds since the start."""

    def __init__(self, setting: Setting, run: int, watcher: Watcher | None) -> None:
        spec, policy = setting.spec, setting.policy
        seed = f"{setting.seed}/{run}"
        self.setting, self.number, self.watcher = setting, run, watcher
        self.rng = Random(seed)
        self.fleet = made(setting.shape)
        self.machine = _machine()
        self.names = [wave.name for wave in spec.waves]
        self.waiting = allotted(self.fleet, spec, seed, self.rng)
        """By wave: (position, device) of those without a place, by rising position."""
        self.size = {name: len(found) for name, found in self.waiting.items()}
        silence = self._clock() if watcher is None else None
        self.rules = _rules(spec.canonical(), policy.canonical(), None if silence is None else silence.clock.dark)
        tolerate = policy.tolerances_over(None if silence is None else Darkness())
        self.conduct = Conduct(self.fleet, setting.scenario, tolerate, self.names, self.rng)
        self.dark = self.conduct.offline(setting.offline)
        self.home = self._homes()
        self.segments = [kind.segments(self.rules.dimensions) for kind in self.fleet.kinds]
        self.halting = (
            _ENDS
            if watcher is not None
            else frozenset(each for each, found in self.rules.tolerate.items() if found.then is Answer.HALT)
        )
        self.standing: dict[int, int] = {}
        self.member: dict[int, Member] = {}
        self.fate: dict[int, Fate] = {}
        self.due: dict[int, int] = {}
        self.heap: list[int] = []
        self.now = 0
        self.tick_at: int | None = 0
        self.stopped_at: int | None = None
        self.completed_at: int | None = None
        self.exposed = 0
        self.last_start = self.begun = 0
        self.excluded: list[Exclusion] = []
        self.ends = setting.days * DAY
        self.tick = setting.tick
        self.evidence = self._begun(silence)
        self.pacing = Pacing(self.rules, self.evidence, Crowd(self.rng), tuple(setting.shape.labels))
        self.state = self._started()
        for device, (_, back_at) in self.dark.items():
            if back_at < self.ends:
                self._at(back_at, _BACK, device)

    def _homes(self) -> dict[int, str]:
        """The waves of the devices that have no connection."""
        if not self.dark:
            return {}
        return {device: wave for wave, found in self.waiting.items() for _, device in found if device in self.dark}

    def _begun(self, silence: Silence | None) -> Evidence:
        setting = self.setting
        reachable = {name: sum(self._reachable(device) for _, device in found) for name, found in self.waiting.items()}
        alone = self.watcher is None
        evidence = begun(
            setting.spec,
            setting.policy,
            self.fleet,
            self.size,
            budgets=setting.budgets and alone,
            silence=silence,
        )
        for name, many in reachable.items():
            evidence.waves[name].eligible = many
        if self.watcher is not None:
            evidence = replace(evidence, monitors=())
        return evidence

    def _clock(self) -> Silence | None:
        alpha = clock_alpha(false_halt=self.setting.policy.false_halt, devices=sum(self.size.values()))
        clock = learnt(self.setting, alpha, self.number)
        return None if clock is None else Silence(clock, lambda minutes: untouched(self, minutes))

    def _started(self) -> RolloutState:
        standing = Standing(Reason(ReasonKind.ORDERED, "Started."), START, _PERSON)
        waves = tuple(WaveState(name, WaveStatus.PENDING, standing) for name in self.names)
        draft = RolloutState(self.setting.spec.name, RolloutStatus.DRAFT, standing, 0, waves)
        return to_status(draft, RolloutStatus.RUNNING, standing.reason, START, _PERSON)

    # ------------------------------------------------------------------------------------------ the clock

    def played(self) -> Played:
        """Play until it is halted or nothing more can come."""
        heap = self.heap
        while self.state.status is not RolloutStatus.HALTED:
            upcoming = heap[0] >> (_DEVICE_BITS + _CODE_BITS) if heap else None
            if self.tick_at is not None and (upcoming is None or self.tick_at <= upcoming):
                if self.tick_at > self.ends:
                    break
                self.now, self.tick_at = self.tick_at, None
                self._tick()
            elif upcoming is None or upcoming > self.ends:
                break
            else:
                event = heapq.heappop(heap)
                self.now = upcoming
                self._happens(event & _CODE, event >> _CODE_BITS & _DEVICE)
        return came_of_it(self)

    def _at(self, second: int, code: int, device: int) -> None:
        heapq.heappush(self.heap, (second << _DEVICE_BITS | device) << _CODE_BITS | code)

    def _moment(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def _wake(self, second: int) -> None:
        if self.tick_at is None or second < self.tick_at:
            self.tick_at = second

    # ------------------------------------------------------------------------------------------ deciding

    def _tick(self) -> None:
        """Decide until nothing more follows."""
        now = self._moment()
        self._look_for_late()
        for _ in range(MOST_ROUNDS):
            facts = self.evidence.facts(now)
            plan = decide(self.state, facts, self.rules, now)
            waits = [each.wave for each in plan.reasons if each.reason.kind is ReasonKind.AWAITING_PROMOTION]
            for name in waits:
                if name is not None:
                    self.state = with_wave(self.state, replace(self.state.wave(name), promoted=True))
            if plan.decisions:
                self._carry_out(plan.decisions, now)
            elif not waits:
                self.pacing.look(facts)
                self._fill()
                if plan.wake_at is not None:
                    self._wake(max(self.now + 1, int((plan.wake_at - START).total_seconds())))
                return
        raise WaveError("The decisions of a simulated rollout did not come to rest.")

    def _carry_out(self, decisions: tuple[Decision, ...], now: datetime) -> None:
        self.state = apply_all(self.state, decisions, now)
        for decision in decisions:
            match decision:
                case PrepareWave(wave=wave) | EnsureDeltas(wave=wave):
                    found = self.evidence.waves[wave]
                    found.deltas = DeltaFacts(now + LOOK_HOLDS)
                    found.eligible = sum(self._reachable(device) for _, device in self.waiting[wave])
                    found.changed = True
                case OpenSlice():
                    self._open(decision, now)
                case HaltRollout() | HoldRollout():
                    self.stopped_at = self.now
                case ExcludeSegment():
                    self.excluded.append(exclusion(self, decision.segment))
                    self._leave_out()
                case HoldWave():
                    self.evidence.holds.setdefault(decision.wave, decision.reason)
                    if self.setting.insists:
                        self._let_pass(decision, now)
                case _:
                    pass
        if self.state.completed and self.completed_at is None:
            self.completed_at = self.now

    def _let_pass(self, decision: HoldWave, now: datetime) -> None:
        """A person's word: the wave passes, and who is left in it is served like the stragglers of any wave."""
        self.state = move(self.state, decision.wave, WaveStatus.PASSED, decision.reason, now, _PERSON)

    def _settle(self) -> None:
        """A bad outcome was counted: stop at once if it proves the release bad."""
        now = self._moment()
        while (stop := safety(self.state, self.evidence.facts(now), self.rules)) is not None:
            self._carry_out((stop,), now)

    def _leave_out(self) -> None:
        """The excluded segments' devices are offered nothing more, offers not begun are withdrawn, and the rest is
        counted without them."""
        excluded = self.state.excluded_segments
        for member in self.member.values():
            if member.excluded or excluded.isdisjoint(member.segments):
                continue
            standing = self.standing.get(member.device)
            if standing is not None:
                member.tally.leave_out(*self.machine.whole(standing))
            member.excluded = True
            if standing is not None and self.machine.waits(standing):
                self._step(member.device, Happening.WITHDRAWN)
        for wave, waiting in self.waiting.items():
            self.waiting[wave] = [each for each in waiting if excluded.isdisjoint(self._populations(each[1]))]
        self.evidence.leave_out(excluded)

    def _open(self, decision: OpenSlice, now: datetime) -> None:
        wave = decision.wave
        found, waiting = self.evidence.waves[wave], self.waiting[wave]
        if self.dark:
            reachable = [each for each in waiting if self._reachable(each[1])]
        else:
            reachable = waiting
        wanted = len(reachable) if decision.size is None else min(decision.size, len(reachable))
        members, left = reachable[:wanted], len(reachable) - wanted
        if not members and found.slices:
            found.nobody_waits()
            return
        piece = opened_slice(wave, len(found.slices) + 1, members, left, self._populations, self.evidence.given, now)
        tally = self.evidence.opened(piece, left)
        if len(reachable) == len(waiting):
            self.waiting[wave] = waiting[wanted:]
        else:
            taken = {device for _, device in members}
            self.waiting[wave] = [each for each in waiting if each[1] not in taken]
        random, conduct, base = self.rng.random, self.conduct, self.now
        for position, device in members:
            fate = conduct.fate(device, wave)
            self.member[device] = Member(device, position, tally, self._populations(device))
            self.fate[device] = fate
            back_at = self.dark[device][1] if device in self.dark else 0
            self._at(max(base + int(random() * conduct.gap(device, fate)), back_at), _CHECK_IN, device)

    def _populations(self, device: int) -> tuple[str, ...]:
        return self.segments[self.fleet.kind_of[device]]

    def _reachable(self, device: int) -> bool:
        """Whether it has been seen lately enough to be counted on (RULES 5.2)."""
        spell = self.dark.get(device)
        if spell is None:
            return True
        last_seen, back_at = spell
        return back_at <= self.now or last_seen >= self.now - self.rules.reach.total_seconds()

    def _look_for_late(self) -> None:
        for name, found in self.evidence.waves.items():
            if not found.newcomers or not found.slices or self.state.wave(name).status not in OFFERING_WAVE:
                continue
            opened = int((found.slices[-1].piece.opened_at - START).total_seconds())
            if opened + LATE_AFTER > self.now:
                self._wake(opened + LATE_AFTER)
            elif not found.late:
                found.late, found.newcomers, found.changed = True, 0, True

    # ------------------------------------------------------------------------------------------ devices

    def _happens(self, code: int, device: int) -> None:
        outage = self.setting.scenario.outage
        if outage is not None and code != _DEADLINE:
            heard_at = self.conduct.within(outage, device, self.now)
            if heard_at is not None:
                self._at(heard_at, code, device)
                due = self.due.get(device)
                if due is not None and due < heard_at:
                    self._at(max(due, self.now), _DEADLINE, device)
                return
        if code == _CHECK_IN:
            self._checks_in(device)
        elif code == _INSTALLING:
            self._installs(device)
        elif code == _OUTCOME:
            self._comes_to_it(device)
        elif code == _DEADLINE:
            if self.machine.unresolved(self.standing[device]):
                self._step(device, Happening.DEADLINE)
        elif code == _BACK:
            if device not in self.member and device in self.home:
                found = self.evidence.waves[self.home[device]]
                found.newcomers += 1
                self._wake(self.now + self.tick)
        else:
            self._tries_again(device)

    def _checks_in(self, device: int) -> None:
        if device in self.standing:
            # It has the offer and does not begin.
            if self.machine.unresolved(self.standing[device]):
                self._step(device, Happening.ON_OLD)
                self._at(self.now + self.conduct.gap(device, Fate.IGNORED), _CHECK_IN, device)
            return
        member, fate = self.member[device], self.fate[device]
        wave = member.tally.piece.wave
        state = self.state
        if member.excluded:
            return
        if state.status not in OFFERING_ROLLOUT:
            return
        if state.wave(wave).status not in OFFERING_WAVE and not state.completed:
            return
        self.pacing.crowd.invited.discard(device)
        gap = self.conduct.gap(device, fate)
        no = self.pacing.stops(state, wave, self._labels(device), self._moment())
        if no is None:
            self._offer(device, member, fate)
        elif no.kind in _WAITS_FOR_ROOM:
            self.pacing.crowd.join(device, gap)
        else:
            # It comes back at its own time, or soon after the moment at which it may.
            opens = self.now + gap if no.until is None else int((no.until - START).total_seconds()) + 1
            self._at(max(opens, self.now + 1) + int(self.rng.random() * gap), _CHECK_IN, device)

    def _labels(self, device: int) -> Mapping[str, str]:
        return self.fleet.kinds[self.fleet.kind_of[device]].labels

    def _fill(self) -> None:
        """Whoever the pace kept waiting asks again, as many as there is room for."""
        crowd = self.pacing.crowd
        for _ in range(self.pacing.room() if crowd else 0):
            if (invited := crowd.invite()) is None:
                return
            self._at(self.now + invited[1], _CHECK_IN, invited[0])

    def _offer(self, device: int, member: Member, fate: Fate) -> None:
        self.exposed += 1
        taken = self.machine.first
        self.standing[device] = taken.standing
        self.evidence.count(member, taken)
        self.pacing.offered(member.tally.piece.wave, self._moment())
        self._flies(member, 1)
        if fate is Fate.IGNORED:
            self._at(self.now + self.conduct.gap(device, fate), _CHECK_IN, device)
            return
        if self.conduct.download_fails(device, member.tally.piece.wave):
            self._step(device, Happening.DOWNLOAD_FAILED)
        begins = self.conduct.begins(device, self.now)
        if begins > self.now:
            self._at(begins, _INSTALLING, device)
        else:
            self._installs(device)
        self._wake((self.now // self.tick + 1) * self.tick)

    def _installs(self, device: int) -> None:
        fate = self.fate[device]
        if self.machine.withdrawn(self.standing[device]):
            return
        if not self.setting.scenario.together or fate is Fate.SILENT:
            self._step(device, Happening.INSTALLING)
        patience = max(self.rules.silent_after.total_seconds(), 3 * self.conduct.habit(device).gap)
        due = self.now + int(patience)
        self.due[device] = due
        if fate is Fate.SILENT:
            self._at(due, _DEADLINE, device)
            return
        heard_at = self.now + self.conduct.takes(device, fate)
        if heard_at >= due:
            self._at(due, _DEADLINE, device)
        self._at(heard_at, _OUTCOME, device)

    def _comes_to_it(self, device: int) -> None:
        """Its outcome is heard; with it the start, where no word of that came before."""
        fate = self.fate[device]
        if self.setting.scenario.together:
            self._step(device, Happening.INSTALLING)
        happening = BAD_HAPPENING.get(fate)
        if happening is None:
            self._step(device, Happening.ON_TARGET)
            return
        if self.rng.random() < self.setting.scenario.retries:
            self._at(self.now + self.conduct.gap(device, fate), _AGAIN, device)
        self._step(device, happening)

    def _tries_again(self, device: int) -> None:
        """Half of those that try again fail again: neither makes a second outcome, nor takes back the first."""
        self._step(device, Happening.RETRIED)
        self._step(device, Happening.INSTALLING)
        fate = self.fate[device]
        self._step(device, Happening.ON_TARGET if self.rng.random() < 0.5 else BAD_HAPPENING[fate])

    def _tell_clock(self, device: int, happening: Happening) -> None:
        """What the clock of silence goes by: the start of installing, and the first that is heard after it."""
        silence = self.evidence.silence
        if happening is Happening.INSTALLING:
            if self.stopped_at is None:
                self.last_start, self.begun = self.now, self.begun + 1
            if silence is not None:
                silence.installs(device, self.fleet.kinds[self.fleet.kind_of[device]].hardware_id, self._moment())
        elif silence is not None and happening in HEARD:
            silence.hears(device, self._moment())

    def _step(self, device: int, happening: Happening) -> None:
        taken = self.machine.step(self.standing[device], happening)
        self._tell_clock(device, happening)
        self.standing[device] = taken.standing
        member = self.member[device]
        if not taken.gains and not taken.bad:
            return
        flying = self.evidence.in_flight
        bad = self.evidence.count(member, taken)
        self._wake((self.now // self.tick + 1) * self.tick)
        if self.watcher is not None:
            self._watch(member, resolved=bad or (4, 1) in taken.gains, bad=bad and bool(self.halting & set(taken.bad)))
        elif bad:
            self._settle()
        self._flies(member, self.evidence.in_flight - flying)

    def _flies(self, member: Member, change: int) -> None:
        """So many more devices are at it."""
        if change and self.pacing.by_label:
            self.pacing.flies(member.tally.piece.wave, self._labels(member.device), change)
        if change < 0:
            self._fill()

    def _watch(self, member: Member, *, resolved: bool, bad: bool) -> None:
        wave = member.tally.piece.wave
        if not resolved or self.watcher is None or not self.watcher.outcome(wave, self.size[wave], bad):
            return
        if self.state.status in (RolloutStatus.RUNNING, RolloutStatus.COMPLETED):
            self._carry_out((HaltRollout(Reason(ReasonKind.MONITOR, "Another rule halts.")),), self._moment())
