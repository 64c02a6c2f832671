"""May this device be offered this rollout's Target now, and if not, why not yet? (RULES 1, 3.6, 5, 6, 7)

Pure, and asked in three places with the same answer: by the snapshot (which may only believe the *no*), inside the
transaction that gives the offer, and by ``wave explain DEVICE``. Three questions, in this order: ``may_offer`` whether
the device's turn has come, ``label_limits`` whom to count beside it, and ``way`` how it would get the content.

The order of the checks is fixed, from what a person can least change to what time brings: the device itself, the
freeze, the rollout, what the device came to before, eligibility, excluded segments, wave, slice, budgets, hours, pace;
then deltas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from orchestrator.core.admission import AMBER_STAKE, Flow, bearable
from orchestrator.core.artifact import Format
from orchestrator.core.facts import BudgetFacts, RolloutState, WaveState
from orchestrator.core.fleet import Device, DeviceStatus, Scope, segment_value
from orchestrator.core.membership import WaveSelector, wave_of
from orchestrator.core.pace import Paced
from orchestrator.core.policy import FromUnknown, Otherwise
from orchestrator.core.position import position
from orchestrator.core.protocols import SPOKEN_AS, TAKES_FILES, TAKES_ONLY, TAKES_OSTREE, DeviceProtocol, takes_whole
from orchestrator.core.reasons import (
    budget_sentence,
    devices,
    excluded_offer_sentence,
    failing_sentence,
    names,
)
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.slices import (
    ROLLOUT,
    WANDERING,
    Slice,
    dimension_of,
    segment_population,
    slice_of,
    wave_population,
)
from orchestrator.core.states import OFFERING_ROLLOUT, OFFERING_WAVE, Reason, RolloutStatus, WaveStatus
from orchestrator.core.update import Update, UpdateStatus


class NoOfferKind(StrEnum):
    """Why there is no offer: the bounded word beside the sentence."""

    RETIRED = "retired"
    HELD = "held"
    FROZEN = "frozen"
    ROLLOUT = "rollout"
    CONFIRMED = "confirmed"
    OUTCOME = "outcome"
    UNDER_WAY = "under_way"
    TAG = "tag"
    HARDWARE = "hardware"
    CONTENT = "content"
    ALREADY_THERE = "already_there"
    VERSION = "version"
    EXCLUDED = "excluded"
    NO_WAVE = "no_wave"
    WAVE = "wave"
    SLICE = "slice"
    BUDGET = "budget"
    OFFER_WINDOW = "offer_window"
    PACE = "pace"
    EVIDENCE = "evidence"
    AMBER = "amber"
    WAVE_PACE = "wave_pace"
    RATE = "rate"
    PER = "per"
    ELSEWHERE = "elsewhere"
    DELTA = "delta"
    FROM_UNKNOWN = "from_unknown"


@dataclass(frozen=True, slots=True)
class NoOffer:
    """Why not, in one sentence, and the earliest moment at which time alone changes that (None: not a matter of
    time)."""

    kind: NoOfferKind
    sentence: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Offerable:
    """The device may have the offer. ``places``: in the rollout and in the wave; ``segments``: in its segments."""

    wave: str
    slice: int
    places: tuple[int, int]
    segments: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the device has had of this rollout: its update with the place and the segments that an offer froze (RULES
    3.6)."""

    update: Update
    wave: str
    slice: int
    places: tuple[int, int]
    segments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """A rollout as far as offers depend on it.

    ``slices`` by wave, in the order of their opening. ``flow``: how many are at it and what bounds them, in the rollout
    and, by wave, in ``wave_flows``. ``budget``: one that is used up. ``frozen``: why all offers are stopped.
    """

    state: RolloutState
    rules: Rules
    scope: Scope
    slices: Mapping[str, Sequence[Slice]] = field(default_factory=dict)
    flow: Flow = field(default_factory=Flow)
    wave_flows: Mapping[str, Flow] = field(default_factory=dict)
    budget: BudgetFacts | None = None
    frozen: Reason | None = None


_REPEATED: Final = frozenset({UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING})
"""An offer that stands is told again to a device that asks in these: it may have lost power half-way."""

