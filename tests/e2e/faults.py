"""A small installation to be broken: the real ``wave`` in processes of its own, real ``ostree`` on a tiny repository,
and devices over HTTP that never give up.

An installation is made once and copied for each test. ``ostree`` on the PATH of what is started here is a script that
writes down every delta it is asked for (and what was published by then), and that a test can have hang or be old.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.adapters.ostree_trees import Versions
from tests.loopback import free_port, listens
from tests.waiting import PATIENCE, gone, until

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "orchestrator")
LAB, FIELD = 3, 15

SETTINGS: Final = """root: .
port: {port}
check_in_every: 1s
tick_at_most: 1s
build_nice: 0
lease: {lease}
{more}
"""

POLICY: Final = """policy: quick
tolerate:
  failed: 2%
  silent: {at_most: 5%, then: hold}
silent_after: 10m
slices: {first: 20, growth: 2}
slice_at_most: 5m
open_at_most: 5m
deltas: {cover: 100%, within: 1h, otherwise: hold}
bake: {at_least: 1s, reports: 95%, at_most: 10m}
"""

ROLLOUT: Final = """rollout: r3
target: 3
tag: main
policy: ./quick.yaml
waves:
  - wave: lab
    devices: {group: lab}
  - wave: some
    devices: {count: 5}
  - wave: rest
    devices: all
"""

OSTREE: Final = """#!/bin/sh
# What stands between wave and ostree in tests of faults.
here="$(dirname "$0")"
if [ "$1" = --version ]; then
    if [ -e "$here/old" ]; then echo "libostree:"; echo " Version: '2019.1'"; exit 0; fi
