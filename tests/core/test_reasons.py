"""Sentences of which every part agrees with its number."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.core.facts import DeltaFacts
from orchestrator.core.reasons import are, have, ready_sentence


@pytest.mark.parametrize(
    ("ready", "pairs", "said"),
    [
        (0, 1, "0 of 1 delta is ready"),
        (1, 1, "1 of 1 delta is ready"),
        (0, 3, "0 of 3 deltas are ready"),
        (1, 3, "1 of 3 deltas is ready"),
        (2, 3, "2 of 3 deltas are ready"),
    ],
)
def test_deltas_that_are_ready(ready: int, pairs: int, said: str) -> None:
    facts = DeltaFacts(datetime(2026, 5, 4, tzinfo=UTC), devices=8, covered=6, pairs=pairs, ready=ready)
    assert ready_sentence(facts) == f"{said}, for 6 of 8 devices"


def test_devices_that_are_or_have() -> None:
    assert [are(0, 1), are(1, 2), are(0, 2)] == ["0 of 1 device is", "1 of 2 devices is", "0 of 2 devices are"]
    assert [have(0, 1), have(1, 2), have(2, 2)] == ["0 of 1 device has", "1 of 2 devices has", "2 of 2 devices have"]
