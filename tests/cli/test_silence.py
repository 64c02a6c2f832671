"""What people are shown of the clock test for silence, and what ``plan`` says where there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters.sql.store import open_store
from orchestrator.services.clocks import as_text
from tests.cli.house import House
from tests.cli.test_json import CLOCK
from tests.core.evidence.clock_world import clock


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def dark(fleet: House) -> House:
    """A rollout with a clock, under which the four devices of the lab began to install and were not heard of since."""
    fleet.ok("apply", str(fleet.rollout()), "--start")
    fleet.tick()
    fleet.build()
    fleet.tick()
    store = open_store(fleet.settings.database_url)
    with store.writing() as w:
        row = w.rollout("lmp-42")
        assert row is not None
        w.save_rollout(replace(row, clock=as_text(clock())))
    store.close()
    assert fleet.devices_do("installing") == 4
    return fleet


def test_status_and_explain_say_in_one_line_how_silent_it_is(dark: House) -> None:
    for command in ("status", "explain"):
        shown = flat(dark.ok(command, "lmp-42"))
        assert "clock/silent: no device has come to its first look yet; learnt from 2000 devices" in shown
    dark.now += timedelta(minutes=14)
    for command in ("status", "explain"):
        shown = flat(dark.ok(command, "lmp-42"))
        assert "clock/silent: 4 of 4 devices were not heard of 12 min after installing began; in earlier" in shown


def test_the_json_of_a_clock(dark: House) -> None:
    found = dark.json("status", "lmp-42")["clock"]
    assert set(found) == CLOCK
    assert found["checkpoint"] is None and found["next_at"] is not None
    dark.now += timedelta(minutes=14)
    found = dark.json("status", "lmp-42")["clock"]
    assert (found["checkpoint"]["silent"], found["checkpoint"]["devices"]) == (4, 4)
    assert {each["hardware_id"] for each in found["seen"]} == {"rpi4"}
    assert not found["checkpoint"]["crossed"]


def test_plan_says_that_a_small_fleet_has_no_clock(fleet: House) -> None:
    shown = flat(fleet.ok("plan", str(fleet.rollout())))
    assert (
        "Silence: so small a fleet has no clock for it: only the hard stop speaks, silent_after (6h); above 5" in shown
    )
