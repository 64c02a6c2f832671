"""A store behind another, for a test that changes what some of it does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from orchestrator.services.store import Reading, Store, Writing


class Behind:
    """All that it does the store ``inner`` does."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def reading(self) -> AbstractContextManager[Reading]:
        return self.inner.reading()

    def writing(self) -> AbstractContextManager[Writing]:
        return self.inner.writing()

    def failures(self) -> Mapping[str, int]:
        return self.inner.failures()

    def close(self) -> None:
        self.inner.close()
