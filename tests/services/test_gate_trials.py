"""Gates asked for a try: the same question as before a wave opens, and no trace of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from orchestrator.core.gates import GateAnswer
from orchestrator.core.policy import Policy
from orchestrator.errors import InvalidInput, NotFound, TooMany
from orchestrator.services.gate_trials import MOST_AT_ONCE, GateTrials
from orchestrator.services.gatekeeping import Question, Said, SourceKind
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
    return GateTrials(gated.world.store, gated.sources, lambda: next(steps) / 2)


def kept(world: World) -> tuple[object, ...]:
    """The rollout, its journal, and what its gates said."""
    row = world.row()
    with world.store.reading() as r:
        return row, r.journal(row.key, after=0, limit=100), r.gates(row.key)


def test_a_policy_is_asked_for_no_rollout(gated: Gated) -> None:
    gated.sources.says = {"tickets": NOT_YET}
    tried = trials(gated).ask(GATES)
    assert (tried.rollout, tried.wave, tried.target, tried.tag) == ("dry-run", "dry-run", 0, "dry-run")
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
    assert trials(gated).ask(rollout="lmp-42").follows == follows
    gated.world.tick()
    gated.answer()
    status, held = gated.wave()
    assert (status.value == "open") == (follows == "Its gates would let the wave open.")
    assert (held is not None) == (follows == "The wave would hold.")


def test_a_rollout_is_asked_with_its_own_gates_and_nothing_is_written_down(gated: Gated) -> None:
    gated.begin()
    world = gated.world
    before = kept(world)
    tried = trials(gated).ask(rollout="lmp-42")
    assert (tried.rollout, tried.wave, tried.target) == ("lmp-42", "all", 42)
    assert [question.rollout for question in gated.sources.asked] == ["lmp-42", "lmp-42"]
    assert kept(world) == before


def test_a_new_policy_is_asked_as_of_a_rollout_that_has_another(gated: Gated) -> None:
    gated.gates = []
    gated.begin()
    tried = trials(gated).ask(GATES, rollout="lmp-42", wave="all", only=["tickets"])
    assert [each.gate for each in tried.gates] == ["tickets"]
    assert '"target": 42' in tried.gates[0].asked
    assert tried.follows == "The gates that were asked would let the wave open."
    with pytest.raises(InvalidInput, match="No wave of lmp-42 has gates"):
        trials(gated).ask(rollout="lmp-42")
    with pytest.raises(InvalidInput, match="The wave all of lmp-42 has no gates"):
        trials(gated).ask(rollout="lmp-42", wave="all")


def test_what_cannot_be_asked_is_said_before_anybody_is(gated: Gated) -> None:
    gated.begin()
    ask = trials(gated).ask
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


def test_few_try_at_once(world: World) -> None:
    """A try may take a minute, and whoever is asked is somebody else's machine."""
    waiting, on = threading.Semaphore(0), threading.Event()

    class Slow(Answers):
        def ask(self, question: Question) -> Said:
            waiting.release()
            on.wait(10)
            return super().ask(question)

    tried = GateTrials(world.store, Slow(), lambda: 0.0)
    one = Policy.model_validate({"policy": "mine", "gates": [ERRORS]})
    people = [threading.Thread(target=tried.ask, args=(one,)) for _ in range(MOST_AT_ONCE)]
    for each in people:
        each.start()
    for _ in people:
        assert waiting.acquire(timeout=10)
    with pytest.raises(TooMany):
        tried.ask(GATES)
    on.set()
    for each in people:
        each.join(10)
    assert tried.ask(GATES).gates[0].answer is YES
