"""What paces a rollout's offers, in words: before it starts for ``plan``, as it stands for ``status``, ``explain``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.admission import AMBER_STAKE, Flow, bearable
from orchestrator.core.decide import OFFERED_ENOUGH
from orchestrator.core.evidence.confident import good_needed, rate_of, reports_needed
from orchestrator.core.pace import Paced, limits
from orchestrator.core.reasons import devices, failing_sentence, moment, names, percent
from orchestrator.core.rules import Rules, WaveRules

_ROUND_UP: Final = timedelta(microseconds=999_999)


def planned(rules: Rules) -> tuple[str, ...]:
    """How fast offers will be given, a sentence for each limit: the rollout's own, then the waves'."""
    own: list[tuple[str, Paced]] = [(f"Wave {wave.wave}: ", wave) for wave in rules.waves if limits(wave)]
    return tuple(f"{whose}{_capital(said, whose)}" for whose, paced in (("", rules), *own) for said in _planned(paced))


def _planned(paced: Paced) -> Iterator[str]:
    if paced.in_flight is not None:
        yield f"at most {devices(paced.in_flight)} under way at once."
    if paced.stake is not None:
        first = devices(paced.stake)
        yield f"{first} under way at first, then as many as confirmations bear at a stake of {paced.stake}."
    if paced.per is not None:
        most, label = devices(paced.per.at_most), paced.per.label
        yield f"at most {most} under way at once for each {label}; who has none is not limited by it."
    if paced.rate is not None:
        yield f"at most {paced.rate.words} are offered it, {paced.rate.burst} of them at once."


def early(wave: WaveRules, rules: Rules, eligible: int) -> str:
    """What it takes for a wave of so many devices to pass before its time; empty where it never may."""
    rate = rate_of(rules.tolerate)
    if not wave.early or not eligible or not 0.0 < rate < 1.0:
        return ""
    needed = good_needed(eligible, rate)
    if needed is None:
        fewest = reports_needed(0, rate)
        return f"Too small to pass early: to prove that fewer than {percent(rate)} fail takes {fewest} devices."
    first = reports_needed(0, rate)
    if needed == eligible:
        return f"Passes early once all of its first {first} or more have confirmed."
    return f"Passes early once {needed} of its {devices(eligible)} have confirmed, or all of its first {first} or more."


def quickest(wave: WaveRules, rules: Rules, reachable: int) -> timedelta:
    """The least time that a wave with so many reachable devices takes to pass, as far as rate and bake say."""
    rate = rate_of(rules.tolerate)
    proves = wave.early and 0.0 < rate < 1.0 and good_needed(reachable, rate) is not None
    return offering(wave, rules, reachable) + (timedelta(0) if proves else wave.at_least)


def offering(wave: WaveRules, rules: Rules, reachable: int) -> timedelta:
    """The least time in which enough of so many reachable devices have the offer for the bake to begin."""
    enough = math.ceil(OFFERED_ENOUGH * reachable)
    return max((each.rate.time_for(enough) for each in (rules, wave) if each.rate is not None), default=timedelta(0))


def standing(rules: Rules, flow: Flow, wave_flows: Mapping[str, Flow], now: datetime) -> tuple[str, ...]:
    """How its offers flow now, a sentence for each limit and each amber monitor."""
    found = [("", sentence) for sentence in _standing(rules, flow, now)]
    for wave in rules.waves:
        if (own := wave_flows.get(wave.wave)) is not None:
            found += [(f"Wave {wave.wave}: ", sentence) for sentence in _standing(wave, own, now)]
    return tuple(f"{whose}{_capital(sentence, whose)}" for whose, sentence in found)


def _standing(paced: Paced, flow: Flow, now: datetime) -> Iterator[str]:
    flying = flow.in_flight
    if flow.amber:
        most = bearable(AMBER_STAKE, flow.upper)
        yield f"{names(flow.amber)} amber: {_under_way(flying, most)}; {failing_sentence(flow.upper)}."
    if paced.in_flight is not None:
        yield f"{_under_way(flying, paced.in_flight)}."
    if paced.stake is not None:
        most = bearable(paced.stake, flow.upper)
        bears = f"{_under_way(flying, most)} that the evidence bears at a stake of {paced.stake}"
        yield f"{bears}; {failing_sentence(flow.upper)}."
    if paced.per is not None:
        yield f"at most {devices(paced.per.at_most)} under way for each {paced.per.label}."
    if paced.rate is not None:
        next_at = paced.rate.next_at(flow.spent_until)
        when = "now" if next_at is None or next_at <= now else f"at {moment(next_at + _ROUND_UP)}"
        yield f"at most {paced.rate.words} are offered it; the next may be {when}."


def _under_way(flying: int, most: int) -> str:
    return f"{flying:,} under way of at most {most:,}"


def _capital(sentence: str, before: str) -> str:
    return sentence if before else sentence[0].upper() + sentence[1:]
