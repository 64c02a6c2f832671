"""Input at the edge: tolerances of nothing and of all, a wave of one device, monitors without members."""

from __future__ import annotations

import pytest

from orchestrator.core.evidence.allowance import WaveSize, allot
from orchestrator.core.evidence.detect import detectable_rate, plain_word
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.outcomes import OutcomeClass, Tolerance
from orchestrator.core.policy import Policy
from orchestrator.core.reasons import monitor_state
from orchestrator.core.rules import WaveRules
from orchestrator.core.safety import safety
from orchestrator.core.states import WaveStatus
from orchestrator.errors import InvalidInput, WaveError
from tests.core.world import HOUR, monitor, world

FAILED = OutcomeClass.FAILED


@pytest.mark.parametrize("share", ["0%", "100%"])
def test_nothing_and_everything_cannot_be_tolerated(share: str) -> None:
    with pytest.raises(WaveError, match="more than 0% and less than 100%"):
        Policy.parse({"policy": "edge", "tolerate": {"failed": share}})


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_no_monitor_is_made_of_them_either(tolerance: float) -> None:
    with pytest.raises(InvalidInput, match="cannot be watched"):
        allot(tolerate={FAILED: Tolerance(tolerance)}, false_halt=0.05, waves=(), devices=1_000)


def test_a_wave_of_one_device_passes_on_its_one_confirmation_and_not_without() -> None:
    told = world(WaveRules("lab"), devices=1)
    told.tick()
    told.offer("lab")
    told.tick()
    told.pass_time(47 * HOUR)
    told.tick()
    assert told.status("lab") is WaveStatus.BAKING
    told.confirm("lab")
    told.tick()
    assert told.status("lab") is WaveStatus.PASSED
    assert detectable_rate(staircase(0.02, 0.05), 1) is None
    assert "cannot halt by evidence" in plain_word(staircase(0.02, 0.05), 1)


def test_a_monitor_without_members_is_not_made_and_would_say_nothing() -> None:
    specs = allot(
        tolerate={FAILED: Tolerance(0.02)}, false_halt=0.05, waves=(WaveSize("empty", 0, 5_000),), devices=5_000
    )
    assert [spec.key for spec in specs] == ["rollout/failed"]
    told = world(WaveRules("lab"))
    told.monitors = {"wave:empty/failed": monitor(wave="empty", alpha=0.05)}
    assert safety(told.state, told.facts, told.rules) is None
    line = "0 failed among 0 places; 2 within the first 5 halt; tolerance 2 %"
    assert monitor_state(told.monitors["wave:empty/failed"]) == line
