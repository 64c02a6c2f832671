"""The shapes of JSON answers: their keys are promised."""

from __future__ import annotations

import json
import re

from orchestrator.cli.render.json import plain
from tests.cli.house import House
from tests.cli.test_rollouts import halted

SUMMARY = set("rollout status since by reason version tag policy devices offered confirmed bad created_at".split())
ROLLOUT = SUMMARY | set(
    "attempt frozen waves monitors budgets excluded clock pace waiting would advances halts excludes holds wake_at "
    "problems spec_digest policy_digest".split()
)
WAVE = set(
    "wave status since by reason hold after promoted opened_at baking_at eligible already_there members "
    "waiting_for_slice offered in_flight resolved confirmed bad apart slices deltas waiting needs".split()
)
MONITOR = set(
    "monitor outcomes wave segment tolerance alpha answer places bad next_limit next crossed_at accepted amber "
    "sentence".split()
)
CLOCK = set("monitor tolerance alpha answer learnt_from dark next_at checkpoint seen untouched sentence".split())
BUDGET = set("budget outcomes limit bad accepted answer reached".split())
DEVICE = set(
    "device status held_because hardware_id tag group labels version commit healthy enrolled_at last_seen_at "
    "usual_gap_seconds".split()
)
UPDATE = set(
    "rollout status wave slice place offered_at started_at confirmed_at deadline_at bad from_version from_commit "
    "to_commit by_delta unhealthy_before apart".split()
)
WHY = set("rollout status wave wave_status position slice place kind sentence why_wave waits update".split())
PLAN = set(
    "rollout target_version tag policy hardware_ids devices in_no_wave waves monitors budgets build_minutes bytes_with "
    "bytes_without in_flight_risk earliest_end likely_end latest_end assumes warnings notes pace".split()
)
TARGET = set("target version commit hardware_ids tags provider added_at".split())
DELTA = set(
    "from to state from_versions to_versions devices waiting_devices waves bytes path error job estimate".split()
)
ENTRY = set("seq at event by sentence wave facts policy_digest evidence_seq before hash".split())


def test_the_keys_are_promised(fleet: House) -> None:
    assert set(fleet.json("plan", str(fleet.rollout()))) >= PLAN
    halted(fleet)
    assert set(fleet.json("list")[0]) == SUMMARY
    rollout = fleet.json("status", "lmp-42")
    assert set(rollout) == ROLLOUT
    assert set(rollout["waves"][0]) == WAVE
    assert set(rollout["monitors"][0]) == MONITOR
    assert set(rollout["budgets"][0]) == BUDGET
    assert set(rollout["reason"]) == {"kind", "sentence"}
    device = fleet.json("explain", "lab-00")
    assert set(device) == DEVICE | {"rollouts", "updates", "events", "protocol", "highest_version", "told"}
    assert set(device["updates"][0]) == UPDATE
    assert all(set(each) == WHY for each in device["rollouts"])
    listed = fleet.json("device", "list", "--limit", "1")
    assert set(listed) == {"total", "devices"} and set(listed["devices"][0]) == DEVICE
    assert set(fleet.json("target", "list")[0]) == TARGET
    assert set(fleet.json("target", "show", "42")[0]) == TARGET | {"devices", "running", "deltas"}
    assert set(fleet.json("delta", "list")[0]) == DELTA
    assert set(fleet.json("journal", "lmp-42")[0]) >= ENTRY
    assert set(fleet.json("cancel", "lmp-42")) == {"rollout", "status", "sentence", "by", "dry_run"}


def test_times_are_iso_in_utc_and_nothing_is_markup(fleet: House) -> None:
    halted(fleet)
    text = fleet.ok("status", "lmp-42", "--json")
    rollout = json.loads(text)["result"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rollout["since"])
    assert "\x1b" not in text and "[bold" not in text
    assert rollout["status"] == "halted" and rollout["by"] == "policy"


def test_no_colour_in_a_pipe_nor_when_told(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()))
    assert "\x1b" not in fleet.ok("status")
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[" in fleet.run("status", env=forced).stdout
    coloured = fleet.run("status", "--no-color", env=forced).stdout
    assert "\x1b[3" not in coloured


def test_every_value_becomes_plain_json() -> None:
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from orchestrator.core.states import RolloutStatus
    from orchestrator.services.records import RunningCount

    value = {
        RolloutStatus.HELD: [timedelta(minutes=1), datetime(2026, 1, 1, tzinfo=UTC), b"\x01", Path("a"), {3, 1}],
        "count": RunningCount("rpi4", None, 4, 2),
    }
    assert plain(value) == {
        "held": [60.0, "2026-01-01T00:00:00Z", "01", "a", [1, 3]],
        "count": {"hardware_id": "rpi4", "commit": None, "version": 4, "devices": 2},
    }
