"""What is kept in the repository works on anybody's machine: exact versions, no hosts, no paths of one developer's."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_the_lock_names_no_host_and_no_place() -> None:
    assert re.findall(r"(?m)^.*(?://|^\s*-[^-]|--(?!hash=sha256:)| @ ).*$", LOCK.read_text(encoding="utf-8")) == []


def test_the_lock_pins_every_package_to_one_version_with_hashes() -> None:
    joined = LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    loose = [
        line for line in joined.splitlines() if not re.match(r"\S+==\S+( ;.*?)? +--hash=sha256:[0-9a-f]{64}", line)
    ]
    assert loose == []


def test_the_lock_holds_everything_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {
        re.split(r"[^\w.-]", wish)[0].lower()
        for wish in project["dependencies"] + project["optional-dependencies"]["dev"]
    }
    locked = {name.lower() for name in re.findall(r"(?m)^([\w.-]+)==", LOCK.read_text(encoding="utf-8"))}
    assert asked - locked == set()


def test_nothing_names_a_path_of_one_developers_machine() -> None:
    private = re.compile(rb"(?<![\w.])/(?:home|Users|work)/[\w-]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if private.search(line)
    ]
    assert found == []


def test_the_shipped_policies_are_found_from_the_package() -> None:
    shipped = ROOT / "orchestrator" / "_policies"
    assert shipped.resolve() == ROOT / "policies"
    assert list(shipped.glob("*.yaml"))
