"""Many devices at once: rows copied from those that the services made, in a fleet too large to be driven."""

from __future__ import annotations

from typing import Any

from orchestrator.adapters.sql.codec import update_key
from orchestrator.adapters.sql.store import SqlWriting
from tests.web.installation import Installation

Sql = dict[str, str]


def multiply(home: Installation, rollout: str, copies: int, *, bad_every: int = 200) -> None:
    """So many more devices like one of the rollout's that is confirmed, each with its labels, its update, its first two
    events and a line of the evidence log; some are like one that failed. The slice they are in grows with them."""
    with home.app.store.writing() as w:
        assert isinstance(w, SqlWriting)
        link = w.link
        ((key, _),) = link.rows("SELECT key, name FROM rollout WHERE name = ?", (rollout,))
        good, bad = (
            link.rows(
                f"SELECT device_key, slice_key FROM device_update WHERE rollout_key = ? AND {which} LIMIT 1", (key,)
            )
            for which in ("bad = 0 AND confirmed_at IS NOT NULL", "bad > 0")
        )
        (first,) = link.rows("SELECT max(key) + 1 FROM device")[0]
        shift = update_key(key, 0)
        for (like, _), step, phase in ((good[0], 1, 0), (bad[0], bad_every, 1)):
            following = f"SELECT i + {step} FROM n WHERE i + {step} < {copies}"
            turns = f"WITH RECURSIVE n(i) AS (SELECT {phase} UNION ALL {following})"
            skip = "" if phase else f" AND i % {bad_every} <> 1"
            device = f"{first} + i"
            lines = "SELECT seq FROM evidence WHERE rollout_key = ? AND device_key = ? LIMIT 1"
            ((seq,),) = link.rows(lines, (key, like))
            _copy(
                link,
                turns,
                "device",
                f"s.key = {like}{skip}",
                {
                    "key": device,
                    "id": f"'copy-' || ({first} + i)",
                    "token_digest": "NULL",
                    "group_name": "CASE WHEN i % 50 = 0 THEN 'lab' END",
                    "last_seen_at": "last_seen_at - (i % 1000) * 3600000000",
                    "hash_high": "abs(random()) % 2147483648",
                    "hash_low": "abs(random()) % 2147483648",
                },
            )
            _copy(
                link,
                turns,
                "device_update",
                f"s.key = {update_key(key, like)}{skip}",
                {
                    "key": f"{shift} + {device}",
                    "device_key": device,
                },
            )
            _copy(
                link,
                turns,
                "update_offer",
                f"s.key = {update_key(key, like)}{skip}",
                {
                    "key": f"{shift} + {device}",
                    "rollout_place": "rollout_place + i",
                    "wave_place": "wave_place + i",
                },
            )
            _copy(link, turns, "device_label", f"s.device_key = {like}{skip}", {"device_key": device})
            _copy(
                link,
                turns,
                "event",
                f"s.seq IN (SELECT seq FROM event WHERE device_key = {like} ORDER BY seq LIMIT 2){skip}",
                {"seq": "NULL", "device_key": device},
            )
            _copy(
                link,
                turns,
                "evidence",
                f"s.seq = {seq}{skip}",
                {
                    "seq": "NULL",
                    "device_key": device,
                    "rollout_place": "rollout_place + i",
                },
            )
        last = "SELECT wave, number FROM slice WHERE rollout_key = ? ORDER BY ordinal DESC LIMIT 1"
        ((wave, number),) = link.rows(last, (key,))
        few = (copies + bad_every - 2) // bad_every
        link.run(
            "UPDATE slice SET members = members + ?, offered = offered + ?, started = started + ?, "
            "resolved = resolved + ?, confirmed = confirmed + ?, bad_failed = bad_failed + ? "
            "WHERE rollout_key = ? AND wave = ? AND number = ?",
            (copies, copies, copies, copies, copies - few, few, key, wave, number),
        )
        link.run("UPDATE rollout SET devices = devices + ? WHERE key = ?", (copies, key))
        link.run(
            "UPDATE monitor SET bad = bad + ? WHERE rollout_key = ? AND bad > 0 AND accepted_at IS NULL", (few, key)
        )


def _copy(link: Any, turns: str, table: str, which: str, instead: Sql) -> None:
    columns = [row[1] for row in link.rows(f"PRAGMA table_info({table})")]
    chosen = ", ".join(instead.get(each, f"s.{each}") for each in columns)
    link.run(f"{turns} INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM n JOIN {table} s WHERE {which}")