fi
if [ "$1 $2" = "static-delta generate" ]; then
    for each in "$@"; do case "$each" in
        --from=*) from="${each#--from=}";; --to=*) to="${each#--to=}";; --repo=*) repo="${each#--repo=}";;
    esac; done
    exec 9>>"$here/$from-$to.lock"
    alone=alone; flock -n 9 || alone=together
    echo "$from $to $alone" $(cd "$repo/deltas" 2>/dev/null && ls -d */* 2>/dev/null) >>"$here/generated"
    if [ -e "$here/hang" ]; then echo $$ >>"$here/hanging"; exec sleep 1000; fi
    if [ -e "$here/slow" ]; then sleep "$(cat "$here/slow")"; fi
fi
exec OSTREE "$@"
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def result(self) -> Any:
        return json.loads(self.out)["result"]


class House:
    """An installation under ``root`` and whatever of it runs. Every process is ended by its own pid in the end."""

    @classmethod
    def bare(cls, root: Path, *, more: str = "") -> House:
        """A directory with settings alone, for installations of files."""
        root.mkdir()
        return cls(root, Versions(root / "none", {}), more=more)

    def __init__(self, root: Path, versions: Versions, *, lease: str = "30s", more: str = "") -> None:
        self.root = root
        self.versions = versions
        self.port = free_port()
        self.tools = root / "tools"
        self.servers: list[Server] = []
        self.elsewhere: Path | None = None
        self.before: Callable[[], None] | None = None  # done by each process before it becomes `wave`
        self.settings(lease=lease, more=more)

    def settings(self, *, lease: str = "30s", more: str = "", root: Path | None = None) -> None:
        page = SETTINGS.format(port=self.port, lease=lease, more=more)
        if "console_port" not in more:
            page += "console_port: off\n"
        ((root or self.root) / "wave.yaml").write_text(page)

    @property
    def repo(self) -> Path:
        return self.root / "repo"

    @property
    def database(self) -> Path:
        """Where it is, also when a test has put it elsewhere."""
        return self.elsewhere or self.root / "wave.db"

    @property
    def tokens(self) -> dict[str, str]:
        return dict(line.split() for line in (self.root / "tokens").read_text().splitlines())

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WAVE_", "COV_"))}
        path = f"{self.tools}{os.pathsep}{kept['PATH']}"
        return {**kept, "PYTHONPATH": str(ROOT), "WAVE_USER": "tester", "PATH": path, **(more or {})}

    # ------------------------------------------------------------------------------------------ the command

    def wave(
        self, *words: str, env: Mapping[str, str] | None = None, root: Path | None = None, typed: str = ""
    ) -> Ended:
        """One command as a user would type it. Never a traceback, and an error is one sentence to a person."""
        made = subprocess.run(
            [*PROGRAM, *words],
            cwd=root or self.root,
            env=self.environment(env),
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            preexec_fn=self.before,
        )
        ended = Ended(made.returncode, made.stdout, made.stderr)
        no_traceback(ended.said)
        if ended.code not in (0, 1, 10, 11, 12, 13):
            assert ended.err.startswith("wave: "), ended.said
        return ended

    def ok(self, *words: str, typed: str = "") -> Ended:
        ended = self.wave(*words, typed=typed)
        assert ended.code == 0, f"wave {' '.join(words)}: {ended.said}"
        return ended

    def fails(self, code: int, *words: str, env: Mapping[str, str] | None = None, root: Path | None = None) -> str:
        """The sentence of a command that must end so."""
        ended = self.wave(*words, env=env, root=root)
        assert ended.code == code, f"wave {' '.join(words)} ended with {ended.code}: {ended.said}"
        return ended.err.removeprefix("wave: ").strip()

    def status(self, rollout: str = "r3") -> Any:
        return json.loads(self.wave("status", rollout, "--json").out)["result"]

    def counts_up(self) -> None:
        """``wave db check`` finds no difference."""
        checked = self.wave("db", "check")
        assert checked.code == 0, checked.said

    def file(self, name: str, text: str) -> str:
        (self.root / name).write_text(text)
        return name

    def begin(self, text: str = ROLLOUT, policy: str = POLICY) -> None:
        """Apply and start the rollout."""
        self.file("quick.yaml", policy)
        self.ok("apply", self.file("rollout.yaml", text), "--start")

    # ------------------------------------------------------------------------------------------ the server

    def serve(
        self, *, listens: bool = True, root: Path | None = None, env: Mapping[str, str] | None = None, code: str = ""
    ) -> Server:
        """``code``: a program to run instead of the command's own, for a clock that lies."""
        program = [sys.executable, "-c", code] if code else list(PROGRAM)
        server = Server(self, root or self.root, len(self.servers), env or {}, program)
        self.servers.append(server)
        if listens:
            server.wait_until_it_listens()
        return server

    def close(self) -> None:
        for server in self.servers:
            server.close()

    # ------------------------------------------------------------------------------------------ what lies on disk

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the database holds, past the program."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def rollout_status(self, rollout: str = "r3") -> str:
        """Cheaper than the command, to wait by."""
        return str(self.value(f"SELECT status FROM rollout WHERE name = '{rollout}'"))

    def generated(self) -> list[tuple[str, str, str, set[str]]]:
        """Every delta that ostree was asked to generate: from, to, whether alone, and what was published by then."""
        log = self.tools / "generated"
        if not log.exists():
            return []
        lines = [line.split() for line in log.read_text().splitlines()]
        return [(origin, to, alone, set(rest)) for origin, to, alone, *rest in lines]

    def assert_nothing_was_built_twice(self) -> None:
        """No pair by two at once, and none that was published already."""
        for origin, to, alone, published in self.generated():
            assert alone == "alone", f"{origin} -> {to} was built by two at once"
            assert published_name(origin, to) not in published, f"{origin} -> {to} was there, and was built again"


def published_name(origin: str, to: str) -> str:
    """Where a delta lies below ``deltas``, worked out independently of the program."""
    name = "-".join(
        base64.b64encode(bytes.fromhex(each)).decode().rstrip("=").replace("/", "_") for each in (origin, to) if each
    )
    return f"{name[:2]}/{name[2:]}"


class Server:
    """One ``wave serve``."""

    def __init__(
        self, house: House, root: Path, number: int, env: Mapping[str, str], program: Sequence[str] = PROGRAM
    ) -> None:
        self.house = house
        self.log = root / f"serve-{number}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, "serve"],
                cwd=root,
                env=house.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=house.before,
            )
        self.port = house.port

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str) -> None:
        """Wait until its log has these words."""
        until(f"`{words}` in the log", lambda: words in self.said(), alive=self)

    def operators(self) -> str:
        """Wait until it serves people; at which address."""
        self.says("serving operators on")
        return self.said().partition("serving operators on ")[2].split()[0]

    def wait_until_it_listens(self) -> None:
        until("it listens", lambda: listens(self.port) and "serving devices" in self.said(), alive=self)

    def workers(self) -> list[int]:
        """The pids of all below it."""
        return below(self.pid)

    def kill(self) -> None:
        """SIGKILL to this process alone, at once."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> float:
        """SIGTERM; it must end with 0. How many seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(PATIENCE)
        took = time.monotonic() - began
        assert self.process.returncode == 0, self.said()
        no_traceback(self.said())
        return took

    def close(self) -> None:
        """However it stands."""
        below_it = self.workers() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        gone(below_it)


def no_traceback(said: str) -> None:
    assert "Traceback" not in said and 'File "' not in said, said
    assert "A fault in wave itself" not in said, said


def below(pid: int) -> list[int]:
    """Children of a process and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for each in (task / "children").read_text().split():
                found += [int(each), *below(int(each))]
    return found


# ------------------------------------------------------------------------------------------------------- devices


def begins_on(name: str) -> int:
    """The lab is on version 1, the field half on 1 and half on 2: a later wave needs one delta more."""
    return 1 if name.startswith("lab") else 1 + int(name[-2:]) % 2


def events_logged(house: House) -> Counter[tuple[str, str]]:
    """The evidence log by device and event id."""
    rows = house.rows("SELECT d.id, e.event_id FROM event e JOIN device d ON d.key = e.device_key")
    return Counter((device, unpacked(packed)) for device, packed in rows)


def unpacked(packed: bytes) -> str:
    return str(uuid.UUID(bytes=bytes(packed[-16:])))


def no_wave_opened_before_its_deltas(house: House) -> None:
    """By the journal and the times at which deltas were recorded."""
    recorded = {(a, b): at for a, b, at in house.rows("SELECT from_commit, to_commit, recorded_at FROM delta")}
    opened = house.rows(
        "SELECT r.key, j.wave, j.at FROM journal j JOIN rollout r ON r.key = j.rollout_key "
        "WHERE j.event = 'opened' AND j.wave IS NOT NULL"
    )
    assert opened
    for key, wave, at in opened:
        needs = house.rows(
            f"SELECT from_commit, to_commit FROM need WHERE rollout_key = {key} AND wave = '{wave}' AND known = 1"
        )
        for pair in needs:
            assert pair in recorded and recorded[pair] <= at, f"{wave} opened before {pair}"


# --------------------------------------------------------------------------------------------- making installations


@contextmanager
def copied(template: House, root: Path, *, lease: str = "30s", more: str = "") -> Iterator[House]:
    """A house of one's own, and its end."""
    root.mkdir(parents=True, exist_ok=True)
    template.versions.copy(root / "repo")
    for name in ("wave.db", "tokens", "fleet.yaml"):
        shutil.copy2(template.root / name, root / name)
    shutil.copytree(template.tools, root / "tools")
    house = House(root, template.versions, lease=lease, more=more)
    try:
        yield house
    finally:
        house.close()
