"""A real PostgreSQL for tests: a cluster of Debian's in a temporary directory, reached by a Unix socket only.

It is started by the first test that needs it, one for each pytest process, and stopped by its own process id at the
end. Root may not run PostgreSQL, so as root it runs as ``postgres`` or ``nobody``. When it is not installed the test
fails and says what to do: it is not skipped.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_START_WITHIN = 30.0
"""Seconds."""

_SETTINGS = {
    "fsync": "off",  # the machine does not crash under a test
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


def _programs() -> Path:
    """Where initdb and postgres are: the newest version of Debian's, or the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    raise AssertionError("PostgreSQL is not installed: `make test` gets it.")


def _user() -> str | None:
    """As whom it runs; None: as who we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Cluster:
    """A running cluster. ``database()`` gives a new database in it."""

    def __init__(self, directory: Path, server: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.server = server
        self._numbers = itertools.count(1)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://wave@/{name}?host={self.directory}"

    def run(self, statement: str) -> None:
        with psycopg.connect(host=str(self.directory), user="wave", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def database(self, template: str = "template1") -> str:
        """The name of a new database, a copy of ``template``."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster, and stop it at the end."""
    programs, user = _programs(), _user()
    directory = Path(tempfile.mkdtemp(prefix="wave-pg-"))
    identity: dict[str, Any] = (
        {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    )
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        if user is not None:
            shutil.chown(directory, user)
        log = (directory / "log").open("wb")
        with log:
            subprocess.run(
                [programs / "initdb", "-D", directory / "data", "-U", "wave", "-A", "trust", "-E", "UTF8", "--no-sync"],
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment,
                timeout=120,
                check=True,
                **identity,
            )
            options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
            server = subprocess.Popen(
                [programs / "postgres", "-D", directory / "data", "-k", directory, *options],
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment,
                **identity,
            )
        try:
            _wait(directory, server)
            yield Cluster(directory, server)
        finally:
            server.send_signal(signal.SIGINT)  # "fast": it closes what is open and ends
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(timeout=30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait(directory: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_WITHIN
    while True:
        try:
            psycopg.connect(host=str(directory), user="wave", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                said = (directory / "log").read_text(errors="replace")
                raise AssertionError(f"PostgreSQL did not start:\n{said[-2_000:]}") from None
            time.sleep(0.05)
