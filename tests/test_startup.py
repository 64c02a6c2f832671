"""``wave --help`` answers at once, because it loads nothing heavy: that is imported inside the commands that use it.

Held by what is loaded, not by a stopwatch, so that a busy machine does not fail it.
"""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "alembic",
    "apscheduler",
    "cryptography",
    "fastapi",
    "networkx",
    "opentelemetry",
    "pydantic",
    "sqlalchemy",
    "sqlmodel",
    "uvicorn",
    "yaml",
}

HELP = """
import sys
sys.argv = ["wave", "--help"]
from orchestrator.__main__ import main
try:
    ended = main()
except SystemExit as stop:
    ended = stop.code
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(ended)
"""


def test_help_loads_nothing_heavy() -> None:
    ran = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"`wave --help` ended with {ran.returncode}:\n{ran.stderr}"
    shown, _, loaded = ran.stdout.rpartition("loaded:")
    assert "Usage" in shown
    assert HEAVY & set(loaded.split()) == set()
