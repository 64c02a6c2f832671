"""The cases of ``make evidence``: what is played for each figure that is promised, and under which rule.

Every case is a setting of the simulator, played by the program's own code. The rivals are told of the same reports of
whole waves at once, as the systems give them that halt by those rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.adapters.files.library import Library
from orchestrator.core.outcomes import Outcome, OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.services.simulation.fleet import HABITS, Shape
from orchestrator.services.simulation.scenarios import Order, Scenario
from orchestrator.services.simulation.setting import Setting, Watcher
from orchestrator.services.simulation.waves import waves_of
from tests.evidence.rivals import GroupThreshold, Threshold, Wilson

SEED: Final = 20_261
TICK: Final = 600
"""Seconds between two looks: they cost most of the time, and none of the figures hangs on them."""

CANARIES: Final = 20
"""Devices of the first wave in the cases of silence."""

FAILED: Final = OutcomeClass.FAILED
TOLERANCE: Final = 0.02
"""Of the class ``failed`` in the policy ``standard``."""

ONE_CLASS: Final = {
    "failed": "2%",
    "rolled_back": {"at_most": "1%", "then": "count"},
    "silent": {"at_most": "5%", "then": "count"},
    "ignored": {"at_most": "15%", "then": "count"},
    "download_failed": {"at_most": "15%", "then": "count"},
}
NO_CLASS: Final = {**ONE_CLASS, "failed": {"at_most": "2%", "then": "count"}}


@dataclass(frozen=True)
class Case:
    """``rule``: whose halts are counted; ``watcher`` makes another rule than the policy's. ``weight``: runs of it, as a
    part of what is asked for."""

    name: str
    rule: str
    setting: Setting
    watcher: Callable[[], Watcher] | None = None
    weight: float = 1.0


SEGMENTS: Final = ("hardware_id", "source_version", "label:region")
"""Four hardware ids, three versions and five regions: 12 segment values."""


def policy(**changed: Any) -> Policy:
    """The shipped policy ``standard`` with 12 segment values, and without its office hours, which shift every figure in
    hours and no other."""
    shipped = Library().policy("standard").document()
    return Policy.parse({**shipped, "window": "always", "segments": list(SEGMENTS), **changed})


RULES: Final[Mapping[str, Callable[[], Policy]]] = {
    "standard": policy,
    "one class": lambda: policy(tolerate=ONE_CLASS, segments=[]),
}
RIVALS: Final[Mapping[str, Callable[[], Watcher]]] = {
    "rate > 2 %": lambda: Threshold(TOLERANCE),
    "Wilson": lambda: Wilson(TOLERANCE),
    "group > 2 %": lambda: GroupThreshold(TOLERANCE),
}

EXCLUDED: Final = "with a segment of 5 % that fails at 50 %"
ORDERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "reports as they come": {},
    "failures first": {"order": Order.FAILURES_FIRST},
    "successes first": {"order": Order.SUCCESSES_FIRST},
    "start and outcome in one report": {"together": True},
    "half of the failed try again": {"retries": 0.5},
    "sick devices check in ten times as often": {"eager": 10},
    "all of these, failures first": {"order": Order.FAILURES_FIRST, "together": True, "retries": 0.5, "eager": 10},
}


def at_stake(bound: Policy, level: float, **how: Any) -> Setting:
    """A rollout in which as many devices as can be come to be at stake: three waves, and whatever is held passes."""
    scenario = Scenario("level", "At a multiple of the tolerance.", level=level, quiet=0.0, **how)
    return _setting(bound, "canary 20, early 200, rest", 2_000, scenario, insists=True)


def without_one(bound: Policy, level: float) -> Setting:
    """The same, and one hardware id of 5 % in which half fail: it is excluded, and the rest must not be halted."""
    setting = at_stake(bound, level, trouble={FAILED: 0.5}, dimension="hardware_id", value="hw-d")
    return setting


def hit(bound: Policy, rate: float, **how: Any) -> Setting:
    """One wave in which this share of the devices fails, and half of the tolerance is rolled back."""
    scenario = Scenario("hit", "Fails at this rate.", level=0.5, quiet=0.0, trouble={FAILED: rate}, **how)
    return _setting(bound, "all", 2_000, scenario)


def late(bound: Policy) -> Setting:
    """All is well until the last wave, of 2,000 devices, in which everything fails."""
    scenario = Scenario("late", "From the last wave on.", level=0.0, quiet=0.0, trouble={FAILED: 1.0}, from_wave=-1)
    return _setting(bound, "canary 20, early 200, rest", 2_220, scenario)


def _setting(bound: Policy, waves: str, fleet: int, scenario: Scenario, **more: Any) -> Setting:
    shape = Shape(fleet, hashed=False)
    given = {"budgets": False, "seed": SEED, "tick": TICK, "history": 0, **more}
    return Setting(bound, waves_of(waves), shape, scenario, **given)


def one_by_one(setting: Setting) -> Setting:
    """In the last wave one device is under way at a time."""
    document = setting.spec.document()
    document["waves"][-1]["policy"] = {"pace": {"in_flight": 1}}
    return replace(setting, spec=type(setting.spec).parse(document))


def false_halts() -> list[Case]:
    found = []
    for rule, bound in RULES.items():
        for words, how in ORDERS.items():
            found.append(Case(f"at the tolerance, {words}", rule, at_stake(bound(), 1.0, **how)))
        for words in ("reports as they come", "failures first", "all of these, failures first"):
            found.append(Case(f"at half of it, {words}", rule, at_stake(bound(), 0.5, **ORDERS[words])))
    found.append(Case(f"at the tolerance, {EXCLUDED}", "standard", without_one(policy(), 1.0)))
    found.append(Case(f"at half of it, {EXCLUDED}", "standard", without_one(policy(), 0.5)))
    for rule, watcher in RIVALS.items():
        for level, at in ((1.0, "at the tolerance"), (0.5, "at half of it")):
            for words in ("reports as they come", "failures first"):
                only = at_stake(_at_once(), level * TOLERANCE, **ORDERS[words])
                found.append(Case(f"{at}, {words}", rule, _failing_only(only, level), watcher, 0.3))
    return found


def detections() -> list[Case]:
    found = []
    for times in (2, 5, 20, 50):
        words = f"{times} times the tolerance" if times < 50 else "all devices fail"
        for rule, bound in RULES.items():
            found.append(Case(words, rule, hit(bound(), min(1.0, times * TOLERANCE))))
        for rule, watcher in RIVALS.items():
            found.append(Case(words, rule, hit(_at_once(), min(1.0, times * TOLERANCE)), watcher, 0.3))
    return found


def starts_late() -> list[Case]:
    found = []
    for rule, bound in RULES.items():
        found.append(Case("reports one by one", rule, one_by_one(late(bound()))))
        found.append(Case("slices as they are", rule, late(bound())))
        for burst in (200, 2_000):
            wide = Policy.parse(
                {**bound().document(), "slices": {"first": burst, "growth": 2}, "pace": {"in_flight": 5_000}}
            )
            found.append(Case(f"{burst:,} in flight at once", rule, late(wide)))
    return found


def one_hardware() -> list[Case]:
    """A hardware id with 5 % of the fleet, where 30 % fail; all else at half of the tolerance. With the fleet's history
    known three classes halt, and share the allowance."""
    scenario = Scenario(
        "hw-d", "One hardware id fails.", 0.5, 0.0, {FAILED: 0.3}, dimension="hardware_id", value="hw-d"
    )
    usual = _setting(policy(), "all", 2_000, scenario, history=2_000)
    quick = replace(usual.shape, habits=(HABITS[0],))
    return [
        Case("slices as they are", "standard", usual),
        Case("reports one by one", "standard", one_by_one(replace(usual, shape=quick)), weight=0.3),
        Case("slices as they are, no history: two classes halt", "standard", replace(usual, history=0)),
    ]


def silence() -> list[Case]:
    """Twenty canaries, and a clock learnt from an earlier release to 2,000 devices of which 1 % stayed dark."""
    dark = Scenario("dark", "All of them brick.", level=0.0, quiet=0.0, trouble={OutcomeClass.SILENT: 1.0})
    half = Scenario("half", "Half of them brick.", level=0.0, quiet=0.0, trouble={OutcomeClass.SILENT: 0.5})
    slow = Scenario("slow", "As good as any, and slower.", level=0.0, quiet=0.0, slower=1.5)
    found = []
    for words, scenario in (
        ("all of 20 canaries brick", dark),
        ("half of 20 canaries brick", half),
        ("1.5 times slower to report", slow),
    ):
        setting = _setting(policy(), f"canary {CANARIES}, rest", 1_000, scenario, tick=60, history=2_000, days=10)
        quick = replace(setting, shape=replace(setting.shape, habits=(HABITS[0],)))
        weight = 0.3 if scenario is slow else 1.0
        found.append(Case(f"{words}, all report within minutes", "standard", quick, weight=weight))
        found.append(Case(f"{words}, the usual fleet", "standard", setting, weight=weight))
    return found


def comes_through() -> list[Case]:
    """Half of the tolerance and 10 % of the devices without a connection: does each wave pass its bake?"""
    scenario = Scenario("half", "Half of the tolerance.", level=0.5, quiet=0.0)
    quiet = Scenario("half", "Half of the tolerance, and the fleet's own faults.", level=0.5, quiet=0.2)
    quick = Shape(2_220, habits=(replace(HABITS[0], share=0.8), replace(HABITS[1], share=0.2)), hashed=False)
    base = _setting(policy(), "w20 20, w200 200, w2000", 2_220, scenario)
    offline = replace(base, offline=0.1)
    return [
        Case("nobody offline", "standard", base),
        Case("10 % offline", "standard", offline),
        Case("10 % offline, nobody installs at night", "standard", replace(offline, shape=quick)),
        Case(
            "10 % offline, and a fifth of what is tolerated of silence and the like",
            "standard",
            replace(offline, scenario=quiet),
        ),
    ]


def fleets_of_fifty() -> list[Case]:
    found = []
    for words, level, rate in (
        ("half of the tolerance", 0.5, None),
        ("at the tolerance", 1.0, None),
        ("5 times the tolerance", 0.5, 0.1),
        ("all devices fail", 0.5, 1.0),
    ):
        trouble: dict[Outcome, float] = {} if rate is None else {FAILED: rate}
        scenario = Scenario("fifty", "A small fleet.", level=level, quiet=0.0, trouble=trouble)
        for waves in ("canary 10, rest", "lab 5, rest"):
            setting = _setting(policy(), waves, 50, scenario, insists=True)
            found.append(Case(f"{words}, waves {waves}", "standard", replace(setting, budgets=True)))
    return found


PARTS: Final[Mapping[str, Callable[[], list[Case]]]] = {
    "false-halts": false_halts,
    "detections": detections,
    "starts-late": starts_late,
    "one-hardware": one_hardware,
    "silence": silence,
    "comes-through": comes_through,
    "fifty": fleets_of_fifty,
}


def _at_once() -> Policy:
    """No monitors, whole waves at once."""
    return policy(tolerate=NO_CLASS, segments=[], slices={"first": 100_000, "growth": 2}, pace={"in_flight": 100_000})


def _failing_only(setting: Setting, level: float) -> Setting:
    """All bad devices of this level are of one class."""
    return replace(
        setting, scenario=replace(setting.scenario, level=0.0, quiet=0.0, trouble={FAILED: level * TOLERANCE})
    )
