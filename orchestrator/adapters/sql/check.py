"""Recounting: whether the stored figures are what the updates, the needs and the journals say.

A slice's tallies are the sum of ``core.update.counted`` over its updates, in SQL, those of excluded segments aside. Of
a closed monitor only its chain of attempts is looked at, because reports that came after its closing went to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orchestrator.adapters.sql.clocks import CLOCK_COUNTERS
from orchestrator.adapters.sql.codec import (
    BAD_BITS,
    BUILT_IN,
    ENDED,
    STATUS_NUMBER,
    as_json,
    bits_of,
    decode_ranks,
    update_keys,
)
from orchestrator.adapters.sql.evidence import EvidenceReading
from orchestrator.adapters.sql.members import NEVER, Piece, any_of
from orchestrator.core.evidence.clock import LEFT
from orchestrator.core.evidence.crossing import recount
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.journal import GENESIS, Entry, first_break
from orchestrator.core.slices import settled, wave_population
from orchestrator.core.update import UpdateStatus
from orchestrator.services.records import Difference, EffectKind

_WITHDRAWN, _INSTALLING, _APPLIED, _LEFT, _RETIRED = (
    STATUS_NUMBER[status]
    for status in (
        UpdateStatus.WITHDRAWN,
        UpdateStatus.INSTALLING,
        UpdateStatus.APPLIED,
        UpdateStatus.LEFT,
        UpdateStatus.RETIRED,
    )
)

COUNTED = {
    "offered": "count(*)",
    "withdrawn": f"sum(CASE WHEN status = {_WITHDRAWN} AND resolved = 0 THEN 1 ELSE 0 END)",
    "started": "sum(CASE WHEN started_at IS NOT NULL THEN 1 ELSE 0 END)",
    "applied": f"sum(CASE WHEN status = {_APPLIED} OR confirmed_at IS NOT NULL THEN 1 ELSE 0 END)",
    "resolved": "sum(resolved)",
    "confirmed": f"sum(CASE WHEN confirmed_at IS NOT NULL AND (bad & {ENDED}) = 0 THEN 1 ELSE 0 END)",
    "retired": f"sum(CASE WHEN status = {_RETIRED} AND resolved = 0 THEN 1 ELSE 0 END)",
    "departed": f"sum(CASE WHEN status = {_LEFT} AND resolved = 0 THEN 1 ELSE 0 END)",
    **{column: f"sum(CASE WHEN (bad & {bit}) <> 0 THEN 1 ELSE 0 END)" for column, bit in BAD_BITS.items()},
}
"""What each tally of a slice is in terms of its updates."""

OWN_COLUMNS = tuple(BAD_BITS)[len(BUILT_IN) :]
"""The tallies of the operator's own classes, in the order of their slots."""

_PAGE = 1_000


def of_segments(segments: Iterable[str], *, postgres: bool) -> Piece:
    """An update ``o`` of ``update_offer`` that froze one of these segments: its name stands in ``segment_places`` as a
    key of JSON, and nowhere else can it stand so."""
    found = "strpos" if postgres else "instr"
    keys = [f"{as_json(segment)}:" for segment in sorted(segments)]
    return any_of(*(Piece(f"{found}(o.segment_places, ?) > 0", (key,)) for key in keys)) if keys else NEVER


