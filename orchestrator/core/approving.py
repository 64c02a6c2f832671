"""A second person's word: where a policy asks for it, and one that was given.

What it lets happen is in ``core.approvals``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from orchestrator.core.document import Document


class Deed(StrEnum):
    """What is approved: the rollout as it is written, the opening of one wave, going on after a halt."""

    START = "start"
    OPEN = "open"
    RESUME = "resume"


Others = Annotated[int, Field(strict=True, ge=0, le=9)]
"""People other than those who wrote or started the rollout."""


class Approve(Document):
    """How many other people must approve, besides who wrote and who started the rollout."""

    start: Others = Field(
        default=0, description="Before anything of the rollout opens, and after each edit. Default 0."
    )
    open: Others = Field(default=0, description="Before a wave opens, for each wave. Default 0.")
    resume: Others = Field(
        default=0, description="Before a halted rollout goes on or is completed, besides who orders that. Default 0."
    )


class ApproveOverride(Document):
    """The key of ``approve`` that a wave may raise."""

    open: Others | None = Field(default=None, description=Approve.model_fields["open"].description)


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's word. ``wave``: the one that may open. ``epoch``: of the halt after which it may go on. ``files``:
    what was approved, as ``files_of`` writes it."""

    deed: Deed
    by: str
    at: datetime
    files: str
    wave: str | None = None
    epoch: int = 0


def files_of(spec_digest: str, policy_digest: str) -> str:
    """Both files as they are bound, in a word."""
    return f"{spec_digest[:16]}-{policy_digest[:16]}"
