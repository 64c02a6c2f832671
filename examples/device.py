"""The reference device: what a client of the orchestrator does, small enough to be ported to a real one.

It keeps an OSTree repository, asks the server what to run, fetches exactly the delta it is offered, installs it beside
the running version, switches over in one step, checks its health, and goes back when that fails. What it has to tell is
kept until the server has taken it. It may be killed at any moment; started again it goes on where it was. A Target that
is a file is fetched whole, and installed as that file.

    python examples/device.py --server http://127.0.0.1:8080 --id dev-1 --token-file token --root /var/lib/device
    python examples/device.py --server https://... --id dev-1 --certificate dev-1.pem dev-1.key --ca ca.pem --root ...

Needs Python, and the ``ostree`` command where Targets are no files. Below ROOT: ``repo`` or ``files``,
``deployments/<commit>``, the link ``current`` to one of these, ``download`` for what is half fetched, and
``state.json``, the only memory.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    from examples.device_fetch import Downloads, UpdateFailed, read_superblock
except ImportError:  # run as a program, which finds what lies beside it
    from device_fetch import Downloads, UpdateFailed, read_superblock  # type: ignore[import-not-found, no-redef]


@dataclass
class Device(Downloads):
    """One device with all it has below ``root``. ``requests`` and ``bytes`` count its downloads (bodies of answers,
    of a whole pull what ostree says); a broken download is taken up again ``attempts`` times, ever later.
    ``certificate`` and its key say who it is where ``token`` is empty; ``authority``: whose word it takes for the
    server's."""

    server: str
    device_id: str
    token: str
    root: Path
    hardware_id: str = "rpi4"
    tag: str = "main"
    labels: dict[str, str] = field(default_factory=dict)
    health: Sequence[str] | None = None
    health_seconds: float = 60
    http_seconds: float = 30
    attempts: int = 4
    retry_seconds: float = 1
    durable: bool = True
    certificate: tuple[Path, Path] | None = None
    authority: Path | None = None
    log: Callable[[str], None] = lambda line: None
    requests: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.root = self.root.absolute()
        self.repo = self.root / "repo"
        self.stopping = threading.Event()
        self.tls = ssl.create_default_context(cafile=self.authority)
        if self.certificate is not None:
            self.tls.load_cert_chain(*self.certificate)
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)  # the folder: clones by hard links share no folder
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            self.state: dict[str, Any] = json.loads((self.root / "state.json").read_bytes())
        except FileNotFoundError:
            self.state = {"commit": None, "version": None, "update": None, "events": []}
            if shutil.which("ostree"):
                self.repo.mkdir(exist_ok=True)
                self._ostree("init", "--mode=bare-user-only")

    def close(self) -> None:
        os.close(self._lock)

    def run(self) -> None:
        """Until ``stopping`` is set. A server that cannot be reached is asked again later."""
        while not self.stopping.is_set():
            try:
                pause = self.step()
            except Exception as error:  # whatever it is: a device that stops asking cannot be helped any more
                self.log(f"cannot go on for now: {type(error).__name__}: {error}")
                pause = 30.0
            self.stopping.wait(pause)

    def step(self) -> float:
        """One check-in and all that follows, to the check-in that confirms a new version. Returns when to ask again, in
        seconds. Raises OSError (also for HTTP errors) and ValueError."""
        self._boot()
        answer = self.check_in()
        if answer["offer"] is not None and answer["offer"]["target"]["commit"] != self.state["commit"]:
            if self._update(answer["offer"]):
                self._boot()
            answer = self.check_in()
        return float(answer["check_in_after"])

    def check_in(self) -> dict[str, Any]:
        """Send what is kept, then say what runs here; that confirms an update. Returns the server's answer."""
        self.send_reports()
        facts = {"commit": self.state["commit"], "version": self.state["version"], "hardware_id": self.hardware_id}
        answer: dict[str, Any] = self._post("check-in", {**facts, "tag": self.tag, "labels": self.labels})
        return answer

    def send_reports(self) -> None:
        """An event keeps its id until the server has taken it, so that one sent twice is known as the same. A server
        that takes none must not keep the device from asking for its next version: the last 1,000 stay here."""
        try:
            while events := self.state["events"][-1000:][:100]:
                self._post("reports", {"events": events})
                self._remember(events=self.state["events"][-1000:][len(events) :])
        except (OSError, ValueError) as error:
            self.log(f"reports are kept for later: {error}")

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.server}/v1/devices/{urllib.parse.quote(self.device_id, safe='')}/{what}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=self.http_seconds, context=self.tls) as response:
            return json.loads(response.read() or b"null")

    def _remember(self, **changes: Any) -> None:
        """Change the state and its file in one step: a kill leaves the old one or the new one."""
        state = {**self.state, **changes}
        new = self.root / "state.json.new"
        with new.open("w") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.root / "state.json")
        self.state = state

    def _event(self, event: str, update: dict[str, Any], code: str | None = None, message: str | None = None) -> Any:
        """The list of events with one more. Never remembered alone: always together with the change it tells of."""
        self.log(f"{event} {update['target']['version']}" + (f": {code}: {message}" if code else ""))
        fields = {"id": str(uuid.uuid4()), "rollout": update["rollout"], "target": update["target"]["version"]}
        at = datetime.datetime.now(datetime.UTC).isoformat()
        why = {"code": code, "message": (message or "")[:1000]} if code else {}
        return [*self.state["events"], {**fields, "event": event, "at": at, **why}]

    def _update(self, offer: dict[str, Any]) -> bool:
        """Fetch, install, switch over. True when the new version is to be started. False: it failed, and nothing that
        runs was touched."""
        known = self.state["update"]
        if known is None or (known["rollout"], known["target"]) != (offer["rollout"], offer["target"]):
            update = {**offer, "stage": "downloading"}
            self._remember(update=update, events=self._event("downloading", update))
        else:
            self._remember(update={**offer, "stage": known["stage"]})  # the address or the delta may have changed
        update = self.state["update"]
        commit = update["target"]["commit"]
        try:
            if not re.fullmatch("[0-9a-f]{64}", commit):
                raise UpdateFailed("failed", "bad_offer", f"{commit[:80]!r} is no commit")
            self.send_reports()
            artifact = update.get("artifact")
            if artifact is not None:
                self._fetch_file(artifact, commit)
            elif not (self.repo / "refs/heads/deploy" / commit).exists():
                delta = update["delta"]
                if delta is not None and delta["from"] == self.state["commit"]:
                    self._fetch_delta(update["repository"], delta["path"], commit)
                else:
                    self._pull(update["repository"], commit)
                self._ostree("refs", f"--create=deploy/{commit}", commit)
            shutil.rmtree(self.root / "download", ignore_errors=True)
            if update["stage"] == "downloading":
                update = {**update, "stage": "installing"}
                self._remember(update=update, events=self._event("installing", update))
                self.send_reports()
            self._install(commit, None if artifact is None else artifact["filename"])
            self._switch(commit)
        except (UpdateFailed, OSError) as error:
            failed = error if isinstance(error, UpdateFailed) else UpdateFailed("failed", "disk", str(error))
            if (
                failed.event != "download_failed"
            ):  # what was fetched may be the reason; a broken download is gone on with
                shutil.rmtree(self.root / "download", ignore_errors=True)
            self._remember(update=None, events=self._event(failed.event, update, failed.code, str(failed)))
            return False
        self._remember(update={**update, "stage": "applied"}, events=self._event("applied", update))
        return True

    def _fetch_file(self, artifact: dict[str, Any], commit: str) -> None:
        """Under the name of what is in it; the name it was given may lead nowhere else."""
        name = artifact["filename"]
        if not name or name.startswith(".") or Path(name).name != name:
            raise UpdateFailed("failed", "bad_offer", f"{name[:80]!r} is no name of a file")
        for folder in (self.root / "download", self.root / "files"):
            folder.mkdir(exist_ok=True)
        if not (self.root / "files" / commit).exists():
            self._download(artifact["url"], self.root / "download" / commit, checksum=commit)
            (self.root / "download" / commit).rename(self.root / "files" / commit)

    def _pull(self, repository: str, commit: str) -> None:
        settings = {"url": repository, "gpg-verify": "false"}
        if self.authority is not None:
            settings["tls-ca-path"] = str(self.authority)
        if self.certificate is not None:
            certificate, own_key = self.certificate
            settings |= {"tls-client-cert-path": str(certificate), "tls-client-key-path": str(own_key)}
        for key, value in settings.items():
            self._ostree("config", "--group", 'remote "wave"', "set", key, value)
        said = self._ostree("pull", "--disable-static-deltas", "wave", commit, event="download_failed", code="pull")
        numbers = [int(word) for word in said.replace(";", " ").split() if word.isdigit()]
        if len(numbers) >= 3:  # "3 metadata, 5 content objects fetched; 12 KiB transferred in 1 seconds; ..."
            self.requests += numbers[0] + numbers[1]
            self.bytes += numbers[2] * 1024

    def _fetch_delta(self, repository: str, path: str, commit: str) -> None:
        """Exactly the superblock, its parts and its fallback objects, then applied without the network.

        ``ostree pull`` before 2023.7 fetches loose objects beside the delta, and ``apply-offline`` refuses a delta with
        fallback objects: so these are taken from its table of contents and added from a small repository of their own.
        """
        folder = self.root / "download" / commit
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        (folder / "superblock").unlink(missing_ok=True)  # small, and may have been built anew
        url = f"{repository.rstrip('/')}/{urllib.parse.quote(path, safe='/+')}"
        self._download(f"{url}/superblock", folder / "superblock", checksum=None)
        try:
            checksums, fallbacks, applicable = read_superblock((folder / "superblock").read_bytes(), commit)
        except ValueError as error:
            raise UpdateFailed("download_failed", "bad_delta", f"The superblock is damaged: {error}") from error
        for number, checksum in enumerate(checksums):
            self._download(f"{url}/{number}", folder / "parts" / str(number), checksum=checksum)
        extra = folder / "extra"
        extra.mkdir(exist_ok=True)
        self._ostree("init", "--mode=archive", repo=extra)
        for name in fallbacks:
            file = f"objects/{name[:2]}/{name[2:]}"
            (extra / file).parent.mkdir(exist_ok=True)
            self._download(f"{repository.rstrip('/')}/{file}", extra / file, checksum=None)
        (folder / "parts/superblock").write_bytes(applicable)
        # as long as this file is there ostree knows that the commit is not whole; pull-local checks and removes it
        (self.repo / "state" / f"{commit}.commitpartial").touch()
        self._ostree("static-delta", "apply-offline", str(folder / "parts/superblock"), code="apply")
        self._ostree("pull-local", "--untrusted", str(extra), commit, code="apply")

    def _install(self, commit: str, file: str | None = None) -> None:
        deployment = self.root / "deployments" / commit
        if not deployment.exists():
            new = deployment.with_name(f"{commit}.new")
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(exist_ok=True)
            if file is None:
                self._ostree("checkout", "-U", "-H", commit, str(new), code="checkout")
            else:
                new.mkdir()
                (new / file).hardlink_to(self.root / "files" / commit)
            if self.durable:
                os.sync()  # all of it on the disk before anything can start it
            new.rename(deployment)

    def _switch(self, commit: str) -> None:
        """What runs after the next start, in one step."""
        new = self.root / "current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(f"deployments/{commit}")
        new.replace(self.root / "current")

    def _boot(self) -> None:
        """What a device does when it starts: a version that was just installed must prove itself, or goes."""
        update = self.state["update"]
        if update is None or update["stage"] != "applied":
            return
        commit, version = update["target"]["commit"], update["target"]["version"]
        problem = self._unhealthy(commit)
        if problem is None:
            before = self.state["commit"]
            self._remember(commit=commit, version=version, update=None)
            self._tidy({commit, before})
            return
        if self.state["commit"] is not None:
            self._switch(self.state["commit"])
        else:
            (self.root / "current").unlink(missing_ok=True)
        self._remember(update=None, events=self._event("rolled_back", update, "unhealthy", problem))

    def _unhealthy(self, commit: str) -> str | None:
        """What is wrong with a deployment, or None."""
        deployment = self.root / "deployments" / commit
        own = deployment / "usr/bin/health-check"
        command = list(self.health) if self.health else [str(own)] if own.exists() else None
        if command is None:
            return None
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        try:
            check = subprocess.Popen(command, cwd=deployment, **streams)
        except OSError as error:
            return f"the health check cannot be run: {error}"
        try:
            said, _ = check.communicate(timeout=self.health_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(check.pid, signal.SIGKILL)
            check.communicate()
            return f"the health check did not end within {self.health_seconds:g} seconds"
        return f"ended with {check.returncode}: {said.decode(errors='replace')}" if check.returncode else None

    def _tidy(self, keep: set[str | None]) -> None:
        """Forget versions that are neither running nor the one to go back to."""
        for old in (self.root / "deployments").iterdir():
            if old.name not in keep:
                shutil.rmtree(old)
                (self.root / "files" / old.name).unlink(missing_ok=True)
                (self.repo / "refs/heads/deploy" / old.name).unlink(missing_ok=True)
        try:
            if self.repo.exists():
                self._ostree("prune", "--refs-only", "--depth=0")
        except UpdateFailed as error:
            self.log(f"old versions still take room: {error}")

    def provision(self, repository: str, commit: str, version: int) -> None:
        """What the factory does: the first version, without a rollout."""
        self._pull(repository, commit)
        self._ostree("refs", f"--create=deploy/{commit}", commit)
        self._install(commit)
        self._switch(commit)
        self._remember(commit=commit, version=version)

    def _ostree(self, *arguments: str, repo: Path | None = None, event: str = "failed", code: str = "ostree") -> str:
        command = ["ostree", f"--repo={repo or self.repo}", *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=3600, check=True).stdout
        except subprocess.TimeoutExpired:
            raise UpdateFailed(event, code, f"{command[2]} took more than an hour") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()[-500:]
            if "No space left" in error.stderr:
                event, code = "failed", "no_space"
            elif event == "failed" and re.search("corrupted|checksum", error.stderr, re.IGNORECASE):
                event, code = "verify_failed", f"{code}_checksum"
            raise UpdateFailed(event, code, said) from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--server", "--id", "--root"):
        parser.add_argument(name, required=True)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--token-file")
    who.add_argument("--certificate", nargs=2, type=Path, metavar=("FILE", "KEY"), help="in PEM, instead of a token")
    parser.add_argument("--ca", type=Path, help="the authority of the server's certificate, in PEM")
    parser.add_argument("--hardware-id", default="rpi4")
    parser.add_argument("--tag", default="main")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--health", type=shlex.split, help="command to run after an install; 0 is healthy")
    parser.add_argument("--once", action="store_true", help="one check-in and what follows from it")
    parser.add_argument("--provision", nargs=3, metavar=("REPOSITORY", "COMMIT", "VERSION"), help="the first version")
    options = parser.parse_args()
    token = Path(options.token_file).read_text().strip() if options.token_file else ""
    device = Device(
        options.server.rstrip("/"),
        options.id,
        token,
        Path(options.root),
        options.hardware_id,
        options.tag,
        certificate=options.certificate and tuple(options.certificate),
        authority=options.ca,
    )
    device.labels = dict(label.split("=", 1) for label in options.label)
    device.health = options.health
    device.log = lambda line: print(f"{options.id}: {line}", flush=True)
    if options.provision:
        repository, commit, version = options.provision
        device.provision(repository, commit, int(version))
        device.log(f"runs version {version}")
        return 0
    if options.once:
        device.step()
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: device.stopping.set())
        device.run()
    device.log(f"{device.requests} requests, {device.bytes} bytes downloaded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
