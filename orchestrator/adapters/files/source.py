"""A text file as plain values, with the line of every key: YAML without its surprises, or JSON.

YAML is read from its event stream, with rules of our own for what a plain word means, so that nothing a person types
turns into something else: only ``true`` and ``false`` are booleans (``on``, ``no`` are words), ``09:00`` is text and
not 540, ``042`` is text and not 34, a date is text, keys are always text. What comes back is made of ``dict``,
``list``, ``str``, ``int``, ``float``, ``bool`` and None only. Refused: tags (``!!python/…``), keys written twice, more
than one document, and anything too large, too deep or too often repeated by aliases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from orchestrator.core.document import KeyPath, dotted
from orchestrator.core.durations import shown
from orchestrator.errors import InvalidFile

MOST_BYTES: Final = 1_000_000
DEEPEST: Final = 20
"""Levels of mappings and lists; our files have at most six."""
MOST_VALUES_PER_BYTE: Final = 1
"""With aliases followed: what is written out has at most a value for every byte, so repetition gains nothing."""
MOST_PROBLEMS: Final = 20
"""More than these are counted and not listed: nobody reads them."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})?\.?[0-9]{1,18}([eE][-+]?[0-9]{1,2})?", re.ASCII)
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
"""How JSON may write one character beyond the basic plane; YAML knows only the character itself."""
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """What was read: the file's name, the plain values, and the line of every key path that is written in it."""

    file: str
    value: Any
    lines: dict[KeyPath, int] = field(repr=False)
    problems: tuple[tuple[KeyPath, str], ...] = ()
    """What is wrong already: keys that are written twice (the first is in ``value``)."""

    def line(self, path: KeyPath) -> int | None:
        """The line of ``path``, or of the nearest thing around it that is written in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def invalid(self, problems: Iterable[tuple[KeyPath, str]] = ()) -> InvalidFile:
        """One error for all problems, its own and those given, in the order of their lines."""
        ordered = sorted((*self.problems, *problems), key=lambda each: self.line(each[0]) or 0)
        errors = [
            InvalidFile(sentence, file=self.file, line=self.line(path), path=dotted(path) or None)
            for path, sentence in ordered[:MOST_PROBLEMS]
        ]
        if len(ordered) > MOST_PROBLEMS:
            errors.append(InvalidFile(f"and {len(ordered) - MOST_PROBLEMS} more problems.", file=self.file))
        first = errors[0]
        return InvalidFile(first.message, file=first.file, line=first.line, path=first.path, further=errors[1:])


def read_source(path: Path, *, most_bytes: int = MOST_BYTES) -> Source:
    """The file at ``path``; JSON if it ends so, else YAML. Raises InvalidFile for what is in the way."""
    raw, file = read_raw(path, most_bytes=most_bytes)
    return parse_source(raw, file=file, most_bytes=most_bytes)


def read_raw(path: Path, *, most_bytes: int = MOST_BYTES) -> tuple[bytes, str]:
    """What stands in the file, and what messages call it. Raises InvalidFile."""
    file = str(path) if str(path).isprintable() else ascii(str(path))
    try:
        if not path.is_file():
            if path.is_dir():
                raise InvalidFile("is a directory; give a file.", file=file)
            reason = "is not a regular file." if path.exists() else "there is no such file."
            raise InvalidFile(reason, file=file)
        with path.open("rb") as stream:
            raw = stream.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not possible"
        raise InvalidFile(f"cannot be read: {reason}.", file=file) from None
    return raw, file


def parse_source(raw: bytes, *, file: str, most_bytes: int = MOST_BYTES) -> Source:
    """``raw`` as plain values; ``file`` is for messages, and its ending says which format. Raises InvalidFile."""
    if len(raw) > most_bytes:
        raise InvalidFile(f"is larger than {most_bytes:,} bytes, which is the most that is read.", file=file)
    if b"\0" in raw:
        raise InvalidFile("is not text: it has zero bytes (a binary file, or UTF-16); save it as UTF-8.", file=file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidFile("is not UTF-8; save it as UTF-8.", file=file, line=line) from None
    if file.endswith(".json"):
        text = text.replace("\t", " ")  # JSON allows tabs between its tokens and never inside them, YAML the reverse
        text = _PAIR.sub(lambda pair: pair[1] + json.loads(f'"{pair[2]}"'), text)
    reader = _Reader(file, most_values=max(1000, len(raw) * MOST_VALUES_PER_BYTE))
    value = reader.read(text)
    if value is None:
        raise InvalidFile("is empty.", file=file)
    return Source(file, value, reader.lines, tuple(reader.problems))


class _Reader:
    """Builds values from events, in one pass. Recursion is bounded by DEEPEST."""

    def __init__(self, file: str, *, most_values: int) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[KeyPath, str]] = []
        self._most_values = most_values
        self._values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._events: Iterator[Event] = iter(())

    def read(self, text: str) -> Any:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        value, documents = None, 0
        try:
            self._events = yaml.parse(text, Loader=loader)
            for event in self._events:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        raise self._refuse(event, "has a second document ('---'); one is allowed.")
                    value = self._value(next(self._events), (), 0)
                elif isinstance(event, StreamEndEvent):
                    break
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = error.problem or error.context or "cannot be understood"
            line = min(mark.line, text.rstrip().count("\n")) + 1 if mark else None
            hint = ""
            if "cannot start any token" in said and mark:
                # libyaml does not say which; the words below are for who never read a grammar
                found = text[mark.index : mark.index + 1]
                said = "found a tab where only spaces may stand" if found == "\t" else f"no value begins with {found!r}"
                hint = "" if found == "\t" else " Write it in quotes if it is meant as text."
            if "tab" in said:
                hint = " Indent with spaces."
            raise InvalidFile(f"is not YAML: {said}.{hint}", file=self.file, line=line) from None
        except yaml.YAMLError as error:
            said = str(error).splitlines()[0]
            raise InvalidFile(f"is not YAML: {said}.", file=self.file) from None
        except (UnicodeError, RecursionError, StopIteration, ValueError):
            raise InvalidFile("is not YAML: it cannot be understood.", file=self.file) from None
        return value

    def _value(self, event: Event, path: KeyPath, depth: int) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        self._count(event, 1)
        if depth > DEEPEST:
            raise self._refuse(event, f"is nested deeper than {DEEPEST} levels.")
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise self._refuse(event, f"refers to '*{event.anchor}', which is not finished above it.", path)
            value, size = self._anchors[event.anchor]
            self._count(event, size)
            return value
        if isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent) and event.tag not in (None, "!"):
            raise self._refuse(event, f"has a YAML tag ({shown(event.tag)}); tags are not taken.", path)
        before = self._values
        match event:
            case ScalarEvent():
                value = self._scalar(event)
            case SequenceStartEvent():
                value = self._sequence(path, depth)
            case MappingStartEvent():
                value = self._mapping(path, depth)
            case _:
                raise self._refuse(event, "cannot be understood.", path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _sequence(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        while isinstance(event := next(self._events), NodeEvent):
            items.append(self._value(event, (*path, len(items)), depth + 1))
        return items

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while isinstance(event := next(self._events), NodeEvent):
            if not isinstance(event, ScalarEvent) or event.tag not in (None, "!"):
                raise self._refuse(event, "has a key that is not a word.", path)
            key = _well_formed(event.value)
            line = _line(event)
            if key in items:
                first = self.lines[(*path, key)]
                self.problems.append(((*path, key), f"is written twice, in line {first} and in line {line}."))
                self._value(next(self._events), (*path, f"{key} (line {line})"), depth + 1)
                continue
            self.lines[(*path, key)] = line
            items[key] = self._value(next(self._events), (*path, key), depth + 1)
        return items

    def _scalar(self, event: ScalarEvent) -> Any:
        text = event.value
        if event.implicit[0]:
            if text in _WORDS:
                return _WORDS[text]
            if _INT.fullmatch(text):
                return int(text)
            if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
                return float(text)
        return _well_formed(text)

    def _count(self, event: Event, values: int) -> None:
        self._values += values
        if self._values > self._most_values:
            raise self._refuse(event, "repeats itself too often through aliases ('*name').")

    def _refuse(self, event: Event, sentence: str, path: KeyPath = ()) -> InvalidFile:
        return InvalidFile(sentence, file=self.file, line=_line(event), path=dotted(path) or None)


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _well_formed(text: str) -> str:
    """The Python parser, unlike the C one, lets half a surrogate pair through; it could not be written again."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