_RENEWED: Final = frozenset({UpdateStatus.WITHDRAWN, UpdateStatus.LEFT, UpdateStatus.RETIRED})
"""From these the offer is given anew, with the same place."""


def may_offer(terms: Terms, device: Device, earlier: Earlier | None, now: datetime) -> Offerable | NoOffer:
    """Whether the device's turn has come, deltas aside. What it had before keeps wave, slice and places."""
    for stop in (_device, _standing):
        if (no := stop(terms, device)) is not None:
            return no
    if earlier is not None and (no := _came_to(earlier.update)) is not None:
        return no
    if (no := _ineligible(terms.scope, device)) is not None:
        return no
    if (no := _excluded(terms.state, device, earlier)) is not None:
        return no
    found = _kept(earlier) if earlier is not None else _place(terms, device)
    if isinstance(found, NoOffer):
        return found
    if (no := _wave(terms.state, terms.state.wave(found.wave))) is not None:
        return no
    return limited(terms, found.wave, now, outstanding=outstanding(earlier)) or found


def outstanding(earlier: Earlier | None) -> bool:
    """Whether an offer stands that is only told again: it has its part of the pace already."""
    return earlier is not None and earlier.update.status in _REPEATED


@dataclass(frozen=True, slots=True)
class LabelLimit:
    """At most ``at_most`` devices that carry ``value`` under ``label`` may be at it, in the rollout or (``wave``) in a
    wave of it. The label is the device's as it is now."""

    label: str
    value: str
    at_most: int
    wave: str | None = None

    def reached(self, flying: int) -> NoOffer | None:
        """Why not, when so many of them are at it already."""
        if flying < self.at_most:
            return None
        whose = f" of wave {self.wave}" if self.wave else ""
        at_it = f"{devices(flying)}{whose} with {self.label} {self.value} {'is' if flying == 1 else 'are'} under way"
        return NoOffer(NoOfferKind.PER, f"{at_it}; at most {self.at_most} may be at once.")


def label_limits(terms: Terms, wave: str, device: Device) -> tuple[LabelLimit, ...]:
    """What is left to ask of a device that ``may_offer`` lets through, where no offer stands: who shares its label's
    value must be counted. A device without the label shares it with nobody, and is not limited by it."""
    found = []
    for per, of in ((terms.rules.per, None), (terms.rules.wave(wave).per, wave)):
        value = None if per is None else device.labels.get(per.label)
        if per is not None and value is not None:
            found.append(LabelLimit(per.label, value, per.at_most, of))
    return tuple(found)


def unfit(protocol: DeviceProtocol, *, file: Format | None) -> NoOffer | None:
    """What a device's protocol has against a Target that is a ``file`` of that kind, or (None) an OSTree commit. Who
    was offered what it is never shown would count as ignoring it."""
    if protocol in TAKES_ONLY and file is not None and file is not TAKES_ONLY[protocol]:
        only, other = TAKES_ONLY[protocol].sentence, file.sentence
        takes, it_is = only.partition(":")[0], other.partition(":")[0]
        return NoOffer(
            NoOfferKind.CONTENT, f"It speaks {SPOKEN_AS[protocol]}, which takes {takes}; the Target is {it_is}."
        )
    if protocol not in (TAKES_FILES if file is None else TAKES_OSTREE):
        return None
    takes, it_is = ("files", "an OSTree commit") if protocol in TAKES_FILES else ("OSTree commits", "a file")
    return NoOffer(NoOfferKind.CONTENT, f"It speaks {SPOKEN_AS[protocol]}, which takes {takes}; the Target is {it_is}.")


def awaited(protocol: DeviceProtocol, no: NoOffer, device: Device) -> NoOffer:
    """What is waited for of a device that has written the Target, where its protocol says no more than that."""
    if protocol is not DeviceProtocol.DDI or no.kind is not NoOfferKind.UNDER_WAY:
        return no
    never = "" if device.commit is not None else " It has never said one, so it would never be confirmed."
    return NoOffer(no.kind, f"It has written the Target, and is confirmed when its configData says its version.{never}")


