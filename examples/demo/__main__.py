"""``python -m examples.demo``, or ``make demo``: a good release and a bad one, on this machine alone.

An archive with four versions for two boards is made from this machine's own files; 200 devices are enrolled, some of
them with a repository and deployments of their own. Version 3 goes out in waves by itself; version 4, which does not
start on one of the boards, is halted. What remains in ``.demo`` can be looked at with ``wave``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from examples.demo.fleet import TAG, Member, Notes, make_fleet, write_fleet_file
from examples.demo.page import Closing, PairFetched, halt_facts, page, save_picture
from examples.demo.real import (
    Placed,
    RealFleet,
    clone,
    fetch_without_delta,
    golden_path,
    libostree_version,
    make_golden,
)
from examples.demo.simulated import SimulatedFleet
from examples.demo.stage import HOUSE, DemoFailed, Stage, command_line, wait_for
from examples.demo.state import Reader, RolloutStory, Snapshot, tell
from examples.demo.trees import HARDWARE_IDS, VERSIONS, make_repository
from examples.demo.view import WIDTH, Cast, Show
from orchestrator.core.states import RolloutStatus
from orchestrator.services.delta_provider import DeltaPair

GOOD: Final = ("lmp-3", 3)
BAD: Final = ("lmp-4", 4)

ROLLOUT_FILE: Final = """\
# Version {version} to every device of the tag main. The lab has boards of one hardware id only; the canary takes
# volunteers of both, which is why it is spread.
rollout: {name}
target: {version}
tag: main
policy: demo
waves:
  - wave: lab
    devices: {{group: lab}}
  - wave: canary
    devices: {{labels: {{ring: early}}, count: {canary}, spread: hardware_id}}
  - wave: emea
    devices: {{labels: {{region: emea}}, share: 50%}}
  - wave: amer
    after: [canary]             # runs beside emea
    devices: {{labels: {{region: amer}}, share: 50%}}
  - wave: rest
    after: [emea, amer]
    devices: all
"""

EARLIER: Final = (1, 2)
"""Versions that were there before the demo begins."""

COMPARED_WITHIN: Final = 60
"""Seconds that a comparison may take at the end."""

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the installation."""


