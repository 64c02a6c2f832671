"""The machine: disks, clock, ports, open files."""

from __future__ import annotations

import ctypes
import errno
import http.client
import os
import resource
import socket
import ssl
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.engine import make_url

import orchestrator
from orchestrator.adapters.doctor.words import size
from orchestrator.adapters.sql.engine import Engine
from orchestrator.adapters.sql.times import moment
from orchestrator.errors import WaveError
from orchestrator.services.doctor import Area, Finding, broken, doubtful, fine
from orchestrator.services.settings import Settings

FREE_AT_LEAST: Final = 200 * 1000 * 1000
FREE_SHOULD: Final = 2 * 1000 * 1000 * 1000
INODES_AT_LEAST: Final = 1_000
INODES_SHOULD: Final = 20_000
"""Below the first it fails, below the second it is said."""

SKEW: Final = timedelta(seconds=5)
"""What a clock may differ from a moment that was written before."""

FILES_NEEDED: Final = 20_356
"""Open files with which 10,000 devices can be served at once (docs/operating.md)."""

ANSWERS_WITHIN: Final = 6.0
"""Seconds for what listens on a port to say who it is: the operators' side takes some until it has been loaded."""

_UNSYNCHRONISED: Final = 0x0040
"""STA_UNSYNC of adjtimex(2)."""


# --------------------------------------------------------------------------------------------------------- disk


def disk(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Each file system once, named by what lies on it."""
    places = {"root": settings.root, "repository": settings.repository_path, "artifacts": settings.artifacts_path}
    address = make_url(settings.database_url)
    if address.get_backend_name() == "sqlite" and address.database:
        places["database"] = Path(address.database).parent
    by_device: dict[int, tuple[Path, list[str]]] = {}
    for name, place in places.items():
        if (there := _there(place)) is not None:
            by_device.setdefault(there.stat().st_dev, (there, []))[1].append(name)
    for place, names in by_device.values():
        yield _space(place, ", ".join(names))


def _there(place: Path) -> Path | None:
    return next((each for each in (place, *place.absolute().parents) if each.exists()), None)


def _space(place: Path, names: str) -> Finding:
    found = os.statvfs(place)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    counted = found.f_files > 0  # some file systems make them as they go
    said = f"{size(free)} are free for {names} ({place})" + (f", and {inodes:,} inodes" if counted else "") + "."
    if free < FREE_AT_LEAST or (counted and inodes < INODES_AT_LEAST):
        return broken(Area.DISK, said, "Free some, or move it to a larger disk: a full one takes no reports.")
    if free < FREE_SHOULD or (counted and inodes < INODES_SHOULD):
        return doubtful(Area.DISK, said, "Free some before it is full: `wave delta drop` removes unneeded deltas.")
    return fine(Area.DISK, said)


# -------------------------------------------------------------------------------------------------------- clock


class _Timex(ctypes.Structure):
    """``struct timex`` as far as it is read; the rest is room."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_byte * 256),
    ]


def clock(settings: Settings, now: datetime) -> Iterator[Finding]:
    """What can be known without asking another machine: what was written before, and what the kernel says."""
    built = datetime.fromtimestamp(Path(orchestrator.__file__).stat().st_mtime, tz=UTC)
    if now < built - timedelta(days=1):
        yield broken(
            Area.CLOCK,
            f"The clock says {now:%Y-%m-%d %H:%M} UTC; this program was installed later, {built:%Y-%m-%d %H:%M}.",
            "Set the clock: windows, silence and signatures go by it.",
        )
    yield from _against_store(settings, now)
    if (synchronised := _synchronised()) is not None:
        if synchronised:
            yield fine(Area.CLOCK, "The kernel says that something keeps the clock right.")
        else:
            yield doubtful(
                Area.CLOCK,
                "The kernel says that nothing keeps the clock right.",
                "Run chrony or systemd-timesyncd here, or on the host if this is a container.",
            )
    try:
        zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        yield broken(Area.CLOCK, "The tables of time zones are not there.", "Install tzdata: windows name their zones.")
    zone = "UTC" if time.timezone == 0 and not time.daylight else "/".join(dict.fromkeys(time.tzname))
    yield fine(Area.CLOCK, f"The machine's zone is {zone}; everything but windows is UTC.")


