"""When waves open and end: by hand, over a change of the clocks, and against rollouts that are played."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.calendar import Due, Habits, Moments, Work, calendar, habits_sentence, whole
from orchestrator.core.evidence.door import confirmed_needed
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.policy import Otherwise
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.slices import sizes
from orchestrator.core.states import DONE_WAVE, RolloutStatus, WaveStatus
from orchestrator.core.window import Window
from tests.core.strategies import NIGHT, OFFICE
from tests.core.world import DAY, DAY_0, HOUR, Pool, World, fresh_state

MINUTE = timedelta(minutes=1)
HOURLY = Habits((HOUR,) * 20, (30 * MINUTE,) * 20)
BERLIN = Window.parse(
    {"days": "mon-fri", "hours": "09:00-16:00", "timezone": "Europe/Berlin", "except": ["2026-04-03..2026-04-06"]}
)


def rules(*waves: WaveRules, **more: Any) -> Rules:
    return Rules(waves=waves, **more)


def one(wave: WaveRules, devices: int, habits: Habits = HOURLY, *, start: datetime = DAY_0, **more: Any) -> Due:
    bound = rules(wave, **more)
    return calendar(bound, {wave.wave: work(bound, devices)}, start, habits)[wave.wave]


def work(bound: Rules, devices: int, building: timedelta = timedelta(0)) -> Work:
    return Work(sizes(devices, first=bound.first_slice, growth=bound.growth), building)


def test_one_wave_of_one_slice() -> None:
    """At once: the bake's floor. Likely the same, its 95 % have long reported. At the latest: 6 h, 7 d and 48 h."""
    due = one(WaveRules("lab"), 20)
    assert due.opens == Moments(DAY_0, DAY_0, DAY_0 + 6 * HOUR)
    # Nine of ten devices that come hourly have come after 54 minutes.
    assert due.ends == Moments(DAY_0 + 12 * HOUR, DAY_0 + 54 * MINUTE + 12 * HOUR, DAY_0 + 6 * HOUR + 9 * DAY)


def test_slices_open_one_after_the_other() -> None:
    """20, 20, 40: twice 45 + 30 minutes for three quarters of a slice, then 54 for the offers of the last."""
    due = one(WaveRules("rest"), 80)
    assert due.ends.earliest == DAY_0 + 12 * HOUR
    assert due.ends.likely == DAY_0 + 2 * (75 * MINUTE) + 54 * MINUTE + 12 * HOUR
    assert due.ends.latest == DAY_0 + 6 * HOUR + 7 * DAY + 2 * DAY, "the slices' two days are within the seven"
    many = one(WaveRules("rest"), 5_000)  # 9 slices, eight waits of a day
    assert many.ends.latest == DAY_0 + 6 * HOUR + 8 * DAY + 2 * DAY


def test_who_reports_slowly_bakes_until_enough_have() -> None:
    slow = Habits((HOUR,) * 20, (20 * HOUR,) * 20)
    assert one(WaveRules("lab"), 20, slow).ends.likely == DAY_0 + 57 * MINUTE + 20 * HOUR
    never = Habits((HOUR,) * 20, (300 * HOUR,) * 20)
    assert one(WaveRules("lab"), 20, never).ends.likely == DAY_0 + 54 * MINUTE + 48 * HOUR, "the ceiling"


def test_a_cap_on_those_at_it_makes_rounds() -> None:
    capped = one(WaveRules("lab"), 20, in_flight=5)
    assert capped.ends.likely == DAY_0 + 3 * 75 * MINUTE + 54 * MINUTE + 12 * HOUR
    assert capped.ends.earliest == DAY_0 + 12 * HOUR


def test_deltas_take_their_time_once_the_wave_before_is_open() -> None:
    bound = rules(WaveRules("lab"), WaveRules("rest", after=("lab",), at_least=HOUR))
    due = calendar(bound, {"lab": work(bound, 5, 3 * HOUR), "rest": work(bound, 5, 40 * HOUR)}, DAY_0, HOURLY)
    assert due["lab"].opens.likely == DAY_0 + 3 * HOUR
    assert due["rest"].opens.likely == DAY_0 + 43 * HOUR
    assert due["rest"].opens.earliest == DAY_0 + 12 * HOUR
    assert due["rest"].opens.latest == due["lab"].ends.latest, "its six hours ran beside the wave before"
    assert whole(due) == due["rest"].ends