class Recount(EvidenceReading):
    def check(self) -> Sequence[Difference]:
        found: list[Difference] = []
        for key, name in self.link.rows("SELECT key, name FROM rollout ORDER BY key"):
            for part in (
                self._slices,
                self._places,
                self._excluded,
                self._budgets,
                self._monitors,
                self._clock,
                self._needs,
                self._journal,
            ):
                found += part(key, f"rollout {name}")
        return found

    def _slices(self, key: int, rollout: str) -> Iterator[Difference]:
        counted = {
            (apart, wave, number): numbers
            for apart, wave, number, *numbers in self.link.rows(
                f"SELECT s.apart, s.wave, s.number, {', '.join(COUNTED.values())} FROM device_update u "
                "JOIN slice_key s ON s.key = u.slice_key WHERE u.key BETWEEN ? AND ? AND s.excluded = 0 "
                "GROUP BY s.apart, s.wave, s.number",
                update_keys(key),
            )
        }
        own = self.own_classes(key)
        named = [f"bad {own[int(tally[-1]) - 1]}" if tally in OWN_COLUMNS[: len(own)] else tally for tally in COUNTED]
        for apart, table, who in ((0, "slice", ""), (1, "slice_apart", ", unhealthy before")):
            for wave, number, *numbers in self.link.rows(
                f"SELECT wave, number, {', '.join(COUNTED)} FROM {table} WHERE rollout_key = ? ORDER BY wave, number",
                (key,),
            ):
                mine = counted.pop((apart, wave, number), [0] * len(COUNTED))
                for tally, before, after in zip(named, numbers, mine, strict=True):
                    if before != after:
                        what = f"{rollout}, wave {wave}, slice {number}{who}: {tally}"
                        yield Difference(what, str(before), str(after))
        for (_, wave, number), numbers in counted.items():
            yield Difference(f"{rollout}, wave {wave}, slice {number}", "not there", f"{numbers[0]} updates")

    def _places(self, key: int, rollout: str) -> Iterator[Difference]:
        """Members of each slice, and the places given in each population, from the ranks as they were written."""
        given: dict[str, int] = {}
        for wave, number, members, ranks in self.link.rows(
            "SELECT s.wave, s.number, s.members, r.ranks FROM slice s JOIN slice_ranks r "
            "ON r.rollout_key = s.rollout_key AND r.wave = s.wave AND r.number = s.number "
            "WHERE s.rollout_key = ? ORDER BY s.ordinal",
            (key,),
        ):
            counted = {name: one.members for name, one in decode_ranks(ranks).items()}
            if (mine := counted.get(wave_population(wave), 0)) != members:
                yield Difference(f"{rollout}, wave {wave}, slice {number}: members", str(members), str(mine))
            for name, many in counted.items():
                given[name] = given.get(name, 0) + many
        stored: dict[str, int] = dict(
            self.link.rows("SELECT name, places FROM population WHERE rollout_key = ?", (key,))
        )
        for name in sorted(stored.keys() | given.keys()):
            if stored.get(name, 0) != given.get(name, 0):
                yield Difference(f"{rollout}, places of {name}", str(stored.get(name, 0)), str(given.get(name, 0)))

    def _excluded(self, key: int, rollout: str) -> Iterator[Difference]:
        """Whom excluded segments leave out: the marks of updates and the members of slices, once the outbox has brought
        them up to date; and whom the rollout is for."""
        row = self.rollout_by_key(key)
        assert row is not None
        out = row.state.excluded_segments
        if row.scope is not None and set(row.scope.excluded) != out:
            what = f"{rollout}, segments that its scope leaves out"
            yield Difference(what, ", ".join(row.scope.excluded) or "none", ", ".join(sorted(out)) or "none")
        if self.link.one(
            "SELECT 1 FROM effect WHERE kind = ? AND rollout = ? LIMIT 1",
            (EffectKind.LEAVE_OUT.value, row.state.rollout),
        ):
            return
        inside = of_segments(out, postgres=self.link.postgres)
        for wave, number, marked, counted in self.link.rows(
            f"SELECT s.wave, s.number, sum(s.excluded), sum(CASE WHEN {inside.sql} THEN 1 ELSE 0 END) "
            "FROM device_update u JOIN update_offer o ON o.key = u.key JOIN slice_key s ON s.key = u.slice_key "
            "WHERE u.key BETWEEN ? AND ? GROUP BY s.wave, s.number ORDER BY s.wave, s.number",
            (*inside.parameters, *update_keys(key)),
        ):
            if marked != counted:
                what = f"{rollout}, wave {wave}, slice {number}: updates of excluded segments"
                yield Difference(what, str(marked), str(counted))
        stored = {
            (wave, number): (excluded, members)
            for wave, number, excluded, members in self.link.rows(
                "SELECT wave, number, excluded, members FROM slice WHERE rollout_key = ?", (key,)
            )
        }
        if out or any(excluded for excluded, _ in stored.values()):
            for (wave, number), known in self.members_left_out(row).items():
                before, members = stored[wave, number]
                # Who is in an excluded version without an offer was looked at then, and may run another one now.
                most = known if all(map(settled, out)) else members
                if not min(known, members) <= before <= min(most, members):
                    what = f"{rollout}, wave {wave}, slice {number}: members of excluded segments"
                    yield Difference(what, str(before), str(known) if most == known else f"{known} to {members}")

    def _budgets(self, key: int, rollout: str) -> Iterator[Difference]:
        for budget in self.budgets(key):
            rows = self.link.rows(
                f"SELECT count(*) FROM device_update u{self.link.by_index('update_bad')} "
                "JOIN slice_key s ON s.key = u.slice_key "
                "WHERE u.rollout_key = ? AND u.bad > 0 AND (u.bad & ?) <> 0 AND s.apart = 0",
                (key, bits_of(budget.outcomes, self.own_classes, key)),
            )
            if rows[0][0] != budget.bad:
                yield Difference(f"{rollout}, budget {budget.name}: bad", str(budget.bad), str(rows[0][0]))

    def _monitors(self, key: int, rollout: str) -> Iterator[Difference]:
        of = self.rollout_by_key(key)
        assert of is not None
        open_ones = [row for row in self.monitors(key) if row.accepted_at is None]
        counted_places = self.bad_places(of, open_ones)
        for row in open_ones:
            spec, places = row.spec, counted_places[row.key]
            what = f"{rollout}, monitor {spec.key} (attempt {row.attempt})"
            if len(places) != row.bad:
                yield Difference(f"{what}: bad", str(row.bad), str(len(places)))
            crossing = recount(places, staircase(spec.tolerance, spec.alpha))
            # Outcomes that came later may cross even earlier: what is recorded is the crossing that was first in time.
            if (crossing is None) != (row.crossed_at is None):
                counted = "none" if crossing is None else f"{crossing.bad} among the first {crossing.place}"
                before = (
                    "none" if row.crossed_at is None else f"{row.crossed_at[0]} among the first {row.crossed_at[1]}"
                )
                yield Difference(f"{what}: crossing", before, counted)

    def _clock(self, key: int, rollout: str) -> Iterator[Difference]:
        """The clock's counters from the marks of its devices, and those from the updates."""
        counted: dict[int, int] = dict(
            self.link.rows(
                "SELECT mark & 15, count(*) FROM clock_mark WHERE key BETWEEN ? AND ? GROUP BY 1",
                update_keys(key),
            )
        )
        expected = (sum(counted.values()), *(counted.get(number, 0) for number, _ in enumerate(LEFT, 1)))
        sums = self.link.rows(
            f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in CLOCK_COUNTERS)} FROM cohort "
            "WHERE rollout_key = ?",
            (key,),
        )[0]
        for name, before, after in zip(CLOCK_COUNTERS, sums, expected, strict=True):
            if before != after:
                yield Difference(f"{rollout}, clock: {name}", str(int(before)), str(after))
        if not self.link.rows("SELECT 1 FROM rollout WHERE key = ? AND clock IS NOT NULL", (key,)):
            return
        pending = ", ".join(map(str, (_INSTALLING, _APPLIED)))
        for what, condition in (
            ("devices that install without a mark", f"u.status IN ({pending}) AND m.key IS NULL"),
            ("devices with an outcome and no interval", "u.confirmed_at IS NOT NULL AND m.mark & 15 = 0"),
        ):
            many = self.link.rows(
                "SELECT count(*) FROM device_update u JOIN slice_key s ON s.key = u.slice_key "
                f"LEFT JOIN clock_mark m ON m.key = u.key WHERE u.key BETWEEN ? AND ? AND s.apart = 0 AND {condition}",
                update_keys(key),
            )[0][0]
            if many:
                yield Difference(f"{rollout}, clock: {what}", "0", str(many))

    def _needs(self, key: int, rollout: str) -> Iterator[Difference]:
        for wave, reachable, devices in self.link.rows(
            "SELECT l.wave, l.reachable, sum(n.devices) FROM look l JOIN need n "
            "ON n.rollout_key = l.rollout_key AND n.wave = l.wave WHERE l.rollout_key = ? GROUP BY l.wave, l.reachable",
            (key,),
        ):
            if devices > reachable:
                yield Difference(
                    f"{rollout}, wave {wave}: devices with a needed delta", str(devices), f"{reachable} at most"
                )

    def _journal(self, key: int, rollout: str) -> Iterator[Difference]:
        seen = [(0, "")]

        def entries() -> Iterator[Entry]:
            while page := self.journal(key, after=seen[-1][0], limit=_PAGE):
                seen.append((page[-1].seq, page[-1].hash))
                yield from page

        if (broken := first_break(entries())) is not None:
            yield Difference(f"{rollout}, journal", broken, f"a chain from {GENESIS[:4]}…")
            return
        stored = self.link.rows("SELECT journal_seq, journal_hash FROM rollout WHERE key = ?", (key,))[0]
        if stored[0] != seen[-1][0] or (stored[0] and stored[1] != seen[-1][1]):
            yield Difference(f"{rollout}, head of the journal", f"entry {stored[0]}", f"entry {seen[-1][0]}")
