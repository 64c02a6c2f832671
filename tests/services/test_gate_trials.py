"""Gates asked for a try: the same question as before a wave opens, and no trace of it but who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from rich.console import Console

from orchestrator.cli.render import gates as rendered
from orchestrator.core.gates import GateAnswer
from orchestrator.core.policy import Policy
from orchestrator.errors import InvalidInput, NotFound, StoreUnavailable, TooMany
from orchestrator.services.gate_trials import MOST_AT_ONCE, GateTrial, GateTrials
from orchestrator.services.gatekeeping import Question, Said, SourceKind, Sources
from orchestrator.services.house_log import HouseLog
from tests.services.fleet_world import World
from tests.services.test_gatekeeping import ERRORS, NO, NO_DATA, NOT_YET, TICKETS, YES, Answers, Gated

GATES = Policy.model_validate({"policy": "mine", "gates": [ERRORS, TICKETS]})
NONE = Policy.model_validate({"policy": "none"})


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def gated(world: World) -> Gated:
    return Gated(world, ERRORS, TICKETS)


def trials(gated: Gated) -> GateTrials:
    """Its clock shows half a second more each time that it is read."""
    steps = count()
    return made(gated.world, gated.sources, lambda: next(steps) / 2)


def made(world: World, sources: Sources, running: Callable[[], float] = lambda: 0.0) -> GateTrials:
    return GateTrials(world.store, sources, running, HouseLog(world.store, world.clock))


def shown(tried: GateTrial) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(rendered.trial(tried))
    return captured.get()


def noted(world: World) -> list[str]:
    events = HouseLog(world.store, world.clock).events()
    return [each.sentence for each in events if each.event == "gates_tried"]


def kept(world: World) -> tuple[object, ...]:
    """The rollout, its journal, and what its gates said."""
    row = world.row()
    with world.store.reading() as r:
        return row, r.journal(row.key, after=0, limit=100), r.gates(row.key)


def test_a_policy_is_asked_for_no_rollout(gated: Gated) -> None:
    gated.sources.says = {"tickets": NOT_YET}
    tried = trials(gated).ask(GATES, by="ann")
    assert (tried.rollout, tried.wave, tried.target, tried.tag) == (None, "dry-run", 0, "dry-run")
    errors, tickets = tried.gates
    assert (errors.kind, errors.asked) == (SourceKind.PROMQL, "whether errors is below 5")
    assert (errors.answer, errors.because, errors.follows) == (YES, "because it is yes", "It counts for 10m.")
    assert tickets.asked == (
        'POST {"gate": "tickets", "rollout": "dry-run", "wave": "dry-run", "target": 0, "tag": "dry-run"}'
    )
    assert tickets.follows == "It is asked again after 1m; without a yes within 2h the wave holds."
    assert min(errors.seconds, tickets.seconds) >= 0.5
    assert tried.follows == "The wave would wait for its gates."


@pytest.mark.parametrize(
    ("says", "follows"),
    [
        ([YES, YES], "Its gates would let the wave open."),
        ([YES, NO_DATA], "The wave would wait for its gates."),
        ([NOT_YET, NO], "The wave would hold."),
    ],
)
def test_what_would_follow_is_what_follows(gated: Gated, says: Sequence[GateAnswer], follows: str) -> None:
    """A try says it, then the wave is looked at with the same answers."""
    gated.sources.says = dict(zip(("errors", "tickets"), says, strict=True))
    gated.begin()
    assert trials(gated).ask(by="ann", rollout="lmp-42").follows == follows
    gated.world.tick()
    gated.answer()
    status, held = gated.wave()
    assert (status.value == "open") == (follows == "Its gates would let the wave open.")
    assert (held is not None) == (follows == "The wave would hold.")


def test_a_rollout_is_asked_with_its_own_gates_and_nothing_is_written_down(gated: Gated) -> None:
    gated.begin()
    world = gated.world
    before = kept(world)
    tried = trials(gated).ask(by="ann", rollout="lmp-42")
    assert (tried.rollout, tried.wave, tried.target) == ("lmp-42", "all", 42)
    assert [question.rollout for question in gated.sources.asked] == ["lmp-42", "lmp-42"]
    assert kept(world) == before


def test_a_new_policy_is_asked_as_of_a_rollout_that_has_another(gated: Gated) -> None:
    gated.gates = []
    gated.begin()
    tried = trials(gated).ask(GATES, by="ann", rollout="lmp-42", wave="all", only=["tickets"])
    assert [each.gate for each in tried.gates] == ["tickets"]
    assert '"target": 42' in tried.gates[0].asked
    assert tried.follows == "The gates that were asked would let the wave open."
    with pytest.raises(InvalidInput, match="No wave of lmp-42 has gates"):
        trials(gated).ask(by="ann", rollout="lmp-42")
    with pytest.raises(InvalidInput, match="The wave all of lmp-42 has no gates"):
        trials(gated).ask(by="ann", rollout="lmp-42", wave="all")


def test_what_cannot_be_asked_is_said_before_anybody_is(gated: Gated) -> None:
    gated.begin()
    ask = partial(trials(gated).ask, by="ann")
    elsewhere = Policy.model_validate({"policy": "p", "gates": [{"gate": "g", "asks": "nobody"}]})
    with pytest.raises(InvalidInput, match="Whose gates"):
        ask()
    with pytest.raises(InvalidInput, match="A wave is one of a rollout"):
        ask(GATES, wave="all")
    with pytest.raises(InvalidInput, match="The policy none has no gates"):
        ask(NONE)
    for wrong in ({"rollout": "lmp-43"}, {"rollout": "lmp-42", "wave": "none"}, {"rollout": "lmp-42", "only": ["x"]}):
        with pytest.raises(NotFound):
            ask(**wrong)
    with pytest.raises(NotFound, match="no source is called so"):
        ask(elsewhere)
    assert gated.sources.asked == []
    assert noted(gated.world) == [], "who is refused asks nobody"


def test_few_try_at_once(world: World) -> None:
    """A try may take a minute, and whoever is asked is somebody else's machine."""
    waiting, on = threading.Semaphore(0), threading.Event()

    class Slow(Answers):
        def ask(self, question: Question) -> Said:
            waiting.release()
            on.wait(10)
            return super().ask(question)

    tried = made(world, Slow())
    one = Policy.model_validate({"policy": "mine", "gates": [ERRORS]})
    people = [threading.Thread(target=partial(tried.ask, one, by=f"p{n}")) for n in range(MOST_AT_ONCE)]
    for each in people:
        each.start()
    for _ in people:
        assert waiting.acquire(timeout=10)
    with pytest.raises(TooMany, match="4 people are"):
        tried.ask(GATES, by="ann")
    on.set()
    for each in people:
        each.join(10)
    assert tried.ask(GATES, by="ann").gates[0].answer is YES


