"""Which class a failure counts in: the operator's own classes, told apart by the device's error code.

A pattern is a code in which ``*`` stands for any text, also none, and ``?`` for one character; upper and lower case
differ. Where patterns of several classes match a code the most specific one counts (``specificity``). Two patterns of
different classes that are equally specific and could match the same code are refused when a policy is read
(``first_clash``), so that which class counts never depends on the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Final

from orchestrator.core.outcomes import Outcome, OutcomeClass, in_order

BY_CODE: Final = frozenset(
    {OutcomeClass.FAILED, OutcomeClass.VERIFY_FAILED, OutcomeClass.ROLLED_BACK, OutcomeClass.DOWNLOAD_FAILED}
)
"""Failures that a device reports, with a code if it likes. Silence and ignoring come without one."""

MOST_OWN: Final = 8
"""Classes of the operator's own in one policy, and in the life of one rollout."""

_CODES_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class Classes:
    """How a rollout tells failures apart. ``patterns``: each with its class, the most specific first.
    ``verify``: a failed verification has its own class."""

    patterns: tuple[tuple[str, Outcome], ...] = ()
    verify: bool = False

    def __str__(self) -> str:
        """``E17, NET-* in modem``; the most specific first."""
        own = in_order(name for _, name in self.patterns)
        said = [f"{', '.join(pattern for pattern, of in self.patterns if of == name)} in {name}" for name in own]
        return "; ".join([*said, *(["failed verifications by themselves"] if self.verify else [])]) or "none"

    def of(self, kind: OutcomeClass, code: str | None) -> Outcome:
        """The class of a failure of this kind, which is one of ``BY_CODE``."""
        if code is not None and self.patterns and (own := _own(self.patterns, code)) is not None:
            return own
        return OutcomeClass.FAILED if kind is OutcomeClass.VERIFY_FAILED and not self.verify else kind


NOT_TOLD_APART: Final = Classes()
"""Each failure counts in the class of its kind."""


def classes_of(codes: Mapping[Outcome, Iterable[str]], *, verify: bool) -> Classes:
    """From the patterns of each of the operator's own classes."""
    pairs = [(pattern, name) for name, patterns in codes.items() for pattern in patterns]
    return Classes(tuple(sorted(pairs, key=lambda pair: (*specificity(pair[0]), *pair))), verify)


@lru_cache(maxsize=_CODES_KEPT)
def _own(patterns: tuple[tuple[str, Outcome], ...], code: str) -> Outcome | None:
    return next((name for pattern, name in patterns if matches(pattern, code)), None)


def specificity(pattern: str) -> tuple[int, int, int]:
    """What sorts more specific patterns first: those without ``*``, then by how many characters are given, then by how
    many ``?``."""
    given = sum(1 for letter in pattern if letter not in "*?")
    return int("*" in pattern), -given, -pattern.count("?")


def matches(pattern: str, code: str) -> bool:
    """Whether the whole code is one that the pattern stands for. Takes no longer than their lengths multiplied."""
    at = after = 0
    star: int | None = None
    retry = 0
    while at < len(code):
        if after < len(pattern) and pattern[after] == "*":
            star, retry = after, at
            after += 1
        elif after < len(pattern) and pattern[after] in ("?", code[at]):
            at, after = at + 1, after + 1
        elif star is not None:
            retry += 1
            at, after = retry, star + 1
        else:
            return False
    return all(rest == "*" for rest in pattern[after:])


def could_both_match(one: str, other: str) -> bool:
    """Whether there is a code that both patterns stand for."""
    # reached[j]: what stands before this point of `one` and before the j-th of `other` can be the same text.
    reached = [True]
    for letter in other:
        reached.append(reached[-1] and letter == "*")
    for mine in one:
        row = [reached[0] and mine == "*"]
        for place, theirs in enumerate(other):
            if "*" in (mine, theirs):  # it stands for nothing, or also for what the other stands for
                row.append(reached[place + 1] or row[place])
            else:
                row.append(reached[place] and (mine == theirs or "?" in (mine, theirs)))
        reached = row
    return reached[-1]


def first_clash(codes: Mapping[Outcome, Iterable[str]]) -> tuple[str, Outcome, str, Outcome] | None:
    """Two patterns of different classes that are equally specific and could match the same code, with their classes;
    the same two whatever the order in which they are given."""
    pairs = sorted((pattern, name) for name, patterns in codes.items() for pattern in patterns)
    for (one, of_one), (other, of_other) in combinations(pairs, 2):
        if of_one != of_other and specificity(one) == specificity(other) and could_both_match(one, other):
            return one, of_one, other, of_other
    return None
