"""Letting Mender devices in: a signed request becomes a pending set, or a token.

Pending and rejected devices come again every few seconds: they cost one look, and a write every five minutes at most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.errors import Busy, Forbidden, Unauthorized, WaveError
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
        self._work: Work[Claim, str] = Work("mender authentication", -1, self.run)

    def ask(self, body: bytes, signature: bytes, *, strangers: bool = True) -> Future[str]:
        """A token for whoever signed the body, when it is committed.

        The future raises InvalidReport for what is no request, Unauthorized for a signature that does not hold and for
        who asks for the first time, Forbidden for who is known and not accepted; Busy as well, without ``strangers``
        for everybody who is not known yet."""
        return self._devices.aside(lambda: self._ask(claim_of(body, signature), strangers=strangers))

    def _ask(self, claim: Claim, *, strangers: bool) -> Future[str]:
        with self._store.reading() as r:
            known = r.auth_set(claim.id)
        if known is None and not strangers:
            raise Busy("Too many strangers come from this address.", remedy="Ask again in a minute.")
        waits = known is not None and known.status in (SetStatus.PENDING, SetStatus.REJECTED)
        if known is not None and waits and abs(self._clock() - known.seen_at) < SEEN_EVERY:
            raise Forbidden(_WAITS)
        return self._devices.writer.submit(self._work, claim)

    def run(self, batch: Batch, claims: Sequence[Claim]) -> list[str | WaveError]:
        w, now = batch.w, batch.now
        sets: dict[str, dict[str, AuthSet]] = defaultdict(dict)
        for one in w.lock_auth_sets({claim.identity for claim in claims}):
            sets[one.identity][one.id] = one
        answers: list[str | WaveError] = []
        let_in: list[str] = []
        for claim in claims:
            stranger = claim.id not in sets[claim.identity]
            token = self._judge(w, sets[claim.identity], claim, now)
            refusal = Unauthorized(_WAITS) if stranger else Forbidden(_WAITS)
            answers.append(refusal if token is None else token[1])
            if token is not None:
                let_in.append(token[0])
        w.drop_pending(keep=self._most_pending)
        batch.after.append(lambda: self._devices.forget(let_in))
        return answers

    def _judge(self, w: Writing, mine: dict[str, AuthSet], claim: Claim, now: datetime) -> tuple[str, str] | None:
        """The device and its new token; None for who is not let in. ``mine``: the sets of its identity."""
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
            known = replace(known, seen_at=now)
        mine[claim.id] = known
        w.save_auth_set(known)
        if known.status is not SetStatus.ACCEPTED or known.device_id is None or w.device(known.device_id) is None:
            return None
        token, digest = new_token(known.device_id, now + self._token_for)
        w.set_token(known.device_id, digest)
        return known.device_id, token
