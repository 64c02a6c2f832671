"""``wave journal verify`` finds whatever is done to a journal behind its back, on either database.

Every tampering goes straight to the database, past the triggers that would refuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.evidence.log import BLOCK, Digesting
from orchestrator.core.journal import Entry
from orchestrator.core.states import RolloutStatus
from orchestrator.services import verifying
from orchestrator.services.tick import SEALED_AT_ONCE
from orchestrator.services.verifying import Finding, Verified, Verifier
from tests.services.fleet_world import World

NAME = "lmp-42"


@pytest.fixture
def played(world: World) -> World:
    """A rollout of two waves with a pause, some outcomes of either kind, and a second rollout that nobody touches."""
    devices = world.fleet(24)
    world.apply(waves=[{"wave": "first", "devices": {"count": 6}}, {"wave": "rest", "devices": "all"}])
    offered = [each for each in devices if world.check_in(each) is not None]
    for device in offered[:2]:
        world.check_in(device, 42)
    world.report(offered[2], "failed")
    world.rollouts.resume(NAME, by="anna", accept=["small-wave/first_bad"], reason="known")
    world.check_in(offered[3], 42)
    world.rollouts.pause(NAME, by="anna")
    world.check_in(offered[4], 42)
    world.rollouts.resume(NAME, by="anna")
    world.later(timedelta(hours=1))
    world.target(43)
    world.apply(name="other", target=43, start=False)
    return world


def verified(world: World, name: str | None = NAME) -> Verified:
    (found,) = [each for each in Verifier(world.store).verify(name) if name in (None, each.rollout)]
    return found


def faults(world: World) -> set[tuple[str, int | None]]:
    return {(each.fault, each.entry) for each in verified(world).findings}


def tamper(world: World, *statements: str) -> None:
    """Statements by somebody who has the database's password."""
    with world.store.writing() as w:
        if w.link.postgres:
            w.link.script("DROP TRIGGER IF EXISTS journal_keeps ON journal")
        else:
            w.link.script("DROP TRIGGER IF EXISTS journal_keeps")
            w.link.script("DROP TRIGGER IF EXISTS journal_stays")
        for statement in statements:
            w.link.script(statement.replace("$R", f"(SELECT key FROM rollout WHERE name = '{NAME}')"))


def entries(world: World) -> Sequence[Entry]:
    key = world.row(NAME).key
    with world.store.reading() as r:
        return r.journal(key)


def put(world: World, forged: Sequence[Entry], *, head: bool = False) -> None:
    """Write a whole journal anew, and with ``head`` what the rollout says of it."""
    key = world.row(NAME).key
    tamper(world, f"DELETE FROM journal WHERE rollout_key = {key}")
    with world.store.writing() as w:
        row = w.rollout_by_key(key)
        assert row is not None
        w.append_journal(row, forged)
        if head:
            w.link.run(
                "UPDATE rollout SET journal_seq = ?, journal_hash = ? WHERE key = ?",
                (forged[-1].seq, forged[-1].hash, key),
            )


def sealed_anew(chain: Sequence[Entry]) -> list[Entry]:
    """The same entries, each with the hash that follows from what it says now."""
    found: list[Entry] = []
    for entry in chain:
        before = found[-1].hash if found else entry.before
        found.append(replace(entry, before=before, seq=len(found) + 1).sealed())
    return found


def test_what_nobody_touched_holds(played: World) -> None:
    found = verified(played)
    assert found.findings == () and found.holds
    assert found.entries == len(entries(played)) > 8 and found.evidence == 5
    assert [each.rollout for each in Verifier(played.store).verify()] == [NAME, "other"]


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 1",
        "event = 'cancelled'",
        "by = 'mallory'",
        "sentence = 'Nothing happened.'",
        "wave = 'rest'",
        "facts = '{}'",
        "policy_digest = 'x'",
        "evidence_seq = evidence_seq + 1",
        "hash = before",
    ],
)
def test_a_changed_entry_is_found(played: World, change: str) -> None:
    tamper(played, f"UPDATE journal SET {change} WHERE rollout_key = $R AND seq = 5")
    found = verified(played).findings
    assert Finding(NAME, "changed", 5, "Entry 5 was changed after it was written.") in found
    assert all(each.entry in (5, 6) for each in found)


def test_a_single_fact_that_was_changed_is_found(played: World) -> None:
    facts = json.loads(json.dumps(entries(played)[3].facts))
    assert facts["devices"] == 24
    facts["devices"] = 2400
    text = json.dumps(facts, sort_keys=True).replace("'", "''")
    tamper(played, f"UPDATE journal SET facts = '{text}' WHERE rollout_key = $R AND seq = 4")
    assert faults(played) == {("changed", 4)}


@pytest.mark.parametrize("gone", [(1,), (4,), (4, 5, 6)])
def test_a_gap_is_found(played: World, gone: tuple[int, ...]) -> None:
    tamper(played, f"DELETE FROM journal WHERE rollout_key = $R AND seq IN ({', '.join(map(str, gone))})")
    found = verified(played).findings
    assert ("missing", gone[0]) in {(each.fault, each.entry) for each in found}
    assert ("Entries 4 to 6 are missing" in found[0].sentence) == (len(gone) == 3)


