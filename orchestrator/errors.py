"""Every error a person or a device can be told, in one tree.

::

    WaveError                     anything this program says on purpose; one sentence and a remedy
    ├── InvalidInput              whoever called is at fault, and calling again as is will fail again
    │   ├── InvalidFile           a rollout or policy file; carries file, line and key path
    │   └── InvalidReport         a check-in or report body
    ├── NotFound                  no such rollout, device, Target, policy, group, tag …
    ├── Refused                   understood, but the state or a rule forbids it; names what is allowed
    │   ├── WrongState            a verb that the present status does not allow
    │   ├── Overlap               two live rollouts would claim the same device
    │   ├── Gone                  it was there, and is over
    │   ├── Unauthorized          no token, or a wrong one
    │   └── Forbidden             a good token, and its scope does not reach so far
    ├── Conflict                  somebody else changed it meanwhile; trying again is right
    ├── Busy                      too much at once; trying again later is right
    │   └── TooMany               more requests than one device or one address may make
    └── Unavailable               a part the program leans on is missing or broken
        ├── StoreUnavailable      database missing, locked, read-only, full, newer than this program
        ├── ContentUnavailable    repository missing, a commit that is not there, ``ostree`` missing or too old
        ├── CorruptDelta          a delta that does not verify
        └── BuildFailed           a delta that could not be built

``kind`` is the bounded word that goes on the wire and into metrics; ``exit_code`` is what ``wave`` ends with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class WaveError(Exception):
    """Base of all: ``message`` says whose fault it is and what to do, in one sentence or two."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class InvalidInput(WaveError):
    kind = "invalid_input"
    exit_code = 2


class InvalidFile(InvalidInput):
    """A file a person wrote cannot be taken. ``str()`` reads ``file:line: path: message``.

    ``line`` counts from 1 and ``path`` is dotted (``waves[2].devices.share``); both may be unknown. ``problems`` has
    everything that is wrong with the file, this first; ``str()`` gives each its own line.
    """

    kind = "invalid_file"

    def __init__(
        self,
        message: str,
        *,
        file: str,
        line: int | None = None,
        path: str | None = None,
        remedy: str | None = None,
        further: Sequence[InvalidFile] = (),
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.file = file
        self.line = line
        self.path = path
        self.problems: tuple[InvalidFile, ...] = (self, *further)

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        head = f"{place}: {self.path}: " if self.path else f"{place}: "
        return "\n".join([head + super().__str__(), *map(str, self.problems[1:])])


class InvalidReport(InvalidInput):
    kind = "invalid_report"


class NotFound(WaveError):
    kind = "not_found"
    exit_code = 3


class Refused(WaveError):
    kind = "refused"
    exit_code = 4


class WrongState(Refused):
    kind = "wrong_state"


class Overlap(Refused):
    kind = "overlap"


class Gone(Refused):
    kind = "gone"


class Unauthorized(Refused):
    kind = "unauthorized"


class Forbidden(Refused):
    kind = "forbidden"


class Conflict(WaveError):
    kind = "conflict"
    exit_code = 5


class Busy(WaveError):
    kind = "busy"
    exit_code = 5


class TooMany(Busy):
    """``after``: seconds until one more is allowed."""

    kind = "too_many"

    def __init__(self, message: str, *, after: float, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.after = after


class Unavailable(WaveError):
    kind = "unavailable"
    exit_code = 6


class StoreUnavailable(Unavailable):
    kind = "store_unavailable"


class ContentUnavailable(Unavailable):
    kind = "content_unavailable"


class CorruptDelta(Unavailable):
    kind = "corrupt_delta"


class BuildFailed(Unavailable):
    kind = "build_failed"
