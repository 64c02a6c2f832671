"""What is remembered in memory within a bound, so that nothing that devices send makes it grow.

Only what costs a look into the store, or a repetition, when it is forgotten may be remembered so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """At most ``most``; what was neither asked for nor put for longest is forgotten first. With 0 nothing is
    remembered. Several threads may use it."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def keys(self) -> tuple[Key, ...]:
        """The longest unused first."""
        return tuple(self._known)

    def get(self, key: Key) -> Value | None:
        value = self._known.get(key)
        if value is not None:
            try:
                self._known.move_to_end(key)
            except KeyError:
                return value  # another thread has just forgotten it
        return value

    def put(self, key: Key, value: Value) -> None:
        self._known[key] = value
        try:
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        except KeyError:
            return  # another thread has just made room

    def pop(self, key: Key) -> Value | None:
        """Forget it."""
        return self._known.pop(key, None)
