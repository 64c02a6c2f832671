"""What the files people write have in common once read: frozen, every problem at once, one canonical form.

A ``Document`` is made from a mapping of plain values (what YAML or JSON gives). It refuses unknown keys with what is
allowed and a guess, keys of a later version by name, and reports all problems, each with its key path. It knows
nothing of files and lines; ``adapters/files`` adds those.

The canonical form has every default filled in, so that a copy bound to a rollout means the same under a later version
of this program, and says the same whatever the order of keys and whatever the comments.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from orchestrator.core.durations import (
    DURATION_PATTERN,
    RISK_PATTERN,
    SHARE_PATTERN,
    duration_text,
    parse_duration,
    parse_share,
    share_text,
    shown,
)
from orchestrator.errors import InvalidInput

KeyPath = tuple[str | int, ...]

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Names of rollouts, waves and policies: they end up in file names, URLs and metrics."""

WORD_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
"""Device ids, tags, device groups and hardware ids: serial numbers, MAC addresses, what build systems make."""

EMPTY = "is empty: give a value or leave the key out."

EMPTY_LIST = "must not be an empty list."

LARGEST_COUNT = 1_000_000_000
"""No count of devices in a file is larger."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the key path from the document's root, and a sentence with what is allowed."""

    path: KeyPath
    sentence: str

    def __str__(self) -> str:
        where = dotted(self.path)
        return f"{where}: {self.sentence}" if where else self.sentence


class InvalidDocument(InvalidInput):
    """A document that cannot be taken; ``problems`` has all of them in the order of their paths."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: KeyPath) -> str:
    """``("waves", 2, "devices")`` as ``waves[2].devices``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def problem(sentence: str) -> PydanticCustomError:
    """A sentence for the value being validated."""
    return PydanticCustomError("problem", "{sentence}", {"sentence": sentence})


def problems_at(problems: Iterable[Problem], title: str = "document") -> ValidationError:
    """Sentences for values further inside the one being validated."""
    details: list[InitErrorDetails] = [
        {"type": problem(each.sentence), "loc": each.path, "input": None} for each in problems
    ]
    return ValidationError.from_exception_data(title, details)


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Every problem that pydantic found, in our words."""
    return tuple(Problem(tuple(each["loc"]), each["msg"]) for each in error.errors(include_url=False))


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A sentence with the nearest allowed word, or nothing."""
    asked = word[:64].lower()
    near = difflib.get_close_matches(asked, sorted(allowed), n=3, cutoff=0.6)
    near.sort(key=lambda each: sorted(each.lower()) != sorted(asked))  # letters that changed places
    return f" Did you mean '{near[0]}'?" if near else ""


def one_of(value: object, allowed: Iterable[str]) -> str:
    """The sentence for a word that is none of those allowed."""
    words = list(allowed)
    guess = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"must be {words[0] if len(words) == 1 else 'one of ' + ', '.join(words)}, not {shown(value)}.{guess}"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over``: mappings are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


class Document(BaseModel):
    """The base of everything written in a file. Keys are the fields' aliases where a field has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    later: ClassVar[Mapping[str, str]] = {}
    """Keys that are known and not enforced in this version, each with what to do meanwhile (a sentence or nothing)."""

    @classmethod
    def allowed_keys(cls) -> tuple[str, ...]:
        """The keys that are allowed, in the order in which a person should write them."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """The sentence for a key that is not allowed here."""
        if key in cls.later:
            return f"is not in this version.{' ' if cls.later[key] else ''}{cls.later[key]}"
        return f"is not a key here; allowed are {', '.join(cls.allowed_keys())}.{did_you_mean(key, cls.allowed_keys())}"

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping | cls):
            raise problem(
                f"is empty: give a value or leave the key out; its keys are {', '.join(cls.allowed_keys())}."
                if value is None
                else f"must be a mapping with the keys {', '.join(cls.allowed_keys())}, not {shown(value)}."
            )
        empty = [key for key, below in value.items() if below is None] if isinstance(value, Mapping) else []
        problems = [
            Problem((key,), EMPTY if key in cls.allowed_keys() else cls.unknown_key(key)) for key in map(str, empty)
        ]
        if empty and isinstance(value, Mapping):
            value = {key: below for key, below in value.items() if below is not None}
        try:
            made = handler(value)
        except ValidationError as error:
            for each in error.errors(include_url=False):
                loc = tuple(each["loc"])
                if not (each["type"] == "missing" and loc[-1] in empty):
                    problems.append(Problem(loc, cls._sentence(each["type"], loc, each)))
        if problems:
            raise problems_at(problems, cls.__name__)
        return made

    @classmethod
    def _sentence(cls, kind: str, loc: KeyPath, error: Mapping[str, Any]) -> str:
        """pydantic's kind of error as a sentence that says what is allowed."""
        given, limits = error.get("input"), error.get("ctx", {})
        if kind == "problem":
            return str(error["msg"])
        if kind in ("extra_forbidden", "invalid_key"):
            return cls.unknown_key(str(loc[-1]))
        if kind == "missing":
            return f"is missing{cls._example(str(loc[-1]))}."
        match kind:
            case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
                return f"must be a whole number, not {shown(given)}."
            case "float_type" | "float_parsing" | "finite_number":
                return f"must be a number, not {shown(given)}."
            case "greater_than_equal":
                return f"must be at least {limits['ge']}, not {shown(given)}."
            case "greater_than":
                return f"must be more than {limits['gt']}, not {shown(given)}."
            case "less_than_equal":
                return f"must be at most {limits['le']}, not {shown(given)}."
            case "bool_type" | "bool_parsing":
                return f"must be true or false, not {shown(given)}."
            case "string_type":
                return f"must be text, not {shown(given)}; write it in quotes if it is meant as text."
            case "list_type" | "tuple_type":
                return f"must be a list, not {shown(given)}."
            case _:
                return f"{error['msg']}."

    @classmethod
    def _example(cls, key: str) -> str:
        for name, field in cls.model_fields.items():
            if (field.alias or name) == key and field.examples:
                return f"; for example `{key}: {field.examples[0]}`"
        return ""

    @classmethod
    def parse(cls, document: object) -> Self:
        """From plain values (mappings, lists, text, numbers). Raises InvalidDocument with every problem."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidDocument(problems_of(error)) from None

    @classmethod
    def from_canonical(cls, canonical: bytes | str) -> Self:
        """The inverse of ``canonical``. Raises InvalidDocument."""
        try:
            document = json.loads(canonical)
        except (ValueError, RecursionError) as error:
            raise InvalidDocument([Problem((), f"is not JSON: {error}.")]) from None
        return cls.parse(document)

    def document(self) -> dict[str, Any]:
        """The plain values that make this again, with every default filled in."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def canonical(self) -> bytes:
        """One form whatever the order of keys: UTF-8 JSON, keys sorted, no spaces, units as their shortest text."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def digest(self) -> str:
        """sha256 of ``canonical()``, 64 hex."""
        return hashlib.sha256(self.canonical()).hexdigest()


def _duration(zero: bool) -> Callable[[object], timedelta]:
    def read(value: object) -> timedelta:
        try:
            duration = value if isinstance(value, timedelta) else parse_duration(value)
        except InvalidInput as error:
            raise problem(EMPTY if value is None else error.message) from None
        if duration % timedelta(seconds=1) or duration < timedelta(0):
            raise problem("must be a duration of whole seconds, not negative.")
        if not duration and not zero:
            raise problem("must be longer than nothing: at least 1s.")
        return duration

    return read


def _share(*, zero: bool, whole: bool, at_most: float = 1.0) -> Callable[[object], float]:
    def read(value: object) -> float:
        try:
            share = parse_share(value)
        except InvalidInput as error:
            raise problem(EMPTY if value is None else error.message) from None
        if (share == 0 and not zero) or (share == 1 and not whole) or share > at_most:
            top = "at most" if whole or at_most < 1 else "less than"
            raise problem(f"must be more than 0% and {top} {share_text(at_most)}, not {shown(value)}.")
        return share

    return read


def some(at_most: int) -> Callable[[object], object]:
    """A validator of a list's length, before its items are looked at (pydantic would count only the good ones)."""

    def read(value: object) -> object:
        if isinstance(value, list | tuple) and not 1 <= len(value) <= at_most:
            raise problem(f"has {len(value):,} items; at most {at_most:,} are allowed." if value else EMPTY_LIST)
        return value

    return read


