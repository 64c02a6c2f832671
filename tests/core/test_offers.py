"""Why a device is offered the Target now, or not yet: one test a reason, and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.admission import Flow, bearable
from orchestrator.core.artifact import Format
from orchestrator.core.facts import BudgetFacts, Excluded, RolloutState, WaveState
from orchestrator.core.fleet import Device, DeviceStatus, Scope
from orchestrator.core.membership import WaveSelector
from orchestrator.core.offers import (
    Earlier,
    LabelLimit,
    NoOffer,
    NoOfferKind,
    Offerable,
    Terms,
    Way,
    label_limits,
    may_offer,
    mistaken,
    unfit,
    way,
)
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.pace import Per, Rate
from orchestrator.core.policy import FromUnknown, Otherwise
from orchestrator.core.position import SPACE, position, wave_salt
from orchestrator.core.protocols import TAKES_WHOLE, DeviceProtocol
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.slices import ROLLOUT, UNCOUNTED, Slice, coarse_ranks, exact_ranks, wave_population
from orchestrator.core.states import Reason, ReasonKind, RolloutStatus, Standing, WaveStatus
from orchestrator.core.update import Update, UpdateStatus
from orchestrator.core.window import Window

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
OLD, NEW = "a" * 64, "b" * 64
STANDING = Standing(Reason(ReasonKind.STARTED, "Started by anna."), NOW - HOUR, "anna")
SALT = wave_salt("salt", "lab")
SCOPE = Scope("lmp-42", "promoted", 42, {"rpi4": NEW}, (WaveSelector("lab", SALT, group="lab"),))
DEVICE = Device(
    "dev-1", "rpi4", "promoted", group="lab", commit=OLD, version=41, since_at=NOW - 5 * HOUR, last_seen_at=NOW
)
AT = position(DEVICE.member.hash, SALT)
RANKS = exact_ranks([AT // 2, AT])
BY_POPULATION = {ROLLOUT: RANKS, wave_population("lab"): RANKS, "hardware_id=rpi4": RANKS}
SLICE = Slice("lab", 1, SPACE, NOW - HOUR, {ROLLOUT: 10}, BY_POPULATION)


def state(
    status: RolloutStatus = RolloutStatus.RUNNING, wave: WaveStatus = WaveStatus.OPEN, **more: Any
) -> RolloutState:
    waves = (WaveState("lab", wave, STANDING, prepared_at=NOW - HOUR),)
    return RolloutState("lmp-42", status, STANDING, epoch=1, waves=waves, **more)


def terms(**more: Any) -> Terms:
    known: dict[str, Any] = {
        "state": state(),
        "rules": Rules((WaveRules("lab"),)),
        "scope": SCOPE,
        "slices": {"lab": (SLICE,)},
    }
    return Terms(**(known | more))


def update(status: UpdateStatus, **more: Any) -> Earlier:
    made = Update(status, None, offered_at=NOW - HOUR, from_commit=OLD, to_commit=NEW, **more)
    return Earlier(made, "lab", 3, (7, 5))


def kind(found: Offerable | NoOffer) -> NoOfferKind | None:
    return found.kind if isinstance(found, NoOffer) else None


def test_a_device_whose_turn_has_come_gets_its_place_by_position() -> None:
    found = may_offer(terms(), DEVICE, None, NOW)
    assert found == Offerable("lab", 1, (12, 2), {"hardware_id=rpi4": 2, "source_version=41": UNCOUNTED})


def test_only_a_slice_that_knows_counts_alone_would_take_a_device_for_one_of_another_version() -> None:
    """Up to 1,000 members it tells who came into the version since, and gives it no place there; above, whoever comes
    would share a place with one that it counted."""
    coarse = coarse_ranks(dict.fromkeys(range(256), 8))
    large = replace(SLICE, ranks={wave_population("lab"): coarse, "source_version=40": coarse})
    small = replace(SLICE, ranks=BY_POPULATION | {"source_version=40": exact_ranks([AT // 2])})

    def found(piece: Slice, version: int | None) -> bool:
        return mistaken(terms(slices={"lab": (piece,)}), DEVICE, replace(DEVICE, version=version))

    assert found(large, 40)
    assert not found(large, 41), "it runs what it ran"
    assert not found(large, 39) and not found(large, None), "nobody was counted there"
    assert not found(small, 40)
    assert not found(replace(large, opened_at=NOW - 6 * HOUR), 40), "it is in no slice yet"


FAILED = frozenset({OutcomeClass.FAILED})
SHUT = Window.parse({"days": "tue", "hours": "09:00-16:00", "timezone": "UTC"})

EXCLUDED = (Excluded("hardware_id=rpi4", STANDING, 40),)

REASONS: list[tuple[NoOfferKind, dict[str, Any], dict[str, Any], Earlier | None]] = [
    (NoOfferKind.RETIRED, {}, {"status": DeviceStatus.RETIRED}, None),
    (NoOfferKind.HELD, {}, {"status": DeviceStatus.HELD, "held_because": "on a bench"}, None),
    (NoOfferKind.FROZEN, {"frozen": Reason(ReasonKind.FROZEN, "Fire.")}, {}, None),
    (NoOfferKind.ROLLOUT, {"state": state(RolloutStatus.HALTED)}, {}, None),
    (NoOfferKind.OUTCOME, {}, {}, update(UpdateStatus.FAILED, bad=FAILED, resolved=True, ended=True)),
    (NoOfferKind.CONFIRMED, {}, {}, update(UpdateStatus.CONFIRMED, confirmed_at=NOW, resolved=True)),
    (NoOfferKind.UNDER_WAY, {}, {}, update(UpdateStatus.APPLIED, started_at=NOW)),
    (NoOfferKind.TAG, {}, {"tag": "beta"}, None),
    (NoOfferKind.HARDWARE, {}, {"hardware_id": "imx8"}, None),
    (NoOfferKind.ALREADY_THERE, {}, {"version": 43}, None),
    (NoOfferKind.VERSION, {"scope": replace(SCOPE, from_versions=(40,))}, {}, None),
    (NoOfferKind.EXCLUDED, {"state": state(excluded=EXCLUDED)}, {}, None),
    (NoOfferKind.NO_WAVE, {}, {"group": None}, None),
    (NoOfferKind.WAVE, {"state": state(wave=WaveStatus.PREPARING)}, {}, None),
    (NoOfferKind.SLICE, {"slices": {}}, {}, None),
    (NoOfferKind.BUDGET, {"budget": BudgetFacts((OutcomeClass.FAILED,), 3, 3)}, {}, None),
    (NoOfferKind.OFFER_WINDOW, {"rules": Rules((WaveRules("lab"),), offer_window=SHUT)}, {}, None),
    (NoOfferKind.PACE, {"rules": Rules((WaveRules("lab"),), in_flight=5), "flow": Flow(5)}, {}, None),
    (NoOfferKind.EVIDENCE, {"rules": Rules((WaveRules("lab"),), stake=20), "flow": Flow(40, upper=0.5)}, {}, None),
    (NoOfferKind.AMBER, {"flow": Flow(2, upper=0.5, amber=("rollout/failed",))}, {}, None),
    (
        NoOfferKind.WAVE_PACE,
        {"rules": Rules((WaveRules("lab", in_flight=2),)), "wave_flows": {"lab": Flow(2)}},
        {},
        None,
    ),
    (
        NoOfferKind.RATE,
        {"rules": Rules((WaveRules("lab"),), rate=Rate(1, "h")), "flow": Flow(spent_until=NOW + HOUR)},
        {},
        None,
    ),
]


@pytest.mark.parametrize(("why", "of_terms", "of_device", "earlier"), REASONS, ids=[each[0] for each in REASONS])
def test_each_reason_has_a_kind_and_a_sentence(
    why: NoOfferKind, of_terms: dict[str, Any], of_device: dict[str, Any], earlier: Earlier | None
) -> None:
    found = may_offer(terms(**of_terms), replace(DEVICE, **of_device), earlier, NOW)
    assert isinstance(found, NoOffer)
    assert found.kind is why
    assert found.sentence.endswith(".") and not found.sentence[0].islower()


def test_every_reason_is_tested() -> None:
    asked_elsewhere = {
        NoOfferKind.PER,
        NoOfferKind.ELSEWHERE,
        NoOfferKind.DELTA,
        NoOfferKind.FROM_UNKNOWN,
        NoOfferKind.CONTENT,
    }
    assert {each[0] for each in REASONS} | asked_elsewhere == set(NoOfferKind)


@pytest.mark.parametrize("protocol", DeviceProtocol)
def test_a_protocol_takes_files_or_commits_or_both(protocol: DeviceProtocol) -> None:
    everything = {*Format, None}
    takes = {file for file in everything if unfit(protocol, file=file) is None}
    assert (
        takes
        == {
            DeviceProtocol.OWN: everything,
            DeviceProtocol.DDI: set(Format),
            DeviceProtocol.MENDER: {Format.MENDER},
            DeviceProtocol.AKTUALIZR: {None},
        }[protocol]
    )
    for file in everything - takes:
        no = unfit(protocol, file=file)
        assert no is not None and no.kind is NoOfferKind.CONTENT and no.until is None


@given(st.sets(st.sampled_from(range(len(REASONS))), min_size=1))
def test_of_several_reasons_the_first_in_the_fixed_order_is_told(which: set[int]) -> None:
    of_terms: dict[str, Any] = {}
    of_device: dict[str, Any] = {}
    clashing = {NoOfferKind.OUTCOME, NoOfferKind.CONFIRMED, NoOfferKind.UNDER_WAY, NoOfferKind.VERSION}
    chosen = [REASONS[index] for index in sorted(which) if REASONS[index][0] not in clashing]
    for _, terms_of, device_of, _ in reversed(chosen):
        of_terms |= terms_of
        of_device |= device_of
    found = may_offer(terms(**of_terms), replace(DEVICE, **of_device), None, NOW)
    assert kind(found) == (chosen[0][0] if chosen else None)


def test_whoever_was_offered_before_is_in_the_segments_of_then() -> None:
    """A board that calls itself another one since does not get out, nor in, of an excluded segment (RULES 3.6)."""
    shut = terms(state=state(excluded=EXCLUDED))
    before = replace(update(UpdateStatus.WITHDRAWN), segments=("hardware_id=rpi4",))
    other = replace(update(UpdateStatus.WITHDRAWN), segments=("hardware_id=cm4",))
    renamed = replace(SCOPE, commits={"rpi4": NEW, "cm4": NEW})
    assert kind(may_offer(shut, DEVICE, before, NOW)) is NoOfferKind.EXCLUDED
    assert kind(may_offer(replace(shut, scope=renamed), replace(DEVICE, hardware_id="cm4"), before, NOW)) is (
        NoOfferKind.EXCLUDED
    )
    assert may_offer(shut, DEVICE, other, NOW) == Offerable("lab", 3, (7, 5))


def test_the_sentence_says_which_segment_and_why() -> None:
    found = may_offer(terms(state=state(excluded=EXCLUDED)), DEVICE, None, NOW)
    assert isinstance(found, NoOffer)
    assert found.sentence == f"It is in segment hardware_id=rpi4, which is excluded: {STANDING.reason.sentence}"


@pytest.mark.parametrize("status", RolloutStatus)
@pytest.mark.parametrize("wave", WaveStatus)
def test_offers_are_given_only_where_the_rules_say(status: RolloutStatus, wave: WaveStatus) -> None:
    """RULES 1.1, 7.1: running in open, baking and passed waves; completed in all that nobody cancelled."""
    offered = isinstance(may_offer(terms(state=state(status, wave)), DEVICE, None, NOW), Offerable)
    running = status is RolloutStatus.RUNNING and wave in {WaveStatus.OPEN, WaveStatus.BAKING, WaveStatus.PASSED}
    completed = status is RolloutStatus.COMPLETED and wave is not WaveStatus.CANCELLED
    assert offered == (running or completed)


class TestEarlierUpdates:
    """What the device has had of the rollout decides, and its place stays (RULES 3.6)."""

    @pytest.mark.parametrize(
        "status",
        [
            UpdateStatus.OFFERED,
            UpdateStatus.DOWNLOADING,
            UpdateStatus.INSTALLING,
            UpdateStatus.WITHDRAWN,
            UpdateStatus.LEFT,
            UpdateStatus.RETIRED,
        ],
    )
    def test_the_place_is_kept(self, status: UpdateStatus) -> None:
        moved = replace(DEVICE, group="elsewhere")
        assert may_offer(terms(slices={}), moved, update(status), NOW) == Offerable("lab", 3, (7, 5))

    def test_a_standing_offer_needs_no_new_part_of_the_pace(self) -> None:
        full = terms(rules=Rules((WaveRules("lab"),), in_flight=5), flow=Flow(5))
        assert isinstance(may_offer(full, DEVICE, update(UpdateStatus.OFFERED), NOW), Offerable)
        assert kind(may_offer(full, DEVICE, update(UpdateStatus.WITHDRAWN), NOW)) is NoOfferKind.PACE

    def test_a_standing_offer_rests_while_the_rollout_does(self) -> None:
        paused = terms(state=state(RolloutStatus.PAUSED))
        assert kind(may_offer(paused, DEVICE, update(UpdateStatus.OFFERED), NOW)) is NoOfferKind.ROLLOUT

    @pytest.mark.parametrize("status", UpdateStatus)
    def test_a_bad_outcome_is_offered_again_only_by_a_retry(self, status: UpdateStatus) -> None:
        found = may_offer(terms(), DEVICE, update(status, bad=FAILED, resolved=True, ended=True), NOW)
        trying = {UpdateStatus.OFFERED, UpdateStatus.DOWNLOADING, UpdateStatus.INSTALLING}
        taken_back = {UpdateStatus.WITHDRAWN, UpdateStatus.RETIRED}  # with an outcome: a retry was
        assert isinstance(found, Offerable) == (status in trying | taken_back)


class TestPace:
    """All that is given holds at once: the tightest rules."""

    def test_the_evidence_bears_more_the_more_is_known(self) -> None:
        staked = Rules((WaveRules("lab"),), stake=20)
        borne = [bearable(20, upper) for upper in (1.0, 0.5, 0.1, 0.01, 1e-6)]
        assert borne == [20, 40, 200, 2_000, 20_000_000]
        for most, upper in zip(borne, (1.0, 0.5, 0.1, 0.01, 1e-6), strict=True):
            below, at = (terms(rules=staked, flow=Flow(flying, upper)) for flying in (most - 1, most))
            assert isinstance(may_offer(below, DEVICE, None, NOW), Offerable)
            assert kind(may_offer(at, DEVICE, None, NOW)) is NoOfferKind.EVIDENCE

    @pytest.mark.parametrize(("upper", "most"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.09, 11)])
    def test_amber_lets_a_trickle_through(self, upper: float, most: int) -> None:
        def slow(flying: int) -> Terms:
            return terms(flow=Flow(flying, upper, ("rollout/failed",)))

        assert isinstance(may_offer(slow(most - 1), DEVICE, None, NOW), Offerable)
        assert kind(may_offer(slow(most), DEVICE, None, NOW)) is NoOfferKind.AMBER

    def test_a_wave_has_its_own_flow_beside_the_rollouts(self) -> None:
        own = Rules((WaveRules("lab", stake=5),), in_flight=100)
        assert isinstance(may_offer(terms(rules=own, flow=Flow(99)), DEVICE, None, NOW), Offerable)
        of_wave = {"lab": Flow(5)}
        assert kind(may_offer(terms(rules=own, flow=Flow(99), wave_flows=of_wave), DEVICE, None, NOW)) == "evidence"
        amber = {"lab": Flow(1, amber=("wave:lab/failed",))}
        assert kind(may_offer(terms(flow=Flow(99), wave_flows=amber), DEVICE, None, NOW)) == "amber"

    def test_a_rate_says_when_and_only_time_ends_it(self) -> None:
        rate = Rate(20, "min")
        both = Rules((WaveRules("lab", rate=Rate(1, "d")),), rate=rate)
        spent = terms(rules=both, flow=Flow(spent_until=NOW + HOUR))
        found = may_offer(spent, DEVICE, None, NOW)
        assert isinstance(found, NoOffer) and found.kind is NoOfferKind.RATE
        assert found.until == NOW + HOUR - rate.every
        assert isinstance(may_offer(spent, DEVICE, None, found.until), Offerable)
        assert not isinstance(may_offer(spent, DEVICE, None, found.until - timedelta(microseconds=1)), Offerable)
        longer = replace(spent, wave_flows={"lab": Flow(spent_until=NOW + 9 * HOUR)})
        found = may_offer(longer, DEVICE, None, NOW)
        assert isinstance(found, NoOffer) and found.until == NOW + 9 * HOUR
        hidden = replace(longer, rules=replace(both, in_flight=1), flow=Flow(1, spent_until=NOW + HOUR))
        found = may_offer(hidden, DEVICE, None, NOW)
        assert isinstance(found, NoOffer) and (found.kind, found.until) == (NoOfferKind.PACE, None)

    def test_who_shares_a_labels_value_is_counted_and_who_has_none_shares_it_with_nobody(self) -> None:
        per = Per(label="site", at_most=2)
        here = replace(DEVICE, labels={"site": "hall-3"})
        asked = terms(rules=Rules((WaveRules("lab", per=Per(label="site", at_most=1)),), per=per))
        found = label_limits(asked, "lab", here)
        assert found == (LabelLimit("site", "hall-3", 2), LabelLimit("site", "hall-3", 1, "lab"))
        assert label_limits(asked, "lab", DEVICE) == ()
        assert label_limits(terms(), "lab", here) == ()
        whole, of_wave = found
        assert whole.reached(1) is None and kind(whole.reached(2) or NOTHING) is NoOfferKind.PER
        assert of_wave.reached(0) is None and kind(of_wave.reached(1) or NOTHING) is NoOfferKind.PER

    def test_budgets_come_before_every_pace(self) -> None:
        used_up = BudgetFacts((OutcomeClass.FAILED,), 3, 3)
        full = Flow(500, 1.0, ("rollout/failed",), NOW + HOUR)
        every = Rules((WaveRules("lab"),), in_flight=1, stake=1, rate=Rate(1, "d"))
        assert kind(may_offer(terms(rules=every, flow=full, budget=used_up), DEVICE, None, NOW)) == "budget"


NOTHING = Offerable("", 0, (0, 0))


def test_a_device_that_came_after_the_slice_waits_for_the_next() -> None:
    assert kind(may_offer(terms(), replace(DEVICE, since_at=NOW), None, NOW)) is NoOfferKind.SLICE
    assert kind(may_offer(terms(), replace(DEVICE, since_at=None), None, NOW)) is NoOfferKind.SLICE


def test_a_shut_offer_window_says_when_it_opens() -> None:
    found = may_offer(terms(rules=Rules((WaveRules("lab"),), offer_window=SHUT)), DEVICE, None, NOW)
    assert isinstance(found, NoOffer)
    assert found.until == datetime(2026, 3, 3, 9, tzinfo=UTC)


class TestDeltas:
    """RULES 6: how the content comes, or why the device waits for its delta."""

    def ask(self, *, ready: bool = False, known: bool = True, whole: bool = False, **more: Any) -> Way | NoOffer:
        source: str | None = more.pop("source", OLD)
        now: datetime = more.pop("now", NOW)
        over: DeviceProtocol = more.pop("over", DeviceProtocol.OWN)
        installs: bool = more.pop("installs", False)
        asked = terms(state=state(serve_whole=whole), rules=Rules((WaveRules("lab", **more),)))
        return way(
            asked,
            "lab",
            from_commit=source,
            to_commit=NEW,
            ready=ready,
            known=known,
            now=now,
            over=over,
            installs=installs,
        )

    def test_equal_commits_need_none(self) -> None:
        assert self.ask(source=NEW) is Way.SAME

    def test_a_ready_one_is_used(self) -> None:
        assert self.ask(ready=True) is Way.DELTA

    @pytest.mark.parametrize("over", sorted(TAKES_WHOLE))
    def test_who_speaks_a_protocol_without_deltas_is_served_whole_and_waits_for_none(
        self, over: DeviceProtocol
    ) -> None:
        assert self.ask(source=NEW, over=over) is Way.SAME
        assert self.ask(ready=True, over=over) is Way.WHOLE
        assert self.ask(otherwise=Otherwise.HOLD, over=over) is Way.WHOLE
        found = self.ask(known=False, from_unknown=FromUnknown.SKIP, over=over)
        assert isinstance(found, NoOffer) and found.kind is NoOfferKind.FROM_UNKNOWN

    @pytest.mark.parametrize("over", sorted(TAKES_WHOLE))
    def test_who_speaks_it_takes_a_delta_that_is_an_artifact_and_waits_for_it(self, over: DeviceProtocol) -> None:
        assert self.ask(ready=True, over=over, installs=True) is Way.DELTA
        found = self.ask(otherwise=Otherwise.HOLD, over=over, installs=True)
        assert isinstance(found, NoOffer) and found.kind is NoOfferKind.DELTA
        assert self.ask(known=False, over=over, installs=True) is Way.WHOLE

    @pytest.mark.parametrize("otherwise", Otherwise)
    def test_before_the_time_is_over_everybody_waits(self, otherwise: Otherwise) -> None:
        found = self.ask(otherwise=otherwise)
        assert isinstance(found, NoOffer) and found.kind is NoOfferKind.DELTA
        ends = NOW + 5 * HOUR  # six hours from when it was prepared
        assert found.until == (ends if otherwise is Otherwise.FULL else None)

    @pytest.mark.parametrize("otherwise", Otherwise)
    def test_after_it_only_full_goes_on_without(self, otherwise: Otherwise) -> None:
        found = self.ask(otherwise=otherwise, now=NOW + 5 * HOUR)
        assert found is Way.WHOLE if otherwise is Otherwise.FULL else isinstance(found, NoOffer)

    def test_a_person_who_resumes_grants_as_long_again(self) -> None:
        granted = replace(state().waves[0], granted_at=NOW)
        asked = terms(
            state=replace(state(), waves=(granted,)), rules=Rules((WaveRules("lab", otherwise=Otherwise.FULL),))
        )
        for hours, begun_at, served in ((5, None, False), (6, None, True), (6, NOW + HOUR, False)):
            found = way(
                asked,
                "lab",
                from_commit=OLD,
                to_commit=NEW,
                ready=False,
                known=True,
                now=NOW + hours * HOUR,
                begun_at=begun_at,
            )
            assert (found is Way.WHOLE) == served

    def test_completed_at_once_serves_whole(self) -> None:
        assert self.ask(whole=True) is Way.WHOLE

    @pytest.mark.parametrize("source", [OLD, None])
    def test_what_the_repository_does_not_have_is_served_whole_or_skipped(self, source: str | None) -> None:
        assert self.ask(source=source, known=False) is Way.WHOLE
        found = self.ask(source=source, known=False, from_unknown=FromUnknown.SKIP)
        assert isinstance(found, NoOffer) and found.kind is NoOfferKind.FROM_UNKNOWN
