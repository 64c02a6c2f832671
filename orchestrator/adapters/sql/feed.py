"""The feed of all journals, in the order of their commits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment
from orchestrator.core.journal import Entry
from orchestrator.services.feed import Fed

_ONE_AT_A_TIME: Final = 0x66656564
"""Number of the PostgreSQL lock under which entries are numbered: "feed"."""


class FeedReading(Session):
    def feed_head(self) -> int:
        row = self.link.one("SELECT coalesce(max(number), 0) FROM journal_feed")
        return 0 if row is None else int(row[0])

    def stir(self) -> str:
        row = self.link.one(
            "SELECT (SELECT max(number) FROM journal_feed), (SELECT max(seq) FROM event), "
            "(SELECT max(seq) FROM evidence), (SELECT max(ended_at) FROM build)"
        )
        return repr(row)

    def feed(self, *, after: int, limit: int) -> Sequence[Fed]:
        rows = self.link.rows(
            "SELECT f.number, r.name, j.seq, j.at, j.event, j.by, j.sentence, j.wave, j.facts, j.policy_digest, "
            "j.evidence_seq, j.before, j.hash FROM journal_feed f "
            "JOIN journal j ON j.rollout_key = f.rollout_key AND j.seq = f.seq "
            "JOIN rollout r ON r.key = f.rollout_key WHERE f.number > ? ORDER BY f.number LIMIT ?",
            (after, limit),
        )
        return [
            Fed(
                number,
                name,
                Entry(seq, moment(at), event, by, sentence, wave, json.loads(facts), digest, evidence, before, own),
            )
            for number, name, seq, at, event, by, sentence, wave, facts, digest, evidence, before, own in rows
        ]


class FeedWriting(FeedReading):
    def before_commit(self) -> None:
        """Number what this transaction appended to journals. Nothing follows but the commit, so who holds the lock
        waits for nobody: no circle can come of it."""
        if not self.appended:
            return
        if self.link.postgres:
            self.link.rows("SELECT pg_advisory_xact_lock(?)", (_ONE_AT_A_TIME,))
        self.link.many("INSERT INTO journal_feed (rollout_key, seq) VALUES (?, ?)", self.appended)
