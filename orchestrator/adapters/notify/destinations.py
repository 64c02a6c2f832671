"""The file of destinations: names, and the addresses behind them, which hold passwords and tokens.

::

    oncall: mailtos://wave:PASSWORD@mail.example.com?to=oncall@example.com
    chat: slack://TOKEN-A/TOKEN-B/TOKEN-C/#releases
    tickets:
      webhook: https://tickets.example.com/hooks/wave
      secret: whsec_...

It is its owner's alone, and read anew for each message: what is changed in it counts at once. An address is in no
journal, no message and no log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.adapters.files.named import is_http, read_named
from orchestrator.errors import InvalidInput
from orchestrator.services.webhooks import secret_of

_KEYS: Final = frozenset({"webhook", "secret"})


@dataclass(frozen=True, slots=True)
class Address:
    """One address of Apprise's; it leads to one receiver."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str = field(repr=False)
    secret: bytes = field(repr=False)


def read_destinations(file: Path) -> Mapping[str, Address | Webhook]:
    """By name; empty where there is no file. Raises InvalidInput for a file that others may read, InvalidFile for what
    is wrong in it, never with an address."""
    return read_named(file, _destination, must_be="must be a mapping of destinations, `name: address`.")


def _destination(value: Any) -> Address | Webhook:
    if isinstance(value, str) and "://" in value:
        return Address(value)
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise InvalidInput("must be an address of Apprise's, or a mapping with webhook and secret.")
    url, secret = value["webhook"], value["secret"]
    if not is_http(url):
        raise InvalidInput("has a webhook that is no http:// or https:// address.")
    if not isinstance(secret, str):
        raise InvalidInput("has a secret that is no text.")
    return Webhook(url, secret_of(secret))
