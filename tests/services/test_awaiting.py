"""A wave that waits for a person's word is told once, to whoever asked, with what to type; nobody else hears of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.decide import decide
from orchestrator.core.notices import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.roles import Role
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import ReasonKind, WaveStatus
from orchestrator.services.awaiting import Awaiting
from orchestrator.services.chronicle import rules_of
from orchestrator.services.notices import Notices
from orchestrator.services.people_orders import People
from orchestrator.services.replaying import Replayer
from orchestrator.services.rollouts import Rollouts
from orchestrator.services.tick import Ticker
from tests.services.fleet_world import World

BY_HAND = [{"wave": "all", "devices": "all", "policy": {"promote": "manual"}}]
ASKED = [{"to": "release", "on": ["awaited", "held"]}, {"to": "oncall", "on": ["halted"]}]
HOUR = timedelta(hours=1)


@dataclass
class Told:
    """A world in which somebody asked to be told, and what they were."""

    world: World
    came: list[tuple[str, Notice]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.rollouts = Rollouts(self.world.store, self.world.clock, destinations=self.names)

    def names(self) -> Collection[str]:
        return ("release", "oncall")

    def send(self, destination: str, notice: Notice, *, link: str | None, at: datetime) -> None:
        self.came.append((destination, notice))

    def begin(self, *, waves: Sequence[Mapping[str, Any]] = BY_HAND, asked: object = ASKED, **policy: object) -> None:
        self.world.fleet(3)
        more = {} if asked is None else {"notify": asked}
        self.world.apply(waves=waves, policy={**more, **policy})

    def heard(self) -> list[tuple[str, str, str | None]]:
        """What each destination was told since the last time."""
        Notices(self.world.store, self, self.world.clock, None, lambda: 0.5).deliver()
        came, self.came = self.came, []
        return [(to, notice.event, notice.wave) for to, notice in came]

    def edit(self, **policy: object) -> None:
        spec = RolloutFile.from_canonical(self.world.row().spec)
        relaxed = {"policy": "test", "deltas": {"within": "0s", "otherwise": "full"}, **policy}
        self.world.rollouts.apply(spec, Policy.parse(relaxed), by="anna", yes=True)
        self.world.tick()

    def events(self) -> list[str]:
        key = self.world.row().key
        with self.world.store.reading() as r:
            return [each.event for each in r.journal(key)]


@pytest.fixture
def told(world: World) -> Told:
    return Told(world)


def test_a_wave_that_waits_to_be_promoted_is_told_once_however_long_it_waits(told: Told) -> None:
    told.begin()
    assert told.heard() == [("release", "awaited", "all")]
    for _ in range(3):
        told.world.later(HOUR)
    told.world.ticker = Ticker(told.world.store, told.world.devices.expire, told.world._ensure)  # a restart
    told.world.later(HOUR)
    assert told.heard() == []
    assert told.events().count("awaited") == 1
    told.world.rollouts.promote("lmp-42", "all", by="anna")
    told.world.tick()
    assert told.world.row().state.wave("all").status is WaveStatus.OPEN
    assert Replayer(told.world.store).replay("lmp-42").divergences == ()


def test_it_says_what_it_means_and_what_to_type(told: Told) -> None:
    told.begin()
    Notices(told.world.store, told, told.world.clock, None, lambda: 0.5).deliver()
    ((_, notice),) = told.came
    assert notice.title == "Wave all of rollout lmp-42 (version 42): waits for a person's word"
    assert notice.sentence == "It waits for a person: `wave promote`."
    assert notice.meaning.startswith("The wave does not open before that is said; it waits as long as it takes.")
    assert notice.commands[:2] == ("wave promote lmp-42 all", "wave explain lmp-42")


def test_what_nobody_asked_for_is_told_to_nobody_and_written_nowhere(told: Told) -> None:
    told.begin(asked=[{"to": "release", "on": ["held"]}, {"to": "oncall", "on": ["halted", "orders"]}])
    assert ("release", "awaited", "all") not in told.heard()
    assert "awaited" not in told.events()


def test_who_asks_later_is_told_while_it_still_waits(told: Told) -> None:
    told.begin(asked=None)
    assert told.heard() == []
    told.edit(notify=ASKED)
    assert told.heard() == [("release", "awaited", "all")]
    told.edit(notify=ASKED, reach="8d")
    assert told.heard() == [], "an edit voids no promotion that is waited for"


def test_before_its_turn_a_wave_waits_for_nobody(told: Told) -> None:
    """What comes first is not there: an earlier wave has not passed."""
    later = {"wave": "rest", "devices": "all", "policy": {"promote": "manual", "approve": {"open": 1}}}
    told.begin(waves=[{"wave": "lab", "devices": {"count": 1}}, later])
    told.world.later(HOUR)
    assert told.heard() == []
    told.world.rollouts.complete("lmp-42", by="anna", wave="lab", reason="seen elsewhere")
    told.world.tick()
    assert told.heard() == [("release", "awaited", "rest")]
    told.world.rollouts.promote("lmp-42", "rest", by="anna")
    told.world.tick()
    assert told.heard() == [("release", "awaited", "rest")], "now for approval, which is another word"
    told.world.rollouts.approve("lmp-42", by="ben", wave="rest")
    told.world.tick()
    assert told.heard() == [] and told.world.row().state.wave("rest").status is WaveStatus.OPEN


def test_two_approvals_are_one_message_and_another_after_an_edit(told: Told) -> None:
    told.begin(waves=[{"wave": "all", "devices": "all"}], approve={"open": 2})
    assert told.heard() == [("release", "awaited", "all")]
    told.world.rollouts.approve("lmp-42", by="ben", wave="all")
    told.world.tick()
    assert told.heard() == [], "one more is waited for, and that was told"
    told.edit(notify=ASKED, approve={"open": 2}, reach="8d")
    assert told.heard() == [("release", "awaited", "all")], "the edit voids what ben said"


@pytest.mark.parametrize("looks", [True, False])
def test_a_wait_whose_approver_is_shut_out_is_told_again(told: Told, looks: bool) -> None:
    """ben approves, and before the wave opens ben is disabled: somebody else is waited for now, whether or not the
    ticker looked in between."""
    people = People(told.world.store, told.world.clock)
    people.add("ben", [Role.APPROVER], by="root")
    told.begin(waves=[{"wave": "all", "devices": "all"}], approve={"open": 1})
    assert told.heard() == [("release", "awaited", "all")]
    told.world.rollouts.pause("lmp-42", by="anna")
    told.world.rollouts.approve("lmp-42", by="ben", wave="all")
    if looks:
        told.world.tick()
    people.disable("ben", by="root")
    told.world.rollouts.resume("lmp-42", by="anna")
    for _ in range(3):
        told.world.tick()
    assert told.heard() == [("release", "awaited", "all")]
    told.world.ticker = Ticker(told.world.store, told.world.devices.expire, told.world._ensure)  # a restart
    told.world.later(HOUR)
    assert told.heard() == []
    assert Replayer(told.world.store).replay("lmp-42").divergences == ()


def test_approval_of_the_whole_rollout_is_one_message_however_many_waves_wait(told: Told) -> None:
    waves: list[dict[str, Any]] = [{"wave": name, "devices": {"count": 1}, "after": []} for name in ("one", "two")]
    told.begin(waves=[*waves, {"wave": "rest", "devices": "all", "after": []}], approve={"start": 1})
    Notices(told.world.store, told, told.world.clock, None, lambda: 0.5).deliver()
    ((to, notice),) = told.came
    assert (to, notice.wave, notice.commands[0]) == ("release", None, "wave approve lmp-42")
    assert notice.meaning.startswith("Nothing of it opens before that is said")


def test_a_wait_that_ended_meanwhile_is_told_to_nobody(told: Told) -> None:
    """The look was made, a person promoted, and only then it is noted."""
    told.begin(asked=[{"to": "release", "on": ["held"]}])
    told.edit(notify=ASKED[1:])
    row = told.world.row()
    plan = decide(row.state, told.world.facts(), rules_of(row), told.world.now)
    assert [each.reason.kind for each in plan.reasons] == [ReasonKind.AWAITING_PROMOTION]
    asking = replace(row, policy=Policy.parse({"policy": "test", "notify": ASKED}).canonical().decode())
    told.world.rollouts.promote("lmp-42", "all", by="anna")
    Awaiting(told.world.store).look(asking, plan, now=told.world.now)
    assert "awaited" not in told.events()
