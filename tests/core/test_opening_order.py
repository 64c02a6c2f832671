"""In which order what keeps a wave shut is looked at: deltas, a person, the window, approval, and its gates last.

All of it stands in the way at once; then it is taken away piece by piece, first to last. Each time the wave says the
first of what is left, and nobody outside is asked before nothing but the gates is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import pytest

from orchestrator.core.approving import Approval, Deed
from orchestrator.core.decide import decide
from orchestrator.core.decisions import AskGates, HaltRollout, HoldWave, OpenSlice, OpenWave, PassWave, Plan
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, RolloutState, SliceFacts, WaveFacts
from orchestrator.core.gates import Gate, GateAnswer, GateFacts
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Otherwise
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing, WaveStatus
from tests.core.strategies import NIGHT
from tests.core.world import DAY_0, HOUR, STARTED, TOLERATE, fresh_state, monitor

GATE: Final = Gate.parse({"gate": "errors", "asks": "desk"})
NO: Final = GateAnswer.NO
REPORTED: Final = SliceFacts(1, DAY_0 - 12 * HOUR, 20, offered=20, started=20, resolved=20, confirmed=20)
AGREED: Final = Approval(Deed.OPEN, "ben", DAY_0, "files", "all")


@dataclass(frozen=True)
class Shut:
    """Wave ``all`` after wave ``lab``, with everything in its way that there is."""

    state: RolloutState
    facts: Facts
    rules: Rules

    def decided(self) -> Plan:
        return decide(self.state, self.facts, self.rules, DAY_0)

    def wave(self, name: str, **changes: Any) -> Shut:
        waves = tuple(replace(w, **changes) if w.wave == name else w for w in self.state.waves)
        return replace(self, state=replace(self.state, waves=waves))

    def told(self, **changes: Any) -> Shut:
        waves = tuple(replace(w, **changes) if w.wave == "all" else w for w in self.facts.waves)
        return replace(self, facts=replace(self.facts, waves=waves))

    def rule(self, **changes: Any) -> Shut:
        waves = tuple(replace(w, **changes) if w.wave == "all" else w for w in self.rules.waves)
        return replace(self, rules=replace(self.rules, waves=waves))

    def why(self) -> ReasonKind | None:
        """Why the wave does not open."""
        return next((each.reason.kind for each in self.decided().reasons if each.wave == "all"), None)


def everything() -> Shut:
    wave = WaveRules(
        "all", after=("lab",), awaits_promotion=True, approvals=1, window=NIGHT, gates=(GATE,), within=2 * HOUR
    )
    held = Standing(Reason(ReasonKind.EMPTY, "It was empty."), DAY_0, "policy")
    state = fresh_state(["lab", "all"])
    shut = Shut(
        state,
        Facts(1_000, (WaveFacts("lab", 0, 20, slices=(REPORTED,)), WaveFacts("all"))),
        Rules((WaveRules("lab"), wave), TOLERATE),
    )
    shut = shut.wave("lab", status=WaveStatus.CANCELLED)
    return shut.wave("all", status=WaveStatus.PREPARING, prepared_at=DAY_0, asked_at=DAY_0, hold=held)


def _looked(shut: Shut) -> Shut:
    return shut.told(eligible=20, deltas=DeltaFacts(DAY_0, devices=20, covered=5, pairs=2, ready=1))


def _covered(shut: Shut) -> Shut:
    return shut.told(deltas=DeltaFacts(DAY_0, devices=20, covered=20, pairs=2, ready=2))


def _frozen(shut: Shut, reason: Reason | None) -> Shut:
    return replace(shut, facts=replace(shut.facts, frozen=reason))


def _monitors(shut: Shut, *, amber: bool) -> Shut:
    return replace(shut, facts=replace(shut.facts, monitors=(monitor(bad=2, amber=amber, places=40),)))


LADDER: Final[list[tuple[ReasonKind, Callable[[Shut], Shut]]]] = [
    (ReasonKind.EMPTY, lambda shut: shut.wave("all", hold=None)),
    (ReasonKind.CANCELLED_BEFORE, lambda shut: shut.wave("lab", status=WaveStatus.PASSED)),
    (ReasonKind.DELTAS, _looked),
    (ReasonKind.DELTAS, _covered),
    (ReasonKind.AWAITING_PROMOTION, lambda shut: shut.wave("all", promoted=True)),
    (ReasonKind.WINDOW, lambda shut: shut.rule(window=None)),
    (ReasonKind.AWAITING_APPROVAL, lambda shut: replace(shut, state=replace(shut.state, approvals=(AGREED,)))),
    (ReasonKind.FROZEN, lambda shut: _frozen(shut, None)),
    (ReasonKind.AMBER, lambda shut: _monitors(shut, amber=False)),
    (ReasonKind.GATE, lambda shut: shut.told(gates=(said(GateAnswer.YES),))),
]
"""What the wave says, and what takes that away."""


def said(answer: GateAnswer) -> GateFacts:
    return GateFacts("errors", GATE.question, answer, "", DAY_0, DAY_0)


def test_the_first_of_what_is_in_its_way_is_said_and_gates_are_asked_last_of_all() -> None:
    shut = _monitors(_frozen(everything(), Reason(ReasonKind.FROZEN, "A fire.")), amber=True)
    for kind, without in LADDER:
        plan = shut.decided()
        assert shut.why() is kind
        asked = [each for each in plan.decisions if isinstance(each, AskGates)]
        assert bool(asked) is (kind is ReasonKind.GATE)
        assert not any(isinstance(each, OpenWave | OpenSlice) for each in plan.decisions)
        shut = without(shut)
    assert [type(each) for each in shut.decided().decisions] == [OpenWave, OpenSlice]


@pytest.mark.parametrize("number", range(len(LADDER)))
def test_no_other_yes_opens_it_while_one_of_them_is_in_its_way(number: int) -> None:
    """A gate's yes of a moment ago, a promotion, an approval: none makes up for what is missing."""
    kind, _ = LADDER[number]
    shut = everything() if kind is not ReasonKind.FROZEN else _frozen(everything(), Reason(kind, "A fire."))
    shut = _monitors(shut, amber=kind is ReasonKind.AMBER)
    for place, (_, without) in enumerate(LADDER):
        shut = shut if place == number else without(shut)
    if number == 2:
        shut = shut.told(eligible=None, deltas=None)
    assert shut.why() is kind
    assert not any(isinstance(each, OpenWave | OpenSlice) for each in shut.decided().decisions)


