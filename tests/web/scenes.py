"""More to see in a believable installation: a rollout that left a segment out and waits for its gates, one that a small
fleet holds, one that is done, one that somebody paused, and one that waits for a second person's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from orchestrator.core.fleet import Device
from orchestrator.core.gates import GateAnswer
from orchestrator.services.gatekeeping import Gatekeeper, Question, Said, SourceKind
from tests.web.installation import EVERYBODY, NOON, TOLERANT, Installation, believable

GATES: Final[list[dict[str, Any]]] = [
    {"gate": "errors", "asks": "prometheus", "query": "sum(rate(http_errors_total[10m]))", "below": 0.5},
    {"gate": "tickets", "asks": "desk", "every": "5m", "at_most": "4h"},
]
IN_TURN: Final[list[dict[str, Any]]] = [
    {"wave": "pilots", "devices": {"count": 20, "spread": "hardware_id"}},
    {"wave": "half", "devices": {"share": "50%"}, "policy": {"gates": GATES}},
    {"wave": "rest", "devices": "all", "policy": {"promote": "manual", "gates": GATES[1:]}},
]
TAGS: Final = ("edge", "kiosk", "signs", "vans", "tills", "carts", "depot")
QUICKLY: Final = {**TOLERANT, "bake": {"at_least": "10m", "at_most": "48h"}}


class Desk:
    """Sources of which one has no answer yet."""

    def kinds(self) -> Mapping[str, SourceKind]:
        return {"prometheus": SourceKind.PROMQL, "desk": SourceKind.WEBHOOK}

    def ask(self, question: Question) -> Said:
        if question.gate.gate == "tickets":
            return Said(GateAnswer.NOT_YET, "2 tickets about boards that do not start are open")
        return Said(GateAnswer.YES, "0.21 is below 0.5")


class Scenes:
    """``believable`` with more to see, on other tags."""

    def __init__(self) -> None:
        self._asked: list[Callable[[], None]] = []

    def play(self, home: Installation) -> None:
        """The whole of it."""
        believable(home, the_day_before=self._the_day_before, just_now=self._just_now)

    def _the_day_before(self, home: Installation) -> None:
        sources = home.root / "gates.yaml"
        sources.touch(0o600)
        sources.write_text('prometheus: {promql: "http://127.0.0.1:9"}\ndesk: {webhook: "http://127.0.0.1:9/"}\n')
        home.app.ticker.ask = Gatekeeper(home.app.store, Desk(), home.app.clock, later=self._asked.append).ask
        home.target(44, "beta")
        _without_a_segment(home)
        _small_fleets(home)
        home.now = NOON - timedelta(hours=4, minutes=20)
        self._all_there(home)

    def _just_now(self, home: Installation) -> None:
        self._all_there(home)
        home.apply("tills-42", 42, "tills", EVERYBODY, {**TOLERANT, "approve": {"start": 1}})
        home.apply("depot-42", 42, "depot", IN_TURN, QUICKLY)
        home.apply("carts-44", 44, "carts", EVERYBODY, TOLERANT)
        home.start("carts-44")
        asked, self._asked[:] = list(self._asked), []
        for each in asked:
            each()
        _looks(home)

    @staticmethod
    def _all_there(home: Installation) -> None:
        for device in home.tokens:
            if device.startswith(TAGS):
                home.check_in(device)


def _without_a_segment(home: Installation) -> None:
    _enrol(home, "edge", 220, imx8_every=7)
    home.apply("edge-42", 42, "edge", IN_TURN, QUICKLY)
    home.start("edge-42")
    _looks(home)
    boards = [device for device in home.tokens if device.startswith("edge-") and home.hardware[device] == "imx8"]
    assert sum(home.take(device, "installing", "failed") for device in boards), "somebody has such a board"
    home.all_of("edge-")
    home.tick(timedelta(minutes=1))
    home.tick(timedelta(minutes=30))
    _looks(home)


def _small_fleets(home: Installation) -> None:
    _enrol(home, "kiosk", 12)
    home.apply("kiosk-42", 42, "kiosk", EVERYBODY, QUICKLY)
    home.start("kiosk-42")
    _looks(home)
    home.all_of("kiosk-")
    home.tick(timedelta(minutes=1))
    home.tick(timedelta(minutes=30))
    _looks(home)
    _enrol(home, "signs", 8)
    home.apply("signs-42", 42, "signs", EVERYBODY, QUICKLY)
    home.start("signs-42")
    _looks(home)
    home.all_of("signs-", failing=(3,))
    _looks(home)
    _enrol(home, "vans", 30)
    home.apply("vans-42", 42, "vans", EVERYBODY, QUICKLY)
    home.start("vans-42")
    _looks(home)
    home.all_of("vans-", most=9)
    home.app.rollouts.pause("vans-42", by="anna", reason="The depot has no power until noon.")
    for tag, many in (("tills", 6), ("depot", 40), ("carts", 24)):
        _enrol(home, tag, many)


def _enrol(home: Installation, tag: str, many: int, *, imx8_every: int = 0) -> None:
    """Devices of a tag of their own that run version 41, each with its deltas there."""
    home.enroll(
        [
            Device(f"{tag}-{n:03}", "imx8" if imx8_every and n % imx8_every == 0 else "rpi4", tag, group=None)
            for n in range(many)
        ],
        41,
    )


def _looks(home: Installation) -> None:
    for _ in range(4):
        home.tick(timedelta(seconds=20))
