"""The file of sources: names, and the addresses and programs behind them, which policies cannot choose.

::

    prometheus: {promql: "http://127.0.0.1:9090"}
    tickets: {webhook: "https://tickets.example.com/may-we", token: "..."}
    freeze: {command: [/usr/local/bin/no-freeze, --fleet, emea]}

It is its owner's alone, and read anew for each question. A token is sent as ``Authorization: Bearer``; neither it nor
an address is in a journal, a message or a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.adapters.files.named import is_http, read_named
from orchestrator.errors import InvalidInput
from orchestrator.services.gatekeeping import SourceKind

MOST_WORDS: Final = 64


@dataclass(frozen=True, slots=True)
class Http:
    """A Prometheus or a webhook."""

    kind: SourceKind
    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]
    kind: SourceKind = SourceKind.COMMAND


def read_sources(file: Path) -> Mapping[str, Http | Command]:
    """By name; empty where there is no file. Raises InvalidInput for a file that others may read, InvalidFile for what
    is wrong in it, never with an address."""
    return read_named(file, _source, must_be="must be a mapping of sources, `name: {promql: URL}`.")


def _source(value: Any) -> Http | Command:
    kinds = [] if not isinstance(value, dict) else [kind for kind in SourceKind if kind.value in value]
    if len(kinds) != 1:
        raise InvalidInput("must be a mapping with promql, webhook or command.")
    kind = kinds[0]
    more = set(value) - {kind.value, *(() if kind is SourceKind.COMMAND else ("token",))}
    if more:
        raise InvalidInput(f"has {', '.join(sorted(map(str, more)))}, which is no key of a {kind}.")
    if kind is SourceKind.COMMAND:
        return Command(_words(value["command"]))
    url, token = value[kind.value], value.get("token")
    if not is_http(url):
        raise InvalidInput(f"has a {kind} that is no http:// or https:// address.")
    if token is not None and (not isinstance(token, str) or not token.isascii() or not token.isprintable()):
        raise InvalidInput("has a token that is no text.")
    return Http(kind, url, token)


def _words(value: Any) -> tuple[str, ...]:
    good = isinstance(value, list) and 1 <= len(value) <= MOST_WORDS
    if not good or not all(isinstance(word, str) and word and "\0" not in word for word in value):
        raise InvalidInput("has a command that is no list of words, the program first.")
    if not Path(value[0]).is_absolute():
        raise InvalidInput("has a command whose program is no absolute path.")
    return tuple(value)