def elsewhere(rollout: str) -> NoOffer:
    """A started update of another rollout comes to its outcome first (RULES 7.1)."""
    return NoOffer(
        NoOfferKind.ELSEWHERE, f"Its update in rollout {rollout} has started and must come to its end first."
    )


def _device(terms: Terms, device: Device) -> NoOffer | None:
    match device.status:
        case DeviceStatus.RETIRED:
            return NoOffer(NoOfferKind.RETIRED, "The device is retired.")
        case DeviceStatus.HELD:
            because = f": {device.held_because.rstrip('.')}" if device.held_because else ""
            return NoOffer(NoOfferKind.HELD, f"A person holds the device{because}.")
        case DeviceStatus.ACTIVE:
            return None
        case _:
            assert_never(device.status)


def _standing(terms: Terms, device: Device) -> NoOffer | None:
    if terms.frozen is not None:
        return NoOffer(NoOfferKind.FROZEN, f"All offers are frozen: {terms.frozen.sentence}")
    state = terms.state
    if state.status not in OFFERING_ROLLOUT:
        sentence = f"Rollout {state.rollout} is {state.status}: {state.standing.reason.sentence}"
        return NoOffer(NoOfferKind.ROLLOUT, sentence, state.start_at)
    return None


def _came_to(update: Update) -> NoOffer | None:
    """What the update has come to already, when that rules out another offer."""
    if update.status in _REPEATED:
        return None
    if update.status in (UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED):
        return None  # with an outcome it is a retry that was taken back: a person's word for it stands
    if update.status is UpdateStatus.APPLIED:
        return NoOffer(NoOfferKind.UNDER_WAY, "It has written the Target and waits for its reboot.")
    if update.bad_outcome:
        word = update.status.replace("_", " ")
        return NoOffer(NoOfferKind.OUTCOME, f"Its update is {word}: only `wave retry` offers it again.")
    if update.status in _RENEWED:
        return None
    return NoOffer(NoOfferKind.CONFIRMED, "It has confirmed that it runs the Target.")


def _ineligible(scope: Scope, device: Device) -> NoOffer | None:
    if device.tag != scope.tag:
        return NoOffer(NoOfferKind.TAG, f"It follows the tag {device.tag}; the rollout is for {scope.tag}.")
    if device.hardware_id not in scope.commits:
        return NoOffer(NoOfferKind.HARDWARE, f"Version {scope.version} does not exist for {device.hardware_id}.")
    if scope.already_there(device):
        return NoOffer(NoOfferKind.ALREADY_THERE, f"It already runs version {scope.version} or a newer one.")
    if scope.from_versions and device.version not in scope.from_versions:
        versions = ", ".join(map(str, scope.from_versions))
        return NoOffer(NoOfferKind.VERSION, f"The rollout takes back only devices that run {versions}.")
    return None


def _excluded(state: RolloutState, device: Device, earlier: Earlier | None) -> NoOffer | None:
    if not state.excluded:
        return None
    out = state.excluded_segments
    # Whoever was offered before is in the segments that the offer froze, whatever has become of it since. Others are in
    # those of any dimension in which one is excluded, also where an edit has taken the dimension from the rules.
    segments: Iterable[str]
    if earlier is not None:
        segments = earlier.segments
    else:
        segments = segments_of(device, sorted({dimension_of(segment) for segment in out}))
    segment = next((each for each in segments if each in out), None)
    if segment is None:
        return None
    return NoOffer(NoOfferKind.EXCLUDED, excluded_offer_sentence(segment, state))


def _kept(earlier: Earlier) -> Offerable:
    return Offerable(earlier.wave, earlier.slice, earlier.places)


def _place(terms: Terms, device: Device) -> Offerable | NoOffer:
    """Wave, slice and places of a device that has none yet."""
    selector = wave_of(device.member, terms.scope.selectors)
    if selector is None:
        return NoOffer(NoOfferKind.NO_WAVE, "It is in no wave of the rollout.")
    wave = selector.wave
    if (no := _wave(terms.state, terms.state.wave(wave))) is not None:
        return no
    if device.since_at is None:
        return NoOffer(NoOfferKind.SLICE, "It has not been seen yet, so no slice counts it.")
    opened = terms.slices.get(wave, ())
    found = place_in(opened, selector, device, terms.rules.dimensions)
    if found is None:
        return NoOffer(NoOfferKind.SLICE, f"It waits for a later slice of wave {wave}; {len(opened)} are open so far.")
    return found