def word(pattern: str, allowed: str) -> Callable[[object], str]:
    """A validator of text against ``pattern``; ``allowed`` ends the sentence ``must be …``."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if value is None:
            raise problem(EMPTY)
        if not isinstance(value, str):
            raise problem(f"must be text, not {shown(value)}; write it in quotes if it is meant as text.")
        if not compiled.fullmatch(value):
            raise problem(f"must be {allowed}, not {shown(value)}.")
        return value

    return read


_Choice = TypeVar("_Choice", bound=StrEnum)


def choice(kind: type[_Choice]) -> Callable[[object], _Choice]:
    """A validator of a word from an enum; refuses with all words and a guess."""

    def read(value: Any) -> _Choice:
        try:
            return kind(value)
        except ValueError:
            raise problem(one_of(value, [each.value for each in kind])) from None

    return read


_DURATION_SCHEMA = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["90m", "24h", "1d12h"]}
_SHARE_SCHEMA = {"type": "string", "pattern": SHARE_PATTERN, "examples": ["2%", "0.5%"]}
_RISK_SCHEMA = {"type": "string", "pattern": RISK_PATTERN, "examples": ["2%", "0.5%"]}
_AS_DURATION = PlainSerializer(duration_text, return_type=str, when_used="json-unless-none")
_AS_SHARE = PlainSerializer(share_text, return_type=str, when_used="json-unless-none")

Duration = Annotated[timedelta, BeforeValidator(_duration(zero=False)), _AS_DURATION, WithJsonSchema(_DURATION_SCHEMA)]
"""Longer than nothing."""

DurationOrNone = Annotated[
    timedelta, BeforeValidator(_duration(zero=True)), _AS_DURATION, WithJsonSchema(_DURATION_SCHEMA)
]
"""May be ``0s``: at once."""

Share = Annotated[float, BeforeValidator(_share(zero=False, whole=True)), _AS_SHARE, WithJsonSchema(_SHARE_SCHEMA)]
"""In (0, 1]."""

Risk = Annotated[float, BeforeValidator(_share(zero=False, whole=False)), _AS_SHARE, WithJsonSchema(_RISK_SCHEMA)]
"""A probability that is tolerated, in (0, 1): neither 0 % nor 100 % can be tested for."""

Allowance = Annotated[
    float, BeforeValidator(_share(zero=False, whole=True, at_most=0.5)), _AS_SHARE, WithJsonSchema(_SHARE_SCHEMA)
]
"""A chance of being wrong, in (0, 0.5]."""

Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT)]
"""Of devices; at least one."""

Name = Annotated[
    str,
    BeforeValidator(
        word(NAME_PATTERN, "made of small letters, digits and . _ -, beginning with a letter or digit, at most 63")
    ),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN}),
]
Word = Annotated[
    str,
    BeforeValidator(
        word(WORD_PATTERN, "made of letters, digits and . _ : -, beginning with a letter or digit, at most 128")
    ),
    WithJsonSchema({"type": "string", "pattern": WORD_PATTERN}),
]
