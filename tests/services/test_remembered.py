from __future__ import annotations

import threading

from orchestrator.services.remembered import Remembered


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    known: Remembered[str, int] = Remembered(3)
    for number, key in enumerate("abc"):
        known.put(key, number)
    assert known.get("a") == 0  # asked for: now `b` is the oldest
    known.put("d", 3)
    assert known.keys() == ("c", "a", "d")
    known.put("c", 9)  # put again: now `a` is
    known.put("e", 4)
    assert (known.keys(), known.get("c"), known.get("b")) == (("d", "c", "e"), 9, None)


def test_there_are_never_more_than_as_many_as_may_be() -> None:
    known: Remembered[int, int] = Remembered(10)
    for number in range(1_000):
        known.put(number, number)
        assert len(known) <= 10
    assert known.keys() == tuple(range(990, 1_000))


def test_with_none_to_keep_nothing_is_remembered() -> None:
    known: Remembered[str, int] = Remembered(0)
    known.put("a", 1)
    assert (known.get("a"), len(known)) == (None, 0)


def test_what_is_taken_out_is_gone_and_taken_out_once() -> None:
    known: Remembered[str, int] = Remembered(2)
    known.put("a", 1)
    assert (known.pop("a"), known.pop("a"), known.get("a")) == (1, None, None)


def test_threads_that_push_each_others_things_out_harm_nothing() -> None:
    known: Remembered[int, int] = Remembered(5)
    failed: list[BaseException] = []

    def use(salt: int) -> None:
        try:
            for number in range(20_000):
                key = (number * salt) % 11
                found = known.get(key)
                assert found in (None, key)
                known.put(key, key)
                if number % 7 == 0:
                    known.pop((key + 1) % 11)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(salt,)) for salt in (1, 2, 3, 5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not failed and len(known) <= 5
