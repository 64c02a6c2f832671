"""Paces on PostgreSQL, where two gateways offer at once: what one process holds by being alone, the lock must."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.core.admission import bearable, boundaries, in_order, upper
from orchestrator.services.chronicle import rules_of
from tests.services.test_on_postgres import HOUR, LENIENT, Crowd, Gateways
from tests.services.test_reports import tallies_equal_a_recount
from tests.waiting import until

pytestmark = pytest.mark.postgres


@pytest.fixture
def world(postgres_url: str) -> Iterator[Gateways]:
    world = Gateways(postgres_url)
    yield world
    world.close()


class TestPaces:
    """Two gateways offer as fast as they can, and devices come to their outcome: no pace is ever exceeded."""

    @pytest.mark.parametrize(
        ("pace", "own"),
        [
            ({"stake": 5}, {}),
            ({"per": {"label": "site", "at_most": 2}}, {}),
            ({}, {"per": {"label": "site", "at_most": 1}}),
        ],
        ids=["stake", "per", "per of a wave"],
    )
    def test_a_limit_of_those_at_it_holds_between_gateways(
        self, world: Gateways, pace: dict[str, Any], own: dict[str, Any]
    ) -> None:
        world.fleet(0)
        fleet = [device for n in range(12) for device in world.enroll(8, labels={"site": f"s{n}"})]
        for device in fleet:
            world.check_in(device)
        wave: dict[str, Any] = {"wave": "all", "devices": "all", **({"policy": {"pace": own}} if own else {})}
        world.apply(policy={**LENIENT, **({"pace": pace} if pace else {})}, waves=[wave])
        most: list[int] = []
        bears: list[int] = []

        def counting(run: Callable[..., Any]) -> Callable[..., Any]:
            def counted(batch: Any, arrivals: Any) -> Any:
                row = batch.w.rollout("lmp-42")
                # A batch tells outcomes first and offers then: what it bears was decided in between.
                found = run(batch, arrivals)
                flying = batch.w.link.rows(
                    "SELECT l.value, count(*) FROM device_update u JOIN device_label l ON l.device_key = u.device_key "
                    "WHERE u.rollout_key = ? AND u.resolved = 0 GROUP BY l.value",
                    (row.key,),
                )
                most.append(max((many for _, many in flying), default=0))
                waves = batch.w.facts(row, now=batch.now).waves
                u = upper(boundaries(in_order(each.slices for each in waves), rules_of(row).tolerate))
                bears.append(sum(each.in_flight for each in waves) - bearable(5, u))
                return found

            return counted

        for gateway in world.gateways:
            object.__setattr__(gateway._check_ins, "run", counting(gateway._check_ins.run))
        confirmed: set[str] = set()
        with Crowd(world, fleet) as crowd:
            end = time.monotonic() + 30
            while len(confirmed) < 20 and time.monotonic() < end:
                asking = next((each for each in list(crowd.offered) if each not in confirmed), None)
                if asking is not None:
                    confirmed.add(asking)
                    world.answer(asking, 42, by=world.gateways[len(confirmed) % 2])
        assert len(confirmed) == 20
        if "stake" in pace:
            assert max(bears) <= 0
        else:
            assert max(most) == (2 if pace else 1)
        tallies_equal_a_recount(world)

    @pytest.mark.parametrize("own", [False, True])
    def test_a_rate_is_spent_once_between_gateways(self, world: Gateways, own: bool) -> None:
        """The clock stands still: what may come at once comes, from whichever gateway, and not one offer more. An hour
        later the next burst."""
        fleet = world.fleet(60)
        pace = {"pace": {"rate": "70/h"}}
        wave: dict[str, Any] = {"wave": "all", "devices": "all", **({"policy": pace} if own else {})}
        world.apply(policy={**LENIENT, **({} if own else pace)}, waves=[wave])
        with Crowd(world, fleet) as crowd:
            until("seven have it", lambda: len(crowd.offered) >= 7, within=30)
            time.sleep(0.3)
        assert len(set(crowd.offered)) == 7
        world.now += HOUR
        with Crowd(world, [device for device in fleet if device not in crowd.offered]) as again:
            until("seven have it", lambda: len(again.offered) >= 7, within=30)
            time.sleep(0.3)
        assert len(set(again.offered)) == 7
        tallies_equal_a_recount(world)
