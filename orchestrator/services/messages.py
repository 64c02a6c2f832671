"""What devices say and are told: frozen values that are also the wire format, field by field.

A field a device does not know is ignored, so that newer devices may say more. What is named like our words means them.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType, field

from orchestrator.core.fleet import check_commit, check_label, check_name
from orchestrator.errors import InvalidReport

MOST_LABELS: Final = 64
"""Labels that a device may say of itself."""

MOST_EVENTS: Final = 1_000
"""Events that one report may hold: as many as one transaction takes."""

LONGEST_ID: Final = 128
LONGEST_CODE: Final = 128
LONGEST_MESSAGE: Final = 2_000
LARGEST_VERSION: Final = 2**63 - 1

Version = Annotated[int, Meta(ge=0, le=LARGEST_VERSION)]


class CheckIn(Struct, frozen=True):
    """A device asks, and says what it runs. ``commit`` None: it cannot say. ``version`` None: it goes by the commit.
    ``hardware_id``, ``tag`` and ``labels`` None: as before. ``healthy``: whether it finds itself well."""

    commit: str | None = None
    version: Version | None = None
    hardware_id: str | None = None
    tag: str | None = None
    labels: dict[str, str] | None = None
    healthy: bool = True

    def check(self) -> None:
        """Raises InvalidInput when something in it cannot be."""
        if self.commit is not None:
            check_commit(self.commit)
        if self.hardware_id is not None:
            check_name(self.hardware_id, "hardware id")
        if self.tag is not None:
            check_name(self.tag, "tag")
        if self.labels is None:
            return
        if len(self.labels) > MOST_LABELS:
            raise InvalidReport(f"The device says {len(self.labels)} labels; at most {MOST_LABELS} are taken.")
        for key, value in self.labels.items():
            check_label(key, value)


class Enrol(Struct, frozen=True):
    """A device makes itself known. ``hardware_id`` None: the one that its enrolment token is for. ``token``: of its own
    making, so that it can ask again when the answer is lost; None: the server makes one."""

    device: str
    hardware_id: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    token: Annotated[str, Meta(min_length=32, max_length=256, pattern="^[!-~]+$")] | None = None


class Enrolled(Struct, frozen=True):
    """What it is from now on. ``token`` is its own, told this once; ``check_in_after`` in seconds."""

    device: str
    token: str
    hardware_id: str
    tag: str
    check_in_after: float


class OfferedTarget(Struct, frozen=True):
    """What to run."""

    name: str
    version: int
    commit: str


class OfferedDelta(Struct, frozen=True, rename={"from_commit": "from"}):
    """Where the delta is below the repository, and how many bytes it is in all. Of a file also its own URL, its sha256,
    and the name of the program that made it and that applies it."""

    from_commit: str
    path: str
    bytes: int
    url: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    program: str | UnsetType = UNSET


class OfferedArtifact(Struct, frozen=True):
    """The file that a Target is. ``sha256`` is the Target's commit. ``url`` holds for a day; a check-in renews it."""

    url: str
    filename: str
    bytes: int
    sha256: str


class Offer(Struct, frozen=True):
    """A Target for this device. ``delta`` None: fetch it whole (or it has it already). ``repository`` None: the Target
    is a file, and ``artifact`` says which."""

    rollout: str
    target: OfferedTarget
    repository: str | None
    delta: OfferedDelta | None = None
    artifact: OfferedArtifact | UnsetType = UNSET


class Answer(Struct, frozen=True):
    """To a check-in. ``check_in_after`` in seconds."""

    offer: Offer | None
    check_in_after: float


class ReportedEvent(Struct, frozen=True):
    """One item of a report. ``id`` is the device's own and unique among its events; ``at`` is shown, never believed."""

    id: str
    rollout: str
    target: int
    event: str
    at: str | None = None
    code: str | None = None
    message: str | None = None


class OwnEvent(ReportedEvent, frozen=True):
    """What the server itself notes among a device's events, such as that it was told to stop: no device can send one,
    and however much it has said before, it is kept."""


class Report(Struct, frozen=True):
    """What a device has to tell, oldest first. Each event is judged alone, so its texts are measured there."""

    events: Annotated[list[ReportedEvent], Meta(max_length=MOST_EVENTS)]


class Refusal(Struct, frozen=True):
    """An item that was not taken: where it stood, and why. Sending it again as it is will be refused again."""

    index: int
    id: str
    kind: str
    message: str


class Received(Struct, frozen=True):
    """What became of a report. Accepted and duplicate items need never be sent again."""

    accepted: int
    duplicates: int
    refused: list[Refusal] = field(default_factory=list)
