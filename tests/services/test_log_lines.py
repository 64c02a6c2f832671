"""Lines of the log: whose they are, that no message can forge one, and that nobody pays who writes none."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

import pytest

from orchestrator.services import following
from orchestrator.services.following import ASKED, followed, request_id
from orchestrator.services.log_lines import Json, LogFormat, Text, formatter


class Heap(logging.Handler):
    """Keeps the lines."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("tests.lines")
    log.propagate = False
    log.setLevel(logging.INFO)
    yield log
    log.handlers.clear()


def written(log: logging.Logger, form: logging.Formatter) -> Heap:
    heap = Heap(form)
    log.addHandler(heap)
    return heap


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "headers": list(headers)}


# ------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize("brought", [b"abc", b"0af7651916cd43dd8448eb211c80319c", b"a" * 64, b"req:1/2=3@x.y_z-"])
def test_a_sane_id_that_is_brought_is_kept(brought: bytes) -> None:
    assert request_id(scope((b"x-request-id", brought))) == brought.decode()


@pytest.mark.parametrize("brought", [b"", b"a" * 65, b"two words", b"a\nb", b"<b>", b"\xff", b"a'", b'"'])
def test_any_other_is_replaced(brought: bytes) -> None:
    found = request_id(scope((b"x-request-id", brought)))
    assert len(found) == 16 and found.isalnum()


def test_a_request_has_one_id_and_another_request_another() -> None:
    one, other = scope(), scope()
    assert request_id(one) == request_id(one) != request_id(other)


def test_requests_side_by_side_do_not_mix_and_their_work_in_threads_is_theirs() -> None:
    pool = ThreadPoolExecutor(2)

    async def asked(name: str) -> tuple[dict[str, str], dict[str, str]]:
        ASKED.set(scope((b"x-request-id", name.encode())))
        await asyncio.sleep(0)
        beside = asyncio.get_running_loop().run_in_executor(pool, copy_context().run, followed)
        return followed(), await beside

    async def both() -> list[Any]:
        return list(await asyncio.gather(asked("one"), asked("other")))

    assert asyncio.run(both()) == [({"request": "one"},) * 2, ({"request": "other"},) * 2]
    pool.shutdown()
    assert Context().run(followed) == {}


def test_a_tick_has_an_id_for_as_long_as_it_lasts() -> None:
    with following.work("tick"):
        (one,) = followed().items()
    with following.work("build"):
        (other,) = followed().items()
    assert (one[0], other[0]) == ("tick", "build") and one[1] != other[1]
    assert followed() == {}


# ------------------------------------------------------------------------------------------------- lines


def test_a_line_for_people(log: logging.Logger) -> None:
    heap = written(log, formatter(LogFormat.TEXT))
    with following.work("tick"):
        tick = followed()["tick"]
        log.info("rollout %s was looked at", "lmp-42")
    (line,) = heap.lines
    assert line[:11].startswith("20") and line[23] == "Z"
    assert line[24:] == f" INFO tests.lines: rollout lmp-42 was looked at tick={tick}"


def test_a_line_for_programs(log: logging.Logger) -> None:
    heap = written(log, formatter(LogFormat.JSON))
    with following.work("tick"):
        tick = followed()["tick"]
        log.warning("rollout %s: %s", "lmp-42", 'a "word"')
    (line,) = heap.lines
    said = json.loads(line)
    assert said.pop("at").endswith("Z")
    assert said == {
        "level": "warning",
        "logger": "tests.lines",
        "message": 'rollout lmp-42: a "word"',
        "tick": tick,
    }


@pytest.mark.parametrize("form", [Text(), Json()], ids=["text", "json"])
@pytest.mark.parametrize(
    "said", ["a\nERROR forged", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\ud800b", "ü\u2028"], ids=range(6)
)
def test_what_others_say_begins_no_line_and_moves_no_terminal(
    log: logging.Logger, form: logging.Formatter, said: str
) -> None:
    # Past the logger: whoever collects what tests log cannot hand on what is no text.
    line = form.format(log.makeRecord(log.name, logging.INFO, __file__, 1, "a device says %s", (said,), None))
    assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in line)
    if isinstance(form, Json):
        line.encode("utf-8")
        assert json.loads(line)["message"].startswith("a device says ")


@pytest.mark.parametrize("form", [Text(), Json()], ids=["text", "json"])
def test_what_was_not_foreseen_comes_with_its_traceback(log: logging.Logger, form: logging.Formatter) -> None:
    heap = written(log, form)
    try:
        raise KeyError("ours")
    except KeyError:
        log.exception("it failed")
    (line,) = heap.lines
    found = json.loads(line)["error"] if isinstance(form, Json) else line
    assert "Traceback" in found and "KeyError: 'ours'" in found


def test_following_a_request_costs_it_an_assignment_and_makes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> str:
        raise AssertionError("an id was made though nobody wrote a line")

    monkeypatch.setattr(following, "new_id", never)
    ran: list[str] = []

    def count(frame: Any, event: str, what: Any) -> None:
        if event == "call":
            ran.append(frame.f_code.co_name)

    asked = scope()
    sys.setprofile(count)
    try:
        ASKED.set(asked)
    finally:
        sys.setprofile(None)
    assert ran == [] and asked == scope()
    ASKED.set(None)
