"""Real SWUpdate clients against the real ``wave serve``. They really install signed images; what is not real is the
board: each device sees a directory of its own as ``/opt/otadev`` (a mount namespace, which needs root or user
namespaces), and its reboot is the end of the process and a start with ``-c 2``.

A client binds abstract Unix sockets, of which there is room for eleven in a network namespace, so tests that start
some run one at a time on a machine (``alone``), with ten devices at most. On a busy machine a client may die of
SIGPIPE, or not hear SIGTERM: as in the field, something starts it again, and here something kills it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import yaml

from orchestrator.bootstrap import initialise, load_settings, open_application
from orchestrator.core.durations import duration_text
from orchestrator.core.fleet import Device
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.services.artifacts import Said
from orchestrator.services.turn import LEASE
from tests.adapters.ostree_trees import Versions
from tests.e2e.faults import ROOT, House
from tests.waiting import PATIENCE, until

MOST: Final = 10
"""Devices at once."""

LEASED: Final = timedelta(seconds=30)
"""For how long a tick keeps others from ticking."""

PLACE: Final = "/opt/otadev"
"""Where a device sees its directory."""

SETTINGS: Final = """root: .
port: {port}
console_port: off
check_in_every: 2s
tick_at_most: 1s
lease: {lease}
{more}
"""

POLICY: Final = """policy: quick
tolerate:
  failed: {{at_most: 20%, then: {then}}}
  verify_failed: {{at_most: 20%, then: {then}}}
  silent: {{at_most: 20%, then: hold}}
  download_failed: {{at_most: 50%, then: count}}
{more}
silent_after: 10m
slices: {{first: 20, growth: 2}}
deltas: {deltas}
bake: {{at_least: 1s, reports: 95%, at_most: 10m}}
"""

ROLLOUT: Final = """rollout: r2
target: 2
tag: main
policy: ./quick.yaml
waves:
  - {wave: first, devices: {group: first}}
  - {wave: second, devices: all}
"""

DESCRIPTION: Final = """software = {{
  version = "{version}";
  description = "test";
  hardware-compatibility = [ "1.0" ];
  files: ( {{ filename = "version.txt"; path = "{place}/version.txt"; sha256 = "{content}";
              properties: {{ create-destination = "true"; atomic-install = "true"; }}; }} );
  scripts: ( {{ filename = "post.sh"; type = "shellscript"; sha256 = "{script}"; }} );
}}
"""

PAGE: Final = ROOT / "docs" / "devices" / "swupdate.md"


def block(name: str) -> str:
    """What the page for operators shows under that name: devices here are set up as it says."""
    text = PAGE.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n```")[2]
    return text.partition("\n")[2].partition("```")[0]


@contextmanager
def alone() -> Iterator[None]:
    """Whoever starts clients here waits for whoever does elsewhere on this machine."""
    with (Path(tempfile.gettempdir()) / f"wave-swupdate-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*words: str, cwd: Path, feed: str | None = None) -> bytes:
    made = subprocess.run(
        words, cwd=cwd, input=None if feed is None else feed.encode(), capture_output=True, timeout=PATIENCE
    )
    assert made.returncode == 0, f"{' '.join(words)}: {made.stderr.decode(errors='replace')}"
    return made.stdout


class Press:
    """Makes signed images. The key is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        usage = ("-addext", "extendedKeyUsage=emailProtection", "-addext", "keyUsage=digitalSignature")
        made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=wave-test")
        run(*made, "-keyout", "key.pem", "-out", "cert.pem", *usage, cwd=folder)

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    def image(self, version: str, *, fails: bool = False, padding: int = 0) -> Path:
        """An image that writes its version, ``padding`` bytes longer than it need be, which are the same in every
        version; ``fails``: after it has."""
        work = self.folder / f"{version}-{fails}-{padding}"
        path = work / f"image-{version}.swu"
        if path.exists():
            return path
        work.mkdir()
        content = f"{version}\n".encode() + random.Random(padding).randbytes(padding)
        script = b"#!/bin/sh\n" + (b'[ "$1" = postinst ] && exit 1\n' if fails else b"") + b"exit 0\n"
        (work / "version.txt").write_bytes(content)
        (work / "post.sh").write_bytes(script)
        sums = {"content": hashlib.sha256(content).hexdigest(), "script": hashlib.sha256(script).hexdigest()}
        (work / "sw-description").write_text(DESCRIPTION.format(version=version, place=PLACE, **sums))
        signer = ("-signer", str(self.certificate), "-inkey", str(self.folder / "key.pem"))
        sign = ("openssl", "cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig", *signer)
        run(*sign, "-outform", "DER", "-nosmimecap", "-binary", cwd=work)
        names = "sw-description\nsw-description.sig\nversion.txt\npost.sh\n"
        path.write_bytes(run("cpio", "-o", "-H", "crc", "--quiet", cwd=work, feed=names))
        return path