@dataclass(slots=True)
class Demo:
    """The demo as it runs. ``within``: seconds that a rollout may take."""

    stage: Stage
    show: Show
    members: Sequence[Member]
    within: float
    notes: Notes = field(default_factory=Notes)
    commits: dict[tuple[str, int], str] = field(default_factory=dict)
    compared: dict[tuple[str, str], Future[tuple[int, int]]] = field(default_factory=dict)
    problem: BaseException | None = None
    _ending: threading.Event = field(default_factory=threading.Event)

    # ------------------------------------------------------------------------------------------ preparing

    def prepare(self) -> str:
        """Content, goldens, files. Returns a few words about the content."""
        said: list[str] = []

        def report(line: str) -> None:
            said.append(line)
            self.show.say(line, "dim")

        self.stage.clear()
        self.show.act = "Setting the stage: content, devices, installation"
        if not self.stage.content_intact():
            report("What was made before is not whole: it is made again.")
            self.stage.drop_content()
        self.commits = make_repository(self.stage.root / "content", report=report)
        wanted = sorted({(each.hardware_id, each.version) for each in self.members if each.real})
        make_golden(self.stage.root / "golden", self.stage.repository, self.commits, wanted)
        real = [each for each in self.members if each.real]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: clone(self._golden(each.hardware_id, each.version), self._place(each)), real))
        self.show.say(f"{len(real)} devices have a repository and a deployment of their own, cloned by hard links.")
        write_fleet_file(self.members, self.stage.root / "fleet.yaml")
        canary = min(20, sum(each.ring == "early" for each in self.members) * 5 // 6 // 2 * 2)
        for name, version in (GOOD, BAD):
            text = ROLLOUT_FILE.format(name=name, version=version, canary=canary)
            (self.stage.root / f"{name}.yaml").write_text(text)
        return self._size_of_content()

    def _golden(self, hardware_id: str, version: int) -> Path:
        return golden_path(self.stage.root / "golden", (hardware_id, version))

    def _place(self, member: Member) -> Path:
        return self.stage.root / "devices" / member.id

    def _size_of_content(self) -> str:
        golden = next(each for each in self.members if each.real)
        deployment = self._golden(golden.hardware_id, golden.version) / "current"
        sizes = [each.stat().st_size for each in deployment.resolve().rglob("*") if each.is_file()]
        return f"trees of {len(sizes):,} files and {sum(sizes) / 1e6:.0f} MB"

    def install(self) -> dict[str, str]:
        """The installation, the Targets there were before, the fleet; each device's token."""
        self.stage.write_settings()
        self.wave("init", ".")
        write_targets_file(self.commits, EARLIER, self.stage.root / "targets.json")
        self.wave("target", "import", "targets.json")
        self.wave("device", "enroll", "--from", "fleet.yaml", "--tokens-to", "tokens")
        return read_tokens(self.stage.root / "tokens")

    def release(self, name: str, version: int) -> None:
        """What a release manager does: add the Target of each hardware id, apply the rollout file, start it."""

        def add(hardware_id: str) -> None:
            ref = f"lmp/{hardware_id}/{version}"
            self.wave("target", "add", str(version), ref, "--hardware-id", hardware_id, "--tag", TAG)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, HARDWARE_IDS))
        self.wave("apply", f"{name}.yaml", "--start")

    def wave(self, *arguments: str) -> str:
        """A command, shown as it is typed."""
        self.show.say(f"$ {command_line(arguments)}", "bold")
        return self.stage.wave(*arguments)

    # ------------------------------------------------------------------------------------------ the play

    def play(self, stack: ExitStack) -> Reader:
        """Everything up to the cancel; what reads the installation."""
        tokens = self.install()
        self.show.say(f"$ {command_line(['serve'])}", "bold")
        stack.callback(self.stage.close)
        stack.callback(ignore_interrupts)
        self.stage.serve()
        reader = Reader(self.stage)
        stack.callback(reader.close)
        real = RealFleet(
            [Placed(each, self._place(each)) for each in self.members if each.real],
            server=self.stage.url,
            tokens=tokens,
            notes=self.notes,
            log=self._device_log(stack),
        )
        simulated = SimulatedFleet(
            [each for each in self.members if not each.real],
            server=self.stage.url,
            tokens=tokens,
            commits=self.commits,
            notes=self.notes,
        )
        ids = [each.id for each in self.members if each.real]
        self.show.cast = Cast(len(self.members), ids, self.names(), self.notes, real.running)
        watcher = threading.Thread(target=self._watch, args=(reader,), name="watcher", daemon=True)
        watcher.start()
        stack.callback(watcher.join, 10)
        stack.callback(self._ending.set)
        stack.callback(real.stop)
        stack.callback(simulated.stop)
        pool = ThreadPoolExecutor(1)
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(ignore_interrupts)
        real.start()
        simulated.start()
        self.show.act = f"{len(self.members)} devices, {len(ids)} of them real, say what they run"
        self.wait(
            "all devices to check in",
            lambda seen: sum(e.devices for e in seen.running if e.commit) == len(self.members),
            within=30,
        )
        self._good()
        self.compare(pool)
        self._bad()
        self.compare(pool)
        return reader

    def _device_log(self, stack: ExitStack) -> Any:
        log = stack.enter_context((self.stage.root / "devices.log").open("w"))
        lock = threading.Lock()

        def write(line: str) -> None:
            with lock, suppress(ValueError):
                log.write(f"{line}\n")

        return write

    def _good(self) -> None:
        name, version = GOOD
        self.show.act = f"Version {version} goes out in waves; nobody touches it"
        self.release(name, version)
        self.wait(
            f"rollout {name} to complete",
            lambda seen: seen.status(name) is RolloutStatus.COMPLETED,
            within=self.within,
            rollout=name,
        )
        self.wait(f"every device to run version {version}", lambda seen: self._runs(seen, version), within=30)

    def _bad(self) -> None:
        name, version = BAD
        self.show.act = f"Version {version} goes out; it does not start on {HARDWARE_IDS[1]}"
        self.release(name, version)
        self.wait(
            f"rollout {name} to halt",
            lambda seen: seen.status(name) is RolloutStatus.HALTED,
            within=self.within,
            rollout=name,
        )
        self.show.act = "Halted: nobody else is offered it; those at it may finish"
        self.wait("the devices under way to say how it went", lambda seen: self._at_rest(seen, name), within=30)
        time.sleep(2)
        self.wave("cancel", name, "--reason", f"version {version} does not start on {HARDWARE_IDS[1]}", *YES)
        self.wait("the cancel to be seen", lambda seen: seen.status(name) is RolloutStatus.CANCELLED, within=10)

    def wait(self, what: str, condition: Any, *, within: float, rollout: str | None = None) -> None:
        """Until a look at the installation shows it. Raises DemoFailed, also when ``rollout`` stops for a person."""

        def check() -> None:
            self.stage.check()
            if self.problem is not None:
                raise DemoFailed(f"The installation can no longer be read: {self.problem}") from self.problem
            seen = self.show.snapshot.rollout(rollout) if rollout and self.show.snapshot else None
            if seen is None:
                return
            status, why = seen.summary.status, seen.summary.standing.reason.sentence
            if status in STOPPED and not condition(self.show.snapshot):
                raise DemoFailed(f"Waiting for {what}, rollout {rollout} is {status}: {why}")
            for wave in seen.waves:
                if wave.state.hold is not None:
                    raise DemoFailed(
                        f"Waiting for {what}, wave {wave.state.wave} is held: {wave.state.hold.reason.sentence}"
                    )

        wait_for(
            what,
            lambda: self.show.snapshot is not None and condition(self.show.snapshot),
            within=within,
            meanwhile=check,
        )

    def _runs(self, seen: Snapshot, version: int) -> bool:
        return sum(each.devices for each in seen.running if each.version == version) == len(self.members)

    @staticmethod
    def _at_rest(seen: Snapshot, name: str) -> bool:
        view = seen.rollout(name)
        return view is not None and all(wave.facts.in_flight <= 0 for wave in view.waves)

    def _watch(self, reader: Reader) -> None:
        try:
            while not self._ending.wait(LOOK_EVERY):
                self.show.update(reader.look())
        except BaseException as error:
            self.problem = error

    def names(self) -> dict[DeltaPair, str]:
        """Every pair of commits of one board as ``rpi4 1→3``."""
        return {
            DeltaPair(self.commits[hardware_id, old], self.commits[hardware_id, new]): f"{hardware_id} {old}→{new}"
            for hardware_id in HARDWARE_IDS
            for old in VERSIONS
            for new in VERSIONS
            if old < new
        }

    # ------------------------------------------------------------------------------------------ afterwards

    def compare(self, pool: Executor) -> None:
        """For each new pair that real devices fetched by delta, one more device does the same without, in ``pool``."""
        for pair in {(each.from_commit, each.to_commit) for each in self.notes.fetched} - set(self.compared):
            self.compared[pair] = pool.submit(self._compare, *pair)

    def _compare(self, old_commit: str, new_commit: str) -> tuple[int, int]:
        versions = {commit: key for key, commit in self.commits.items()}
        (hardware_id, old), (_, new) = versions[old_commit], versions[new_commit]
        place = self.stage.root / "compared" / f"{hardware_id}-{old}-{new}"
        place.parent.mkdir(exist_ok=True)
        assert self.notes.repository is not None
        golden = self._any_device(hardware_id, old)
        found = fetch_without_delta(golden, place, self.notes.repository, new_commit, new, hardware_id)
        self.show.say(
            f"For comparison {hardware_id} {old}→{new} as loose objects: {found[1] / 1e6:.2f} MB, {found[0]} requests.",
            "dim",
        )
        return found

    def pairs(self) -> list[PairFetched]:
        """What real devices fetched, and what each comparison found."""
        names = self.names()
        counts = Counter((each.from_commit, each.to_commit) for each in self.notes.fetched)
        found = []
        for pair, devices in counts.items():
            one = next(each for each in self.notes.fetched if (each.from_commit, each.to_commit) == pair)
            requests, size = self.compared[pair].result(COMPARED_WITHIN)
            found.append(PairFetched(names[DeltaPair(*pair)], devices, one.requests, one.bytes, requests, size))
        return sorted(found, key=lambda each: (each.name[-1], each.name))

    def _any_device(self, hardware_id: str, version: int) -> Path:
        make_golden(self.stage.root / "golden", self.stage.repository, self.commits, [(hardware_id, version)])
        return self._golden(hardware_id, version)