def test_windows_hold_over_a_change_of_the_clocks_and_excepted_days() -> None:
    """Friday 27 March 2026, 15:00 UTC is 16:00 in Berlin: closed. Clocks go forward on the 29th. Monday opens at 09:00
    summer time, 07:00 UTC. 3 to 6 April are excepted, so Tuesday the 7th is the next day."""
    start = datetime(2026, 3, 27, 15, tzinfo=UTC)
    due = one(WaveRules("lab", window=BERLIN, at_least=timedelta(hours=90)), 5, start=start)
    assert due.opens.earliest == datetime(2026, 3, 30, 7, tzinfo=UTC)
    # 90 hours later it is Friday 3 April, excepted; so are the days to Monday.
    assert due.ends.earliest == datetime(2026, 4, 7, 7, tzinfo=UTC)
    # At the latest it opens on Monday, and 7 d and 48 h later, Wednesday the 8th, the window is open.
    assert due.ends.latest == datetime(2026, 4, 8, 7, tzinfo=UTC)


def test_an_hour_that_does_not_exist_and_one_that_occurs_twice() -> None:
    gap = Window.parse({"hours": "02:30-03:30", "timezone": "Europe/Berlin"})
    due = one(WaveRules("lab", window=gap), 5, start=datetime(2026, 3, 29, 0, tzinfo=UTC))
    assert due.opens.earliest == datetime(2026, 3, 29, 1, tzinfo=UTC), "when the clocks jump to 03:00"
    due = one(WaveRules("lab", window=gap), 5, start=datetime(2026, 10, 24, 23, tzinfo=UTC))
    assert due.opens.earliest == datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "the first 02:30"


def test_offers_wait_for_their_own_window() -> None:
    due = one(WaveRules("lab"), 20, offer_window=NIGHT)  # Friday 22:00 in New York is Saturday 03:00 UTC
    assert due.opens.earliest == DAY_0
    assert due.ends.earliest == datetime(2026, 3, 7, 3, tzinfo=UTC) + 12 * HOUR


def test_a_window_that_never_opens_again_says_so() -> None:
    closed = Window.parse({"days": "mon", "timezone": "UTC", "except": ["2198-01-01..2198-12-24"]})
    late = datetime(2199, 12, 31, 12, tzinfo=UTC)
    assert one(WaveRules("lab", window=closed), 5, start=late).opens.earliest is not None
    bound = rules(WaveRules("lab"), WaveRules("rest", after=("lab",)))
    never = {"lab": Due(Moments(DAY_0, DAY_0, DAY_0), Moments(DAY_0, None, None))}
    assert whole(never) == Moments(DAY_0, None, None)
    assert calendar(bound, {"lab": work(bound, 0), "rest": work(bound, 0)}, DAY_0, HOURLY)["rest"].ends == Moments(
        DAY_0, DAY_0, DAY_0
    ), "waves without devices take no time"


def test_what_the_likely_times_rest_on() -> None:
    assert habits_sentence(Habits()) == (
        "Likely: 75 % of the devices come within 45 min (assumed: how often they come is not known) and run the Target"
        " within 1 h 15 min (assumed: no past rollout tells)."
    )
    assert habits_sentence(HOURLY) == (
        "Likely: 75 % of the devices come within 45 min (as they have come lately) and run the Target within 1 h 15 min"
        " (as in past rollouts)."
    )


@given(st.lists(st.integers(600, 86_400), min_size=20, max_size=400), st.lists(st.integers(0, 86_400), max_size=60))
def test_habits_are_those_of_devices_played(gaps: list[int], takes: list[int]) -> None:
    """Ten thousand devices, each at any moment of a gap: the shares agree to three per cent of devices."""
    habits = Habits(tuple(timedelta(seconds=each) for each in gaps), tuple(timedelta(seconds=each) for each in takes))
    dice = random.Random(1)
    enough = takes if len(takes) >= 20 else [1_800]
    played = [dice.choice(gaps) * dice.random() for _ in range(10_000)]
    for share in (0.5, 0.75, 0.9):
        at = habits.until_come(share).total_seconds()
        assert sum(each <= at for each in played) / 10_000 == pytest.approx(share, abs=0.03)
    assert habits.until_reported(0.75) >= timedelta(seconds=min(enough))
    assert habits.until_reported(1.0) <= timedelta(seconds=max(gaps) + max(enough) + 1)
    assert habits.until_reported(0.5) <= habits.until_reported(0.75) <= habits.until_reported(0.95)