def place_in(
    opened: Sequence[Slice], selector: WaveSelector, device: Device, dimensions: Sequence[str]
) -> Offerable | None:
    """The place of a member of the selector's wave in its slices opened so far; None when it is in none of them."""
    at = position(device.member.hash, selector.salt)
    piece = None if device.since_at is None else slice_of(opened, at, device.since_at)
    if piece is None:
        return None
    wave = selector.wave
    places = piece.places(at, (ROLLOUT, wave_population(wave), *segments_of(device, dimensions)))
    mine = (places.pop(ROLLOUT), places.pop(wave_population(wave)))
    return Offerable(wave, piece.number, mine, places)


def mistaken(terms: Terms, before: Device, after: Device) -> bool:
    """Whether the slice that holds a device without an offer would take it for one that it counted in the version it
    runs now, and give it a place that is another's."""
    value = segment_value(after, WANDERING)
    if value is None or value == segment_value(before, WANDERING):
        return False
    selector = wave_of(before.member, terms.scope.selectors)
    if selector is None or before.since_at is None:
        return False
    at = position(before.member.hash, selector.salt)
    piece = slice_of(terms.slices.get(selector.wave, ()), at, before.since_at)
    return piece is not None and piece.takes_anyone(segment_population(WANDERING, value))


def segments_of(device: Device, dimensions: Sequence[str]) -> tuple[str, ...]:
    """The segments a device is in, as populations; in none of a dimension in which it has no value."""
    return tuple(
        segment_population(name, value) for name in dimensions if (value := segment_value(device, name)) is not None
    )


def _wave(state: RolloutState, wave: WaveState) -> NoOffer | None:
    """RULES 1.1; in a completed rollout every wave offers that nobody cancelled, skipped ones too."""
    if state.status is RolloutStatus.COMPLETED:
        offers = wave.serves_when_completed()
    else:
        offers = wave.status in OFFERING_WAVE
    if offers:
        return None
    pending = wave.status is WaveStatus.PENDING  # what stands in its record then is only that it was applied
    why = "its turn has not come." if pending else wave.standing.reason.sentence
    return NoOffer(NoOfferKind.WAVE, f"Its wave {wave.wave} is {wave.status}: {why}")


def limited(terms: Terms, wave: str, now: datetime, *, outstanding: bool = False) -> NoOffer | None:
    """What stops the offers of a wave for now, whoever asks: budgets, hours, pace. An offer that stands already has its
    part of the pace."""
    if terms.budget is not None:
        return NoOffer(NoOfferKind.BUDGET, budget_sentence(terms.budget))
    window = terms.rules.offer_window
    if window is not None and not window.is_open(now):
        opens = window.next_open(now)
        when = f"at {opens:%Y-%m-%d %H:%M} UTC" if opens else "never again"
        return NoOffer(NoOfferKind.OFFER_WINDOW, f"Offers are given again {when}.", opens)
    if outstanding:
        return None
    mine = terms.wave_flows.get(wave) or Flow()
    # What time alone ends comes last, so that its moment is promised only where nothing else stands in the way.
    own = terms.rules.wave(wave)
    return _at_once(terms.rules, terms.flow, None) or _at_once(own, mine, wave) or _rated(terms, mine, wave, now)


