"""Rules that other systems halt by, told of the same reports in the same order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Threshold:
    """Halt when more than ``share`` of the reports are failures, from ``at_least`` reports on."""

    share: float
    at_least: int = 30
    reports: int = 0
    failed: int = 0

    def outcome(self, wave: str, members: int, bad: bool) -> bool:
        self.reports += 1
        self.failed += bad
        return self.reports >= self.at_least and self.failed > self.share * self.reports


@dataclass
class Wilson:
    """Halt when the lower end of Wilson's 95 % interval lies above ``share``, looked at after every report."""

    share: float
    reports: int = 0
    failed: int = 0

    def outcome(self, wave: str, members: int, bad: bool) -> bool:
        self.reports += 1
        self.failed += bad
        n, p, z = self.reports, self.failed / self.reports, 1.959964
        middle = p + z * z / (2 * n)
        low = (middle - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
        return low > self.share


@dataclass
class GroupThreshold:
    """hawkBit's: halt when the failures of a group are more than ``share`` of all its devices, reported or not."""

    share: float
    failed: Counter[str] = field(default_factory=Counter)

    def outcome(self, wave: str, members: int, bad: bool) -> bool:
        self.failed[wave] += bad
        return self.failed[wave] > self.share * members
