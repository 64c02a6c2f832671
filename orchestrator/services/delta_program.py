"""The program that makes deltas between artifacts, as the operator names it: lists of words, never a shell's line."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Command = tuple[str, ...]

_PLACE: Final = re.compile(r"\{([a-z_]*)\}")
_MAKE: Final = frozenset({"from", "to", "delta"})
_VERIFY: Final = frozenset({"delta"})
MOST_COMMANDS: Final = 8


class Makes(StrEnum):
    """What a program makes of two artifacts."""

    PATCH = "patch"
    """What turns the one into the other: the device applies it with the same program."""
    ARTIFACT = "artifact"
    """An artifact of the same format that devices on the one install, and come to the other by."""


class DeltaProgram(BaseModel):
    """How a delta is made and applied: one command, or several that follow each other.

    In their words ``{from}``, ``{to}`` and ``{delta}`` stand for the files, ``{scratch}`` for one in between.
    ``name`` is what devices are told to apply it with. ``verify``: what must end well for an artifact that was made.
    ``memory_mb``: address space that a command may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    make: tuple[Command, ...]
    apply: tuple[Command, ...] = ()
    makes: Makes = Makes.PATCH
    verify: tuple[Command, ...] = ()
    memory_mb: int = Field(default=4096, ge=16)

    @field_validator("make", "apply", "verify", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        """A single command may stand without a list around it."""
        if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
            return (tuple(value),)
        return value

    @model_validator(mode="after")
    def _places(self) -> Self:
        installed = self.makes is Makes.ARTIFACT
        if installed and self.apply:
            raise ValueError("apply is for `makes: patch`: an artifact is installed as it is; see `verify`")
        if self.verify and not installed:
            raise ValueError("verify is for `makes: artifact`: a patch is verified by applying it")
        asked = [("make", self.make, _MAKE), ("apply", self.apply, _MAKE), ("verify", self.verify, _VERIFY)]
        for what, commands, needed in asked:
            if not commands and (what == "verify" or (what == "apply" and installed)):
                continue
            if not 1 <= len(commands) <= MOST_COMMANDS or not all(command and command[0] for command in commands):
                raise ValueError(f"{what} must be a command, a list of words, or 1 to {MOST_COMMANDS} such lists")
            named = {name for command in commands for word in command for name in _PLACE.findall(word)}
            if missing := sorted(needed - named):
                raise ValueError(f"{what} names {', '.join(f'{{{each}}}' for each in missing)} nowhere")
            if unknown := sorted(named - _MAKE - {"scratch"}):
                raise ValueError(f"{what} has {', '.join(f'{{{each}}}' for each in unknown)}, which stands for nothing")
            if any(_PLACE.search(command[0]) for command in commands):
                raise ValueError(f"{what} must begin with a program")
        return self

    @property
    def commands(self) -> tuple[Command, ...]:
        """All that it may run."""
        return (*self.make, *self.apply, *self.verify)


def filled(command: Command, places: dict[str, str]) -> list[str]:
    """The words with the files in their places."""
    return [_PLACE.sub(lambda found: places.get(found[1], found[0]), word) for word in command]