def all_but_gates() -> Shut:
    shut = everything()
    for _, without in LADDER[:-1]:
        shut = without(shut)
    return shut


def test_a_halt_comes_before_every_yes() -> None:
    shut = all_but_gates().told(gates=(said(GateAnswer.YES),))
    spent = BudgetFacts((OutcomeClass.FAILED,), limit=3, bad=3)
    shut = replace(shut, facts=replace(shut.facts, budgets=(spent,)))
    assert [type(each) for each in shut.decided().decisions] == [HaltRollout]


@pytest.mark.parametrize("status", [RolloutStatus.PAUSED, RolloutStatus.HELD, RolloutStatus.HALTED])
def test_nobody_is_asked_while_the_rollout_stands_still(status: RolloutStatus) -> None:
    shut = all_but_gates()
    shut = replace(shut, state=replace(shut.state, status=status, standing=STARTED))
    assert shut.decided().decisions == ()


@pytest.mark.parametrize("otherwise", Otherwise)
def test_missing_deltas_are_settled_before_a_gate_is_asked(otherwise: Otherwise) -> None:
    """Within its time it waits for them. After it, the wave holds without having asked; or it goes on without them, and
    then the gates are asked as ever."""
    shut = _looked(all_but_gates()).rule(otherwise=otherwise)
    assert shut.decided().decisions == () and shut.why() is ReasonKind.DELTAS
    late = shut.rule(within=timedelta(0)).decided().decisions
    assert [type(each) for each in late] == ([HoldWave] if otherwise is Otherwise.HOLD else [AskGates])


def test_a_no_holds_and_is_not_asked_for_while_something_else_is_in_its_way() -> None:
    shut = all_but_gates().told(gates=(said(NO),))
    (hold,) = shut.decided().decisions
    assert isinstance(hold, HoldWave) and hold.reason.kind is ReasonKind.GATE_NO
    again = replace(shut, state=replace(shut.state, approvals=()))
    assert again.decided().decisions == () and again.why() is ReasonKind.AWAITING_APPROVAL


def test_a_wave_whose_devices_all_run_it_passes_unasked_and_unapproved_but_not_unpromoted() -> None:
    shut = all_but_gates().told(eligible=0, already_there=20)
    shut = replace(shut, state=replace(shut.state, approvals=()))
    assert [type(each) for each in shut.decided().decisions][:1] == [PassWave]
    assert shut.wave("all", promoted=False).why() is ReasonKind.AWAITING_PROMOTION


def test_the_door_of_the_bake_before_it_opens_first_and_its_gates_are_asked_in_the_same_look() -> None:
    """Nobody is asked while the wave before bakes, whatever else is ready; passing has no gates of its own."""
    shut = all_but_gates()
    lab = WaveRules("lab", gates=(GATE,))
    shut = replace(shut, rules=replace(shut.rules, waves=(lab, *shut.rules.waves[1:])))
    shut = shut.wave("lab", status=WaveStatus.BAKING, opened_at=DAY_0 - 24 * HOUR, baking_at=DAY_0 - HOUR)
    assert shut.decided().decisions == () and shut.why() is ReasonKind.AFTER
    shut = shut.wave("lab", baking_at=DAY_0 - 12 * HOUR)
    assert [type(each) for each in shut.decided().decisions] == [PassWave, AskGates]