def test_two_entries_that_changed_places_are_found(played: World) -> None:
    tamper(
        played,
        "UPDATE journal SET seq = 1000 WHERE rollout_key = $R AND seq = 4",
        "UPDATE journal SET seq = 4 WHERE rollout_key = $R AND seq = 5",
        "UPDATE journal SET seq = 5 WHERE rollout_key = $R AND seq = 1000",
    )
    assert {("moved", 4), ("moved", 5), ("changed", 4), ("changed", 5)} <= faults(played)


@pytest.mark.parametrize("many", [1, 3])
def test_a_tail_that_was_cut_off_is_found(played: World, many: int) -> None:
    last = len(entries(played))
    tamper(played, f"DELETE FROM journal WHERE rollout_key = $R AND seq > {last - many}")
    assert faults(played) == {("cut_off", None)}


def test_a_whole_journal_that_was_removed_is_found(played: World) -> None:
    tamper(played, "DELETE FROM journal WHERE rollout_key = $R")
    assert ("cut_off", None) in faults(played)


def test_a_tail_that_was_cut_off_shows_in_the_record_though_the_rollout_names_another_head(played: World) -> None:
    """The last order and what followed it is taken out, and the rollout's own row is made to agree."""
    kept = list(entries(played))[:-2]
    assert kept[-1].event == "paused"
    put(played, kept, head=True)
    assert faults(played) == {("record", None)}


def test_an_entry_that_was_written_anew_and_sealed_shows_at_the_next(played: World) -> None:
    chain = list(entries(played))
    chain[4] = replace(chain[4], by="mallory").sealed()
    put(played, chain)
    assert faults(played) == {("moved", 6)}


def test_a_journal_that_was_written_anew_shows_at_its_head(played: World) -> None:
    chain = list(entries(played))
    chain[4] = replace(chain[4], by="mallory")
    put(played, sealed_anew(chain))
    assert faults(played) == {("cut_off", None)}


def test_a_decision_left_out_of_a_journal_that_was_written_anew_shows_in_the_record(played: World) -> None:
    """Whoever forges everything, head included, must also forge what each decision was made from."""
    chain = [entry for entry in entries(played) if entry.event != "paused"]
    put(played, sealed_anew(chain), head=True)
    assert faults(played) == {("record", 1 + next(n for n, e in enumerate(chain) if e.sentence == "Resumed by anna."))}


def test_a_record_changed_without_its_journal_is_found(played: World) -> None:
    row = played.row(NAME)
    state = replace(row.state, waves=tuple(replace(wave, promoted=True) for wave in row.state.waves))
    with played.store.writing() as w:
        w.save_rollout(replace(row, state=state))
    assert faults(played) == {("record", None)}
    # The next order or decision keeps that for good.
    played.rollouts.pause(NAME, by="anna")
    assert faults(played) == {("record", len(entries(played)))}


def test_a_decision_made_from_another_record_is_found(played: World) -> None:
    row = played.row(NAME)
    with played.store.writing() as w:
        w.save_rollout(replace(row, state=replace(row.state, first_bad_accepted=0)))
    played.tick()
    assert played.row(NAME).state.status is RolloutStatus.HELD
    last = len(entries(played))
    assert ("record", last) in faults(played)


EVIDENCE: dict[str, str] = {
    "changed": "UPDATE evidence SET rollout_place = rollout_place + 1 WHERE rollout_key = $R AND outcome = 'failed'",
    "another outcome": "UPDATE evidence SET outcome = 'confirmed' WHERE rollout_key = $R AND outcome = 'failed'",
    "another time": "UPDATE evidence SET received_at = received_at - 1 WHERE rollout_key = $R AND outcome = 'failed'",
    "another device": "UPDATE evidence SET device_key = 1 + device_key % 2 WHERE rollout_key = $R",
    "missing": "DELETE FROM evidence WHERE rollout_key = $R AND outcome = 'failed'",
    "all missing": "DELETE FROM evidence WHERE rollout_key = $R",
    "moved": "UPDATE evidence SET seq = seq + 1000 WHERE rollout_key = $R AND outcome = 'failed'",
    "added": (
        "INSERT INTO evidence (seq, rollout_key, device_key, received_at, outcome, wave, slice_number, rollout_place, "
        "wave_place) SELECT min(seq) - 1000, rollout_key, min(device_key), 0, 'confirmed', 'first', 1, 1, 1 "
        "FROM evidence WHERE rollout_key = $R GROUP BY rollout_key"
    ),
}


@pytest.mark.parametrize("how", EVIDENCE)
def test_evidence_that_is_not_what_the_entries_saw_is_found(played: World, how: str) -> None:
    tamper(played, EVIDENCE[how])
    found = verified(played).findings
    assert [each.fault for each in found] == ["evidence"]
    assert found[0].entry is not None and entries(played)[found[0].entry - 1].event == "held"
    if how == "missing":
        assert "1 row is missing" in found[0].sentence
    if how == "added":
        assert "1 row is too many" in found[0].sentence


