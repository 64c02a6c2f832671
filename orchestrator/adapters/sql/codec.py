"""Rows to records and back: the JSON of frozen values, ids of events, sets of outcome classes."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

import msgspec

from orchestrator.adapters.sql.columns import NO_COMMIT, NO_VERSION
from orchestrator.adapters.sql.times import length, moment, span, stored
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.facts import RolloutState
from orchestrator.core.fleet import Scope
from orchestrator.core.outcomes import OutcomeClass
from orchestrator.core.slices import Ranks, Slice
from orchestrator.core.states import Reason
from orchestrator.core.update import Update, UpdateStatus
from orchestrator.services.records import RolloutRow, UpdateRow

_encoder: Final = msgspec.json.Encoder()
_state: Final = msgspec.json.Decoder(RolloutState)
_scope: Final = msgspec.json.Decoder(Scope)
_spec: Final = msgspec.json.Decoder(MonitorSpec)
_reason: Final = msgspec.json.Decoder(Reason)
_ranks: Final = msgspec.json.Decoder(dict[str, Ranks])
_counts: Final = msgspec.json.Decoder(dict[str, int])
_names: Final = msgspec.json.Decoder(tuple[str, ...])
_any: Final = msgspec.json.Decoder(dict[str, Any])


def as_json(value: object) -> str:
    return _encoder.encode(value).decode()


decode_spec = _spec.decode
decode_reason = _reason.decode
decode_ranks = _ranks.decode
decode_counts = _counts.decode
decode_names = _names.decode
decode_facts = _any.decode

# ------------------------------------------------------------------------------------------------- rollouts

ROLLOUT_COLUMNS: Final = (
    "key, version, state, spec, policy, spec_digest, policy_digest, salt, tag, target_version, created_at, scope, "
    "devices, "
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
    )


def slice_of_row(row: tuple[Any, ...]) -> Slice:
    wave, number, upto, opened_at, before, ranks = row
    return Slice(wave, number, upto, moment(opened_at), decode_counts(before), decode_ranks(ranks))


# ------------------------------------------------------------------------------------------------- outcome classes

BITS: Final = {outcome: 1 << place for place, outcome in enumerate(OutcomeClass)}
"""The bit of each class in ``device_update.bad``."""

SETS: Final = tuple(frozenset(outcome for outcome, bit in BITS.items() if bits & bit) for bits in range(1 << len(BITS)))
"""The set of classes for each value of ``device_update.bad``."""

BITS_OF: Final = {outcomes: bits for bits, outcomes in enumerate(SETS)}


# ------------------------------------------------------------------------------------------------- events

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def packed_id(text: str) -> bytes:
    """A UUID in its usual form as 16 bytes, any other id as UTF-8; one that happens to have 16 bytes gets a byte more
    that UTF-8 never has."""
    if len(text) == 36 and _UUID(text):
        return bytes.fromhex(text.replace("-", ""))
    plain = text.encode()
    return plain + b"\xff" if len(plain) == 16 else plain


def unpacked_id(packed: bytes) -> str:
    """The text that ``packed_id`` packed."""
    return str(UUID(bytes=packed)) if len(packed) == 16 else packed.removesuffix(b"\xff").decode()


# ------------------------------------------------------------------------------------------------- updates

UPDATE_COLUMNS: Final = (
    "rollout_key, device_key, status, offered_at, deadline_at, started_at, installing_at, confirmed_at, "
    "recovered_at, resolved, bad, "
    "check_ins, tries, from_key, to_key, wave, slice_number, rollout_place, wave_place, segment_places, "
    "unhealthy_before, by_delta, "
    "usual_gap, excluded"
).split(", ")
"""In the order of ``update_of`` and ``stored_update``; the first two are the key."""

PROGRESS_COLUMNS: Final = (
    "rollout_key, device_key, status, deadline_at, started_at, installing_at, confirmed_at, recovered_at, resolved, "
    "bad, check_ins"
).split(", ")
"""The key, and what events, check-ins and the clock change, in the order of ``stored_progress``."""

_STATUS: Final = {str(status): status for status in UpdateStatus}
_WORD: Final = {status: str(status.value) for status in UpdateStatus}
"""Plain text: the driver takes a long way with subclasses of it."""

Software = tuple[str, str, int]
"""Hardware id, commit and version, as stored."""


def update_of(row: tuple[Any, ...], before: Software, after: Software) -> UpdateRow:
    """A row of ``UPDATE_COLUMNS``, with what its two software keys stand for."""
    deadline, started, installing, confirmed, recovered = row[4:9]
    by_delta = row[21]
    return UpdateRow(
        row[0],
        row[1],
        Update(
            _STATUS[row[2]],
            moment(row[3]),
            before[1] or None,
            after[1],
            None if deadline is None else moment(deadline),
            None if started is None else moment(started),
            None if installing is None else moment(installing),
            None if confirmed is None else moment(confirmed),
            row[9] == 1,
            None if recovered is None else moment(recovered),
            SETS[row[10]],
            row[11],
            row[12],
        ),
        row[15],
        row[16],
        (row[17], row[18]),
        row[19],
        before[0],
        None if before[2] == NO_VERSION else before[2],
        row[20] == 1,
        None if by_delta is None else by_delta == 1,
        span(row[22]),
        row[23] == 1,
    )


def software_before(row: UpdateRow) -> Software:
    version = NO_VERSION if row.from_version is None else row.from_version
    return (row.hardware_id, row.update.from_commit or NO_COMMIT, version)


def software_after(row: UpdateRow) -> Software:
    return (row.hardware_id, row.update.to_commit, NO_VERSION)


def stored_progress(row: UpdateRow) -> tuple[Any, ...]:
    update = row.update
    deadline, started, installing = update.deadline_at, update.started_at, update.installing_at
    confirmed, recovered = update.confirmed_at, update.recovered_at
    return (
        row.rollout_key,
        row.device_key,
        _WORD[update.status],
        None if deadline is None else stored(deadline),
        None if started is None else stored(started),
        None if installing is None else stored(installing),
        None if confirmed is None else stored(confirmed),
        None if recovered is None else stored(recovered),
        1 if update.resolved else 0,
        BITS_OF[update.bad],
        update.check_ins,
    )


def stored_update(row: UpdateRow, from_key: int, to_key: int) -> tuple[Any, ...]:
    update = row.update
    deadline, started, installing = update.deadline_at, update.started_at, update.installing_at
    confirmed, recovered = update.confirmed_at, update.recovered_at
    return (
        row.rollout_key,
        row.device_key,
        _WORD[update.status],
        stored(update.offered_at),
        None if deadline is None else stored(deadline),
        None if started is None else stored(started),
        None if installing is None else stored(installing),
        None if confirmed is None else stored(confirmed),
        None if recovered is None else stored(recovered),
        1 if update.resolved else 0,
        BITS_OF[update.bad],
        update.check_ins,
        update.tries,
        from_key,
        to_key,
        row.wave,
        row.slice,
        row.places[0],
        row.places[1],
        row.segment_places,
        1 if row.unhealthy_before else 0,
        None if row.by_delta is None else int(row.by_delta),
        length(row.usual_gap),
        1 if row.excluded else 0,
    )
