"""Messages to people: of what a policy asks to be told, and what one message says.

A message is about one journal entry. It says what happened and why (the entry's own sentence, the one that ``explain``
shows), what that means, and what to type. Answers for the words; does not answer for where they go and whether they
arrive (``services.notices``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.core.document import Document, Name, Problem, choice, problem, problems_at, some
from orchestrator.core.states import POLICY, ROLLOUT_MEANING, WAVE_MEANING, RolloutStatus, WaveStatus

MOST_DESTINATIONS: Final = 20
"""Lines under ``notify``."""


class On(StrEnum):
    """What a policy can ask to be told of."""

    SCHEDULED = "scheduled"
    STARTED = "started"
    PUT_OFF = "put_off"
    OPENED = "opened"
    PASSED = "passed"
    EXCLUDED = "excluded"
    INCLUDED = "included"
    AWAITED = "awaited"
    HELD = "held"
    HALTED = "halted"
    PAUSED = "paused"
    RESUMED = "resumed"
    PROMOTED = "promoted"
    APPROVED = "approved"
    SKIPPED = "skipped"
    EDITED = "edited"
    RETRIED = "retried"
    FROZEN = "frozen"
    UNFROZEN = "unfrozen"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ORDERS = "orders"


ON_MEANING: Final[Mapping[On, str]] = {
    On.SCHEDULED: "a person started it for a later time",
    On.STARTED: "it runs",
    On.PUT_OFF: "its start time has come, and it cannot start",
    On.OPENED: "a wave opened",
    On.PASSED: "a wave passed",
    On.EXCLUDED: "a segment is left out",
    On.INCLUDED: "a segment is taken back in",
    On.AWAITED: "a person's word is waited for: to promote a wave, to approve it, or to approve the rollout",
    On.HELD: "it, or one of its waves, waits for a person",
    On.HALTED: "the safety stop",
    On.PAUSED: "a person paused it",
    On.RESUMED: "a person let it, or one of its waves, go on",
    On.PROMOTED: "a person let a wave open",
    On.APPROVED: "a person gave one of the words that a wave needs to open",
    On.SKIPPED: "a person skipped a wave",
    On.EDITED: "its files were changed while it runs",
    On.RETRIED: "devices may try once more",
    On.FROZEN: "all offers of all rollouts are stopped",
    On.UNFROZEN: "they go on",
    On.COMPLETED: "the Target is generally available",
    On.CANCELLED: "it, or one of its waves, was ended early",
    On.ORDERS: "whatever a person orders, beside what the policy decides",
}

OF_EVENT: Final[Mapping[str, On]] = {
    **{on.value: on for on in On if on is not On.ORDERS},
    "wave_held": On.HELD,
    "wave_resumed": On.RESUMED,
    "wave_cancelled": On.CANCELLED,
}
"""The journal's events that are worth a message; with ``orders`` every one of a person is."""


def _reads_on(value: object) -> On:
    if value == "all":
        raise problem("must name each: nobody reads what tells of everything.")
    return choice(On)(value)


