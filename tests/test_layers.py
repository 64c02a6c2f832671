"""The floors of the house: imports point down only, the core does no I/O, nobody below floor 3 reads a clock.

::

    floor 5   bootstrap serving __main__   may import everything
    floor 4   cli  gateway  web            core, services, errors; none of each other, no adapters
    floor 3   adapters                     core, services, errors
    floor 2   services                     core, errors
    floor 1   core                         errors; of the rest only what ``CORE_MAY_IMPORT`` names
    floor 0   errors                       nothing of ours

Read from the source by ``ast``: an import inside a function counts like one at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "orchestrator"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 500

FLOORS = {  # what a part may import of ours besides itself
    "errors": set(),
    "core": {"errors"},
    "services": {"core", "errors"},
    "adapters": {"services", "core", "errors"},
    "cli": {"services", "core", "errors"},
    "gateway": {"services", "core", "errors"},
    "web": {"services", "core", "errors"},
}
TOP = {"bootstrap", "serving", "__main__", "__init__"}
BELOW_FLOOR_3 = {"errors", "core", "services"}

PURE_STDLIB = set(
    "__future__ abc array base64 binascii bisect collections contextlib copy dataclasses datetime decimal difflib enum "
    "fractions functools hashlib heapq itertools json keyword math numbers operator re statistics string struct "
    "textwrap types typing unicodedata warnings "
    "zoneinfo".split()  # reads the machine's tables of time zones, which are constants to us
)
CORE_MAY_IMPORT = PURE_STDLIB | {"networkx", "pydantic", "pydantic_core", "typing_extensions"}
# Doors to the outside, which only an adapter or a front opens.
SERVICES_MAY_NOT_IMPORT = set(
    "alembic apscheduler fastapi http httptools httpx psycopg rich select socket socketserver sqlalchemy sqlite3 "
    "sqlmodel ssl starlette subprocess tempfile time typer urllib uvicorn uvloop".split()
)
CLOCK_METHODS = {"now", "utcnow", "today"}
CLOCK_FUNCTIONS = {
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "gmtime",
    "localtime",
}


def part_of(source: Path) -> str:
    """``core`` for ``orchestrator/core/evidence/table.py``, ``errors`` for ``orchestrator/errors.py``."""
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"), filename=str(source))


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import; ``from a import b`` is ``a.b``, a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in {"importlib.import_module", "import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def clock_readings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every place that asks the machine for the time; ``clock.now()`` on a port handed in is none."""
    dates, times = {"datetime", "date"}, {"time"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "datetime":
            dates |= {alias.asname or alias.name for alias in node.names if alias.name in {"datetime", "date"}}
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno, f"from time import {', '.join(alias.name for alias in node.names)}"
        elif isinstance(node, ast.Import):
            times |= {alias.asname for alias in node.names if alias.name == "time" and alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rsplit(".", 1)[-1]
            if (node.attr in CLOCK_METHODS and owner in dates) or (node.attr in CLOCK_FUNCTIONS and owner in times):
                yield node.lineno, ast.unparse(node)


def complaints(source: Path) -> Iterator[str]:
    part = part_of(source)
    tree = parse(source)
    place = source.relative_to(ROOT)
    if part not in TOP:
        for line, name in imports(tree):
            first, _, rest = name.partition(".")
            ours = rest.partition(".")[0]
            if not first:
                yield f"{place}:{line}: {name}: imports are absolute here"
            elif first == "orchestrator":
                if ours not in FLOORS[part] | {part, "", "__version__"}:
                    yield f"{place}:{line}: {part} may not import {name}"
            elif part in {"errors", "core"} and first not in CORE_MAY_IMPORT:
                yield f"{place}:{line}: {part} is pure and may not import {name}"
            elif part == "services" and first in SERVICES_MAY_NOT_IMPORT:
                yield f"{place}:{line}: services ask a port for this and may not import {name}"
    if part in BELOW_FLOOR_3:
        for line, reading in clock_readings(tree):
            yield f"{place}:{line}: {reading}: nobody below floor 3 reads a clock; take `now`"


def test_every_module_stands_on_a_floor() -> None:
    assert {part_of(source) for source in SOURCES} <= set(FLOORS) | TOP


def test_imports_point_down_the_core_is_pure_and_reads_no_clock() -> None:
    found = [complaint for source in SOURCES for complaint in complaints(source)]
    assert not found, "\n" + "\n".join(found)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("orchestrator", "tests", "examples", "tools")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".sh"} and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


@pytest.fixture
def source(part: str, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A module of this part with this code in it, and nothing else of the program."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "orchestrator")
    source = tmp_path / "orchestrator" / part / "some.py"
    source.parent.mkdir(parents=True)
    source.write_text(code, encoding="utf-8")
    return source


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("core", "import os"),
        ("core", "from pathlib import Path"),
        ("core", "def f():\n    import asyncio"),
        ("core", "from orchestrator.services import tick"),
        ("core", "from orchestrator import services"),
        ("core", "from ..errors import WaveError"),
        ("core", "from datetime import datetime as dt, UTC\nat = dt.now(UTC)"),
        ("core", "import datetime\nat = datetime.date.today()"),
        ("services", "import time\nat = time.time()"),
        ("services", "from orchestrator.adapters.sql import store"),
        ("services", "import sqlalchemy.orm"),
        ("services", "import datetime as d\nread = d.datetime.now"),
        ("adapters", "from orchestrator.gateway import app"),
        ("cli", "from orchestrator.adapters import sql"),
        ("cli", "from orchestrator.web import app"),
        ("gateway", "import orchestrator.bootstrap"),
        ("web", "import importlib\nimportlib.import_module('orchestrator.gateway.app')"),
    ],
)
def test_what_breaks_the_rules_is_seen(source: Path) -> None:
    assert list(complaints(source))


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("core", "import networkx as nx\nfrom pydantic import BaseModel\nfrom orchestrator.errors import WaveError"),
        ("core", "from datetime import UTC, date, datetime, time\nat = datetime(2026, 1, 1, tzinfo=UTC)"),
        ("services", "def tick(clock):\n    return clock.now()"),
        ("adapters", "import time\nimport sqlite3\nfrom orchestrator.services import ports\nat = time.time()"),
        ("cli", "from orchestrator.services import ports"),
    ],
)
def test_what_keeps_the_rules_passes(source: Path) -> None:
    assert list(complaints(source)) == []
