"""``make evidence``: plays every case and writes the tables into docs/evidence.md.

``python -m tests.evidence [PART…] [--runs N] [--jobs N] [--write]``. The seed is fixed, so the same code gives the same
tables on every machine, whatever ``--jobs``. Without ``--write`` they are only shown; parts that are not played stay in
the page as they are.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tests.evidence.cases import PARTS, SEED
from tests.evidence.playing import measure_all
from tests.evidence.report import WRITERS, markdown

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
RUNS = 1_000


def played(part: str, runs: int, jobs: int) -> str:
    """Play one part; its piece of the page."""
    title, table = WRITERS[part]
    found = []
    for each in measure_all(part, runs, jobs=jobs):
        found.append(each)
        about = f"{each.case.rule:12} {each.case.name}"
        print(f"  {about:76} halted {each.halted.hits} of {len(each.runs)}", file=sys.stderr, flush=True)
    numbers = sorted({len(each.runs) for each in found}, reverse=True)
    said = " and ".join(f"{number:,}" for number in numbers)
    return markdown(title, table(found), f"{said} runs of each, seed {SEED}.")


def written(page: str, part: str, text: str) -> str:
    """The page with this part anew."""
    begin, end = f"<!-- begin played: {part} -->", f"<!-- end played: {part} -->"
    if begin not in page:
        raise SystemExit(f"{PAGE.name} has no place for {part}: {begin}")
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any, all")
    asked.add_argument("--runs", type=int, default=RUNS, help=f"of each case; default {RUNS}")
    asked.add_argument("--jobs", type=int, default=1, help="processes, with low priority; default 1")
    asked.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    chosen = asked.parse_args()
    if unknown := [name for name in chosen.parts if name not in PARTS]:
        asked.error(f"{unknown[0]} is no part; there are {', '.join(PARTS)}")
    if chosen.runs < 1 or chosen.jobs < 1:
        asked.error("--runs and --jobs are at least 1")
    for part in chosen.parts or PARTS:
        text = played(part, chosen.runs, chosen.jobs)
        print(text)
        if chosen.write:
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), part, text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