@pytest.mark.parametrize(("file", "sentence"), [("spec", "rollout file"), ("policy", "policy file")])
def test_a_bound_file_that_is_not_the_one_in_the_journal_is_found(played: World, file: str, sentence: str) -> None:
    row = played.row(NAME)
    other = row.spec.replace('"first"', '"forst"') if file == "spec" else row.policy.replace('"12h"', '"13h"')
    assert other not in (row.spec, row.policy)
    with played.store.writing() as w:
        w.save_rollout(replace(row, spec=other) if file == "spec" else replace(row, policy=other))
    (found,) = verified(played).findings
    assert found.fault == "file" and f"The bound {sentence} is not the one" in found.sentence
    # Nor does it help to name its digest.
    digest = hashlib.sha256(other.encode()).hexdigest()
    row = played.row(NAME)
    with played.store.writing() as w:
        w.save_rollout(replace(row, spec_digest=digest) if file == "spec" else replace(row, policy_digest=digest))
    (found,) = verified(played).findings
    assert found.fault == "file" and "than its journal" in found.sentence


def test_a_journal_of_another_making_cannot_be_read_and_says_so(played: World) -> None:
    chain = list(entries(played))
    look = next(n for n, entry in enumerate(chain) if "decided" in entry.facts)
    chain[look] = replace(chain[look], facts={**chain[look].facts, "decided": [{"decision": "Wish"}]})
    put(played, sealed_anew(chain), head=True)
    assert ("unreadable", look + 1) in faults(played)


def test_what_was_sealed_shows_without_an_entry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More outcomes than two blocks come and no decision after them: the tick works their digest out, and one that is
    changed then is found."""
    devices = world.fleet(3)
    world.apply()
    key = world.row(NAME).key
    with world.store.writing() as w:
        device = w.device(devices[0])
        assert device is not None
        row = (key, device.key, 1, "confirmed", "all", 1, 1, 1)
        w.link.many(
            "INSERT INTO evidence (rollout_key, device_key, received_at, outcome, wave, slice_number, rollout_place, "
            "wave_place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [row] * (SEALED_AT_ONCE + 10),
        )
        assert w.evidence_unsealed(key, at_least=SEALED_AT_ONCE)
    world.tick()
    with world.store.reading() as r:
        seal = r.evidence_seal(key)
        log = Digesting()
        log.extend(r.evidence_lines(key, limit=SEALED_AT_ONCE + 10))
    assert seal == log.seal and seal.rows == SEALED_AT_ONCE
    assert verified(world).holds and verified(world).evidence == SEALED_AT_ONCE + 10
    with world.store.writing() as w:
        assert w.seal_evidence(key, at_most=100).rows == SEALED_AT_ONCE + 10
        assert w.seal_evidence(key, at_most=100) == log.covered()
    tamper(world, f"UPDATE evidence SET received_at = 2 WHERE rollout_key = $R AND seq = {seal.seq - BLOCK}")
    monkeypatch.setattr(verifying, "LINES_AT_ONCE", 1_000)
    told: list[tuple[str, int, int]] = []

    def tell(*each: Any) -> None:
        told.append(each)

    (found,) = Verifier(world.store).verify(NAME, progress=tell)
    assert [each.fault for each in found.findings] == ["evidence"] and "sealed" in found.findings[0].sentence
    assert told[0] == (NAME, 1_000, SEALED_AT_ONCE + 10) and len(told) == (SEALED_AT_ONCE + 10) // 1_000


def test_a_log_has_the_same_digest_however_it_is_read() -> None:
    rows = [(seq, f"{seq}|1|2|confirmed|all|1|{seq}|{seq}") for seq in range(1, 3 * BLOCK + 17)]
    whole = Digesting()
    whole.extend(rows)
    for cut in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5):
        first = Digesting()
        first.extend(rows[:cut])
        rest = Digesting(first.seal)
        rest.extend(rows[first.seal.rows :])
        assert rest.covered() == whole.covered() and rest.seal == whole.seal


CHANGES: dict[str, Callable[[list[tuple[int, str]]], list[tuple[int, str]]]] = {
    "one left out": lambda rows: rows[:7] + rows[8:],
    "one twice": lambda rows: rows[:7] + rows[6:],
    "two moved": lambda rows: [*rows[:7], rows[8], rows[7], *rows[9:]],
    "one changed": lambda rows: [*rows[:7], (rows[7][0], rows[7][1] + "0"), *rows[8:]],
    "two joined": lambda rows: [*rows[:7], (8, f"{rows[7][1]}{rows[8][1]}"), *rows[9:]],
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_log_that_differs_has_another_digest(how: str) -> None:
    rows = [(seq, f"{seq}|1|2|confirmed|all|1|{seq}|{seq}") for seq in range(1, BLOCK + 20)]
    one, other = Digesting(), Digesting()
    one.extend(rows)
    other.extend(CHANGES[how](rows))
    assert one.covered().digest != other.covered().digest
