"""Hypothesis strategies for what ``decide`` is given: any valid state, facts, rules and moment."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from hypothesis import strategies as st

from orchestrator.core.approving import Approval, Deed
from orchestrator.core.evidence.clock import Checkpoint, ClockFacts, Seen, Untouched
from orchestrator.core.facts import (
    BudgetFacts,
    DeltaFacts,
    Excluded,
    Facts,
    MonitorFacts,
    RolloutState,
    SliceFacts,
    WaveFacts,
    WaveState,
)
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.policy import FromUnknown, OnSegment, Otherwise
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing, WaveStatus
from orchestrator.core.window import Window
from tests.core.world import DAY_0

OFFICE = Window.parse({"days": "mon-thu", "hours": "09:00-16:00", "timezone": "Europe/Berlin"})
NIGHT = Window.parse({"days": "fri-sun", "hours": "22:00-04:00", "timezone": "America/New_York"})

ANY = tuple(RolloutStatus)
SEGMENTS = ["hardware_id=cm4", "label:region=emea", "source_version=41"]
Given = tuple[RolloutState, Facts, Rules, datetime]


class Dice(random.Random):
    """Draws by one seed: a whole rollout drawn value by value would cost Hypothesis a hundred times as much."""

    def chance(self, one_in: int) -> bool:
        return self.randrange(one_in) == 0

    def span(self) -> timedelta:
        return timedelta(hours=self.choice([0, 1, 5, 12, 24, 48, 168]))

    def share(self) -> float:
        return self.choice([0.0, 0.5, 0.8, 0.95, 1.0])

    def ago(self) -> timedelta:
        """Up to ten days, to the minute; often a round number of hours, where limits meet."""
        return (
            timedelta(hours=self.choice([0, 1, 12, 24, 48]))
            if self.chance(3)
            else timedelta(minutes=self.randrange(60 * 24 * 10))
        )

    def few(self) -> int:
        return self.choice([0, 1, self.randrange(40)])

    def some(self, of: list[str], most: int) -> tuple[str, ...]:
        return tuple(sorted(self.sample(of, self.randint(0, min(most, len(of))))))


@st.composite
def given_to_decide(
    draw: st.DrawFn, *, statuses: tuple[RolloutStatus, ...] = ANY, calm: bool = False, most_waves: int = 8
) -> Given:
    """Any valid (state, facts, rules, now); ``calm``: nothing in it stops the rollout.

    The number of waves and the rollout's status shrink; the rest comes from one seed.
    """
    waves, status = draw(st.integers(1, most_waves)), draw(st.sampled_from(statuses))
    return drawn(Dice(draw(st.integers(0, 2**40))), waves, status, calm=calm)


def drawn(dice: Dice, waves: int, status: RolloutStatus, *, calm: bool) -> Given:
    bound, now = rules(dice, waves), DAY_0 + dice.ago()
    names = [wave.wave for wave in bound.waves]
    begun = status not in (RolloutStatus.DRAFT, RolloutStatus.SCHEDULED)
    calm = calm or not begun
    if begun:
        states = [_wave_state(dice, name, now) for name in names]
    else:
        states = [WaveState(name, WaveStatus.PENDING, _standing(now)) for name in names]
    dice.shuffle(states)
    state = RolloutState(
        rollout="lmp-42",
        status=status,
        standing=_standing(now - dice.ago()),
        epoch=dice.few(),
        waves=tuple(states),
        start_at=None if dice.chance(3) else DAY_0 + dice.ago(),
        first_bad_accepted=dice.randrange(4),
        excluded=tuple(
            Excluded(name, _standing(now), dice.choice([1, 900])) for name in dice.some(SEGMENTS, 2 if begun else 0)
        ),
        approvals=tuple(_approval(dice, each) for each in (None, *(wave.wave for wave in states)) if dice.chance(2)),
        authors=("ann",),
    )
    monitors = tuple(_monitor(dice, names, calm) for _ in range(dice.randrange(4)))
    monitors += tuple(_segment_monitor(dice, name, calm) for name in dice.some(SEGMENTS, 3))
    facts = Facts(
        devices=10_000 if calm else dice.choice([50, 10_000]),
        waves=tuple(_wave_facts(dice, wave, now) for wave in states),
        monitors=monitors,
        budgets=() if calm else tuple(_budget(dice) for _ in range(dice.randrange(3))),
        next_deadline=None if dice.chance(2) else DAY_0 + dice.ago(),
        frozen=Reason(ReasonKind.FROZEN, "Storm.") if dice.chance(5) else None,
        clock=None if dice.chance(2) else _clock(dice, calm),
    )
    return state, facts, bound, now


def rules(dice: Dice, waves: int) -> Rules:
    """So many waves, each after some of those before it."""
    classes = [outcome for outcome in OutcomeClass if dice.chance(2)]
    return Rules(
        waves=tuple(_wave_rules(dice, number) for number in range(waves)),
        tolerate={each: Tolerance(dice.choice([0.01, 0.2]), dice.choice(list(Answer))) for each in classes},
        first_slice=dice.choice([1, 5, 20]),
        on_segment=dice.choice([OnSegment.EXCLUDE, OnSegment.EXCLUDE, OnSegment.HALT]),
        escalate_over=dice.choice([0.05, 0.2, 1.0]),
        growth=dice.choice([1.5, 2.0]),
        approve_start=int(dice.chance(8)),
    )


def _wave_rules(dice: Dice, number: int) -> WaveRules:
    at_least = dice.span()
    return WaveRules(
        wave=f"w{number}",
        after=dice.some([f"w{each}" for each in range(number)], 3),
        awaits_promotion=dice.chance(4),
        approvals=int(dice.chance(6)),
        window=dice.choice([None, None, OFFICE, NIGHT]),
        cover=dice.share(),
        within=dice.span(),
        otherwise=dice.choice(list(Otherwise)),
        from_unknown=dice.choice(list(FromUnknown)),
        at_least=at_least,
        reports=dice.share(),
        at_most=max(at_least, timedelta(hours=1)) + dice.span(),
        early=dice.chance(2),
    )


def _approval(dice: Dice, wave: str | None) -> Approval:
    return Approval(Deed.START if wave is None else Deed.OPEN, dice.choice(["ann", "ben"]), DAY_0, "a-b", wave)


def _standing(at: datetime) -> Standing:
    return Standing(Reason(ReasonKind.ORDERED, "Somebody said so."), at, "ann")


def _wave_state(dice: Dice, name: str, now: datetime) -> WaveState:
    def moment() -> datetime | None:
        return None if dice.chance(4) else now - dice.ago()

    status = dice.choice(list(WaveStatus))
    can_hold = status in (WaveStatus.PREPARING, WaveStatus.OPEN, WaveStatus.BAKING)
    return WaveState(
        wave=name,
        status=status,
        standing=_standing(now - dice.ago()),
        hold=_standing(now - dice.ago()) if can_hold and dice.chance(6) else None,
        promoted=dice.chance(2),
        opened_at=moment(),
        prepared_at=moment(),
        asked_at=moment(),
        baking_at=moment(),
        granted_at=moment() if dice.chance(3) else None,
    )


def _wave_facts(dice: Dice, state: WaveState, now: datetime) -> WaveFacts:
    begun = state.status not in (WaveStatus.PENDING, WaveStatus.PREPARING)
    opened = sorted(now - dice.ago() for _ in range(dice.randrange(4) if begun else 0))
    deltas = None
    if not dice.chance(4):
        devices = dice.few()
        deltas = DeltaFacts(
            computed_at=now - timedelta(minutes=dice.choice([0, 0, 0, 1, 14, 15, 60])),
            devices=devices,
            covered=dice.choice([devices, dice.randint(0, devices)]),
            unknown=dice.few(),
            pairs=5,
            ready=dice.randint(0, 5),
            failed=dice.randint(0, 1),
        )
    return WaveFacts(
        wave=state.wave,
        eligible=None if deltas is None else dice.choice([0, 1, 50]),
        already_there=dice.choice([0, 4]),
        deltas=deltas,
        slices=tuple(_slice(dice, number, at) for number, at in enumerate(opened, start=1)),
        late=bool(opened) and dice.chance(3),
    )


def _slice(dice: Dice, number: int, opened_at: datetime) -> SliceFacts:
    """Half of them go well, so that doors are reached too."""
    members = dice.few()
    well = dice.chance(2)

    def part(of: int) -> int:
        return of if well or not of else dice.randint(0, of)

    offered = part(members)
    withdrawn = 0 if well else dice.randint(0, offered)
    left = 0 if well else dice.randint(0, offered - withdrawn)
    resolved = part(offered - withdrawn - left)
    confirmed = part(resolved)
    bad: dict[Outcome, int] = {outcome: dice.randint(0, resolved - confirmed) for outcome in OutcomeClass}
    bad[OutcomeClass.DOWNLOAD_FAILED] = dice.choice([0, dice.randint(0, offered)])
    return SliceFacts(
        number=number,
        opened_at=opened_at,
        members=members,
        waiting=dice.choice([0, 0, 3, 100]),
        offered=offered,
        withdrawn=withdrawn,
        resolved=resolved,
        confirmed=confirmed,
        left=left,
        bad=bad,
        excluded=dice.choice([0, 0, dice.randint(0, members)]),
    )


def _monitor(dice: Dice, names: list[str], calm: bool) -> MonitorFacts:
    outcome = dice.choice(list(OutcomeClass))
    return MonitorFacts(
        monitor=f"rollout/{outcome}",
        outcomes=(outcome,),
        wave=dice.choice([None, *names]),
        tolerance=0.02,
        alpha=0.02,
        answer=dice.choice(list(Answer)),
        places=100,
        bad=dice.few(),
        next_limit=dice.few(),
        crossed_at=(4, 30) if not calm and dice.chance(6) else None,
        accepted=dice.chance(4),
        amber=dice.chance(8),
    )


def _clock(dice: Dice, calm: bool) -> ClockFacts:
    """Two checkpoints; of two hardware ids some devices have passed them."""
    seen = tuple(
        Seen(name, number, Checkpoint(10 * number, 0.1, 0.3), 0 if calm else dice.choice([0, dice.few()]), dice.few())
        for number in (1, 2)
        for name in dice.some(["cm4", "rpi4"], 2)
    )
    untouched = None if dice.chance(2) else Untouched(200, dice.choice([0, 5, 190]), 10)
    next_at = None if dice.chance(2) else DAY_0 + dice.ago()
    return ClockFacts(0.02, 0.009, dice.choice(list(Answer)), 2_000, 2, seen, next_at, untouched)


def _segment_monitor(dice: Dice, segment: str, calm: bool) -> MonitorFacts:
    bad = dice.few()
    return MonitorFacts(
        monitor=f"segment:{segment}/failed",
        outcomes=(OutcomeClass.FAILED,),
        wave=None,
        tolerance=0.02,
        alpha=0.001,
        answer=Answer.HALT,
        places=dice.choice([0, 40, 3_000]),
        bad=bad,
        next_limit=dice.few(),
        crossed_at=(4, 30) if not calm and dice.chance(4) else None,
        accepted=dice.chance(6),
        amber=dice.chance(8),
        segment=segment,
        devices=dice.choice([0, 30, 900, 9_000]),
    )


def _budget(dice: Dice) -> BudgetFacts:
    bad = dice.few()
    outcomes = tuple(dice.sample(list(OutcomeClass), dice.randint(1, 2)))
    return BudgetFacts(outcomes, dice.randint(30, 60), bad, dice.randint(0, bad), dice.choice(list(Answer)))
