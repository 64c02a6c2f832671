"""What must hold at any moment of any story, whatever the story is about.

Everything is counted again from the outside: from what devices know to be true of themselves, from single updates, from
the journal. Nothing here asks the tallies what the tallies should be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orchestrator.core.evidence.interval import interval
from orchestrator.core.facts import Facts
from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.journal import Entry, first_break
from orchestrator.core.membership import wave_of
from orchestrator.core.outcomes import Outcome, OutcomeClass
from orchestrator.core.policy import FromUnknown, Otherwise
from orchestrator.core.position import position
from orchestrator.core.rules import Rules
from orchestrator.core.slices import ROLLOUT, slice_of, wave_population
from orchestrator.core.states import OFFERING_ROLLOUT, OFFERING_WAVE, RolloutStatus, WaveStatus
from orchestrator.core.update import KINDS_OF_FAILURE, Counts, EventKind, UpdateStatus, counted
from orchestrator.services.chronicle import rules_of
from orchestrator.services.records import RolloutRow, UpdateRow
from orchestrator.services.replaying import Replayer
from orchestrator.services.store import Reading
from orchestrator.services.verifying import Verifier

if TYPE_CHECKING:
    from tests.stories.devices import SimDevice, SimOffer
    from tests.stories.simulator import Simulation

ENDS = KINDS_OF_FAILURE.keys() - {EventKind.DOWNLOAD_FAILED}
"""Reports after which a device has come to a bad end."""

DONE_EVENTS = frozenset({"passed", "skipped"})
STOPS = frozenset({"halted", "held", "paused", "cancelled"})
OVER = frozenset({UpdateStatus.WITHDRAWN, UpdateStatus.LEFT, UpdateStatus.RETIRED})
GOES_ON = frozenset({"resumed", "completed"})


# ------------------------------------------------------------------------------------------------- each offer


def hold_offer(sim: Simulation, device: SimDevice, offer: SimOffer) -> None:
    """RULES 1 and 6, at the moment an offer is in a device's hands."""
    with sim.store.reading() as r:
        row, known = r.rollout(offer.rollout), r.device(device.id)
        assert row is not None and known is not None
        update = r.update(row.key, known.key)
        facts, frozen = r.facts(row, now=sim.now), r.frozen()
    where = f"{device.id} was offered {offer.rollout} at {sim.now:%a %d %b %H:%M}"
    assert update is not None, f"{where} and nothing was written"
    wave = row.state.wave(update.wave)
    rules = rules_of(row)
    assert known.device.status is DeviceStatus.ACTIVE, where
    assert row.state.status in OFFERING_ROLLOUT, f"{where} while it is {row.state.status}"
    if row.state.status is RolloutStatus.COMPLETED:
        assert wave.status is not WaveStatus.CANCELLED, f"{where} in cancelled wave {wave.wave}"
    else:
        assert wave.status in OFFERING_WAVE, f"{where} in wave {wave.wave}, which is {wave.status}"
    assert frozen is None, f"{where} while all is frozen"
    out = row.state.excluded_segments & update.segments.keys()
    assert not out, f"{where} though {sorted(out)} is excluded"
    assert not any(budget.reached for budget in facts.budgets), f"{where} over a budget"
    assert rules.offer_window is None or rules.offer_window.is_open(sim.now), f"{where} outside the offer window"
    if rules.in_flight is not None:
        flying = sum(each.in_flight for each in facts.waves)
        assert flying <= rules.in_flight, f"{where}, so {flying} are at it"
    if update.update.offered_at == sim.now:
        _hold_pace(sim, row, rules, update, facts, device, where)
    if not offer.by_delta and device.commit != offer.commit:
        _hold_whole(sim, row, rules, update, device, where)


