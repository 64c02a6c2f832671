"""What gates said: the last answer of each, by wave, and a rollout without gates costs no question."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.gates import GateAnswer, GateFacts
from orchestrator.core.policy import Policy
from tests.contract.building import HOUR, NOW, rollout, undone

ERRORS = GateFacts("errors", "0123", GateAnswer.NOT_YET, "5 is not below 5", NOW + HOUR, NOW)
TICKETS = GateFacts("tickets", "4567", GateAnswer.NO_DATA, "", NOW + HOUR, NOW + HOUR)


def test_answers_are_kept_by_wave_and_replaced_together(store: SqlStore) -> None:
    with undone(store) as w:
        row = w.add_rollout(rollout())
        other = w.add_rollout(rollout("other"))
        assert w.gates(row.key) == {}
        w.set_gates(row.key, "lab", [TICKETS, ERRORS])
        w.set_gates(row.key, "rest", [ERRORS])
        w.set_gates(other.key, "lab", [TICKETS])
        assert w.gates(row.key) == {"lab": [ERRORS, TICKETS], "rest": [ERRORS]}
        said = replace(ERRORS, answer=GateAnswer.YES)
        w.set_gates(row.key, "lab", [said])
        assert w.gates(row.key) == {"lab": [said], "rest": [ERRORS]}
        w.set_gates(row.key, "lab", [])
        assert w.gates(row.key) == {"rest": [ERRORS]}


def test_a_decision_sees_them_where_the_files_have_gates(store: SqlStore) -> None:
    gated = Policy.parse({"policy": "gated", "gates": [{"gate": "errors", "asks": "desk"}]})
    with undone(store) as w:
        row = w.add_rollout(rollout())
        wave = row.state.waves[0].wave
        w.set_gates(row.key, wave, [ERRORS])
        assert w.facts(row, now=NOW).waves[0].gates == ()
        row = replace(row, policy=gated.canonical().decode())
        assert w.facts(row, now=NOW).waves[0].gates == (ERRORS,)
