"""What an edit of a rollout that has begun may change, and what it would widen; pure.

Answers for: the differences of two pairs of files in words, what is fixed once a wave has begun, which of the new rules
are looser for a wave that is open, baking or passed. Does not answer for: what the evidence says (``services.editing``
refuses what would un-halt), monitors and budgets that come and go.

A key whose direction nobody has written down here counts as looser whichever way it changes: it asks for a person.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from orchestrator.core.document import Document
from orchestrator.core.durations import duration_text
from orchestrator.core.facts import RolloutState
from orchestrator.core.outcomes import Answer, Outcome, Tolerance
from orchestrator.core.pace import Per, Rate
from orchestrator.core.policy import FromUnknown, OnSegment, Otherwise, Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import WaveStatus

LATER: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING})
"""Waves that have not begun: they may be added, changed and removed."""

WATCHED: Final = frozenset({WaveStatus.OPEN, WaveStatus.BAKING, WaveStatus.FAILED})
"""Waves to which every rule still applies."""

FIXED: Final = ("target", "tag", "start_at", "supersedes", "allow_older", "running")
"""What a rollout file fixes at its start."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs: ``before`` or ``after`` None where it is not there."""

    file: str
    key: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}"
        if self.before is None:
            return f"{where} is new: {self.after}"
        if self.after is None:
            return f"{where} is gone; it was {self.before}"
        return f"{where}: {self.before} becomes {self.after}"


@dataclass(frozen=True, slots=True)
class Wider:
    """A rule of a wave that has begun would become looser."""

    wave: str
    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key} of wave {self.wave}: {self.before} becomes {self.after}"


def changes(before: tuple[RolloutFile, Policy], after: tuple[RolloutFile, Policy]) -> tuple[Change, ...]:
    """Key by key, in the order of the files; waves by their names."""
    found: list[Change] = []
    for file, old, new in (
        ("rollout", dict(_rollout_keys(before[0])), dict(_rollout_keys(after[0]))),
        ("policy", dict(_keys(before[1].document())), dict(_keys(after[1].document()))),
    ):
        found += [
            Change(file, key, old.get(key), new.get(key))
            for key in dict.fromkeys((*old, *new))
            if old.get(key) != new.get(key)
        ]
    return tuple(found)


def _rollout_keys(spec: RolloutFile) -> Iterator[tuple[str, str]]:
    document = spec.document()
    waves = document.pop("waves")
    yield from _keys(document)
    yield "waves", ", ".join(wave["wave"] for wave in waves)
    for wave in waves:
        name = wave["wave"]
        yield from _keys({key: each for key, each in wave.items() if key != "wave"}, f"wave {name} ")
        yield f"wave {name} comes after", ", ".join(spec.predecessors(name)) or "nothing"


