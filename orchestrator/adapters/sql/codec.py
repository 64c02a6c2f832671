"""Rows to records and back: the JSON of frozen values, ids of events, sets of outcome classes."""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from orchestrator.adapters.sql.columns import NO_COMMIT, NO_VERSION
from orchestrator.adapters.sql.times import length, moment, moment_at, span, stored
from orchestrator.core.codes import MOST_OWN
from orchestrator.core.course import Course, course_values
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.facts import RolloutState
from orchestrator.core.fleet import Scope
from orchestrator.core.outcomes import Outcome, OutcomeClass
from orchestrator.core.slices import Ranks, Slice
from orchestrator.core.states import Reason
from orchestrator.core.update import Update, UpdateStatus
from orchestrator.services.records import CourseRow, RolloutRow, UpdateRow

_encoder: Final = msgspec.json.Encoder()
_state: Final = msgspec.json.Decoder(RolloutState)
_scope: Final = msgspec.json.Decoder(Scope)
_spec: Final = msgspec.json.Decoder(MonitorSpec)
_reason: Final = msgspec.json.Decoder(Reason)
_ranks: Final = msgspec.json.Decoder(dict[str, Ranks])
_counts: Final = msgspec.json.Decoder(dict[str, int])
_names: Final = msgspec.json.Decoder(tuple[str, ...])


def as_json(value: object) -> str:
    return _encoder.encode(value).decode()


decode_state = _state.decode
decode_spec = _spec.decode
decode_reason = _reason.decode
decode_ranks = _ranks.decode
decode_counts = _counts.decode
decode_names = _names.decode

# ------------------------------------------------------------------------------------------------- rollouts

ROLLOUT_COLUMNS: Final = (
    "key, version, state, spec, policy, spec_digest, policy_digest, salt, tag, target_version, created_at, scope, "
    "clock, devices, "
    "journal_seq, journal_hash"
)


def rollout_of(row: tuple[Any, ...]) -> RolloutRow:
    (
        key,
        version,
        state,
        spec,
        policy,
        spec_digest,
        policy_digest,
        salt,
        tag,
        target,
        created,
        scope,
        clock,
        devices,
        seq,
        head,
    ) = row
    return RolloutRow(
        key=key,
        version=version,
        state=_state.decode(state),
        spec=spec,
        policy=policy,
        spec_digest=spec_digest,
        policy_digest=policy_digest,
        salt=salt,
        tag=tag,
        target_version=target,
        created_at=moment(created),
        scope=None if scope is None else _scope.decode(scope),
        devices=devices,
        journal_seq=seq,
        journal_hash=head,
        clock=clock,
    )


def slice_of_row(row: tuple[Any, ...]) -> Slice:
    wave, number, upto, opened_at, before, ranks = row
    return Slice(wave, number, upto, moment(opened_at), decode_counts(before), decode_ranks(ranks))


# ------------------------------------------------------------------------------------------------- outcome classes

BUILT_IN: Final = tuple(OutcomeClass)
"""The classes with the lowest bits of ``device_update.bad``, in their order; the operator's own have those above, in
the order of their slots."""

ENDED: Final = 1 << len(BUILT_IN) + MOST_OWN
"""The bit of ``device_update.bad`` that says that the update came to a bad end."""

BAD_BITS: Final = {
    **{f"bad_{outcome.value}": 1 << place for place, outcome in enumerate(BUILT_IN)},
    **{f"bad_own_{slot + 1}": 1 << len(BUILT_IN) + slot for slot in range(MOST_OWN)},
}
"""The tally of each class in ``slice``, and its bit."""

BAD_COLUMNS: Final = tuple(BAD_BITS)

_BITS: Final[Mapping[Outcome, int]] = {outcome: 1 << place for place, outcome in enumerate(BUILT_IN)}
_OWN: Final = sum(BAD_BITS.values()) >> len(BUILT_IN) << len(BUILT_IN)
_SETS: Final = tuple(
    frozenset(outcome for outcome, bit in _BITS.items() if bits & bit) for bits in range(1 << len(BUILT_IN))
)

OwnClasses = Callable[[int], Sequence[Outcome]]
"""Gives the operator's own classes of a rollout in the order of their slots, by its key."""


def outcomes_of(bits: int, own: OwnClasses, rollout_key: int) -> frozenset[Outcome]:
    """The classes in a value of ``device_update.bad``."""
    found = _SETS[bits & ~(ENDED | _OWN)]
    if not bits & _OWN:
        return found
    mine = own(rollout_key)
    return found | {mine[slot] for slot in range(MOST_OWN) if bits & (1 << len(BUILT_IN) + slot)}


def bits_of(outcomes: Iterable[Outcome], own: OwnClasses, rollout_key: int) -> int:
    """The bits of some classes."""
    bits = 0
    for outcome in outcomes:
        bit = _BITS.get(outcome)
        bits |= bit if bit is not None else 1 << len(BUILT_IN) + own(rollout_key).index(outcome)
    return bits


# ------------------------------------------------------------------------------------------------- events

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def packed_id(text: str) -> bytes:
    """A UUID in its usual form as 16 bytes, any other id as UTF-8; one that happens to have 16 bytes gets a byte more
    that UTF-8 never has."""
    if len(text) == 36 and _UUID(text):
        return unhexlify(text.replace("-", ""))
    plain = text.encode()
    return plain + b"\xff" if len(plain) == 16 else plain


