"""Letting Mender devices in: a signed request becomes a pending set, or a token.

Pending and rejected devices come again every few seconds: they cost one look, and a write every five minutes at most.
Who is accepted gets a new token every three seconds at most, however often its request is sent, or sent again by
others. When too many wait for a person, strangers are sent away and nobody who waits loses its place to one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.errors import Busy, Forbidden, TooMany, Unauthorized, WaveError
from orchestrator.services.devices import Devices
from orchestrator.services.mender.sets import AuthSet, SetStatus
from orchestrator.services.mender.signatures import Claim, claim_of
from orchestrator.services.mender.tokens import new_token
from orchestrator.services.store import Store, Writing
from orchestrator.services.writer import Batch, Work

SEEN_EVERY: Final = timedelta(minutes=5)
"""How exactly it is known when a set that waits asked last."""

MOST_OF_ONE: Final = 5
"""Pending sets of one identity: whoever makes up keys for it pushes out only its own."""

TOKEN_EVERY: Final = timedelta(seconds=3)
"""Below what clients wait before they ask again: one that comes back from a loss of power is let in at once, and a
request that somebody sends again and again still costs next to nothing."""

GIVEN_UP_AFTER: Final = timedelta(days=1)
"""A set that waits and has not asked for so long makes room for a stranger, where there is no other."""

FULL_FOR: Final = timedelta(minutes=10)
"""When a stranger that found no room is told to ask again."""

FULL_AGAIN_AFTER: Final = timedelta(seconds=10)
"""For how long it is remembered that there was no room, so that strangers cost no look at it."""

_WAITS: Final = "The device is not accepted here (yet)."


class Authentication:
    """Runs batches of claims. A token is good for ``token_for``; at most ``most_pending`` sets wait for a person."""

    def __init__(
        self,
        store: Store,
        devices: Devices,
        clock: Callable[[], datetime],
        *,
        token_for: timedelta,
        most_pending: int,
    ) -> None:
        self._store = store
        self._devices = devices
        self._clock = clock
        self._token_for = token_for
        self._most_pending = most_pending
        self._full_at: datetime | None = None
        self._work: Work[Claim, str] = Work("mender authentication", -1, self.run)

    def ask(self, body: bytes, signature: bytes, *, strangers: bool = True) -> Future[str]:
        """A token for whoever signed the body, when it is committed.

        The future raises InvalidReport for what is no request, Unauthorized for a signature that does not hold and for
        who asks for the first time, Forbidden for who is known and not accepted, TooMany for who has just had a token
        and for a stranger when too many wait; Busy as well, without ``strangers`` for everybody who is not known
        yet."""
        return self._devices.aside(lambda: self._ask(claim_of(body, signature), strangers=strangers))

    def _ask(self, claim: Claim, *, strangers: bool) -> Future[str]:
        with self._store.reading() as r:
            known = r.auth_set(claim.id)
        if known is None and not strangers:
            raise Busy("Too many strangers come from this address.", remedy="Ask again in a minute.")
        if known is None and self._full_at is not None and abs(self._clock() - self._full_at) < FULL_AGAIN_AFTER:
            raise _full()
        waits = known is not None and known.status in (SetStatus.PENDING, SetStatus.REJECTED)
        if known is not None and waits and abs(self._clock() - known.seen_at) < SEEN_EVERY:
            raise Forbidden(_WAITS)
        if known is not None:
            _check_pace(known, self._clock())
        return self._devices.writer.submit(self._work, claim)

    def run(self, batch: Batch, claims: Sequence[Claim]) -> list[str | WaveError]:
        w, now = batch.w, batch.now
        sets: dict[str, dict[str, AuthSet]] = defaultdict(dict)
        for one in w.lock_auth_sets({claim.identity for claim in claims}):
            sets[one.identity][one.id] = one
        strangers = {claim.id for claim in claims if claim.id not in sets[claim.identity]}
        room = self._room(w, len(strangers), now) if strangers else 0
        answers: list[str | WaveError] = []
        let_in: list[str] = []
        for claim in claims:
            mine = sets[claim.identity]
            stranger = claim.id not in mine
            if stranger and sum(one.status is SetStatus.PENDING for one in mine.values()) < MOST_OF_ONE:
                if room <= 0:
                    self._full_at = now
                    answers.append(_full())
                    continue
                room -= 1
            try:
                token = self._judge(w, mine, claim, now)
            except TooMany as error:
                answers.append(error)
                continue
            refusal = Unauthorized(_WAITS) if stranger else Forbidden(_WAITS)
            answers.append(refusal if token is None else token[1])
            if token is not None:
                let_in.append(token[0])
        batch.after.append(lambda: self._devices.forget(let_in))
        return answers

    def _room(self, w: Writing, strangers: int, now: datetime) -> int:
        """How many strangers may wait; who has given up makes room for them."""
        keep = max(0, self._most_pending - strangers)
        return self._most_pending - w.drop_pending(keep=keep, unseen_since=now - GIVEN_UP_AFTER)

    def _judge(self, w: Writing, mine: dict[str, AuthSet], claim: Claim, now: datetime) -> tuple[str, str] | None:
        """The device and its new token; None for who is not let in. ``mine``: the sets of its identity. Raises TooMany,
        before it writes."""
        known = mine.get(claim.id)
        if known is None:
            known = AuthSet(
                id=claim.id,
                identity=claim.identity,
                public_key=claim.public_key,
                status=SetStatus.PENDING,
                asked_at=now,
                seen_at=now,
            )
            waiting = [one for one in mine.values() if one.status is SetStatus.PENDING]
            for one in waiting[: max(0, len(waiting) + 1 - MOST_OF_ONE)]:
                w.remove_auth_sets([one.id])
                del mine[one.id]
        elif known.status is SetStatus.PREAUTHORIZED:
            for one in mine.values():
                if one.status is SetStatus.ACCEPTED:
                    mine[one.id] = replace(one, status=SetStatus.REJECTED, decided_at=now, decided_by=known.decided_by)
                    w.save_auth_set(mine[one.id])
            known = replace(known, status=SetStatus.ACCEPTED, seen_at=now)
        else:
            _check_pace(known, now)
            known = replace(known, seen_at=now)
        mine[claim.id] = known
        w.save_auth_set(known)
        if known.status is not SetStatus.ACCEPTED or known.device_id is None or w.device(known.device_id) is None:
            return None
        token, digest = new_token(known.device_id, now + self._token_for)
        w.set_token(known.device_id, digest)
        return known.device_id, token


def _full() -> TooMany:
    return TooMany("Too many devices wait for a person.", after=FULL_FOR.total_seconds())


def _check_pace(known: AuthSet, now: datetime) -> None:
    """An accepted set was seen last when it was given its token, unless that was before it was accepted. Raises
    TooMany."""
    if known.status is not SetStatus.ACCEPTED or (known.decided_at is not None and known.seen_at <= known.decided_at):
        return
    left = TOKEN_EVERY - abs(now - known.seen_at)
    if left > timedelta(0):
        raise TooMany("The device has just been given a token.", after=left.total_seconds())