STOPPED: Final = frozenset(
    {RolloutStatus.HELD, RolloutStatus.HALTED, RolloutStatus.PAUSED, RolloutStatus.COMPLETED, RolloutStatus.CANCELLED}
)
"""Where nothing goes on by itself. A look may be so old that a rollout just started is still a draft in it."""
YES: Final = ("--yes",)


def write_targets_file(commits: Mapping[tuple[str, int], str], versions: Sequence[int], path: Path) -> None:
    """Targets as a Foundries factory lists them, for ``wave target import``."""
    targets = {
        f"{hardware_id}-lmp-{version}": {
            "hashes": {"sha256": commits[hardware_id, version]},
            "length": 0,
            "custom": {"version": str(version), "hardwareIds": [hardware_id], "tags": [TAG], "targetFormat": "OSTREE"},
        }
        for hardware_id in HARDWARE_IDS
        for version in versions
    }
    path.write_text(json.dumps(targets, indent=1) + "\n")


def read_tokens(path: Path) -> dict[str, str]:
    """What ``--tokens-to`` wrote, a device and its token on each line."""
    return dict(line.split() for line in path.read_text().splitlines())


def close(demo: Demo, reader: Reader, pairs: list[PairFetched], *, started: float, content: str) -> Closing:
    """Gather the figures."""
    stories: list[RolloutStory] = [tell(reader, name) for name, _ in (GOOD, BAD)]
    bad = stories[1]
    assert bad.halt is not None and bad.ended_at is not None
    with reader.store.reading() as r:
        deltas = r.deltas()
    return Closing(
        took=time.monotonic() - started,
        devices=len(demo.members),
        real=sum(each.real for each in demo.members),
        content=content,
        libostree=libostree_version(),
        deltas_built=len(deltas),
        delta_cpu=sum(each.cpu_seconds or 0 for each in deltas),
        stories=stories,
        halt=halt_facts(bad.halt, demo.notes, demo.members, bad.ended_at),
        pairs=pairs,
        bad_devices=[device for device, row in bad.updates if row.update.bad_outcome],
        back_on=GOOD[1],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=HOUSE / ".demo", help="where everything is made (.demo)")
    parser.add_argument("--devices", type=int, default=200, help="devices of the fleet (200)")
    parser.add_argument("--real", type=int, default=15, help="how many of them are real (15)")
    parser.add_argument("--within", type=float, default=240, help="seconds that a rollout may take (240)")
    parser.add_argument("--plain", action="store_true", help="lines instead of a page that is drawn anew")
    parser.add_argument("--picture", type=Path, help="also save the closing page as SVG")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal or options.plain:
        console = Console(
            highlight=False, markup=False, emoji=False, width=max(WIDTH, console.width), force_terminal=False
        )
    return run(
        Stage(options.root), Show(console), make_fleet(options.devices, options.real), options.within, options.picture
    )


