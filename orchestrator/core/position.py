"""Where a device stands in a wave: a fixed point per device, rollout and wave, from a salted hash.

A device's id is hashed once (two 31-bit halves, kept with the device). A wave's salt turns the halves into a position
by integer arithmetic that SQLite, PostgreSQL and Python do alike, without overflow of 64 bits::

    position = (high * a + low * b + c) mod (2**31 - 1)

Over random halves this is uniform, and pairwise independent between two waves (Carter & Wegman 1979), so that who is
early in one wave says nothing about who is early in another. Positions are whole numbers in ``[0, SPACE)``; shown
divided by SPACE.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

SPACE: Final = 2**31 - 1
"""A Mersenne prime: ``SPACE - 1`` squared, twice, still fits a signed 64-bit integer."""


@dataclass(frozen=True, slots=True)
class DeviceHash:
    """The two halves of a device's hashed id, each in ``[0, SPACE)``."""

    high: int
    low: int


@dataclass(frozen=True, slots=True)
class Salt:
    """The three constants of one wave of one rollout, each in ``[1, SPACE)``."""

    a: int
    b: int
    c: int


def device_hash(device_id: str) -> DeviceHash:
    """The hash of a device's stable id; the same on every machine and in every version of this program."""
    digest = hashlib.blake2b(device_id.encode(), digest_size=16, person=b"wave device").digest()
    return DeviceHash(int.from_bytes(digest[:8]) % SPACE, int.from_bytes(digest[8:]) % SPACE)


def wave_salt(rollout_salt: str, wave: str) -> Salt:
    """The salt of one wave; ``rollout_salt`` is drawn once when the rollout is made."""
    digest = hashlib.blake2b(f"{rollout_salt}\0{wave}".encode(), digest_size=24, person=b"wave salt").digest()
    a, b, c = (1 + int.from_bytes(digest[i : i + 8]) % (SPACE - 1) for i in (0, 8, 16))
    return Salt(a, b, c)


def position(device: DeviceHash, salt: Salt) -> int:
    """The device's position under this salt, in ``[0, SPACE)``."""
    return (device.high * salt.a + device.low * salt.b + salt.c) % SPACE


def bound_of_share(share: float) -> int:
    """Positions below this bound are the given share, in ``[0, 1]``, of any set of devices."""
    return round(share * SPACE)
