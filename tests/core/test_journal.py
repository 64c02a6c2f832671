"""Whatever is changed in a journal, left out of it or moved in it shows."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.journal import GENESIS, Entry, entry_hash, first_break

DAY_0 = datetime(2026, 3, 2, 9, tzinfo=UTC)


def _chain(length: int, *, by: str = "policy") -> list[Entry]:
    entries: list[Entry] = []
    for seq in range(1, length + 1):
        entry = Entry(
            seq=seq,
            at=DAY_0 + timedelta(hours=seq),
            event="opened",
            by=by,
            sentence=f"Wave {seq} opens.",
            wave=f"wave-{seq}",
            facts={"devices": 20 * seq, "slices": [{"members": seq}]},
            policy_digest="d1",
            evidence_seq=seq * 7,
            before=entries[-1].hash if entries else GENESIS,
        )
        entries.append(entry.sealed())
    return entries


def test_a_whole_chain_is_whole() -> None:
    assert first_break(_chain(5)) is None
    assert first_break(_chain(5), head=_chain(5)[-1].hash) is None
    assert first_break([]) is None
    assert first_break([], head=GENESIS) is None


CHANGED: dict[str, Any] = {
    "seq": 9,
    "at": DAY_0,
    "event": "halted",
    "by": "mallory",
    "sentence": "Nothing happened.",
    "wave": None,
    "facts": {"devices": 1},
    "policy_digest": "d2",
    "evidence_seq": 0,
    "before": "f" * 64,
    "hash": "f" * 64,
}


@pytest.mark.parametrize("field", [field.name for field in fields(Entry)])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_changed_field_is_found(field: str, place: int) -> None:
    chain = _chain(5)
    chain[place] = replace(chain[place], **{field: CHANGED[field]})
    assert first_break(chain) is not None


@pytest.mark.parametrize("field", [name for name in CHANGED if name not in ("hash", "seq")])
def test_a_changed_entry_that_was_sealed_again_is_found(field: str) -> None:
    chain = _chain(5)
    chain[2] = replace(chain[2], **{field: CHANGED[field]}).sealed()
    assert first_break(chain) in (
        "Entry 3 does not follow the entry before it: one of them was replaced or moved.",
        "Entry 4 does not follow the entry before it: one of them was replaced or moved.",
    )


@given(st.integers(2, 8), st.data())
def test_a_missing_entry_is_found(length: int, data: st.DataObject) -> None:
    chain = _chain(length)
    gone = data.draw(st.integers(0, length - 1))
    left = chain[:gone] + chain[gone + 1 :]
    found = first_break(left, head=chain[-1].hash)
    if gone < length - 1:
        assert found == f"Entry {gone + 1} is missing: entry {gone + 2} follows entry {gone}."
    else:
        assert found is not None and found.startswith("The journal does not end as the rollout says")


@given(st.permutations(range(5)))
def test_a_reordering_is_found(order: list[int]) -> None:
    chain = _chain(5)
    assert (first_break([chain[place] for place in order]) is None) == (order == sorted(order))


@given(st.integers(0, 4), st.integers(0, 5))
def test_an_entry_written_twice_is_found(twice: int, at: int) -> None:
    chain = _chain(5)
    assert first_break([*chain[:at], chain[twice], *chain[at:]]) is not None


def test_a_chain_written_anew_is_found_against_its_head() -> None:
    forged = _chain(5, by="mallory")
    assert first_break(forged) is None
    assert first_break(forged, head=_chain(5)[-1].hash) == (
        "The journal does not end as the rollout says: entry 5 is not the one that was written last."
    )
    assert first_break([], head=forged[-1].hash) == (
        "The journal does not end as the rollout says: there is no entry, not even the one that was written last."
    )


def test_hashes_never_change() -> None:
    """A change here would make every journal that was ever written look forged."""
    assert _chain(1)[0].hash == "feaa347619667ac587c7d3af99befaa5e57e0a45e11b6205ddddf825ad428cd3"


def test_a_hash_does_not_depend_on_how_a_value_is_held() -> None:
    """What comes back from a store may have lists for tuples, another order of keys, another zone."""
    entry = Entry(1, DAY_0, "opened", "policy", "Opens.", facts={"a": (1, 2), "b": {"c": 0.1, "d": None}})
    other = replace(
        entry, at=DAY_0.astimezone(timezone(timedelta(hours=1))), facts={"b": {"d": None, "c": 0.1}, "a": [1, 2]}
    )
    assert entry_hash(entry) == entry_hash(other)


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_parts_do_not_run_into_each_other(event: str, by: str, other_event: str, other_by: str) -> None:
    one = Entry(1, DAY_0, event, by, "Said.")
    other = Entry(1, DAY_0, other_event, other_by, "Said.")
    assert (entry_hash(one) == entry_hash(other)) == ((event, by) == (other_event, other_by))
