"""The program that makes deltas between artifacts, as the operator names it: lists of words, never a shell's line."""

from __future__ import annotations

import re
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Command = tuple[str, ...]

_PLACE: Final = re.compile(r"\{([a-z_]*)\}")
_MAKE: Final = frozenset({"from", "to", "delta"})
MOST_COMMANDS: Final = 8


class DeltaProgram(BaseModel):
    """How a delta is made and applied: one command, or several that follow each other.

    In their words ``{from}``, ``{to}`` and ``{delta}`` stand for the files, ``{scratch}`` for one in between.
    ``name`` is what devices are told to apply it with. ``memory_mb``: address space that a command may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    make: tuple[Command, ...]
    apply: tuple[Command, ...]
    memory_mb: int = Field(default=4096, ge=16)

    @field_validator("make", "apply", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        """A single command may stand without a list around it."""
        if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
            return (tuple(value),)
        return value

    @model_validator(mode="after")
    def _places(self) -> DeltaProgram:
        for what, commands in (("make", self.make), ("apply", self.apply)):
            if not 1 <= len(commands) <= MOST_COMMANDS or not all(command and command[0] for command in commands):
                raise ValueError(f"{what} must be a command, a list of words, or 1 to {MOST_COMMANDS} such lists")
            named = {name for command in commands for word in command for name in _PLACE.findall(word)}
            if missing := sorted(_MAKE - named):
                raise ValueError(f"{what} names {', '.join(f'{{{each}}}' for each in missing)} nowhere")
            if unknown := sorted(named - _MAKE - {"scratch"}):
                raise ValueError(f"{what} has {', '.join(f'{{{each}}}' for each in unknown)}, which stands for nothing")
            if any(_PLACE.search(command[0]) for command in commands):
                raise ValueError(f"{what} must begin with a program")
        return self


def filled(command: Command, places: dict[str, str]) -> list[str]:
    """The words with the files in their places."""
    return [_PLACE.sub(lambda found: places.get(found[1], found[0]), word) for word in command]
