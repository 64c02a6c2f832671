"""The fleet file: devices to enrol, with what the operator knows of them beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.core.document import Document, Problem, Word, problems_at, some
from orchestrator.core.rollout_file import LabelsField

MOST_DEVICES = 100_000


class EnrolledDevice(Document):
    """One device as it is enrolled."""

    id: Word = Field(description="Stable for the device's life.", examples=["lab-01"])
    hardware_id: Word = Field(description="The compatibility string.", examples=["intel-corei7-64"])
    tag: Word = Field(description="The line that the device follows.", examples=["promoted"])
    group: Word | None = Field(default=None, description="The device group it belongs to.")
    labels: LabelsField = Field(default=(), description="key: value pairs to select by.")


class FleetFile(Document):
    """Devices to enrol; an id appears once."""

    later: ClassVar[Mapping[str, str]] = {"defaults": "Write hardware_id and tag for each device."}

    devices: Annotated[tuple[EnrolledDevice, ...], BeforeValidator(some(MOST_DEVICES))] = Field(
        description="The devices.",
        examples=["[{id: lab-01, hardware_id: intel-corei7-64, tag: promoted}]"],
        json_schema_extra={"minItems": 1, "maxItems": MOST_DEVICES},
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: dict[str, int] = {}
        problems = []
        for index, device in enumerate(self.devices):
            if device.id in seen:
                sentence = f"is the id of devices[{seen[device.id]}] too: each device is enrolled once."
                problems.append(Problem(("devices", index, "id"), sentence))
            seen.setdefault(device.id, index)
        if problems:
            raise problems_at(problems)
        return self