def _hold_pace(
    sim: Simulation, row: RolloutRow, rules: Rules, update: UpdateRow, facts: Facts, device: SimDevice, where: str
) -> None:
    """A new offer keeps every pace, the rollout's and its wave's."""
    for paced, wave in ((rules, None), (rules.wave(update.wave), update.wave)):
        these = [each for each in facts.waves if wave in (None, each.wave)]
        flying = sum(each.in_flight for each in these)
        good = [0]
        places = [0]
        for piece in sorted((piece for each in these for piece in each.slices), key=lambda piece: piece.opened_at):
            places.append(places[-1] + piece.members - piece.excluded)
            good.append(good[-1] + piece.confirmed)
        bound = min(interval(n - ok, n, 0.05).high for n, ok in zip(places, good, strict=True))
        if paced.stake is not None:
            assert flying <= max(1, paced.stake / bound), f"{where}, so {flying} are at it, and {bound} may fail"
        amber = [each for each in facts.monitors if each.amber and not each.accepted]
        if any(
            (each.wave, each.segment) == (wave, None) and each.outcomes != (OutcomeClass.DOWNLOAD_FAILED,)
            for each in amber
        ):
            assert flying <= max(1, 1 / bound), f"{where} while it is amber, so {flying} are at it"
        if paced.rate is not None:
            span = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[paced.rate.unit]
            given = sim.given.setdefault((row.state.rollout, wave), [])
            given.append(sim.now)
            recent = sum(at > sim.now - span for at in given)
            assert recent <= paced.rate.offers, f"{where}, the {recent}th within {paced.rate}"
        if paced.per is not None and (value := device.labels.get(paced.per.label)) is not None:
            with sim.store.reading() as r:
                updates = r.list_updates(row.key, limit=1_000_000)
            same = [
                each
                for name, each in updates
                if sim.fleet[name].labels.get(paced.per.label) == value
                and wave in (None, each.wave)
                and not each.update.resolved
                and each.update.status not in OVER
            ]
            assert len(same) <= paced.per.at_most, f"{where}, so {len(same)} of {value} are at it"


def _hold_whole(
    sim: Simulation, row: RolloutRow, rules: Rules, update: UpdateRow, device: SimDevice, where: str
) -> None:
    """An offer without a delta: the policy says so (RULES 6.2)."""
    if row.state.serve_whole:
        return
    own = rules.wave(update.wave)
    if not sim.content.has_commit(device.commit):
        assert own.from_unknown is FromUnknown.FULL, f"{where} whole, from a commit nobody knows"
        return
    assert own.otherwise is Otherwise.FULL, f"{where} whole under `otherwise: {own.otherwise}`"
    prepared = row.state.wave(update.wave).prepared_at
    assert prepared is None or sim.now >= prepared + own.within, f"{where} whole before the time for deltas is over"


# ------------------------------------------------------------------------------------------------- all there is


def hold_store(sim: Simulation) -> None:
    """Everything, for every rollout. Times of idle check-ins are written first, as the writer does each second."""
    sim.flush()
    assert not sim.problems, f"ticks met problems: {sim.problems}"
    with sim.store.reading() as r:
        found = list(r.check())
        assert not found, f"`wave db check` finds {found[:5]}"
        for row in r.rollouts():
            entries = r.journal(row.key, limit=100_000)
            hold_journal(row, entries)
            _hold_silence_after_stops(sim, row, entries)
            if row.scope is not None:
                updates = _updates(r, row, sim)
                _hold_tallies(r, row, updates.values(), sim.now)
                _hold_places(r, row, updates, sim)
                for name, update in updates.items():
                    if row.state.rollout in sim.fleet[name].history:
                        _hold_truth(sim, row, sim.fleet[name], update)
    _hold_replay(sim)


def _hold_replay(sim: Simulation) -> None:
    """Whatever happened so far is as it was written, and is decided the same way again."""
    for verified in Verifier(sim.store).verify():
        assert verified.holds, f"{verified.findings[:3]}"
        again = Replayer(sim.store).replay(verified.rollout)
        assert again.same, f"{verified.rollout} replayed differs: {again.divergences[:3]}"


def _updates(r: Reading, row: RolloutRow, sim: Simulation) -> dict[str, UpdateRow]:
    found = r.list_updates(row.key, limit=1_000_000)
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), "a device has two updates in one rollout"
    told = {name for name, device in sim.fleet.items() if row.state.rollout in device.history}
    # Whoever is retired with a place and without an offer leaves the denominators by an update that nobody was told.
    untold = {name for name, each in found if each.update.status is UpdateStatus.RETIRED and name not in told}
    assert told == set(names) - untold, f"told, not written, or written, not told: {sorted(told ^ set(names))[:5]}"
    return dict(found)