def test_one_person_tries_once_at_a_time_and_others_meanwhile(world: World) -> None:
    class Again(Answers):
        """Somebody who is asked tries himself, as two people."""

        def ask(self, question: Question) -> Said:
            if len(noted(world)) == 1:
                with pytest.raises(TooMany, match="ann is asking gates for a try already"):
                    tried.ask(one, by="ann")
                assert tried.ask(one, by="ben").gates[0].answer is YES
            return super().ask(question)

    tried = made(world, Again())
    one = Policy.model_validate({"policy": "mine", "gates": [ERRORS]})
    said = tried.ask(one, by="ann").gates[0]
    assert (said.answer, said.because) == (YES, "because it is yes")
    assert noted(world) == [f"{name} asked for a try, of the policy mine: errors." for name in ("ben", "ann")]


def test_who_asks_which_gates_for_what_is_written_down_before_anybody_is_asked(gated: Gated) -> None:
    gated.begin()
    trials(gated).ask(by="<b>ann</b>", rollout="lmp-42")
    trials(gated).ask(GATES, by="ben", rollout="lmp-42", only=["tickets"])
    assert noted(gated.world) == [
        "ben asked for a try, of the policy mine as of wave all of lmp-42: tickets.",
        "<b>ann</b> asked for a try, as of wave all of lmp-42: errors, tickets.",
    ]
    gated.sources.asked.clear()
    shut = trials(gated)
    gated.world.store.close()
    with pytest.raises(StoreUnavailable):
        shut.ask(GATES, by="ann")
    assert gated.sources.asked == [], "nobody is asked whom no line tells of"


def test_a_file_of_sources_that_changes_meanwhile_is_read_once(world: World) -> None:
    class Fleeting(Answers):
        left = 1

        def kinds(self) -> Mapping[str, SourceKind]:
            self.left -= 1
            return super().kinds() if self.left >= 0 else {}

    assert made(world, Fleeting()).ask(GATES, by="ann").gates[0].kind is SourceKind.PROMQL


def test_a_rollout_may_be_called_as_none_is(gated: Gated) -> None:
    tried = replace(trials(gated).ask(GATES, by="ann"), rollout="dry-run", wave="all")
    assert "for wave all of dry-run" in shown(tried)
    assert "for no rollout" in shown(replace(tried, rollout=None))
