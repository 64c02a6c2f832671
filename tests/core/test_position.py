"""Positions are the same for ever, evenly spread, and independent from wave to wave."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.position import SPACE, DeviceHash, Salt, bound_of_share, device_hash, position, wave_salt

halves = st.integers(0, SPACE - 1)
constants = st.integers(1, SPACE - 1)

DEVICES = [device_hash(f"device-{number:05d}") for number in range(20_000)]
CANARY, REST = wave_salt("8d3f", "canary"), wave_salt("8d3f", "rest")


def test_hashes_and_positions_never_change() -> None:
    """A change here would put every device of a running rollout somewhere else."""
    assert device_hash("rpi4-0001") == DeviceHash(440_983_951, 946_275_628)
    assert device_hash("") == DeviceHash(1_109_431_407, 1_147_569_171)
    assert device_hash("gerät") == DeviceHash(2_063_734_463, 1_014_909_482)
    assert wave_salt("8d3f", "canary") == Salt(1_516_701_877, 569_987_664, 379_751_318)
    assert position(device_hash("rpi4-0001"), CANARY) == 1_861_092_987
    assert wave_salt("8d3", "fcanary") != CANARY  # the parts do not run into each other


@given(halves, halves, constants, constants, constants)
def test_a_position_lies_in_the_space_and_fits_64_signed_bits(high: int, low: int, a: int, b: int, c: int) -> None:
    assert 0 <= position(DeviceHash(high, low), Salt(a, b, c)) < SPACE
    assert high * a + low * b + c < 2**63
    assert (SPACE - 1) * (SPACE - 1) * 2 + SPACE < 2**63


def test_no_stretch_of_positions_is_crowded_or_empty() -> None:
    """20,000 devices in 50 stretches: 400 each, give or take four standard deviations."""
    for salt in (CANARY, REST):
        stretches = Counter(position(device, salt) * 50 // SPACE for device in DEVICES)
        assert set(stretches) == set(range(50))
        assert max(abs(count - 400) for count in stretches.values()) < 4 * math.sqrt(400)


def test_no_prefix_of_positions_is_far_from_its_share() -> None:
    """The Kolmogorov distance of 20,000 positions from evenness stays below 1.63 / sqrt(n), the 1 % point."""
    ordered = sorted(position(device, CANARY) / SPACE for device in DEVICES)
    distance = max(abs(at - (rank + 0.5) / len(ordered)) for rank, at in enumerate(ordered))
    assert distance < 1.63 / math.sqrt(len(ordered))


def test_who_is_early_in_one_wave_is_early_or_late_in_another_alike() -> None:
    """Joint tenths of two waves: 200 devices in each of 100 cells, give or take four and a half deviations."""
    cells = Counter(
        (position(device, CANARY) * 10 // SPACE, position(device, REST) * 10 // SPACE) for device in DEVICES
    )
    assert len(cells) == 100
    assert max(abs(count - 200) for count in cells.values()) < 4.5 * math.sqrt(200)


def test_ids_that_count_up_do_not_stand_in_a_row() -> None:
    pairs = [(position(a, CANARY), position(b, CANARY)) for a, b in pairwise(DEVICES)]
    rising = sum(a < b for a, b in pairs) / len(pairs)
    assert abs(rising - 0.5) < 0.02


@given(st.floats(0, 1), st.floats(0, 1))
def test_bounds_of_shares_keep_their_order_and_reach_both_ends(one: float, other: float) -> None:
    assert bound_of_share(0.0) == 0
    assert bound_of_share(1.0) == SPACE
    assert (bound_of_share(one) <= bound_of_share(other)) or one > other
