"""The tallies of slices, and apart from them those of the devices that were unhealthy before: added to, and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from orchestrator.adapters.sql.codec import BAD_COLUMNS, BUILT_IN, bits_of
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment
from orchestrator.core.facts import NONE_APART, Apart, SliceFacts
from orchestrator.core.outcomes import Outcome
from orchestrator.core.update import Counts
from orchestrator.services.records import SliceOf

TALLIES: Final = ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "retired", "departed")
"""The other tallies; ``departed`` is what the core calls ``left``, a word of SQL."""

_COUNTED: Final = ("offered", "withdrawn", "started", "applied", "resolved", "confirmed", "retired", "left")
"""The fields of ``Counts`` in the order of ``TALLIES``."""


class TallyReading(Session):
    def slice_facts(self, rollout_key: int) -> list[tuple[str, SliceFacts]]:
        """With the wave of each, in the order of their opening."""
        columns = ", ".join((*TALLIES, *BAD_COLUMNS))
        apart = {
            (wave, number): self._apart(rollout_key, counts)
            for wave, number, *counts in self.link.rows(
                f"SELECT wave, number, {columns} FROM slice_apart WHERE rollout_key = ?", (rollout_key,)
            )
        }
        found: list[tuple[str, SliceFacts]] = []
        for wave, number, opened_at, members, waiting, excluded, *counts in self.link.rows(
            f"SELECT wave, number, opened_at, members, waiting, excluded, {columns} FROM slice WHERE rollout_key = ? "
            "ORDER BY ordinal",
            (rollout_key,),
        ):
            tallies = dict(zip((*TALLIES[:-1], "left"), counts, strict=False))
            piece = SliceFacts(
                number=number,
                opened_at=moment(opened_at),
                members=members,
                waiting=waiting,
                bad=self._bad(rollout_key, counts[len(TALLIES) :]),
                excluded=excluded,
                apart=apart.get((wave, number), NONE_APART),
                **tallies,
            )
            found.append((wave, piece))
        return found

    def _bad(self, rollout_key: int, counts: Sequence[int]) -> dict[Outcome, int]:
        """Of the tallies of the classes: those of which there is any, by name."""
        own = self.own_classes(rollout_key) if any(counts[len(BUILT_IN) :]) else ()
        return {outcome: many for outcome, many in zip((*BUILT_IN, *own), counts, strict=False) if many}

    def _apart(self, rollout_key: int, counts: Sequence[int]) -> Apart:
        """Of a row of ``slice_apart``."""
        offered, withdrawn, _, _, resolved, confirmed, retired, left = counts[: len(TALLIES)]
        bad = self._bad(rollout_key, counts[len(TALLIES) :])
        return Apart(offered, offered - withdrawn - retired - left - resolved, resolved, confirmed, bad)


class TallyWriting(TallyReading):
    def add_counts(self, counts: Mapping[SliceOf, Counts]) -> None:
        for (rollout, wave, number, apart), these in sorted(counts.items()):
            changes = {
                column: value for column, name in zip(TALLIES, _COUNTED, strict=True) if (value := getattr(these, name))
            }
            for outcome in these.bad:
                column = self._bad_column(outcome, rollout)
                changes[column] = changes.get(column, 0) + 1
            if changes:
                if apart:
                    self.link.run(
                        "INSERT INTO slice_apart (rollout_key, wave, number) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                        (rollout, wave, number),
                    )
                self.link.run(
                    f"UPDATE {'slice_apart' if apart else 'slice'} SET "
                    f"{', '.join(f'{column} = {column} + ?' for column in changes)} "
                    "WHERE rollout_key = ? AND wave = ? AND number = ?",
                    (*changes.values(), rollout, wave, number),
                )

    def _bad_column(self, outcome: Outcome, rollout_key: int) -> str:
        """The tally of a class."""
        return BAD_COLUMNS[bits_of((outcome,), self.own_classes, rollout_key).bit_length() - 1]
