"""Looks for devices that are not in memory: together, in order, bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from orchestrator.core.fleet import Device
from orchestrator.errors import Busy, StoreUnavailable
from orchestrator.services.kept import Kept
from orchestrator.services.looking import MOST_LOOKS, Looks
from orchestrator.services.records import DeviceRow


class Ids:
    """Finds devices whose id is a number, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.broken = False

    def __call__(self, ids: Sequence[str]) -> dict[str, Kept]:
        self.asked.append(ids)
        if self.broken:
            raise StoreUnavailable("gone")
        found = [each for each in ids if each.isdigit()]
        rows = (DeviceRow(int(each), Device(each, "rpi4", "main")) for each in found)
        return {row.device.id: Kept(row, None, None, {}, None, timedelta(0)) for row in rows}


def test_all_who_wait_are_found_with_one_look() -> None:
    ids, waiting = Ids(), list[Callable[[], None]]()
    looks = Looks(ids, waiting.append)
    asked = [looks.look(each) for each in ("1", "2", "stranger", "1")]
    assert len(waiting) == 1 and not ids.asked
    waiting.pop()()
    assert ids.asked == [["1", "2", "stranger"]]
    first, second, stranger, again = (each.result(0) for each in asked)
    assert first is again and first is not None and first.person.key == 1
    assert second is not None and stranger is None
    looks.look("3")
    assert len(waiting) == 1, "whoever comes later begins a look of his own"


def test_many_are_found_a_few_hundred_at_a_time_and_more_than_that_are_told_to_wait() -> None:
    ids, waiting = Ids(), list[Callable[[], None]]()
    looks = Looks(ids, waiting.append)
    asked = [looks.look(str(number)) for number in range(MOST_LOOKS)]
    with pytest.raises(Busy):
        looks.look("one too many")
    waiting.pop()()
    assert len(ids.asked) > 1 and max(map(len, ids.asked)) <= 200
    found = [kept for each in asked if (kept := each.result(0)) is not None]
    assert [each.person.key for each in found] == list(range(MOST_LOOKS))


def test_a_store_that_is_gone_is_told_to_each_and_the_next_look_is_tried() -> None:
    ids, waiting = Ids(), list[Callable[[], None]]()
    looks = Looks(ids, waiting.append)
    ids.broken = True
    asked = [looks.look("1"), looks.look("2")]
    waiting.pop()()
    assert all(isinstance(each.exception(0), StoreUnavailable) for each in asked)
    ids.broken = False
    later = looks.look("1")
    waiting.pop()()
    assert later.result(0) is not None