def run(stage: Stage, show: Show, members: Sequence[Member], within: float, picture: Path | None) -> int:
    """The whole evening; the exit code."""
    demo = Demo(stage, show, members, within)
    began = time.monotonic()
    try:
        with ExitStack() as stack, show:
            content = demo.prepare()
            reader = demo.play(stack)
            show.act = "Adding up"
            closing = close(demo, reader, demo.pairs(), started=began, content=content)
        write_result(closing, stage.root / "result.json")
        show.console.print(page(closing))
        if picture is not None:
            save_picture(closing, picture)
        return 0
    except KeyboardInterrupt:
        print("Interrupted; everything that was started has been ended.", file=sys.stderr)
        return 130
    except (DemoFailed, OSError, RuntimeError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        if tail := stage.log_tail():
            print(f"The end of {stage.log}:\n{tail}", file=sys.stderr)
        return 1


def write_result(closing: Closing, path: Path) -> None:
    """The figures of the page, for programs."""
    stories: list[Mapping[str, Any]] = [
        {
            "rollout": s.name,
            "status": s.status,
            "devices": s.devices,
            "offered": s.offered,
            "confirmed": s.confirmed,
            "bad": s.bad,
        }
        | {"waves": {wave.wave: wave.status for wave in s.waves}, "reason": s.halt.sentence if s.halt else s.last}
        for s in closing.stories
    ]
    halt = closing.halt
    facts = None
    if halt is not None:
        facts = {
            "device": halt.device,
            "offers_after": halt.offers_after,
            "asked_after": halt.asked_after,
            "got_after": halt.got_after,
        }
        facts["answer_after_ms"] = halt.answer_after.total_seconds() * 1000 if halt.answer_after else None
    pairs = {
        each.name: {
            "devices": each.devices,
            "bytes": each.bytes,
            "requests": each.requests,
            "loose_bytes": each.loose_bytes,
        }
        | {"loose_requests": each.loose_requests}
        for each in closing.pairs
    }
    document = {
        "took": round(closing.took, 1),
        "rollouts": stories,
        "halt": facts,
        "pairs": pairs,
        "libostree": closing.libostree,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def ignore_interrupts() -> None:
    """The end has begun; whoever presses Ctrl-C twice must not keep it from ending what was started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