class SwuHouse(House):
    """An installation whose Targets are images for ``sim``. The operator is in this process, the server in its own."""

    def __init__(self, root: Path, *, more: str = "") -> None:
        root.mkdir()
        super().__init__(root, cast(Versions, None))
        initialise(root)
        (root / "wave.yaml").write_text(SETTINGS.format(port=self.port, lease=duration_text(LEASED), more=more))
        self.app = open_application(load_settings(root / "wave.yaml", {"root": str(root)}))
        self.devices: list[SwuDevice] = []

    def target(self, number: int, image: Path, *, damaged: bool = False) -> None:
        """``damaged``: after it was taken in, by one bit behind all that is installed."""
        version = image.stem.removeprefix("image-")
        artifact = self.app.artifacts.add(image, Said(version=version, hardware_ids=("sim",))).artifact
        self.app.targets.add_artifact(version=number, artifact=artifact, tags=("main",))
        if damaged:
            (stored,) = [each for each in (self.root / "artifacts").rglob(artifact.sha256) if each.is_file()]
            content = bytearray(stored.read_bytes())
            content[-1] ^= 1
            stored.chmod(0o600)
            stored.write_bytes(content)

    def fleet(self, press: Press, first: int, second: int = 0, **more: Any) -> list[SwuDevice]:
        """So many in the first wave and in the second; none of them runs yet."""
        groups = {**{f"a-{n}": "first" for n in range(first)}, **{f"b-{n}": "second" for n in range(second)}}
        assert len(groups) <= MOST
        known = [Device(name, "sim", "main", group=group) for name, group in groups.items()]
        tokens = dict(self.app.devices.enroll(known, tokens=True))
        self.devices = [SwuDevice(self, name, tokens[name] or "", press, **more) for name in groups]
        return self.devices

    def boot(self) -> None:
        """Start every device, and wait until all have said what they run."""
        for device in self.devices:
            device.start()
        said = "SELECT count(*) FROM device d JOIN software s ON s.key = d.software_key WHERE s.commit_id <> ''"
        until("all said what they run", lambda: self.value(said) == len(self.devices), within=30)
        self.a_tick_begins()

    def a_tick_begins(self) -> None:
        """Wait until one has begun that sees what there is now: one that read the clock before is over then, for there
        is one at a time; its slice would not count who was seen since."""
        now = datetime.now(UTC)
        until("a tick begins", lambda: (began := self._tick_began()) is not None and began > now)

    def _tick_began(self) -> datetime | None:
        """The last one: it takes the lease from when it begins."""
        with self.app.store.reading() as r:
            held = r.lease_holder(LEASE)
        return None if held is None else held[1] - LEASED

    def all_poll(self, times: int) -> None:
        """Wait until every device has asked so many times more; what it had asked before may be written down late, and
        be taken for the first of them."""
        for _ in range(times):
            until("all ask again", partial(self._polled_since, self._seen()))

    def _polled_since(self, before: Mapping[str, int]) -> bool:
        return all(at > before[name] for name, at in self._seen().items())

    def _seen(self) -> dict[str, int]:
        """When each device asked last."""
        return dict(self.rows("SELECT id, last_seen_at FROM device"))

    def roll_out(self, *, then: str = "count", more: str = "", deltas: str = "{within: 0s, otherwise: full}") -> None:
        policy = Policy.parse(yaml.safe_load(POLICY.format(then=then, more=more, deltas=deltas)))
        self.app.rollouts.apply(RolloutFile.parse(yaml.safe_load(ROLLOUT)), policy, by="tester")
        self.app.rollouts.start("r2", by="tester")

    def statuses(self) -> dict[str, str]:
        """Of the updates, by device."""
        with self.app.store.reading() as r:
            return {name: str(row.update.status) for name, row in r.list_updates(1, limit=100)}

    def all_are(self, *wanted: str, within: float = 45.0) -> None:
        """Wait until every device's update stands so."""
        try:
            until(
                f"all are {wanted}",
                lambda: len(found := self.statuses()) == len(self.devices) and set(found.values()) <= set(wanted),
                within=within,
                every=0.2,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def picture(self) -> str:
        """All that helps to see why it did not go as it should."""
        said = [f"{self.statuses()}", f"--- the server\n{self.servers[-1].said()[-2000:]}"]
        for each in self.devices:
            why = [f"{one.kind}: {one.sentence} {one.waits}" for one in self.app.devices.why_not(each.id)]
            said.append(f"--- {each.id} runs {each.runs}; {why}\n{each.said()[-1200:]}")
        events = self.rows("SELECT device_key, kind, substr(message, 1, 300) FROM event ORDER BY seq")
        places = self.rows("SELECT id, since_at, last_seen_at FROM device") + self.rows("SELECT * FROM slice")
        return "\n".join([*said, *map(str, events + places)])

    def comes_to(self, status: str, *, within: float = 45.0) -> None:
        """Wait until the rollout has this status."""
        try:
            until(f"the rollout is {status}", lambda: self.rollout_status("r2") == status, within=within, every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def counts_up(self) -> None:
        with self.app.store.reading() as r:
            assert not r.check()

    def close(self) -> None:
        for device in self.devices:
            device.stop()
        for device in self.devices:
            device.close()
        self.app.close()
        super().close()


class SwuDevice:
    """One device and what starts its client again. ``speed``: bytes a second at most. ``boots``: whether what it has
    installed starts; if not, the old one does, and says so (``-c 3``)."""

    def __init__(
        self, house: SwuHouse, name: str, token: str, press: Press, *, speed: int | None = None, boots: bool = True
    ) -> None:
        self.id, self._house, self._token, self._press = name, house, token, press
        self._speed, self._boots = speed, boots
        self.root = house.root / "devices" / name
        for folder in ("place", "tmp"):
            (self.root / folder).mkdir(parents=True)
        self.runs = "1.1.0"
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)

    def start(self) -> None:
        self._keeper.start()

    def kill(self) -> None:
        """The power fails, at once."""
        process = self._process
        assert process is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def said(self) -> str:
        return (self.root / "log").read_text(errors="replace") if (self.root / "log").exists() else ""

    def comes_with(self, image: Path) -> None:
        """From the factory it has what an image of the press would install."""
        (self.root / "place" / "version.txt").write_bytes((image.parent / "version.txt").read_bytes())

    def installed(self) -> str:
        """What it has written, whether it runs it or not."""
        path = self.root / "place" / "version.txt"
        return path.read_bytes().split(b"\n")[0].decode() if path.exists() else ""

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self.stop()
        if self._keeper.ident is not None:
            self._keeper.join(PATIENCE)

    def _keep(self) -> None:
        word = "-e"
        while not self._stop.is_set():
            self._process = process = self._client(word)
            while process.poll() is None and not self._rebooting.exists() and not self._stop.wait(0.1):
                pass
            _end(process)
            word = "-e"
            if self._rebooting.exists():
                self._rebooting.unlink()
                if self._boots:
                    self.runs = self.installed()
                word = "-c 2" if self._boots else "-c 3"
            else:
                self._stop.wait(0.5)

    @property
    def _rebooting(self) -> Path:
        return self.root / "reboot"

    def _client(self, word: str) -> subprocess.Popen[bytes]:
        self.starts += 1
        reboot = self.root / "reboot.sh"
        reboot.write_text(f"#!/bin/sh\ntouch {self._rebooting}\n")
        reboot.chmod(0o755)
        page = block("swupdate.cfg")
        for shown, real in {
            "gw-7f3a": self.id,  # first: it is in the paths of the others
            "/etc/swupdate/cert.pem": self._press.certificate,
            "/sbin/reboot": reboot,
            "http://wave.example:8700": f"http://127.0.0.1:{self._house.port}",
            "TOKEN": self._token,
            "1.1.0": self.runs,
        }.items():
            assert page.count(shown) == 1, f"the page has {shown} more than once, or not at all"
            page = page.replace(shown, str(real))
        config = self.root / "swupdate.cfg"
        config.write_text(page)
        Path(PLACE).mkdir(parents=True, exist_ok=True)
        words = f"{word} -w 1 -n {self._speed}" if self._speed else f"{word} -w 1"
        inner = (
            f"mount --make-rprivate / && mount --bind {self.root / 'place'} {PLACE} && "
            f'exec swupdate -l 4 -f {config} -H sim:1.0 -u "{words}"'
        )
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [*namespace(), "sh", "-c", inner],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.root / "tmp")},
                start_new_session=True,
            )


def namespace() -> Sequence[str]:
    """What gives a client mounts of its own. Who is not root needs a kernel that lets him have user namespaces."""
    return ("unshare", "-m") if os.getuid() == 0 else ("unshare", "-r", "-m")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
