"""How long ``wave --help`` takes beside a bare typer program with rich: ``python -m tests.benchmarks.startup``.

Both run in turn, so that a busy machine slows both; the median of many runs counts. Everything is compiled first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.figures import figure

LIMIT = 1.3
"""Times a bare program that ``wave --help`` may take."""

BARE = '''
import typer

app = typer.Typer(help="Two commands and nothing behind them.")


@app.command()
def one(name: str = typer.Option("", help="A name.")) -> None:
    """One."""


@app.command()
def two(name: str) -> None:
    """Two."""


if __name__ == "__main__":
    app()
'''


def seconds(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def measure(runs: int) -> tuple[float, float]:
    """Median seconds of ``wave --help`` and of the bare program."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE, encoding="utf-8")
        ours, theirs = [sys.executable, "-m", "orchestrator", "--help"], [sys.executable, str(bare), "--help"]
        seconds(ours), seconds(theirs)
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    return statistics.median(ours for ours, _ in pairs), statistics.median(theirs for _, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    ours, theirs = measure(parser.parse_args().runs)
    over = "" if ours <= LIMIT * theirs else f"   over {LIMIT:g}"
    print(f"wave --help {1e3 * ours:.0f} ms, bare typer {1e3 * theirs:.0f} ms: {ours / theirs:.2f} times{over}")
    figure("`wave --help` against a bare typer program", f"{ours / theirs:.2f} times", f"at most {LIMIT:g} times")


if __name__ == "__main__":
    main()