def unpacked_id(packed: bytes) -> str:
    """The text that ``packed_id`` packed."""
    return str(UUID(bytes=packed)) if len(packed) == 16 else packed.removesuffix(b"\xff").decode()


# ------------------------------------------------------------------------------------------------- updates

COURSE_COLUMNS: Final = (
    "key, status, deadline_at, started_at, installing_at, confirmed_at, resolved, recovered_at, bad, slice_key, "
    "usual_gap"
).split(", ")
"""Of ``device_update``, in the order of ``course_row`` and ``stored_course``."""

OFFER_COLUMNS: Final = (
    "key, offered_at, from_key, to_key, check_ins, tries, rollout_place, wave_place, unhealthy_before, by_delta, "
    "segment_places"
).split(", ")
"""Of ``update_offer``, in the order of ``update_of`` and ``stored_offer``."""

_STATUSES: Final = tuple(UpdateStatus)
STATUS_NUMBER: Final = {status: number for number, status in enumerate(_STATUSES)}
"""The number of each status in ``device_update.status``."""

_NOTHING_BAD: Final[frozenset[Outcome]] = frozenset()
_DEVICE_BITS: Final = 40
_DEVICES: Final = (1 << _DEVICE_BITS) - 1

Software = tuple[str, str, int]
"""Hardware id, commit and version, as stored."""


def update_key(rollout_key: int, device_key: int) -> int:
    """Both keys of an update in one number; the updates of a rollout stand together, by device."""
    return rollout_key << _DEVICE_BITS | device_key


def update_keys(rollout_key: int) -> tuple[int, int]:
    """The least and the greatest key that an update of the rollout can have."""
    return update_key(rollout_key, 0), update_key(rollout_key, _DEVICES)


def course_row(row: tuple[Any, ...], slices: Mapping[int, tuple[str, int, int, int]], own: OwnClasses) -> CourseRow:
    """Of a row that begins with ``COURSE_COLUMNS``; ``slices``: wave, number, whether left out and whether apart, by
    slice key."""
    key, status, deadline, started, installing, confirmed, resolved, recovered, bad, slice_key, gap, *_ = row
    course = Course(
        _STATUSES[status],
        None if deadline is None else moment_at(deadline),
        None if started is None else moment_at(started),
        None if installing is None else moment_at(installing),
        None if confirmed is None else moment_at(confirmed),
        resolved == 1,
        None if recovered is None else moment_at(recovered),
        outcomes_of(bad, own, key >> _DEVICE_BITS) if bad else _NOTHING_BAD,
        bad & ENDED != 0,
    )
    wave, number, excluded, apart = slices[slice_key]
    return CourseRow(key >> _DEVICE_BITS, key & _DEVICES, course, wave, number, span(gap), excluded == 1, apart == 1)


def update_of(course: CourseRow, offer: tuple[Any, ...], before: Software, after: Software) -> UpdateRow:
    """A row of ``OFFER_COLUMNS`` to its course, with what its software keys stand for."""
    _, offered_at, _, _, check_ins, tries, rollout_place, wave_place, unhealthy, by_delta, segments = offer
    update = Update(
        *course_values(course.update),
        offered_at=moment_at(offered_at),
        from_commit=before[1] or None,
        to_commit=after[1],
        check_ins=check_ins,
        tries=tries,
    )
    return UpdateRow(
        course.rollout_key,
        course.device_key,
        update,
        course.wave,
        course.slice,
        course.usual_gap,
        course.excluded,
        course.apart,
        places=(rollout_place, wave_place),
        segment_places=segments,
        hardware_id=before[0],
        from_version=None if before[2] == NO_VERSION else before[2],
        unhealthy_before=unhealthy == 1,
        by_delta=None if by_delta is None else by_delta == 1,
    )


def software_before(row: UpdateRow) -> Software:
    version = NO_VERSION if row.from_version is None else row.from_version
    return (row.hardware_id, row.update.from_commit or NO_COMMIT, version)


def software_after(row: UpdateRow) -> Software:
    return (row.hardware_id, row.update.to_commit, NO_VERSION)


def stored_bad(row: CourseRow, own: OwnClasses) -> int:
    """As ``device_update.bad``."""
    course = row.update
    bits = bits_of(course.bad, own, row.rollout_key) if course.bad else 0
    return bits | ENDED if course.ended else bits


def stored_course(row: CourseRow, slice_key: int, own: OwnClasses) -> tuple[Any, ...]:
    """As ``COURSE_COLUMNS``."""
    course = row.update
    return (
        update_key(row.rollout_key, row.device_key),
        STATUS_NUMBER[course.status],
        stored(course.deadline_at),
        stored(course.started_at),
        stored(course.installing_at),
        stored(course.confirmed_at),
        1 if course.resolved else 0,
        stored(course.recovered_at),
        stored_bad(row, own),
        slice_key,
        length(row.usual_gap),
    )


def stored_offer(row: UpdateRow, from_key: int, to_key: int) -> tuple[Any, ...]:
    """As ``OFFER_COLUMNS``."""
    return (
        update_key(row.rollout_key, row.device_key),
        stored(row.update.offered_at),
        from_key,
        to_key,
        row.update.check_ins,
        row.update.tries,
        *row.places,
        1 if row.unhealthy_before else 0,
        None if row.by_delta is None else int(row.by_delta),
        row.segment_places,
    )