class Asked(Document):
    """One line of ``notify``: who is told of what."""

    to: Name = Field(description="A destination of the installation.", examples=["oncall"])
    on: Annotated[tuple[Annotated[On, BeforeValidator(_reads_on)], ...], BeforeValidator(some(len(On)))] = Field(
        description=f"What it is told of: {', '.join(On)}.", examples=["[halted, held]"]
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = next((each for each in self.on if self.on.count(each) > 1), None)
        if twice is not None:
            raise problems_at([Problem(("on",), f"names {twice} twice.")])
        return self

    def wants(self, event: str, by: str) -> bool:
        """Whether it is to be told of a journal entry of that event by that person or by the policy."""
        return OF_EVENT.get(event) in self.on or (On.ORDERS in self.on and by != POLICY)


def told_of(asked: Iterable[Asked], event: str, by: str, *, all_of_halts: bool) -> tuple[str, ...]:
    """The destinations that are told of a journal entry, each once. ``all_of_halts``: a halt is told to every one that
    is named at all."""
    halts = all_of_halts and OF_EVENT.get(event) is On.HALTED
    return tuple(dict.fromkeys(each.to for each in asked if halts or each.wants(event, by)))


# ------------------------------------------------------------------------------------------------- the message


_NOT_OPEN: Final = frozenset({WaveStatus.PENDING, WaveStatus.PREPARING})


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told of one journal entry. ``status``, and ``wave_status`` where it is about a wave: as the entry left
    them. ``id`` is the same however often it is sent. ``trace``: what asked for it, as a W3C ``traceparent``; empty
    where nothing is traced. It goes along with a message, not in it."""

    id: str
    rollout: str
    version: int
    seq: int
    event: str
    wave: str | None
    by: str
    at: str
    status: str
    wave_status: str | None
    title: str
    sentence: str
    meaning: str
    commands: tuple[str, ...]
    trace: str = ""

    def as_text(self) -> str:
        """As it waits in the outbox."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Notice:
        read: dict[str, Any] = json.loads(text)
        return cls(**{**read, "commands": tuple(read["commands"])})

    def body(self, link: str | None) -> str:
        """The message as plain text. ``link``: where the console shows the rollout."""
        who = "the policy" if self.by == POLICY else self.by
        parts = [
            f"{self.sentence}",
            f"What it means: {self.meaning}",
            f"Decided by {who} at {self.at}; entry {self.seq} of the journal.",
        ]
        if link is not None:
            parts.append(f"Look: {link}")
        parts.append("\n".join(["To type:", *(f"  {command}" for command in self.commands)]))
        return "\n\n".join(parts)

    def document(self, link: str | None) -> dict[str, Any]:
        """The same for a program."""
        told = {**asdict(self), "commands": list(self.commands), "link": link}
        return {key: value for key, value in told.items() if key != "trace"}


def notice(
    *,
    rollout: str,
    version: int,
    status: RolloutStatus,
    seq: int,
    digest: str,
    event: str,
    by: str,
    at: datetime,
    sentence: str,
    wave: str | None = None,
    wave_status: WaveStatus | None = None,
    wave_held: bool = False,
    stopped_by: Iterable[str] = (),
    awaits: str | None = None,
    trace: str = "",
) -> Notice:
    """The message about a journal entry. ``digest``: the entry's hash; ``stopped_by``: what a person must accept to go
    on after a stop; ``awaits``: the command that is waited for."""
    what = f"Wave {wave} of rollout {rollout}" if wave is not None else f"Rollout {rollout}"
    return Notice(
        id=digest[:32],
        rollout=rollout,
        version=version,
        seq=seq,
        event=event,
        wave=wave,
        by=by,
        at=f"{at:%Y-%m-%d %H:%M:%S} UTC",
        status=status.value,
        wave_status=None if wave_status is None else wave_status.value,
        title=f"{what} (version {version}): {_headline(event)}",
        sentence=plain(sentence),
        meaning=_meaning(status, wave_status if wave is not None else None, held=wave_held, awaits=awaits is not None),
        commands=(
            *(() if awaits is None else (awaits,)),
            *_commands(
                rollout,
                wave,
                status,
                bypass=None if not wave_held else "skip" if wave_status in _NOT_OPEN else "complete",
                stopped_by=tuple(stopped_by),
            ),
        ),
        trace=trace,
    )


def plain(text: str) -> str:
    """One line of what can be printed: a person's reason may hold anything."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _headline(event: str) -> str:
    on = OF_EVENT.get(event)
    if on is On.AWAITED:
        return "waits for a person's word"
    return (event if on is None else on.value).replace("_", " ")


def _meaning(status: RolloutStatus, wave_status: WaveStatus | None, *, held: bool, awaits: bool) -> str:
    parts = []
    if awaits:
        what = "Nothing of it opens" if wave_status is None else "The wave does not open"
        parts.append(f"{what} before that is said; it waits as long as it takes.")
    elif wave_status is not None:
        waits = "The wave waits for a person; other waves go on."
        parts.append(waits if held else f"The wave is {wave_status}: {WAVE_MEANING[wave_status]}")
    parts.append(f"The rollout is {status}: {ROLLOUT_MEANING[status]}")
    return " ".join(parts)


def _commands(
    rollout: str, wave: str | None, status: RolloutStatus, *, bypass: str | None, stopped_by: tuple[str, ...]
) -> tuple[str, ...]:
    found = [f"wave explain {rollout}"]
    accept = "".join(f" --accept {name}" for name in stopped_by)
    match status:
        case RolloutStatus.HALTED | RolloutStatus.HELD:
            found.append(f"wave resume {rollout}{accept} --reason TEXT")
            found.append(f"wave cancel {rollout} --reason TEXT")
        case RolloutStatus.PAUSED:
            found.append(f"wave resume {rollout}")
        case RolloutStatus.RUNNING if bypass is not None:
            found.append(f"wave resume {rollout} --wave {wave}")
            found.append(f"wave {bypass} {rollout} {wave} --reason TEXT")
        case RolloutStatus.RUNNING:
            found.append(f"wave pause {rollout}")
            found.append(f"wave halt {rollout} --reason TEXT")
        case RolloutStatus.COMPLETED:
            found.append(f"wave halt {rollout} --reason TEXT")
        case _:
            pass
    return tuple(found)
