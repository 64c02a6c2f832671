"""Devices that another update brings into another version between the opening of their slice and their offer."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator.core.slices import UNCOUNTED
from tests.services.fleet_world import World

HOUR = timedelta(hours=1)


def since_of(world: World, device: str) -> datetime | None:
    with world.store.reading() as r:
        found = r.device(device)
    assert found is not None
    return found.device.since_at


@pytest.mark.parametrize("known", ["counts alone", "each member"])
def test_whom_another_update_reaches_has_no_place_among_those_of_its_new_version(
    world: World, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """A slice that knows its members tells who is none of them. One that knows counts alone cannot: the device is
    in a later slice. Where it has a place, that is frozen, whatever it runs."""
    if known == "counts alone":
        monkeypatch.setattr("orchestrator.adapters.sql.fleet.EXACT_RANKS", 0)
    placed, *_, other = world.fleet(30)
    world.fleet(10, 40)
    world.apply(policy={"segments": ["source_version"], "slices": {"first": 40, "growth": 2}})
    assert world.check_in(placed) is not None
    before = since_of(world, placed)
    key = world.row().key
    with world.store.reading() as r:
        (opened,) = r.slices(key)
    assert opened.ranks["source_version=40"].members == 10
    world.now += HOUR
    world.answer(placed, 40)
    assert since_of(world, placed) == before
    offer, since = world.check_in(other, 40), since_of(world, other)
    assert since is not None
    if known == "counts alone":
        assert offer is None and since > opened.opened_at
    else:
        assert offer is not None and since <= opened.opened_at
        assert world.update(other).segments["source_version=40"] == UNCOUNTED