def _at_once(paced: Paced, flow: Flow, wave: str | None) -> NoOffer | None:
    """How many may be at it in the rollout (``wave`` None) or in a wave: by a fixed number, by the evidence, by
    amber."""
    flying, who = flow.in_flight, f"{flow.in_flight} of wave {wave}" if wave else devices(flow.in_flight)
    are_at_it = f"{who} {'is' if flying == 1 else 'are'} under way"
    if paced.in_flight is not None and flying >= paced.in_flight:
        kind = NoOfferKind.PACE if wave is None else NoOfferKind.WAVE_PACE
        return NoOffer(kind, f"{are_at_it}; at most {paced.in_flight} may be at once.")
    if paced.stake is not None and flying >= (most := bearable(paced.stake, flow.upper)):
        rate = failing_sentence(flow.upper)
        return NoOffer(NoOfferKind.EVIDENCE, f"{are_at_it}; a stake of {paced.stake} bears {most}: {rate}.")
    if flow.amber and flying >= (most := bearable(AMBER_STAKE, flow.upper)):
        return NoOffer(NoOfferKind.AMBER, f"{are_at_it}; while {names(flow.amber)} is amber at most {most} may be.")
    return None


def _rated(terms: Terms, mine: Flow, wave: str, now: datetime) -> NoOffer | None:
    """The rate that is used up for longest."""
    found = []
    for paced, flow in ((terms.rules, terms.flow), (terms.rules.wave(wave), mine)):
        next_at = paced.rate.next_at(flow.spent_until) if paced.rate is not None else None
        if paced.rate is not None and next_at is not None and next_at > now:
            found.append((next_at, paced.rate))
    if not found:
        return None
    until, rate = max(found, key=lambda each: each[0])
    shown = until + timedelta(microseconds=999_999)  # whoever asks at the second that is named is in time
    sentence = f"At most {rate.words} are offered it; the next at {shown:%Y-%m-%d %H:%M:%S} UTC."
    return NoOffer(NoOfferKind.RATE, sentence, until)


class Way(StrEnum):
    """How a device gets the content: nothing to fetch by delta, by a delta that is there, or whole."""

    SAME = "same"
    DELTA = "delta"
    WHOLE = "whole"


def way(
    terms: Terms,
    wave: str,
    *,
    from_commit: str | None,
    to_commit: str,
    ready: bool,
    known: bool,
    now: datetime,
    begun_at: datetime | None = None,
    over: DeviceProtocol = DeviceProtocol.OWN,
    installs: bool = False,
) -> Way | NoOffer:
    """How the device of this wave gets the content, or why it must wait for its delta (RULES 6). ``over``: its
    protocol; where that has no deltas, none is waited for and none is handed over, unless (``installs``) deltas here
    are artifacts that a device installs as they are.

    ``ready``: its delta is recorded; ``known``: the repository has its commit, so that a delta could be built;
    ``begun_at``: since when its delta is being made, where that began after the wave opened.
    """
    if from_commit == to_commit:
        return Way.SAME
    if ready:
        return Way.WHOLE if takes_whole(over, installs=installs) else Way.DELTA
    if terms.state.serve_whole:
        return Way.WHOLE
    rules = terms.rules.wave(wave)
    if from_commit is None or not known:
        if rules.from_unknown is FromUnknown.FULL:
            return Way.WHOLE
        sentence = "What it runs is not in the repository, and the policy skips such devices."
        return NoOffer(NoOfferKind.FROM_UNKNOWN, sentence)
    if takes_whole(over, installs=installs):
        return Way.WHOLE
    return _late(terms.state.wave(wave), rules, begun_at, now)


def _late(wave: WaveState, rules: WaveRules, begun_at: datetime | None, now: datetime) -> Way | NoOffer:
    """The time for deltas runs from the wave's preparing, from a person's later word, and for a from-commit that turned
    up later from then."""
    begun = [wave.prepared_at or wave.standing.since, wave.granted_at, begun_at]
    ends = max(at for at in begun if at is not None) + rules.within
    match rules.otherwise:
        case Otherwise.FULL:
            if now >= ends:
                return Way.WHOLE
            minutes = math.ceil((ends - now).total_seconds() / 60)
            sentence = f"Its delta is being made; in {minutes} minutes at the latest it is served whole."
            return NoOffer(NoOfferKind.DELTA, sentence, ends)
        case Otherwise.HOLD | Otherwise.SKIP:
            return NoOffer(NoOfferKind.DELTA, "Its delta is not ready yet.")
        case _:
            assert_never(rules.otherwise)
