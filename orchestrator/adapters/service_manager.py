"""What systemd is told of a service of type ``notify``: that it is ready, that it stops, that it still lives.

Without a service manager nothing is sent. The words are those of sd_notify(3); they go to the socket that
``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass


@dataclass(slots=True)
class ServiceManager:
    """``every``: seconds between two signs of life; None where nobody waits for one. Thread-safe as far as a sign too
    many does no harm."""

    socket: str | None = None
    every: float | None = None
    _said_at: float = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        """As the environment of this process says."""
        place = environment.get("NOTIFY_SOCKET") or None
        within = environment.get("WATCHDOG_USEC", "")
        whom = environment.get("WATCHDOG_PID", "")
        waits = place is not None and within.isdigit() and (not whom or whom == str(os.getpid()))
        # a third of it, so that one that is lost or late costs nothing
        return cls(place, int(within) / 3e6 if waits else None)

    def ready(self, status: str) -> None:
        """It does its work, or stands by for it. May be said again with another status."""
        self._say(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def alive(self) -> None:
        """Called by what must not stand still, as often as it likes."""
        now = time.monotonic()
        if self.every is not None and now - self._said_at >= self.every:
            self._said_at = now
            self._say("WATCHDOG=1")

    def _say(self, words: str) -> None:
        if self.socket is None:
            return
        address = f"\0{self.socket[1:]}" if self.socket.startswith("@") else self.socket
        # a manager that is gone must not take the service with it
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.sendto(words.encode(), address)