# ------------------------------------------------------------------------------------------ rollouts that are played


def drawn(dice: random.Random) -> tuple[World, dict[str, Work]]:
    """Up to three waves with windows, floors and ceilings of all kinds; deltas may be missing."""
    names = [f"w{number}" for number in range(dice.randint(1, 3))]
    waves = tuple(
        WaveRules(
            name,
            after=tuple(dice.sample(names[:number], dice.randint(0, min(number, 2)))),
            window=dice.choice([None, None, OFFICE, NIGHT]),
            within=dice.choice([0, 6, 30]) * HOUR,
            otherwise=dice.choice([Otherwise.FULL, Otherwise.HOLD]),
            at_least=(floor := dice.choice([0, 3, 12, 24]) * HOUR),
            at_most=floor + dice.choice([1, 24]) * HOUR,
        )
        for number, name in enumerate(names)
    )
    bound = Rules(waves=waves, slice_at_most=dice.choice([3, 24]) * HOUR, open_at_most=dice.choice([1, 5]) * DAY)
    pools = {name: Pool(waiting=dice.choice([1, 5, 20, 90]), pairs=4, ready=dice.choice([4, 4, 3])) for name in names}
    works = {name: work(bound, pool.waiting) for name, pool in pools.items()}
    return World(bound, fresh_state(names), pools, fleet=10_000), works


def play(told: World, dice: random.Random, *, eager: bool) -> dict[str, tuple[datetime | None, datetime | None]]:
    """When each wave opened, and when it had passed or was first held: devices do what they like, or their best."""
    seen: dict[str, tuple[datetime | None, datetime | None]] = dict.fromkeys(told.pools, (None, None))
    until = told.now + 60 * DAY
    while told.now < until and told.state.status is RolloutStatus.RUNNING:
        plan = told.tick()
        for wave in told.state.waves:
            opened, ended = seen[wave.wave]
            if wave.status in DONE_WAVE or wave.hold is not None:
                ended = ended or told.now
            seen[wave.wave] = opened or wave.opened_at, ended
            if eager:
                told.go_well(wave.wave)
            elif dice.random() < 0.3 and wave.status in (WaveStatus.OPEN, WaveStatus.BAKING):
                pool = told.pools[wave.wave]
                told.offer(wave.wave, dice.randint(0, 20))
                if dice.random() < 0.5:
                    told.confirm(wave.wave, confirmed_needed(sum(piece.members for piece in pool.slices)))
                if dice.random() < 0.1:
                    told.turn_bad(wave.wave, OutcomeClass.SILENT, 1)
        if told.look().decisions:
            continue
        wake = told.look().wake_at or plan.wake_at
        if wake is None:
            break
        told.now = wake if eager or dice.random() < 0.5 else min(wake, told.now + dice.randint(1, 600) * MINUTE)
    return seen


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_no_rollout_that_is_played_is_earlier_or_later(seed: int, eager: bool) -> None:
    """Whatever devices do: a wave opens and ends no earlier than at the earliest; by the latest it has passed or is
    held. When all devices do their best, deltas there and windows kept, the earliest comes true to the minute."""
    dice = random.Random(seed)
    told, works = drawn(dice)
    if eager:
        for pool in told.pools.values():
            pool.ready = pool.pairs
    due = calendar(told.rules, works, told.now, HOURLY)
    for name, (opened, ended) in play(told, dice, eager=eager).items():
        earliest, _, latest = due[name].opens
        if opened is not None:
            assert earliest is not None and latest is not None
            assert earliest <= opened <= latest
        elif not any(wave.hold for wave in told.state.waves):
            raise AssertionError(f"{name} never opened: {told.why(name)}")
        earliest, _, latest = due[name].ends
        assert earliest is not None and latest is not None
        if opened is not None:
            assert ended is not None and ended <= latest
            if told.status(name) is WaveStatus.PASSED:
                assert ended >= earliest
        if eager:
            assert (opened, ended) == (due[name].opens.earliest, earliest)
