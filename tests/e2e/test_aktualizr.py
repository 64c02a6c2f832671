"""aktualizr-lite devices through the real ``wave serve``: simulated clients that keep, check and refuse what the real
one keeps, checks and refuses; content by the real ``ostree`` from the paths that they use."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.adapters.ostree_trees import ostree
from tests.e2e.faults import FIELD, LAB, ROOT, House, begins_on
from tests.gateway.aktualizr.client import Client, Software, monotone
from tests.gateway.aktualizr.verifier import Rejected
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ostree, pytest.mark.slow]


def software(house: House, version: int) -> Software:
    return Software(f"board-{version}", version, house.versions.commits[version])


def transport(house: House, base: str) -> Callable[[str, str, dict[str, str], bytes], tuple[int, bytes]]:
    def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30)
        try:
            connection.request(method, f"{base}{path}", body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return ask


def clients(house: House) -> dict[str, Client]:
    return {
        name: Client(
            name,
            "board",
            "main",
            software(house, begins_on(name)),
            transport(house, f"/d/{name}/{token}"),
            lambda: datetime.now(UTC),
        )
        for name, token in sorted(house.tokens.items())
    }


def rounds(fleet: dict[str, Client], *, done: Callable[[], bool], bad: frozenset[str] = frozenset()) -> None:
    """Each device in turn, again and again; whoever is not answered asks again."""

    def once() -> bool:
        for name, client in fleet.items():
            with suppress(OSError, http.client.HTTPException, Rejected):
                client.cycle(bad=name in bad)
        return done()

    until("the devices are done", once, within=90)


def test_a_rollout_in_waves_with_a_new_root_and_a_kill_in_the_middle(house: House) -> None:
    house.ok("tuf", "init")
    server = house.serve()
    fleet = clients(house)
    lab = [client for name, client in fleet.items() if name.startswith("lab")]
    field = [client for name, client in fleet.items() if not name.startswith("lab")]
    rounds(fleet, done=lambda: True)
    house.begin()
    rounds(fleet, done=lambda: all(client.runs.version == 3 for client in lab))
    house.ok("tuf", "rotate", "--yes")
    server.kill()
    server = house.serve()
    rounds(fleet, done=lambda: all(client.runs.version == 3 for client in [*lab, *field]))
    rounds(fleet, done=lambda: house.rollout_status() == "completed")
    for client in fleet.values():
        monotone(client)
        roots = client.repository.root
        assert roots is not None and roots["signed"]["version"] == 2
        allowed = {f"board-{begins_on(client.device)}", "board-3"}
        assert all(shown <= allowed for shown in client.seen_targets)
    status = house.status()
    assert sum(wave["confirmed"] for wave in status["waves"]) == LAB + FIELD
    assert (
        house.value("SELECT count(*) FROM (SELECT device_key, event_id FROM event GROUP BY 1, 2 HAVING count(*) > 1)")
        == 0
    )
    house.counts_up()
    said = house.ok("device", "show", "lab-0").out
    assert "Speaks aktualizr; the highest version it has run is 3" in said


def test_a_release_that_does_not_boot_is_held_in_the_lab_and_the_field_never_sees_it(house: House) -> None:
    house.ok("tuf", "init")
    house.serve()
    fleet = clients(house)
    rounds(fleet, done=lambda: True)
    house.begin()
    bad = frozenset(name for name in fleet if name.startswith("lab"))
    rounds(fleet, bad=bad, done=lambda: house.rollout_status() in ("held", "halted"))
    assert "never tries again a Target that failed" in " ".join(house.ok("retry", "r3", "--dry-run").said.split())
    house.ok("cancel", "r3", "--reason", "it does not boot", "--yes")
    rounds(fleet, done=lambda: all("board-3" not in client.seen_targets[-1] for client in fleet.values()))
    for name, client in fleet.items():
        monotone(client)
        assert client.runs.version == begins_on(name)
        if name not in bad:
            assert not any("board-3" in shown for shown in client.seen_targets)
    wrong = house.rows("SELECT kind, code FROM event WHERE kind = 'rolled_back'")
    assert wrong and set(wrong) == {("rolled_back", "wrong_version_booted")}


def test_a_real_ostree_fetches_the_content_and_the_file_of_sizes_is_what_ostree_says(
    house: House, tmp_path: Path
) -> None:
    house.ok("tuf", "init")
    house.serve()
    fleet = clients(house)
    rounds(fleet, done=lambda: True)
    house.begin()
    client = fleet["lab-0"]
    # who asks more often than its limit is told 429
    until("it is offered", lambda: client.check() is not None, every=1.0)
    assert client.repository.targets is not None
    entry = client.repository.targets["signed"]["targets"]["board-3"]
    named = entry["custom"]["delta-stats"]
    status, body = client.ask("GET", f"/treehub/delta-stats/{named['sha256']}", client.headers, b"")
    assert status == 200 and hashlib.sha256(body).hexdigest() == named["sha256"] and len(body) == named["size"]
    begun, wanted = client.runs.commit, entry["hashes"]["sha256"]
    sizes = json.loads(body)[wanted][begun]
    shown = ostree(house.repo, "static-delta", "show", f"{begun}-{wanted}")
    told = dict(re.findall(r"(Total(?: Uncompressed)? Size): (\d+)", shown))
    assert sizes == {"size": int(told["Total Size"]), "u_size": int(told["Total Uncompressed Size"])}
    assert client.ask("POST", "/treehub/download-urls", client.headers, b"{}")[0] == 404
    assert client.ask("POST", "/ostree/download-urls", client.headers, b"{}")[0] == 404
    for path in ("treehub", "ostree"):
        repo = tmp_path / path
        repo.mkdir()
        ostree(repo, "init", "--mode=bare-user-only")
        base = f"http://127.0.0.1:{house.port}/d/lab-0/{house.tokens['lab-0']}/{path}"
        ostree(repo, "remote", "add", "--no-gpg-verify", "gateway", base)
        ostree(repo, "pull", "gateway", begun)
        ostree(repo, "pull", "--require-static-deltas", "gateway", wanted)
        assert wanted in ostree(repo, "show", wanted)


def test_the_lines_of_the_page_reach_the_gateway(house: House) -> None:
    """The real client is not here, so what it would ask by its settings is asked."""
    house.ok("tuf", "init")
    house.serve()
    page = (ROOT / "docs/devices/aktualizr.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"<!-- toml: (\w+) -->\n```toml\n(.*?)```", page, re.DOTALL))
    token = house.tokens["lab-0"]
    for kind, known in (("prefix", 200), ("certificate", 401)):  # no certificate on a plain connection
        text = blocks[kind].replace("https://wave.example:8700", "").replace("gw-7f3a/TOKEN", f"lab-0/{token}")
        said = tomllib.loads(text)
        assert said["tls"]["server"] == said["provision"]["server"]
        ask = transport(house, "")
        assert ask("GET", said["tls"]["server"] + "/device", {}, b"")[0] == known
        assert ask("GET", said["uptane"]["repo_server"] + "/1.root.json", {}, b"")[0] == known
        assert ask("GET", said["pacman"]["ostree_server"] + "/config", {}, b"")[0] == 200