def _against_store(settings: Settings, now: datetime) -> Iterator[Finding]:
    try:
        engine = Engine(settings.database_url, create=False)
        try:
            with engine.reading() as link:
                newest = link.rows("SELECT MAX(at) FROM house")[0][0]
                there = link.rows("SELECT extract(epoch FROM clock_timestamp())") if engine.postgres else []
        finally:
            engine.close()
    except WaveError:
        return  # the look at the store says why
    if newest is not None and (ahead := moment(int(newest)) - datetime.now(UTC)) > SKEW:
        yield broken(
            Area.CLOCK,
            f"The database holds a moment that is {ahead.total_seconds():,.0f} seconds ahead of the clock.",
            "Set the clock: one that went back is taken as standing still, and nothing becomes due until then.",
        )
    else:
        yield fine(Area.CLOCK, "Nothing in the database lies ahead of the clock.")
    if there:
        skew = timedelta(seconds=float(there[0][0])) - (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC))
        if abs(skew) > SKEW:
            yield doubtful(
                Area.CLOCK,
                f"The clocks of this machine and of PostgreSQL are {abs(skew).total_seconds():,.0f} seconds apart.",
                "Let both keep their clocks right.",
            )


def _synchronised() -> bool | None:
    """What adjtimex says; None where it cannot be asked."""
    try:
        timex = _Timex()
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else not timex.status & _UNSYNCHRONISED


# -------------------------------------------------------------------------------------------------------- ports


def ports(settings: Settings, now: datetime) -> Iterator[Finding]:
    tls = settings.tls_certificate is not None
    if settings.port:
        yield _door(Door("devices", settings.host, settings.port, "port", "/healthz", tls))
    if settings.console_port:
        place = (settings.console_host, settings.console_port)
        asked_for = "console_port" in settings.model_fields_set
        yield _door(Door("operators", *place, "console_port", "/api/v1/me", tls, needed=asked_for))
    open_to_all = settings.host not in ("127.0.0.1", "::1", "localhost")
    if open_to_all and settings.tls_certificate is None:
        yield doubtful(
            Area.PORTS,
            f"Devices are served on {settings.host} without TLS.",
            "Set `tls_certificate` and `tls_key`, or listen on 127.0.0.1 behind a proxy that has them.",
        )
    if settings.host in ("0.0.0.0", "::") and settings.public_url is None:
        yield doubtful(
            Area.PORTS,
            f"Offers send devices to {settings.url}, where only this machine finds it.",
            "Set `public_url` to the address under which devices reach it.",
        )


class Door(NamedTuple):
    """Where one side listens; ``asked`` is a path that answers anybody, if only with a problem of ours. One that is not
    ``needed`` may be missing while the other is served."""

    whom: str
    host: str
    port: int
    key: str
    asked: str
    tls: bool
    needed: bool = True


def _door(door: Door) -> Finding:
    place = f"{door.host} port {door.port}, for {door.whom},"
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            # what was closed a moment ago does not count as held; what is listened on does
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((door.host, door.port))
            tried.listen(1)
        return fine(Area.PORTS, f"{place} is free.")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return broken(Area.PORTS, f"{place} is not allowed to this user.", f"Set `{door.key}` above 1023.")
        if error.errno != errno.EADDRINUSE:
            return broken(Area.PORTS, f"{place} cannot be had: {error.strerror}.", "Set an address of this machine.")
    if _ours(door):
        return fine(Area.PORTS, f"{place} is held by `wave serve`, which answers.")
    remedy = f"End it (`ss -ltnp` names it), or set another `{door.key}`."
    if door.needed:
        return broken(Area.PORTS, f"{place} is held by something else: `wave serve` cannot start.", remedy)
    said = f"{place} is held by something else: `wave serve` serves devices without them."
    return doubtful(Area.PORTS, said, f"{remedy} `{door.key}: off` does without them on purpose.")


def _ours(door: Door) -> bool:
    """Whether what listens there answers as this program does, also when it is not well."""
    at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(door.host, door.host)
    connection: http.client.HTTPConnection
    if door.tls:
        # asked only whether it is there: its certificate is looked at as a file
        whoever = ssl.create_default_context()
        whoever.check_hostname, whoever.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(at, door.port, timeout=ANSWERS_WITHIN, context=whoever)
    else:
        connection = http.client.HTTPConnection(at, door.port, timeout=ANSWERS_WITHIN)
    try:
        connection.request("GET", door.asked)
        answer = connection.getresponse()
        said = answer.read(1024)
        return (
            b'"status":"ok"' in said
            or b'"unavailable"' in said
            or "problem+json" in answer.headers.get("content-type", "")
        )
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error)  # it asks for a client's certificate
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------------- limits


def limits(settings: Settings, now: datetime) -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= FILES_NEEDED:
        yield fine(Area.LIMITS, "Enough files may be open for 10,000 connections at once.")
    else:
        possible = max(1, (hard - 356) // 2)
        said = f"{hard:,} files may be open: {possible:,} devices can be connected at once."
        remedy = f"Raise it if the fleet is larger: `LimitNOFILE={FILES_NEEDED}` in the unit, or `ulimit -Hn`."
        yield doubtful(Area.LIMITS, said, remedy) if possible < 1_000 else fine(Area.LIMITS, said)
