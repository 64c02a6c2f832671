"""Gates before a wave: asked beside the ticker, answers in the journal, a yes of all opens it and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestrator.core.gates import Gate, GateAnswer
from orchestrator.core.gating import GOOD_FOR, PATIENCE
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import ReasonKind, WaveStatus
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.services.gatekeeping import ANSWERED, Gatekeeper, Question, Said, SourceKind, check_sources, plain
from orchestrator.services.replaying import Replayer
from orchestrator.services.rollouts import Rollouts
from tests.services.fleet_world import World

YES, NO, NOT_YET, NO_DATA = GateAnswer
ERRORS = {"gate": "errors", "asks": "prometheus", "query": "errors", "below": 5, "at_most": "1h"}
TICKETS = {"gate": "tickets", "asks": "desk"}
MINUTE = timedelta(minutes=1)


@dataclass
class Answers:
    """Sources that say what they are told to."""

    says: dict[str, GateAnswer | Exception] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)

    def kinds(self) -> Mapping[str, SourceKind]:
        return {"prometheus": SourceKind.PROMQL, "desk": SourceKind.WEBHOOK}

    def ask(self, question: Question) -> Said:
        self.asked.append(question)
        found = self.says.get(question.gate.gate, YES)
        if isinstance(found, Exception):
            raise found
        return Said(found, f"because it is {found}")


class Gated:
    """A world whose one wave has gates."""

    def __init__(self, world: World, *gates: Mapping[str, object]) -> None:
        self.world = world
        self.sources = Answers()
        self.waiting: list[Callable[[], None]] = []
        self.keeper = Gatekeeper(world.store, self.sources, world.clock, later=self.waiting.append)
        world.ticker.ask = self.keeper.ask
        world.rollouts = Rollouts(world.store, world.clock, sources=self.sources.kinds)
        self.gates = list(gates)

    def begin(self) -> None:
        self.world.fleet(3)
        self.world.apply(policy={"gates": self.gates})

    def answer(self) -> None:
        """Whoever asks comes back, and the ticker looks."""
        self.world.now += timedelta(seconds=1)  # an answer takes its time
        waiting, self.waiting[:] = list(self.waiting), []
        for each in waiting:
            each()
        self.world.tick()

    def later(self, by: timedelta = MINUTE) -> None:
        self.world.later(by)
        self.answer()

    def wave(self) -> tuple[WaveStatus, ReasonKind | None]:
        state = self.world.row().state.wave("all")
        return state.status, None if state.hold is None else state.hold.reason.kind

    def journal(self) -> list[str]:
        return self.entries(ANSWERED)

    def opened_because(self) -> str:
        return self.entries("opened")[0]

    def entries(self, event: str) -> list[str]:
        key = self.world.row().key
        with self.world.store.reading() as r:
            return [each.sentence for each in r.journal(key) if each.event == event]

    def replays(self) -> bool:
        return Replayer(self.world.store).replay("lmp-42").divergences == ()


@pytest.fixture
def gated(world: World) -> Gated:
    return Gated(world, ERRORS, TICKETS)


def test_a_wave_opens_when_all_its_gates_say_yes(gated: Gated) -> None:
    gated.begin()
    assert gated.wave() == (WaveStatus.PREPARING, None)
    assert len(gated.waiting) == 1, "asked, and nothing waits for it"
    gated.world.tick()
    assert len(gated.waiting) == 1, "once"
    gated.answer()
    assert gated.wave() == (WaveStatus.OPEN, None)
    assert {question.gate.gate for question in gated.sources.asked} == {"errors", "tickets"}
    (question, _) = gated.sources.asked
    assert question[1:] == ("lmp-42", "all", 42, "promoted")
    assert "Gate errors says yes (because it is yes), tickets says yes" in gated.opened_because()
    assert gated.journal() == [
        "Gate errors of wave all says yes: because it is yes.",
        "Gate tickets of wave all says yes: because it is yes.",
    ]
    assert gated.replays()


def test_one_that_says_not_yet_is_asked_again_with_all(gated: Gated) -> None:
    gated.sources.says["tickets"] = NOT_YET
    gated.begin()
    gated.answer()
    for _ in range(3):
        gated.later()
        assert gated.wave() == (WaveStatus.PREPARING, None)
    assert len(gated.sources.asked) == 8
    assert len(gated.journal()) == 2, "what is as before is no news"
    gated.sources.says["tickets"] = YES
    gated.sources.says["errors"] = NOT_YET
    gated.later()
    assert gated.wave() == (WaveStatus.PREPARING, None), "yes at once, not one after the other"
    gated.sources.says["errors"] = YES
    gated.later()
    assert gated.wave() == (WaveStatus.OPEN, None)
    assert gated.replays()


def test_a_no_holds_at_once_and_a_person_has_it_asked_again(gated: Gated) -> None:
    gated.sources.says["tickets"] = NO
    gated.begin()
    gated.answer()
    assert gated.wave() == (WaveStatus.PREPARING, ReasonKind.GATE_NO)
    gated.later(GOOD_FOR * 3)
    assert gated.wave() == (WaveStatus.PREPARING, ReasonKind.GATE_NO), "time alone never ends a hold"
    asked = len(gated.sources.asked)
    gated.sources.says["tickets"] = YES
    gated.world.later(MINUTE)
    gated.world.rollouts.resume("lmp-42", by="anna", wave="all", reason="the desk says go")
    gated.world.tick()
    gated.answer()
    assert len(gated.sources.asked) == asked + 2
    assert gated.wave() == (WaveStatus.OPEN, None)
    assert gated.replays()


@pytest.mark.parametrize("answer", [NOT_YET, NO_DATA, RuntimeError("broken"), InvalidInput("The file is public.")])
def test_without_a_yes_it_holds_in_the_end_and_never_opens_by_itself(
    gated: Gated, answer: GateAnswer | Exception
) -> None:
    gated.sources.says["errors"] = answer
    gated.begin()
    gated.answer()
    for _ in range(58):
        gated.later()
        assert gated.wave() == (WaveStatus.PREPARING, None)
    gated.later(2 * MINUTE)
    assert gated.wave() == (WaveStatus.PREPARING, ReasonKind.GATE_LATE)
    assert gated.replays()


def test_no_data_is_told_apart_from_not_yet(gated: Gated) -> None:
    gated.sources.says["errors"] = NO_DATA
    gated.begin()
    gated.answer()
    assert gated.journal()[0] == "Gate errors of wave all says no data: because it is no_data."
    plan = gated.world.ticker.tick(gated.world.now)
    assert plan.wake_at is not None and plan.wake_at <= gated.world.now + MINUTE


def test_the_policy_may_have_it_open_without_an_answer(world: World) -> None:
    gated = Gated(world, {**ERRORS, "otherwise": "open"})
    gated.sources.says["errors"] = NO_DATA
    gated.begin()
    gated.answer()
    for _ in range(61):
        gated.later()
    assert gated.wave() == (WaveStatus.OPEN, None)
    assert "gives no answer" in gated.opened_because() and "without that after 1h" in gated.opened_because()
    assert gated.replays()


def test_whoever_died_while_asking_is_replaced(gated: Gated) -> None:
    gated.begin()
    gated.waiting.clear()
    another = Gatekeeper(gated.world.store, gated.sources, gated.world.clock, later=gated.waiting.append)
    gated.world.ticker.ask = another.ask
    gated.world.later(MINUTE / 2)
    assert gated.waiting == [], "it may be under way still"
    gated.world.later(PATIENCE)
    assert len(gated.waiting) == 1
    gated.answer()
    assert gated.wave() == (WaveStatus.OPEN, None)


def test_an_answer_that_has_grown_old_is_asked_for_anew(gated: Gated) -> None:
    gated.begin()
    gated.world.rollouts.freeze(by="anna", reason="a fire")
    gated.answer()
    assert gated.wave() == (WaveStatus.PREPARING, None)
    gated.world.now += GOOD_FOR + MINUTE
    gated.sources.says["errors"] = NO
    gated.world.rollouts.unfreeze(by="anna")
    gated.world.tick()
    gated.answer()
    assert gated.wave() == (WaveStatus.PREPARING, ReasonKind.GATE_NO), "the yes of before is no yes of now"


def test_an_answer_to_another_question_does_not_count(gated: Gated) -> None:
    gated.begin()
    gated.world.rollouts.freeze(by="anna", reason="a fire")
    gated.answer()
    gated.gates = [{**ERRORS, "below": 1}, TICKETS]
    gated.sources.says["errors"] = NO
    gated.world.rollouts.unfreeze(by="anna")
    gated.world.store  # noqa: B018
    row = gated.world.row()
    relaxed = {"policy": "test", "deltas": {"within": "0s", "otherwise": "full"}, "gates": gated.gates}
    gated.world.rollouts.apply(RolloutFile.from_canonical(row.spec), Policy.parse(relaxed), by="anna", yes=True)
    gated.world.tick()
    gated.answer()
    assert gated.wave()[1] is ReasonKind.GATE_NO


def test_a_wave_may_have_gates_of_its_own_or_none(world: World) -> None:
    gated = Gated(world, ERRORS)
    world.fleet(3)
    waves = [
        {"wave": "free", "devices": {"count": 1}, "policy": {"gates": []}},
        {"wave": "all", "devices": "all", "after": [], "policy": {"gates": [TICKETS]}},
    ]
    world.apply(waves=waves, policy={"gates": [ERRORS]})
    assert world.row().state.wave("free").status is WaveStatus.OPEN
    gated.answer()
    assert [question.gate.gate for question in gated.sources.asked] in ([], ["tickets"])


def test_a_yes_opens_nothing_whose_deltas_do_not_hold_on_the_disk(gated: Gated) -> None:
    broken = [1]
    gated.world.ticker.prove = lambda row, wave, *, now: broken[0]
    gated.begin()
    gated.answer()
    assert gated.wave() == (WaveStatus.PREPARING, None)
    broken[0] = 0
    gated.world.tick()
    assert gated.wave() == (WaveStatus.OPEN, None)
    assert len(gated.sources.asked) == 2, "their yes of a moment ago counts"


def test_two_who_ask_for_the_same_wave_ask_once(gated: Gated) -> None:
    gated.begin()
    row = gated.world.row()
    gated.keeper.ask(row, "all")
    gated.keeper.ask(row, "all")
    assert len(gated.waiting) == 1


def test_a_wave_that_went_on_meanwhile_is_told_nothing(gated: Gated) -> None:
    gated.begin()
    gated.world.rollouts.skip("lmp-42", "all", by="anna", reason="enough")
    gated.answer()
    assert gated.journal() == []


def test_the_ticker_waits_for_no_gate(world: World) -> None:
    gated = Gated(world, TICKETS)
    held, asked = threading.Event(), threading.Event()

    class Slow(Answers):
        def ask(self, question: Question) -> Said:
            asked.set()
            held.wait(10)
            return Said(YES, "")

    done = threading.Event()
    world.ticker.ask = Gatekeeper(world.store, Slow(), world.clock, done.set).ask
    gated.begin()
    assert asked.wait(10)
    world.tick()
    assert gated.wave() == (WaveStatus.PREPARING, None)
    held.set()
    assert done.wait(10)
    world.tick()
    assert gated.wave() == (WaveStatus.OPEN, None)


def test_what_is_asked_must_be_there() -> None:
    kinds = Answers().kinds
    check_sources([Gate.parse(ERRORS), Gate.parse(TICKETS)], kinds)
    with pytest.raises(NotFound, match="no source is called so"):
        check_sources([Gate.parse({**TICKETS, "asks": "nobody"})], kinds)
    with pytest.raises(InvalidInput, match="takes no query"):
        check_sources([Gate.parse({**ERRORS, "asks": "desk"})], kinds)
    with pytest.raises(InvalidInput, match="needs a query"):
        check_sources([Gate.parse({**TICKETS, "asks": "prometheus"})], kinds)
    check_sources([], lambda: pytest.fail("nobody needs to know"))


def test_what_is_said_outside_is_one_short_line() -> None:
    assert plain("a\nb\x1b[31m\x00 c ") == "a b [31m c"
    assert len(plain("x" * 1_000)) == 200
