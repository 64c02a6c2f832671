"""Real Mender clients, each in a mount namespace of its own, so that many fit on one machine; nothing reboots.

What a client installs lies below its own ``etc``, which it sees as ``/etc/mender``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.faults import House, below
from tests.loopback import free_port
from tests.services.mender.keys import key_of, pem_of, private_pem_of
from tests.waiting import PATIENCE, until

TYPE: Final = "simdev"
MODULE: Final = "/etc/mender"
"""Where a client sees its own ``etc``; artifacts are installed below it."""

WAIT: Final = """#!/bin/sh
touch {at}/installing
while [ ! -e {at}/go ]; do sleep 0.1; done
echo {version} > {at}/version
"""
FAIL: Final = """#!/bin/sh
echo "the disk is on fire" >&2
exit 1
"""
GOOD: Final = """#!/bin/sh
echo {version} > {at}/version
"""


def artifact(house: House, version: int, script: str = GOOD, *, padding: int = 0) -> str:
    """A Mender Artifact that runs a script on the device, added as a Target of this version; its file's name."""
    work = house.root / f"make-{version}"
    work.mkdir()
    (work / "install.sh").write_text(script.format(at=MODULE, version=version))
    files = ["-f", str(work / "install.sh")]
    if padding:
        # What the module runs too: a script of comments that does not compress.
        (work / "padding.sh").write_text("#!/bin/sh\nexit 0\n# " + os.urandom(padding // 2).hex() + "\n")
        files += ["-f", str(work / "padding.sh")]
    made = house.root / f"app-{version}.mender"
    words = ["mender-artifact", "write", "module-image", "-T", "script", "--device-type", TYPE, "-o", str(made)]
    words += ["-n", f"app-{version}", "--software-name", "app", "--software-version", f"1.{version}.0", *files]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)
    return made.name


class Client:
    """One device. ``name`` is its identity, and as which it is accepted. ``strict``: it takes only what is signed
    with a key that nobody has. ``settings``: of its own, asked in haste all the same."""

    def __init__(
        self,
        house: House,
        name: str,
        *,
        key: str = "rsa",
        strict: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.house = house
        self.name = name
        self.root = house.root / "devices" / name
        for folder in ("etc", "data", "identity"):
            (self.root / folder).mkdir(parents=True)
        (self.etc / "artifact_info").write_text("artifact_name=app-0\n")
        (self.root / "data" / "device_type").write_text(f"device_type={TYPE}\n")
        # Its key is made here: the client would take seconds for it.
        agent = self.root / "data" / "mender-agent.pem"
        agent.write_text(private_pem_of(key_of(f"e2e {name}", key)))
        agent.chmod(0o600)
        script = self.root / "identity" / "mender-device-identity"
        script.write_text(f"#!/bin/sh\necho id={name}\n")
        script.chmod(0o755)
        conf: dict[str, Any] = {
            **(settings or {"ServerURL": f"http://127.0.0.1:{house.port}"}),
            "UpdatePollIntervalSeconds": 1,
            "InventoryPollIntervalSeconds": 2,
            "RetryPollIntervalSeconds": 1,
            "DBus": {"Enabled": False},
        }
        if strict:
            (self.root / "verify.pem").write_text(pem_of(key_of("nobody", "rsa")))
            conf["ArtifactVerifyKey"] = str(self.root / "verify.pem")
        (self.root / "mender.conf").write_text(json.dumps(conf))
        self.log = self.root / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def version(self) -> str | None:
        """What was installed last."""
        file = self.etc / "version"
        return file.read_text().strip() if file.exists() else None

    def start(self) -> Client:
        program = (
            f"mount --bind {self.etc} /etc/mender && mount --bind {self.root}/identity /usr/share/mender/identity && "
            f"exec mender -c {self.root}/mender.conf -d {self.root}/data -l info --no-syslog daemon"
        )
        inside = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*inside, "--", "sh", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def kill(self) -> None:
        """The power goes: it and whatever it runs, which has groups of its own."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # it begins nothing more
            for pid in (*below(self.process.pid), self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(PATIENCE)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def installs(self) -> None:
        """Wait until its script runs."""
        self.until("it installs", lambda: (self.etc / "installing").exists())

    def go_on(self) -> None:
        (self.etc / "go").touch()

    def until(self, what: str, holds: Callable[[], object]) -> None:
        try:
            until(f"{self.name}: {what}", lambda: bool(holds()))
        except AssertionError as error:
            told = "\n".join(line for line in self.said().splitlines() if "check-wait" not in line)
            raise AssertionError(f"{error}\n{self.events()}\n{told[-4000:]}") from None

    def update(self, rollout: str) -> tuple[int, int] | None:
        """Status of its update, and whether anything bad of it was counted."""
        rows = self.house.rows(
            "SELECT u.status, u.bad FROM device_update u JOIN device d ON d.key = u.device_key "
            f"JOIN rollout r ON r.key = u.rollout_key WHERE d.id = '{self.name}' AND r.name = '{rollout}'"
        )
        return rows[0] if rows else None

    def events(self) -> list[tuple[str, str | None]]:
        rows = self.house.rows(
            f"SELECT e.kind, e.code FROM event e JOIN device d ON d.key = e.device_key WHERE d.id = '{self.name}' "
            "ORDER BY e.seq"
        )
        return list(rows)


class Wire:
    """The way from the server to devices for downloads: it can be held up, and it can damage what it carries."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = free_port()
        self.open = threading.Event()
        self.open.set()
        self.damage = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._carry_back, args=(far, near), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while piece := near.recv(65536):
                far.sendall(piece)
            far.shutdown(socket.SHUT_WR)

    def _carry_back(self, far: socket.socket, near: socket.socket) -> None:
        """The first pieces pass, so that a download has begun before it is held up."""
        at = 0
        with suppress(OSError), far, near:
            while piece := far.recv(16384):
                if at > 65536:
                    self.open.wait(PATIENCE)
                    if self.damage.is_set():
                        piece = bytes(each ^ 0xFF for each in piece)
                near.sendall(piece)
                at += len(piece)
            near.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.close()
        self.open.set()


def accept(house: House, clients: Sequence[Client], *, tag: str = "main", group: str | None = None) -> None:
    """Wait until they ask, and let them in; then until they have said what they are."""
    names = [each.name for each in clients]
    for each in clients:
        each.until("it asks", partial(waits, house, each.name))
    more = ["--group", group] if group else []
    house.ok("mender", "accept", *names, "--hardware-id", TYPE, "--tag", tag, *more)
    for each in clients:
        each.until("it has come", partial(has_come, house, each.name))


def waits(house: House, name: str) -> bool:
    return bool(house.rows(f"SELECT 1 FROM auth_set WHERE identity LIKE '%\"{name}\"%'"))


def has_come(house: House, name: str) -> bool:
    return bool(house.rows(f"SELECT 1 FROM device WHERE id = '{name}' AND last_seen_at IS NOT NULL"))