def _keys(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{before}{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{before}{key}", text


def fixed(state: RolloutState, before: RolloutFile, after: RolloutFile) -> Iterator[str]:
    """What the edit changes although it is fixed by now, a sentence each."""
    for key in FIXED:
        if getattr(before, key) != getattr(after, key):
            yield f"`{key}` was fixed when the rollout started."
    begun = {wave.wave: wave.status for wave in state.waves if wave.status not in LATER}
    kept = {wave.name: wave for wave in after.waves}
    above: dict[str, list[Any]] = {spec_key: _above(spec, begun) for spec_key, spec in (("", before), ("new", after))}
    for wave in before.waves:
        if wave.name not in begun:
            continue
        status = begun[wave.name]
        if wave.name not in kept:
            yield f"Wave {wave.name} is {status} and stays: `wave cancel` ends it."
            continue
        if kept[wave.name].devices != wave.devices:
            yield f"The devices of wave {wave.name} are fixed: it is {status}."
        waiting = sorted(after.ancestors(wave.name) - begun.keys())
        if waiting and not set(waiting) <= before.ancestors(wave.name):
            yield f"Wave {wave.name} is {status}: it cannot come after {', '.join(waiting)}, which has not begun."
    if above[""] != above["new"]:
        yield (
            "What stands above a wave that has begun decides which devices that wave has: leave these waves, their"
            f" devices and their order as they are: {', '.join(dict.fromkeys(name for name, _ in above['']))}."
        )


def _above(spec: RolloutFile, begun: Mapping[str, object]) -> list[Any]:
    """All waves down to the last that has begun, with their devices: membership goes by the order of the file."""
    last = max((place for place, wave in enumerate(spec.waves) if wave.name in begun), default=-1)
    return [(wave.name, wave.devices) for wave in spec.waves[: last + 1]]


# ------------------------------------------------------------------------------------------------- wider


def wider(state: RolloutState, before: Rules, after: Rules) -> tuple[Wider, ...]:
    """Which rules of waves that are open, baking or passed would become looser. What judges the evidence is told for
    those that are watched; where none is, for those that have passed, because their devices are the evidence."""
    watched = set(weighed(state))
    known = {rules.wave for rules in after.waves}
    found: list[Wider] = []
    for wave in state.waves:
        if wave.wave not in known or wave.status not in WATCHED | {WaveStatus.PASSED}:
            continue
        concerns = _OFFERS | _JUDGES if wave.wave in watched else _OFFERS
        pairs: tuple[tuple[Rules | WaveRules, Rules | WaveRules, _Directions], ...] = (
            (before, after, _OF_ALL),
            (before.wave(wave.wave), after.wave(wave.wave), _OF_A_WAVE),
        )
        for old, new, directions in pairs:
            for field in dataclasses.fields(old):
                key, looser = directions.get(field.name, (field.name, _changed))
                if wave.status is WaveStatus.PASSED and field.name not in concerns:
                    continue
                one, other = getattr(old, field.name), getattr(new, field.name)
                if one != other and looser(one, other):
                    found.append(Wider(wave.wave, key, *_differing(one, other)))
    return tuple(found)


def weighed(state: RolloutState) -> tuple[str, ...]:
    """The waves for which a person's word about the evidence is asked: those to which every rule still applies; where
    there is none, those that have passed."""
    found = [wave.wave for wave in state.waves if wave.status in WATCHED]
    return tuple(found or (wave.wave for wave in state.waves if wave.status is WaveStatus.PASSED))


def _differing(one: Any, other: Any) -> tuple[str, str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
        return _text({key: one.get(key) for key in keys}), _text({key: other.get(key) for key in keys})
    return _text(one), _text(other)


def _text(value: Any) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, Document):
        return json.dumps(value.document(), ensure_ascii=False)
    if isinstance(value, Tolerance):
        return f"{100 * value.at_most:g}% then {value.then}"
    return str(value)


def _changed(one: Any, other: Any) -> bool:
    return True


def _never(one: Any, other: Any) -> bool:
    return False


def _more(one: Any, other: Any) -> bool:
    """More is looser; None is without limit."""
    return other is None or (one is not None and other > one)


def _less(one: Any, other: Any) -> bool:
    return bool(other < one)


def _opened(one: Any, other: Any) -> bool:
    """A window that is new only narrows; any other change may let in hours that were shut."""
    return one is not None


def _ranked(*ranks: Any) -> Callable[[Any, Any], bool]:
    return lambda one, other: ranks.index(other) > ranks.index(one)


def _tolerates_more(one: Mapping[Outcome, Tolerance], other: Mapping[Outcome, Tolerance]) -> bool:
    strict = _ranked(Answer.HALT, Answer.HOLD, Answer.COUNT)
    return any(
        outcome not in other or other[outcome].at_most > known.at_most or strict(known.then, other[outcome].then)
        for outcome, known in one.items()
    )


def _fewer(one: Any, other: Any) -> bool:
    return not set(one) <= set(other)


def _faster(one: Rate | None, other: Rate | None) -> bool:
    return other is None or (one is not None and (other.every < one.every or other.burst > one.burst))


def _more_per(one: Per | None, other: Per | None) -> bool:
    if one is None or other is None:
        return other is None
    return other.label != one.label or other.at_most > one.at_most


_Directions = Mapping[str, tuple[str, Callable[[Any, Any], bool]]]

_PACE: Final[_Directions] = {
    "in_flight": ("pace.in_flight", _more),
    "stake": ("pace.stake", _more),
    "per": ("pace.per", _more_per),
    "rate": ("pace.rate", _faster),
}

_OF_A_WAVE: Final[_Directions] = {
    "wave": ("wave", _never),
    "after": ("after", _never),  # `fixed` says what may not change
    "awaits_promotion": ("promote", _never),  # it has opened
    "approvals": ("approve.open", _never),  # `approvals.lower` refuses all of these
    "window": ("window", _opened),
    "cover": ("deltas.cover", _less),
    "within": ("deltas.within", _less),
    "otherwise": ("deltas.otherwise", _ranked(Otherwise.HOLD, Otherwise.SKIP, Otherwise.FULL)),
    "from_unknown": ("deltas.from_unknown", _ranked(FromUnknown.SKIP, FromUnknown.FULL)),
    "at_least": ("bake.at_least", _less),
    "reports": ("bake.reports", _less),
    "at_most": ("bake.at_most", _more),
    "early": ("bake.early", _ranked(False, True)),
    "gates": ("gates", _never),  # it has opened
    **_PACE,
}

_OF_ALL: Final[_Directions] = {
    "waves": ("waves", _never),  # each for itself
    "tolerate": ("tolerate", _tolerates_more),
    "classes": ("tolerate.codes", _changed),
    "unhealthy_apart": ("unhealthy_before", _ranked(False, True)),
    "first_slice": ("slices.first", _more),
    "growth": ("slices.growth", _more),
    "slice_at_most": ("slice_at_most", _less),
    "open_at_most": ("open_at_most", _less),
    "reach": ("reach", _more),
    "silent_after": ("silent_after", _more),
    "offer_window": ("offer_window", _opened),
    **_PACE,
    "dimensions": ("dimensions", _never),
    "segments": ("segments", _fewer),
    "false_exclude": ("false_exclude", _less),
    "on_segment": ("on_segment", _ranked(OnSegment.HALT, OnSegment.EXCLUDE)),
    "escalate_over": ("escalate_over", _more),
    "cancels": ("on_halt", _ranked(True, False)),
    "approve_start": ("approve.start", _never),
    "approve_open": ("approve.open", _never),
    "approve_resume": ("approve.resume", _never),
}

_OFFERS: Final = frozenset({*_PACE, "offer_window", "from_unknown", "otherwise"})
"""What still concerns the stragglers of a wave that has passed."""

_JUDGES: Final = frozenset(
    {
        "tolerate",
        "classes",
        "unhealthy_apart",
        "silent_after",
        "segments",
        "false_exclude",
        "on_segment",
        "escalate_over",
    }
)
"""What judges the evidence of the whole rollout, whatever wave it is from."""
