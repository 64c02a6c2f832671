"""How often one device and one address may ask, and how often an address may be wrong. In memory, for this process.

* A device's own limit counts only what it was let in for: nobody can use up another's by asking in its name.
* An address may be wrong only so often. Above that, who is known in memory and shows the right thing is served as
  before; all others from there are told to wait, at no cost to the store. So one broken device does not lock out the
  site behind whose router it stands.
* Loopback has no address: a proxy on this machine would be one for the whole fleet.

Kept by one moment for each key (the generic cell rate algorithm), in two generations of bounded size: when the younger
is full the older is forgotten, so who has not asked for long begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from orchestrator.core.limits import Limit
from orchestrator.errors import TooMany
from orchestrator.gateway.http import Scope

MOST_KEPT: Final = 65_536
"""Keys of one generation; there are two."""

ADDRESS: Final = "address"
DEVICE: Final = "device"
FAILURES: Final = "failures"
"""Which limit it was."""


class Buckets:
    """One limit for many keys."""

    __slots__ = ("_every", "_most", "_new", "_old", "_slack")

    def __init__(self, limit: Limit, *, most: int = MOST_KEPT) -> None:
        self._every = limit.every
        self._slack = (limit.burst - 1) * limit.every
        self._most = most
        self._new: dict[str, float] = {}
        self._old: dict[str, float] = {}

    def wait(self, key: str, now: float) -> float:
        """Seconds until this key may ask; 0 or less: now."""
        at = self._new.get(key) or self._old.get(key, 0.0)
        return at - self._slack - now

    def take(self, key: str, now: float) -> float:
        """The same, and where it may ask it has asked. A refused one costs nothing: who goes on asking too often gets
        the steady rate."""
        at = self._new.get(key) or self._old.get(key, now)
        if at < now:
            at = now
        wait = at - self._slack - now
        if wait > 0:
            return wait
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        self._new[key] = at + self._every
        return 0.0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)


class Limits:
    """The limits of one gateway; ``off`` ones cost nothing. ``spared`` says which addresses have none.
    ``refused``: how many were told to wait, by limit."""

    __slots__ = ("_clock", "_devices", "_hosts", "_spared", "_wrong", "refused")

    def __init__(
        self,
        *,
        per_device: Limit,
        per_address: Limit,
        failures: Limit,
        clock: Callable[[], float] = time.monotonic,
        spared: Callable[[str], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._devices = None if per_device.off else Buckets(per_device)
        self._hosts = None if per_address.off else Buckets(per_address)
        self._wrong = None if failures.off else Buckets(failures)
        self._spared = spared or is_loopback
        self.refused = {ADDRESS: 0, DEVICE: 0, FAILURES: 0}

    def arrive(self, scope: Scope) -> bool:
        """A request from an address begins; whether that was wrong too often. Raises TooMany."""
        host = self._host(scope)
        if host is None:
            return False
        now = self._clock()
        if self._hosts is not None and (wait := self._hosts.take(host, now)) > 0:
            raise self._too_many(ADDRESS, "This address asks too often.", wait)
        return self._wrong is not None and self._wrong.wait(host, now) > 0

    def wrong(self, scope: Scope) -> None:
        """A request was refused because nobody could tell who asked."""
        host = self._host(scope)
        if host is not None and self._wrong is not None:
            self._wrong.take(host, self._clock())

    def device(self, device_id: str) -> None:
        """A device was let in. Raises TooMany."""
        if self._devices is not None and (wait := self._devices.take(device_id, self._clock())) > 0:
            raise self._too_many(DEVICE, "This device asks too often.", wait)

    def suspected(self, scope: Scope) -> TooMany:
        """What a stranger is told whose address was wrong too often."""
        host = self._host(scope)
        wait = 1.0 if host is None or self._wrong is None else self._wrong.wait(host, self._clock())
        return self._too_many(FAILURES, "From this address too many came whom nobody knows here.", max(wait, 0.0))

    def _too_many(self, limit: str, message: str, wait: float) -> TooMany:
        self.refused[limit] += 1
        return TooMany(message, after=wait)

    def _host(self, scope: Scope) -> str | None:
        client = scope.get("client")
        if client is None:
            return None
        address: str = client[0]
        if self._spared(address):
            return None
        return site_of(address) if ":" in address else address


def is_loopback(address: str) -> bool:
    return _is_loopback(address) if ":" in address else address.startswith("127.")


@lru_cache(maxsize=65_536)
def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


@lru_cache(maxsize=65_536)
def site_of(address: str) -> str:
    """Whose address it is: an IPv4 address itself, of an IPv6 one its /64, which one customer has to choose from."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> 64 << 64))
