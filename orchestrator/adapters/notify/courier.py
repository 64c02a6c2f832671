"""The thread of ``wave serve`` that sends messages: beside the tick and the gateway, which never wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from orchestrator.errors import Busy, WaveError
from orchestrator.services.notices import AT_ONCE, Notices

LOG = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks for messages: one query by an index."""

END_WITHIN: Final = 5.0
"""Seconds that a message under way is waited for at the end; one that is left is sent again by the next server."""


class Courier:
    """Sends what waits until it is stopped; a few destinations at once, so that one that hangs keeps none of the others
    waiting for long."""

    def __init__(self, notices: Notices, *, look_every: float = LOOK_EVERY) -> None:
        self._pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="notify")
        self._notices = replace(notices, together=self._together)
        self._every = look_every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Courier:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._stop.set()
        self._thread.join(END_WITHIN)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        said = ""
        while not self._stop.wait(self._every):
            try:
                due_at = self._notices.next_at()
                if due_at is not None and due_at <= self._notices.clock():
                    self._notices.deliver(until=self._stop.is_set)
                said = ""
            except Busy:
                continue
            except WaveError as error:
                if said != str(error):  # looked at once a second: said once
                    LOG.warning("messages could not be looked at: %s", error)
                said = str(error)
            except RuntimeError:
                # The pool is shut: this process ends.
                if not self._stop.is_set():
                    raise
            except Exception:
                LOG.exception("messages could not be looked at")

    def _together(self, work: Sequence[Callable[[], bool]]) -> Sequence[bool]:
        return [each.result() for each in [self._pool.submit(one) for one in work]]
