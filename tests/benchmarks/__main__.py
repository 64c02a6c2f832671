"""``make bench``: runs every benchmark, one after the other, and writes README's table of figures.

``python -m tests.benchmarks [NAME…] [--write]``. With ``--write`` the table between the markers in README is replaced;
figures of benchmarks that did not run stay as they are. Run it on a quiet machine: other work spoils all but ratios.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.figures import MARK

EVERY: dict[str, list[str]] = {
    "deciding": [],
    "opening": [],
    "reports_store": [],
    "excluding": [],
    "gateway_rates": [],
    "gateway_peers": ["--rounds", "3"],
    "delta_builds": [],
    "startup": [],
    "console": [],
}
LOADS: dict[str, str] = {
    "gateway_soak": "tests.load.soak",
    "gateway_kills": "tests.load.kills",
    "gateway_fuzz": "tests.load.fuzz",
    "operators_fuzz": "tests.load.fuzz_operators",
}
"""Run only when they are named: each takes minutes."""

ALL = ", ".join((*EVERY, *LOADS))

LONGEST = 900
"""Seconds that one may take to end after its last word."""

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- begin benchmarks -->", "<!-- end benchmarks -->"


def run(name: str) -> list[str]:
    """The figures of one, its output shown as it comes."""
    print(f"\n== {name}", flush=True)
    found: list[str] = []
    argv = [sys.executable, "-m", LOADS.get(name) or f"tests.benchmarks.{name}", *EVERY.get(name, ())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as one:
        assert one.stdout is not None
        for line in one.stdout:
            print(line, end="", flush=True)
            if line.startswith(MARK):
                found.append(line.removeprefix(MARK).strip())
        if one.wait(LONGEST):
            print(f"   {name} ended with {one.returncode}", flush=True)
    return found


def machine() -> str:
    """What a reader must know of where the figures come from."""
    cores, system = os.cpu_count(), platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    load = os.getloadavg()[0]
    return f"{cores} cores, {system}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, load {load:.1f}"


def write(rows: dict[str, list[str]], about: str) -> None:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    table = [line for line in old.splitlines() if line.startswith("| ") and not line.startswith(("| what", "|---"))]
    fresh = [f"| {row} |" for found in rows.values() for row in found]
    named = {row.split("|")[1].strip() for row in fresh}
    kept = [row for row in table if row.split("|")[1].strip() not in named]
    lines = [BEGIN, f"Measured on {about}.", "", "| what | measured | asked |", "|---|---|---|", *kept, *fresh, END]
    README.write_text(before + "\n".join(lines) + after, encoding="utf-8")


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {ALL}; without any, those before {next(iter(LOADS))}"
    )
    asked.add_argument("--write", action="store_true", help="write README's table")
    chosen = asked.parse_args()
    if unknown := [name for name in chosen.names if name not in EVERY and name not in LOADS]:
        asked.error(f"{unknown[0]} is no benchmark; there are {ALL}")
    about = machine()
    rows = {name: run(name) for name in chosen.names or EVERY}
    print(f"\n{about}")
    for found in rows.values():
        for row in found:
            print(f"  {row}")
    if chosen.write:
        write(rows, about)
    return 0 if all(rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
