"""What a release manager writes in a rollout file, and the exact sentence when it cannot be taken."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.document import InvalidDocument
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.rollout_file import Devices, RolloutFile

ALL = {"wave": "rest", "devices": "all"}


def document(waves: list[dict[str, Any]] | None = None, **keys: Any) -> dict[str, Any]:
    return {
        "rollout": "lmp-42",
        "target": 42,
        "tag": "promoted",
        "policy": "standard",
        "waves": [ALL] if waves is None else waves,
        **keys,
    }


def wave(name: str, group: str = "", **keys: Any) -> dict[str, Any]:
    return {"wave": name, "devices": {"group": group or name}, **keys}


def refusal(given_: object) -> str:
    with pytest.raises(InvalidDocument) as refused:
        RolloutFile.parse(given_)
    return str(refused.value)


EXAMPLE = document(
    [
        {"wave": "lab", "devices": {"group": "lab"}},
        {"wave": "canary", "devices": {"count": 20, "spread": "hardware_id"}},
        {"wave": "emea", "devices": {"labels": {"region": "emea"}, "share": "25%"}},
        {"wave": "americas", "after": ["canary"], "devices": {"labels": {"region": "amer"}, "share": "25%"}},
        {"wave": "rest", "after": ["emea", "americas"], "devices": "all", "policy": {"promote": "manual"}},
    ]
)


def test_the_example_of_the_design_is_read() -> None:
    rollout = RolloutFile.parse(EXAMPLE)
    assert rollout.topological_order == ("lab", "canary", "emea", "americas", "rest")
    assert rollout.predecessors("lab") == ()
    assert rollout.predecessors("emea") == ("canary",)
    assert rollout.predecessors("rest") == ("emea", "americas")
    assert rollout.successors("canary") == ("emea", "americas")
    assert rollout.wave("emea").devices == Devices.parse({"labels": {"region": "emea"}, "share": "25%"})
    assert rollout.wave("emea").devices.share == 0.25
    assert rollout.wave("rest").devices.is_all
    assert not rollout.policy_is_path
    assert rollout.document() == {**EXAMPLE, "allow_older": False, "running": []}
    with pytest.raises(KeyError):
        rollout.wave("nobody")


def test_after_may_name_a_wave_below_and_be_a_single_name() -> None:
    rollout = RolloutFile.parse(document([wave("b", after="a"), wave("a", after=[]), {**ALL, "after": ["b"]}]))
    assert rollout.topological_order == ("a", "b", "rest")
    assert rollout.predecessors("a") == ()


def test_start_at_is_kept_in_utc() -> None:
    rollout = RolloutFile.parse(document(start_at="2026-12-01T09:00:00+01:00"))
    assert rollout.start_at == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert rollout.document()["start_at"] == "2026-12-01T08:00:00Z"


def test_the_way_back_names_what_may_go_back() -> None:
    rollout = RolloutFile.parse(document(target=41, allow_older=True, running=[42]))
    assert rollout.running == (42,)


def test_others_may_be_excluded_instead_of_a_last_wave_for_all() -> None:
    assert RolloutFile.parse(document([wave("lab")], excluded="others")).excluded == "others"


LEFTOVERS = (
    "waves: leave some devices in no wave: end with a wave of `devices: all` (no share, no count), "
    "or write `excluded: others` at the top if those are to be left out."
)
START = "a date and time with an offset, such as 2026-12-01T09:00:00+01:00 or 2026-12-01T08:00:00Z"

REFUSED = [
    (document([wave("lab")]), LEFTOVERS),
    (document([{"wave": "most", "devices": {"share": "90%"}}]), LEFTOVERS),
    (
        document(excluded="others"),
        "excluded: excludes nobody: wave rest takes all devices. Leave out one of the two.",
    ),
    (
        document(excluded="lab"),
        "excluded: must be 'others' (devices that no wave names are not eligible) or be left out, not 'lab'.",
    ),
    (document([]), "waves: must not be an empty list."),
    (document(target="42"), "target: must be a whole number, not '42'."),
    (document(target=True), "target: must be a whole number, not true."),
    (document(target=0), "target: must be at least 1, not 0."),
    (document(tag=1.0), "tag: must be text, not 1.0; write it in quotes if it is meant as text."),
    (
        document(policy={"promote": "manual"}),
        "policy: must be the name of a policy or a path to one; single keys may differ per wave.",
    ),
    (
        document(policy="My Policy"),
        "policy: must be the name of a policy (such as standard) or a path (such as ./mine.yaml), not 'My Policy'.",
    ),
    (document(supersedes="lmp-42"), "supersedes: names this rollout itself."),
    (document(allow_older=True), "running: is missing: allow_older needs the versions that may go back."),
    (document(running=[43]), "running: is allowed only with allow_older: true."),
    (document(allow_older="yes"), "allow_older: must be true or false, not 'yes'."),
    (
        document(allow_older=True, running=[43, 42]),
        "running[1]: must be above the target 42, not 42: only a newer version can go back.",
    ),
    (document(start_at="tomorrow"), f"start_at: must be {START}, not 'tomorrow'."),
    (document(start_at="2026-12-01T09:00:00"), f"start_at: has no offset from UTC: write it {START[32:]}."),
    (document(start_at="0001-01-01T00:00:00+14:00"), f"start_at: must be {START}, not '0001-01-01T00:00:00+14:00'."),
    (
        document([wave("lab"), wave("lab", "more"), ALL]),
        "waves[1].wave: is the name of waves[0] too: each wave needs its own.",
    ),
    (
        document([wave("canary"), {**ALL, "after": ["canry"]}]),
        "waves[1].after[0]: names no wave of this rollout: 'canry'. Did you mean 'canary'?",
    ),
    (
        document([wave("canary"), {**ALL, "after": ["canary", "canary"]}]),
        "waves[1].after[1]: names 'canary' a second time.",
    ),
    (
        document([wave("a", after=["c"]), wave("b"), wave("c"), ALL]),
        "waves[0].after: goes round in a circle, so that none could ever open: a → b → c → a.",
    ),
    (
        document([wave("a", after="a"), ALL]),
        "waves[0].after: goes round in a circle, so that none could ever open: a → a.",
    ),
    (
        document([ALL, wave("late")]),
        "waves[1].devices: can never have a device: wave rest above takes all devices. "
        "Put late above rest, or give rest a share.",
    ),
    (
        document([wave("lab"), {"wave": "x", "devices": {"group": "lab", "labels": {"a": "b"}, "share": "5%"}}, ALL]),
        "waves[1].devices: can never have a device: wave lab above takes group lab. "
        "Put x above lab, or give lab a share.",
    ),
    (
        document([{"wave": "lab", "devices": "lab"}, ALL]),
        "waves[0].devices: must be all, or a mapping such as {group: lab}, not 'lab'.",
    ),
    (
        document([{"wave": "lab", "devices": {}}, ALL]),
        "waves[0].devices: is an empty mapping: write `devices: all`, or a group, labels, a share or a count.",
    ),
    (
        document([{"wave": "lab", "devices": {"share": "5%", "count": 3}}, ALL]),
        "waves[0].devices: has both share and count: one of them is allowed.",
    ),
    (
        document([{"wave": "lab", "devices": {"share": "5%", "spread": "hardware_id"}}, ALL]),
        "waves[0].devices: has spread without count: write {count: 20, spread: hardware_id}.",
    ),
    (
        document([{"wave": "lab", "devices": {"count": 5, "spread": "hardware"}}, ALL]),
        "waves[0].devices.spread: must be hardware_id, not 'hardware'. Did you mean 'hardware_id'?",
    ),
    (
        document([{"wave": "lab", "devices": {"all": True, "share": "5%"}}, ALL]),
        "waves[0].devices.all: is written alone, as `devices: all`; leave it out here: {share: 25%} is of all devices.",
    ),
    (
        document([{"wave": "lab", "devices": {"labels": {"line": 4}}}, ALL]),
        "waves[0].devices.labels.line: must be text, not 4; write it in quotes if it is meant as text.",
    ),
    (
        document([{"wave": "lab", "devices": {"share": "250%"}}, ALL]),
        "waves[0].devices.share: is more than the whole: a share is at most 100%, not '250%'.",
    ),
    (
        document([{**ALL, "policy": {"tolerate": {"failed": "5%"}}}]),
        "waves[0].policy.tolerate: cannot differ from wave to wave; "
        "a wave may change promote, window, pace, bake, deltas, gates, approve.",
    ),
    (
        document([{**ALL, "gates": []}]),
        "waves[0].gates: is not a key here; allowed are wave, devices, after, policy. Did you mean 'after'?",
    ),
    (
        document([{"wave": "lab"}, ALL]),
        "waves[0].devices: is missing; for example `devices: {group: lab}`.",
    ),
]


@pytest.mark.parametrize(("given_", "sentence"), REFUSED)
def test_what_is_refused_and_how(given_: dict[str, Any], sentence: str) -> None:
    assert refusal(given_) == sentence


def test_a_wave_that_might_still_get_a_device_is_not_refused() -> None:
    """A share leaves something; another group, or a label on the earlier wave only, may leave something."""
    RolloutFile.parse(
        document(
            [
                {"wave": "some", "devices": {"share": "99%"}},
                {"wave": "lab", "devices": {"group": "lab", "labels": {"a": "b"}}},
                {"wave": "labs", "devices": {"group": "lab"}},
                {"wave": "b", "devices": {"labels": {"a": "b"}}},
                ALL,
            ]
        )
    )


def test_all_problems_are_told_at_once() -> None:
    told = refusal(document([wave("A"), {"wave": "b"}], tag=None, target=-1, x=1))
    assert [line.split(": ")[0] for line in told.splitlines()] == [
        "tag",
        "target",
        "waves[0].wave",
        "waves[1].devices",
        "x",
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 7))
def test_every_graph_of_waves_is_ordered_or_refused(data: st.DataObject, count: int) -> None:
    """Whatever ``after`` says: each wave stands after its predecessors, or the file is refused with a real circle."""
    names = [f"w{index}" for index in range(count)]
    waves = [
        {**wave(name), **({} if after is None else {"after": after})}
        for name in names
        for after in [data.draw(st.none() | st.lists(st.sampled_from(names), unique=True, max_size=3))]
    ]
    edges = [
        (before, each["wave"])
        for index, each in enumerate(waves)
        for before in each.get("after", names[max(0, index - 1) : index])
    ]
    if nx.is_directed_acyclic_graph(nx.DiGraph(edges)):
        rollout = RolloutFile.parse(document(waves, excluded="others"))
        order = rollout.topological_order
        assert sorted(order) == names
        assert all(order.index(before) < order.index(name) for before, name in edges)
        assert {(before, name) for name in names for before in rollout.predecessors(name)} == set(edges)
        assert {(name, after) for name in names for after in rollout.successors(name)} == set(edges)
        assert RolloutFile.from_canonical(rollout.canonical()) == rollout
    else:
        told = refusal(document(waves, excluded="others"))
        circle = told.rstrip(".").split(": ")[-1].split(" → ")
        assert circle[0] == circle[-1]
        assert set(pairwise(circle)) <= set(edges)


def test_keys_in_another_order_give_the_same_digest_and_waves_do_not() -> None:
    rollout = RolloutFile.parse(EXAMPLE)
    turned = {key: EXAMPLE[key] for key in reversed(EXAMPLE)}
    assert RolloutFile.parse(turned).digest() == rollout.digest()
    one, other = document([wave("a"), wave("b"), ALL]), document([wave("b"), wave("a"), ALL])
    assert RolloutFile.parse(one).digest() != RolloutFile.parse(other).digest()


def test_a_fleet_is_read_and_an_id_appears_once() -> None:
    devices: list[dict[str, Any]] = [
        {"id": "00:1A:2b", "hardware_id": "rpi4", "tag": "main", "labels": {"site": "a"}},
        {"id": "x", "hardware_id": "rpi4", "tag": "main", "group": "lab"},
    ]
    fleet = FleetFile.parse({"devices": devices})
    assert fleet.document() == {"devices": [devices[0], {**devices[1], "labels": {}}]}
    with pytest.raises(InvalidDocument) as refused:
        FleetFile.parse({"devices": [*devices, devices[0], {"id": "a b", "hardware_id": "x", "tag": "y"}]})
    assert str(refused.value) == (
        "devices[3].id: must be made of letters, digits and . _ : -, beginning with a letter or digit, at most 128, "
        "not 'a b'."
    )
    with pytest.raises(InvalidDocument) as refused:
        FleetFile.parse({"devices": [*devices, devices[0]]})
    assert str(refused.value) == "devices[2].id: is the id of devices[0] too: each device is enrolled once."
