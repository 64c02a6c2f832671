"""What root may do and others may not: that part of a test runs in a child process without the privileges of root."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from typing import Final

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 1, 2, 3
_VERSION: Final = 0x20080522
_CAPBSET_DROP: Final = 24


def as_anybody(work: Callable[[], None]) -> None:
    """Run ``work`` as one for whom permissions count; an error in it is an error here."""
    if os.geteuid() != 0:
        work()
        return
    said, saying = os.pipe()
    child = os.fork()
    if child == 0:
        found = ""
        try:
            without_privileges()
            work()
        except BaseException:
            found = traceback.format_exc()
        os.write(saying, found.encode()[-60_000:])
        os._exit(0)
    os.close(saying)
    with os.fdopen(said, encoding="utf-8") as stream:
        found = stream.read()
    os.waitpid(child, 0)
    assert not found, found


def without_privileges() -> None:
    """Make permissions count for this process, and (by the bounding set) for whatever it starts. The user stays, so
    paths can be reached; for whom they count already nothing changes."""
    if os.geteuid() != 0:
        return
    capabilities = CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")

    for each in capabilities:
        call(libc.prctl(_CAPBSET_DROP, each, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the first 32, then of the rest
    call(libc.capget(header, sets))
    for index in range(3):
        for each in capabilities:
            sets[index] &= ~(1 << each)
    call(libc.capset(header, sets))