def hold_journal(row: RolloutRow, entries: Sequence[Entry]) -> None:
    """The chain is whole and ends at the row's head; waves open in order, with their deltas."""
    name = row.state.rollout
    assert first_break(entries) is None, f"the journal of {name}: {first_break(entries)}"
    assert (len(entries), entries[-1].hash) == (row.journal_seq, row.journal_hash), f"the journal of {name} has no head"
    rules = rules_of(row)
    done: set[str] = set()
    opened: Counter[str] = Counter()
    for entry in entries:
        if entry.event == "opened":
            assert entry.wave is not None
            before = set(rules.wave(entry.wave).after)
            assert before <= done, f"{name}: wave {entry.wave} opened before {sorted(before - done)} were done"
            opened[entry.wave] += 1
            _hold_gate(name, entry, entries, rules)
        elif entry.event in DONE_EVENTS and entry.wave is not None:
            done.add(entry.wave)
        assert entry.sentence and entry.by, f"{name}: entry {entry.seq} lacks a reason or a name"
    assert all(times == 1 for times in opened.values()), f"{name}: waves opened more than once: {opened}"
    counts = Counter((entry.event, entry.wave, entry.facts.get("slice", {}).get("number")) for entry in entries)
    twice = [key for key, times in counts.items() if key[0] == "slice_opened" and times > 1]
    assert not twice, f"{name}: slices opened twice: {twice}"


def _hold_gate(name: str, entry: Entry, entries: Sequence[Entry], rules: Rules) -> None:
    """P3, from the facts that the entry was based on; those decided together share them."""
    assert entry.wave is not None
    held = entries[entry.facts["as_in"] - 1] if "as_in" in entry.facts else entry
    facts: Mapping[str, Any] = next(wave for wave in held.facts["waves"] if wave["wave"] == entry.wave)
    deltas, own = facts["deltas"], rules.wave(entry.wave)
    assert deltas is not None, f"{name}: wave {entry.wave} opened without a look at its devices"
    covered = deltas["covered"] / deltas["devices"] if deltas["devices"] else 1.0
    if covered < own.cover:
        assert own.otherwise is not Otherwise.HOLD, f"{name}: wave {entry.wave} opened with {covered:.0%} covered"


def _hold_silence_after_stops(sim: Simulation, row: RolloutRow, entries: Sequence[Entry]) -> None:
    """No device was offered between a stop's commit and a person's word."""
    stopped: datetime | None = None
    spells: list[tuple[datetime, datetime]] = []
    for entry in entries:
        if entry.event in STOPS and stopped is None:
            stopped = entry.at
        elif entry.event in GOES_ON and stopped is not None:
            spells.append((stopped, entry.at))
            stopped = None
    if stopped is not None:
        spells.append((stopped, datetime.max.replace(tzinfo=stopped.tzinfo)))
    for offer in sim.offers:
        if offer.rollout == row.state.rollout:
            assert not any(a < offer.at < b for a, b in spells), f"{offer} was given while the rollout was stopped"


# ------------------------------------------------------------------------------------------------- figures


def _hold_tallies(r: Reading, row: RolloutRow, updates: Iterable[UpdateRow], now: datetime) -> None:
    """Each slice's tallies are the sum over its updates, those of excluded segments aside, each budget the devices with
    one of its classes."""
    sums: dict[tuple[str, int], Counts] = {}
    apart: dict[tuple[str, int], Counts] = {}
    bad: Counter[frozenset[Outcome]] = Counter()
    for each in updates:
        key = (each.wave, each.slice)
        assert not each.apart or each.unhealthy_before, "nobody who was well stands apart"
        if not each.excluded:
            of = apart if each.apart else sums
            of[key] = of.get(key, Counts()) + counted(each.update)
        if not each.apart:
            bad[each.update.bad] += 1
    facts = r.facts(row, now=now)
    for wave in facts.waves:
        for piece in wave.slices:
            total = sums.pop((wave.wave, piece.number), Counts())
            stored = (piece.offered, piece.withdrawn, piece.started, piece.applied, piece.resolved, piece.confirmed)
            recount = (total.offered, total.withdrawn, total.started, total.applied, total.resolved, total.confirmed)
            assert stored == recount, f"{wave.wave}/{piece.number} has {stored}, its devices say {recount}"
            assert piece.left == total.left
            assert dict(piece.bad) == {k: n for k, n in Counter(total.bad).items() if n}, f"{wave.wave}/{piece.number}"
            aside, one = piece.apart, apart.pop((wave.wave, piece.number), Counts())
            assert (aside.offered, aside.resolved, aside.confirmed) == (one.offered, one.resolved, one.confirmed)
            assert dict(aside.bad) == dict(Counter(one.bad)), f"{wave.wave}/{piece.number}, unhealthy before"
    assert not sums and not apart, f"updates in slices that are not there: {sums}"
    for budget in facts.budgets:
        counted_bad = sum(times for classes, times in bad.items() if classes & set(budget.outcomes))
        assert budget.bad == counted_bad, f"budget {budget.name} has {budget.bad}, its devices say {counted_bad}"


