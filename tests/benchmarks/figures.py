"""The line in which a benchmark says a figure that README's table shows; ``tests.benchmarks`` collects them."""

from __future__ import annotations

MARK = "figure |"


def figure(what: str, measured: str, asked: str) -> None:
    """``asked``: what is asked of it, such as ``under 1 ms``."""
    print(f"{MARK} {what} | {measured} | {asked}", flush=True)
