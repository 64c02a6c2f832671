"""What gates said, as it is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.gates import GateAnswer, GateFacts
from orchestrator.services.records import RolloutRow

_KEY = '"gates"'


def has_gates(row: RolloutRow) -> bool:
    """Whether its files may name any: most do not, and their facts cost no statement."""
    return _KEY in row.policy or _KEY in row.spec


class GateReading(Session):
    def gates(self, rollout_key: int) -> Mapping[str, Sequence[GateFacts]]:
        found: dict[str, list[GateFacts]] = defaultdict(list)
        for wave, name, question, answer, because, got_at, since in self.link.rows(
            "SELECT wave, name, question, answer, because, got_at, since FROM gate WHERE rollout_key = ? "
            "ORDER BY wave, name",
            (rollout_key,),
        ):
            facts = GateFacts(name, question, GateAnswer(answer), because, moment(got_at), moment(since))
            found[wave].append(facts)
        return dict(found)


class GateWriting(GateReading):
    def set_gates(self, rollout_key: int, wave: str, answers: Sequence[GateFacts]) -> None:
        self.link.run("DELETE FROM gate WHERE rollout_key = ? AND wave = ?", (rollout_key, wave))
        self.link.many(
            "INSERT INTO gate (rollout_key, wave, name, question, answer, because, got_at, since) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    rollout_key,
                    wave,
                    each.gate,
                    each.question,
                    each.answer.value,
                    each.because,
                    stored(each.got_at),
                    stored(each.since),
                )
                for each in answers
            ],
        )