def _hold_places(r: Reading, row: RolloutRow, updates: Mapping[str, UpdateRow], sim: Simulation) -> None:
    """P9: one wave each, by the selectors; wave, slice and places follow from the device and the slice table; no
    place is given twice; the first slice holds the first moment of its wave and the last the rest."""
    assert row.scope is not None
    slices = {wave.wave: r.slices(row.key, wave.wave) for wave in row.state.waves}
    places: Counter[int] = Counter()
    for name, update in updates.items():
        places[update.places[0]] += 1
        known = r.device(name)
        assert known is not None
        device = known.device
        truth = sim.fleet[name].history.get(row.state.rollout)
        # The first offer froze the place; a later one, after a retry, may find the device a newcomer to the slices.
        if name in sim.changed or truth is None or device.since_at is None or device.since_at > truth.offered_at:
            continue
        selector = wave_of(device.member, row.scope.selectors)
        assert selector is not None and selector.wave == update.wave, f"{name} is in {selector} and in {update.wave}"
        at = position(device.member.hash, selector.salt)
        piece = slice_of(slices[update.wave], at, device.since_at)
        assert piece is not None and piece.number == update.slice, f"{name} is in slice {piece} and {update.slice}"
        expected = piece.places(at, (ROLLOUT, wave_population(update.wave)))
        assert tuple(expected.values()) == update.places, f"{name} has places {update.places}, not {expected}"
    twice = {place: times for place, times in places.items() if times > 1}
    assert not twice, f"places of {row.state.rollout} that several devices have: {twice}"
    for state in row.state.waves:
        pieces = slices[state.wave]
        if pieces and state.opened_at is not None:
            assert pieces[0].opened_at == state.opened_at, f"the first slice of {state.wave} came late"
        for before, after in pairwise(pieces):
            assert before.opened_at <= after.opened_at


def _hold_truth(sim: Simulation, row: RolloutRow, device: SimDevice, stored: UpdateRow) -> None:
    """What is counted of a device is what it did, and what it said is counted."""
    update, truth = stored.update, device.history[row.state.rollout]
    who = f"{device.id} in {row.state.rollout}"
    said = truth.failures(rules_of(row).classes)
    for kind in ENDS & said.keys():
        assert said[kind] <= update.bad, f"{who}: it {kind} and is counted as {sorted(update.bad)}"
    unsaid = update.bad - {OutcomeClass.SILENT, OutcomeClass.IGNORED}.union(*said.values())
    if truth.back_at is not None:
        unsaid -= {OutcomeClass.ROLLED_BACK}
    assert not unsaid, f"{who}: {sorted(unsaid)}, of which it knows nothing"
    if update.counts_as_confirmed:
        assert truth.confirmed_at is not None, f"{who}: confirmed without having run it"
    if truth.confirmed_at is not None and truth.back_at is None and not update.bad_outcome:
        assert update.confirmed_at is not None or device.id in sim.changed, f"{who}: it runs the Target, uncounted"
    if OutcomeClass.SILENT in update.bad:
        was_away = any(end > truth.offered_at for _, end in device.away)
        came_to_nothing = truth.confirmed_at is None and not ENDS & said.keys()
        assert device.dead or was_away or came_to_nothing, f"{who}: silent, though it had come to an end"
    patience = max(rules_of(row).silent_after, 4 * device.habits.every) + timedelta(hours=2)
    ticked = row.state.status in (RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.HELD)
    over = update.status in (UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED)
    if device.dead and ticked and not update.resolved and not over:
        last = max([truth.offered_at, *(at for at, _ in truth.events)])
        downtime = sum((end - start for start, end in sim.down), timedelta(0))
        assert sim.now - last < patience + downtime, f"{who}: dead since {last} and still not silent"
