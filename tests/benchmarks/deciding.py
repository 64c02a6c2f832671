"""What one decision costs: ``python -m tests.benchmarks.deciding``.

A rollout of 50 waves and 200 or 500 monitors, for fleets of a thousand to ten million devices: in the middle of its
life (most waves have passed, two are open, three bake), and with every wave baking at once, which no rollout does. And
what its limits cost once, when a rollout with 500 monitors starts.
"""

from __future__ import annotations

import statistics
import time
from datetime import datetime, timedelta

from orchestrator.core.decide import decide
from orchestrator.core.evidence.limits import Staircase
from orchestrator.core.facts import BudgetFacts, DeltaFacts, Facts, MonitorFacts, RolloutState, SliceFacts, WaveFacts
from orchestrator.core.outcomes import Answer, Outcome, OutcomeClass, Tolerance
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.slices import sizes
from orchestrator.core.states import RolloutStatus, WaveStatus
from orchestrator.core.window import Window
from tests.benchmarks.figures import figure
from tests.core.world import DAY_0, STARTED, WaveState

NOW = DAY_0 + timedelta(days=10, hours=1)
MINUTE = timedelta(minutes=1)
BAKED = timedelta(hours=10, minutes=11)
"""How long the wave has baked that began last, a minute after the one before it."""
LIMIT = 0.001
"""Seconds that a decision may take."""
WINDOW = Window.parse({"days": "mon-fri", "hours": "08:00-18:00", "timezone": "Europe/Berlin"})
TOLERATE: dict[Outcome, Tolerance] = {
    OutcomeClass.FAILED: Tolerance(0.02),
    OutcomeClass.ROLLED_BACK: Tolerance(0.01),
    OutcomeClass.SILENT: Tolerance(0.05, Answer.HOLD),
    OutcomeClass.IGNORED: Tolerance(0.15, Answer.HOLD),
    OutcomeClass.DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
}


def rollout(*, waves: int, monitors: int, devices: int, baking: int = 3) -> tuple[RolloutState, Facts, Rules, datetime]:
    """A rollout in the middle of its life: of its waves ``baking`` bake, two are open, two prepare, one is pending."""
    order = [WaveStatus.BAKING] * baking + [WaveStatus.OPEN] * 2 + [WaveStatus.PREPARING] * 2 + [WaveStatus.PENDING]
    order = order[:waves]
    order = [WaveStatus.PASSED] * (waves - len(order)) + order
    names = [f"wave-{number}" for number in range(waves)]
    states = tuple(
        WaveState(name, status, STARTED, opened_at=DAY_0, prepared_at=DAY_0, baking_at=NOW - BAKED - number * MINUTE)
        for number, (name, status) in enumerate(zip(names, order, strict=True))
    )
    rules = Rules(
        waves=tuple(
            WaveRules(name, after=tuple(names[max(0, number - 3) : max(0, number - 2)]), window=WINDOW)
            for number, name in enumerate(names)
        ),
        tolerate=TOLERATE,
    )
    counts = tuple(_counts(name, status, devices // waves) for name, status in zip(names, order, strict=True))
    watched = tuple(
        MonitorFacts(
            f"wave:{names[number % waves]}/failed",
            (OutcomeClass.FAILED,),
            names[number % waves] if number % 2 else None,
            0.02,
            0.001,
            Answer.HALT,
            devices,
            3,
            300,
        )
        for number in range(monitors)
    )
    budgets = tuple(BudgetFacts((outcome,), devices, 3) for outcome in OutcomeClass)
    facts = Facts(devices, counts, watched, budgets, NOW + timedelta(hours=3))
    return RolloutState("bench", RolloutStatus.RUNNING, STARTED, 1, states), facts, rules, NOW


def _counts(name: str, status: WaveStatus, devices: int) -> WaveFacts:
    deltas = DeltaFacts(NOW, devices, devices, 0, 20, 20)
    if status in (WaveStatus.PENDING, WaveStatus.PREPARING):
        return WaveFacts(name, devices, 0, deltas)
    pieces = tuple(
        SliceFacts(
            number,
            DAY_0,
            size,
            0,
            offered=size,
            resolved=size - size // 50,
            confirmed=size - size // 25,
            bad={OutcomeClass.FAILED: size // 50, OutcomeClass.SILENT: size // 60},
        )
        for number, size in enumerate(sizes(devices, first=20, growth=2.0), start=1)
    )
    return WaveFacts(name, 0, devices, deltas, pieces)


def seconds_of_one(given: tuple[RolloutState, Facts, Rules, datetime], *, rounds: int = 200) -> tuple[float, float]:
    """Median and 99th percentile."""
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        decide(*given)
        spent.append(time.perf_counter() - began)
    spent.sort()
    return statistics.median(spent), spent[int(0.99 * len(spent))]


def seconds_of_limits(*, monitors: int, limits: int) -> float:
    """The first ``limits`` limits of so many monitors, each with an alpha of its own: nothing of it is known before."""
    began = time.perf_counter()
    for number in range(monitors):
        Staircase(0.02, 0.05 / (monitors + number)).limits(limits)
    return time.perf_counter() - began


def main() -> None:
    print("waves  monitors  baking     devices   median      99 %")
    medians: dict[tuple[int, int, int], float] = {}
    for monitors in (200, 500):
        for baking in (3, 50):
            for devices in (1_000, 100_000, 1_000_000, 10_000_000):
                median, high = seconds_of_one(rollout(waves=50, monitors=monitors, devices=devices, baking=baking))
                medians[monitors, baking, devices] = median
                spent = f"{1e3 * median:4.2f} ms  {1e3 * high:5.2f} ms" + ("" if median < LIMIT else "   over 1 ms")
                print(f"{50:5}  {monitors:8}  {baking:6}  {devices:10,}  {spent}")
    for monitors in (200, 500):
        for baking, case in ((3, "3 waves bake"), (50, "all bake at once")):
            few, many = (1e3 * medians[monitors, baking, devices] for devices in (1_000, 1_000_000))
            figure(
                f"a decision, 50 waves and {monitors} monitors, {case}",
                f"{few:.2f} ms for 1,000 devices, {many:.2f} ms for 1,000,000",
                "under 1 ms, the same for both",
            )
    figure(
        "the first 20 limits of 500 monitors, each with an alpha of its own",
        f"{1e3 * seconds_of_limits(monitors=500, limits=20):.0f} ms, once",
        "under 1 s",
    )


if __name__ == "__main__":
    main()
