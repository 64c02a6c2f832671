"""The Containerfile by what can be said of it without building it: no image can be fetched where these tests run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters.files.settings import load_settings
from tests.loopback import answering

ROOT = Path(__file__).parents[2]
FILE = ROOT / "packaging/Containerfile"
LOCK = ROOT / "packaging/requirements.lock"


def instructions() -> list[tuple[str, str]]:
    """Each with its words, continued lines joined."""
    text = FILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def all_of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


KNOWN = set("ARG FROM RUN COPY ENV USER WORKDIR VOLUME EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split())


def test_it_is_made_of_instructions_there_are() -> None:
    assert {word for word, _ in instructions()} <= KNOWN
    for exact in (*all_of("ENTRYPOINT"), *all_of("CMD")):
        assert all(isinstance(word, str) for word in json.loads(exact)), "no shell in between"


def test_its_base_has_a_version_and_nothing_is_fetched_by_address() -> None:
    assert all_of("FROM") == ["docker.io/library/python:${PYTHON}"]
    assert re.fullmatch(r"PYTHON=3\.\d+-slim-\w+", all_of("ARG")[0])
    assert all_of("ADD") == []
    assert not re.search(r"https?://|curl|wget", " ".join(all_of("RUN")))


def test_it_runs_as_nobody_in_particular_and_after_that_changes_nothing() -> None:
    words = [word for word, _ in instructions()]
    assert all_of("USER") == ["10001:10001"]
    assert not {"RUN", "COPY", "ENV"} & set(words[words.index("USER") :])


def test_what_it_copies_is_there_or_made_by_make_wheel() -> None:
    (copied,) = all_of("COPY")
    lock, wheel, _ = copied.split()
    assert (ROOT / lock).is_file()
    name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"].replace("-", "_")
    assert wheel == f"dist/{name}-*.whl"
    assert "--directory dist" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_package_in_it_is_the_one_that_was_tested() -> None:
    """Its lock is the part of requirements.lock that the program needs when it runs, hash by hash, with its extra:
    nobody can install anything into an image whose root cannot be written."""
    assert "--require-hashes" in " ".join(all_of("RUN"))
    tested, shipped = (packages(file) for file in (ROOT / "requirements.lock", LOCK))
    assert shipped.items() <= tested.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wishes = [*project["dependencies"], *project["optional-dependencies"]["traces"]]
    asked = {re.split(r"[^\w.-]", wish)[0].lower() for wish in wishes}
    assert asked <= {name.lower() for name in shipped}
    assert not {"pytest", "mypy", "hatchling"} & set(shipped)


def packages(file: Path) -> dict[str, str]:
    joined = file.read_text(encoding="utf-8").replace("\\\n", " ")
    # where a package is wanted (`; sys_platform == ...`) differs with who wants it
    found = re.findall(r"(?m)^([\w.-]+)(==\S+)(?: ;.*?)?( +--hash.*)$", joined)
    return {name: " ".join((version + hashes).split()) for name, version, hashes in found}


def test_its_variables_are_settings() -> None:
    words = re.findall(r"(WAVE_\w+)=(\S+)", " ".join(all_of("ENV")))
    settings = load_settings(None, {}, dict(words))
    assert (settings.host, settings.port, str(settings.root)) == ("0.0.0.0", 8700, "/var/lib/wave")
    assert all_of("VOLUME") == ["/var/lib/wave"] and all_of("EXPOSE") == ["8700"]


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_its_health_check_knows_a_server_that_is_well(status: int, well: bool) -> None:
    (check,) = all_of("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

    def says_well(url: str) -> bool:
        environment = {**os.environ, "WAVE_PORT": str(urlsplit(url).port)}
        asked = [sys.executable, *command[1:]]
        return subprocess.run(asked, env=environment, capture_output=True, timeout=30, check=False).returncode == 0

    with answering(Health) as url:
        assert says_well(url) is well
    assert not says_well(url), "nobody listens"
