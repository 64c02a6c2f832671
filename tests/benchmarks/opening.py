"""What it costs to look at a wave and to open its slices in a fleet of a million devices of one tag, in SQLite.

``python -m tests.benchmarks.opening [--devices N] [--database PATH] [--enroll]``

The fleet is built by ``executemany`` (with ``--enroll`` by ``enroll``), a label each, four hardware ids, five
versions. Memory is the most this process ever had, less what it had before the look.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.adapters.sql.store import open_store
from orchestrator.adapters.sql.times import stored
from orchestrator.core.fleet import Device
from orchestrator.core.membership import WaveSelector
from orchestrator.core.position import bound_of_share, device_hash, wave_salt
from tests.benchmarks.figures import figure
from tests.contract.building import rollout, scope

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HARDWARE = ("rpi4", "imx8", "x86", "stm32")
SITES = ("emea", "amer", "apac")


def fleet(number: int) -> tuple[str, str, int, str]:
    """Hardware, commit, version and region of one device."""
    version = 37 + number % 5
    return HARDWARE[number * 7 % 4], f"{version:064x}", version, SITES[number * 11 % 3]


def build(path: Path, devices: int) -> None:
    open_store(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO device_group (name) VALUES ('lab')")
    kinds = sorted({fleet(number)[:3] for number in range(60)})
    connection.executemany(
        "INSERT INTO software (key, hardware_id, commit_id, version) VALUES (?, ?, ?, ?)",
        [(n, *kind) for n, kind in enumerate(kinds, 1)],
    )
    keys = {kind: n for n, kind in enumerate(kinds, 1)}
    since, seen = stored(NOW - timedelta(days=9)), stored(NOW - timedelta(hours=5))

    def rows():
        for number in range(devices):
            name = f"device-{number:08d}"
            halves = device_hash(name)
            group = "lab" if number % 1000 == 0 else None
            yield number + 1, "promoted", keys[fleet(number)[:3]], halves.high, halves.low, since, seen, group, name

    connection.executemany(
        "INSERT INTO device (key, tag, status, software_key, hash_high, hash_low, "
        "since_at, last_seen_at, group_name, usual_gap, healthy, "
        "enrolled_at, id) VALUES (?, ?, 'active', ?, ?, ?, ?, ?, ?, 3600000000, 1, 0, ?)",
        rows(),
    )
    connection.executemany(
        "INSERT INTO device_label (device_key, key, value, by_operator) VALUES (?, 'region', ?, 1)",
        ((number + 1, fleet(number)[3]) for number in range(devices)),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def enroll(path: Path, devices: int) -> None:
    store = open_store(f"sqlite:///{path}")

    def stream():
        for number in range(devices):
            hardware_id, commit, version, region = fleet(number)
            yield (
                Device(
                    f"device-{number:08d}",
                    hardware_id,
                    "promoted",
                    group="lab" if number % 1000 == 0 else None,
                    labels={"region": region},
                    commit=commit,
                    version=version,
                    since_at=NOW - timedelta(days=9),
                    last_seen_at=NOW - timedelta(hours=5),
                ),
                None,
            )

    with store.writing() as w:
        w.enroll(stream(), now=NOW)
    store.close()


def peak() -> float:
    """MiB, the most this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--devices", type=int, default=1_000_000)
    asked.add_argument("--database", type=Path, help="keep the fleet here, and use it again")
    asked.add_argument("--enroll", action="store_true", help="build the fleet by the store's own enroll")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = chosen.database or Path(directory) / "fleet.db"
        if not path.exists():
            begun, before = time.process_time(), peak()
            (enroll if chosen.enroll else build)(path, chosen.devices)
            print(
                f"fleet of {chosen.devices} built in {time.process_time() - begun:.1f} s, "
                f"{peak() - before:.0f} MiB more, "
                f"{path.stat().st_size / 2**20:.0f} MiB on disk"
            )
        store = open_store(f"sqlite:///{path}")
        waves = (
            WaveSelector("lab", wave_salt("x", "lab"), group="lab"),
            WaveSelector("emea", wave_salt("x", "emea"), labels=(("region", "emea"),), bound=bound_of_share(0.25)),
            WaveSelector("spread", wave_salt("x", "spread"), bounds=tuple((name, 10_000_000) for name in HARDWARE)),
            WaveSelector("rest", wave_salt("x", "rest")),
        )
        of = scope(*waves, commits=dict.fromkeys(HARDWARE, "b" * 64))
        alone = scope(WaveSelector("all", wave_salt("x", "all")), commits=dict.fromkeys(HARDWARE, "b" * 64))
        before = peak()
        reach = NOW - timedelta(days=7)
        for title, whom, wave in (
            ("one wave", alone, "all"),
            ("the last of four", of, "rest"),
            ("a label's share", of, "emea"),
        ):
            with store.writing() as w:
                row = w.add_rollout(rollout(f"{wave}-{time.time_ns()}", of=whom, waves=[wave]))
                begun = time.process_time()
                count = w.look(whom, wave, seen_since=reach)
                looked = time.process_time()
                opening = looked - begun
                said = [f"look {looked - begun:.2f} s ({count.reachable} reachable)"]
                for number, size in enumerate((20, 20_000, None)):
                    begun = time.process_time()
                    piece = w.open_slice(
                        row,
                        whom,
                        wave,
                        size=size,
                        seen_since=reach,
                        now=NOW + number * timedelta(hours=1),
                        dimensions=("hardware_id", "source_version"),
                    )
                    opening += time.process_time() - begun if number == 0 else 0.0
                    said.append(f"slice of {piece.members if piece else 0} {time.process_time() - begun:.2f} s")
                begun = time.process_time()
                w.facts(row, now=NOW + timedelta(hours=9))
                said.append(f"facts {(time.process_time() - begun) * 1e3:.1f} ms")
                begun = time.process_time()
                w.bound(whom, wave, None, 20)
                said.append(f"bound {time.process_time() - begun:.2f} s")
                print(f"{title}: {', '.join(said)}")
                figure(
                    f"opening a wave of {chosen.devices:,} devices: {title}",
                    f"{opening:.2f} s of CPU, {peak():.0f} MiB in all, no row per device",
                    "under 2 s, under 200 MB",
                )
        print(f"memory: {peak() - before:.0f} MiB more than before, {peak():.0f} MiB in all")
        with store.reading() as r:
            begun = time.process_time()
            r.running(tag="promoted")
            print(f"running: {(time.process_time() - begun) * 1e3:.1f} ms")
        store.close()


if __name__ == "__main__":
    main()
