"""P9: every eligible device is in exactly one wave, and adding devices moves none."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.membership import Member, WaveSelector, spread_counts, wave_of, why_in
from orchestrator.core.position import SPACE, DeviceHash, bound_of_share, device_hash, position, wave_salt

GROUPS = (None, "lab", "friends")
HARDWARE = ("rpi4", "imx8", "qemu")
FLEET = [
    Member(device_hash(f"device-{number}"), HARDWARE[number % 3], None, {"region": ("emea", "amer")[number % 2]})
    for number in range(20_000)
]

members = st.builds(
    Member,
    hash=st.builds(DeviceHash, st.integers(0, SPACE - 1), st.integers(0, SPACE - 1)),
    hardware_id=st.sampled_from(HARDWARE),
    group=st.sampled_from(GROUPS),
    labels=st.dictionaries(st.sampled_from(["region", "site"]), st.sampled_from(["a", "b"])),
)


@st.composite
def selectors(draw: st.DrawFn) -> tuple[WaveSelector, ...]:
    """Some waves of every kind, and at the end one that takes all."""
    bound = st.integers(0, SPACE)
    waves = [
        WaveSelector(
            wave=f"wave-{number}",
            salt=wave_salt("salt", f"wave-{number}"),
            group=draw(st.sampled_from(GROUPS)),
            labels=tuple(draw(st.dictionaries(st.just("region"), st.sampled_from(["a", "b"]))).items()),
            bound=draw(st.none() | bound),
            bounds=None,
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    spread = draw(st.dictionaries(st.sampled_from(HARDWARE), bound))
    waves.append(WaveSelector("canary", wave_salt("salt", "canary"), bounds=tuple(spread.items())))
    return (*waves, WaveSelector("rest", wave_salt("salt", "rest")))


@given(members, selectors())
def test_why_a_device_is_where_it_is_ends_with_its_wave(member: Member, waves: tuple[WaveSelector, ...]) -> None:
    found, why = wave_of(member, waves), why_in(member, waves)
    assert found is not None
    assert why[-1].startswith(f"{found.wave}: ")
    assert all(line.endswith(".") and "is not below" in line for line in why[:-1])
    assert len(why) <= 1 + [each.wave for each in waves].index(found.wave)
    if (nowhere := why_in(member, waves[:-1])) and wave_of(member, waves[:-1]) is None:
        assert nowhere[-1] == "No wave has it."


def test_why_a_device_is_in_its_wave() -> None:
    member = Member(device_hash("device-1"), "rpi4", "lab", {"region": "emea"})
    at = position(member.hash, wave_salt("salt", "canary"))
    lab = WaveSelector("lab", wave_salt("salt", "lab"), group="lab", labels=(("region", "emea"),))
    other = WaveSelector("other", wave_salt("salt", "other"), group="friends")
    canary = WaveSelector("canary", wave_salt("salt", "canary"), bounds=(("rpi4", at),))
    all_of_it = "rest: it takes all that no wave before it has."
    assert why_in(member, (other, lab)) == (
        "lab: it takes all for group lab and region=emea that no wave before it has.",
    )
    shown = f"{at / SPACE:.4f}"
    not_in = f"canary: a part of all of rpi4; its position {shown} is not below {shown}."
    assert why_in(member, (canary, other, _all("rest"))) == (not_in, all_of_it)
    assert why_in(member, (canary, other)) == (not_in, "No wave has it.")
    half = position(member.hash, wave_salt("salt", "half")) / SPACE
    (line,) = why_in(member, (_all("half", 0.999_999), _all("rest")))
    assert line == f"half: a part of all; its position {half:.4f} is below 1.0000."


def _all(name: str, share: float | None = None) -> WaveSelector:
    return WaveSelector(name, wave_salt("salt", name), bound=None if share is None else bound_of_share(share))


@given(members, selectors())
def test_a_device_is_in_exactly_one_wave_when_one_takes_all(member: Member, waves: tuple[WaveSelector, ...]) -> None:
    found = wave_of(member, waves)
    assert found is not None
    assert found.holds(member)
    assert not any(wave.holds(member) for wave in waves[: waves.index(found)])
    assert [wave for wave in waves if wave_of(member, waves) is wave] == [found]


@given(members)
def test_a_device_that_no_wave_asks_for_is_in_none(member: Member) -> None:
    assert wave_of(member, [WaveSelector("other", wave_salt("salt", "other"), group="nobody's")]) is None


def test_adding_devices_moves_none() -> None:
    waves = (_all("first", 0.1), _all("second", 0.25), _all("rest"))
    before = {member.hash: wave_of(member, waves) for member in FLEET[:5_000]}
    after = {member.hash: wave_of(member, waves) for member in FLEET}
    assert all(after[each] is wave for each, wave in before.items())


def test_a_tenth_and_then_a_quarter_are_ten_and_twenty_two_and_a_half_per_cent() -> None:
    """RULES 5.5: a share is of the devices that no earlier wave has."""
    waves = (_all("first", 0.10), _all("second", 0.25), _all("rest"))
    found = Counter(wave.wave for member in FLEET if (wave := wave_of(member, waves)))
    for name, share in (("first", 0.10), ("second", 0.225), ("rest", 0.675)):
        deviation = math.sqrt(len(FLEET) * share * (1 - share))
        assert abs(found[name] - share * len(FLEET)) < 4 * deviation, found


def test_a_share_of_a_label_is_of_the_devices_that_have_it() -> None:
    emea = WaveSelector("emea", wave_salt("salt", "emea"), labels=(("region", "emea"),), bound=bound_of_share(0.25))
    inside = [member for member in FLEET if emea.holds(member)]
    assert {member.labels["region"] for member in inside} == {"emea"}
    assert abs(len(inside) - 2_500) < 4 * math.sqrt(10_000 * 0.25 * 0.75)


def test_a_count_is_a_bound_that_late_joiners_below_it_share() -> None:
    """Twenty of what is there at the start; who comes later and stands below the bound is in it too."""
    salt = wave_salt("salt", "canary")
    there, late = FLEET[:10_000], FLEET[10_000:]
    canary = WaveSelector("canary", salt, bound=sorted(position(member.hash, salt) for member in there)[20])
    assert sum(canary.holds(member) for member in there) == 20
    assert 5 <= sum(canary.holds(member) for member in late) <= 40


def test_a_spread_wave_has_no_device_of_hardware_it_does_not_name() -> None:
    canary = WaveSelector("canary", wave_salt("salt", "canary"), bounds=(("rpi4", SPACE),))
    assert {member.hardware_id for member in FLEET if canary.holds(member)} == {"rpi4"}


# ------------------------------------------------------------------------------------------------- spread_counts


@pytest.mark.parametrize(
    ("available", "count", "split"),
    [
        ({"a": 900, "b": 90, "c": 10}, 20, {"a": 18, "b": 1, "c": 1}),
        ({"a": 500, "b": 300, "c": 200}, 10, {"a": 5, "b": 3, "c": 2}),
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1}),
        ({"a": 3, "b": 8, "c": 5}, 2, {"b": 1, "c": 1}),
        ({"a": 3, "b": 0}, 20, {"a": 3}),
        ({"a": 10_000, "b": 1, "c": 1, "d": 1}, 4, {"a": 1, "b": 1, "c": 1, "d": 1}),
        ({"a": 3, "b": 3}, 3, {"a": 2, "b": 1}),
        ({}, 20, {}),
        ({"a": 5}, 0, {}),
    ],
)
def test_a_spread_is_in_proportion_and_forgets_no_hardware(
    available: dict[str, int], count: int, split: dict[str, int]
) -> None:
    assert spread_counts(available, count) == split


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 500)), st.integers(-1, 1_000))
def test_a_spread_gives_out_all_it_may_and_strays_less_than_one_place_from_proportion(
    available: dict[str, int], count: int
) -> None:
    split = spread_counts(available, count)
    there = {name: devices for name, devices in available.items() if devices}
    wanted = max(0, min(count, sum(there.values())))
    assert sum(split.values()) == wanted
    assert all(0 < places <= there[name] for name, places in split.items())
    if wanted >= len(there):
        assert set(split) == set(there)
    alone = {name for name in there if wanted * there[name] < sum(there.values())}
    for name in there.keys() - alone if not alone else ():
        assert abs(split[name] - wanted * there[name] / sum(there.values())) < 1
    for name, places in split.items():
        assert places <= wanted * there[name] / sum(there.values()) + 1
    # The larger never gets less than the smaller.
    ranked = sorted(there, key=lambda name: there[name])
    assert all(split.get(a, 0) <= split.get(b, 0) for a, b in pairwise(ranked) if there[a] < there[b])
