"""What a source says is read strictly: an answer is an answer, and all else is no data, with a reason and no secret."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.gates.asking import MOST_BYTES, FileSources, _Nonsense, judged
from orchestrator.adapters.gates.sources import read_sources
from orchestrator.core.gates import Gate, GateAnswer
from orchestrator.errors import InvalidFile, InvalidInput
from orchestrator.services.gatekeeping import Question, Said, SourceKind
from tests.loopback import answering

YES, NO, NOT_YET, NO_DATA = GateAnswer
TOKEN = "secret-token-of-the-source"


@dataclass
class Somebody:
    """A server that says what it is told to; ``asked`` has path, headers and body of each request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    drip: bool = False
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def somebody() -> Iterator[Somebody]:
    says = Somebody()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            says.asked.append((self.path, dict(self.headers.items()), body))
            over.wait(says.pause)
            self.send_response(says.status)
            for key, value in {"content-length": str(len(says.body)), **says.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            for piece in (says.body[at : at + 1] for at in range(len(says.body))) if says.drip else (says.body,):
                self.wfile.write(piece)
                if says.drip and over.wait(0.2):
                    return

        do_GET = do_POST

    with answering(Handler) as says.url:
        yield says
        over.set()


@pytest.fixture
def says() -> Iterator[Somebody]:
    with somebody() as found:
        yield found


@pytest.fixture
def sources(says: Somebody, tmp_path: Path) -> FileSources:
    file = tmp_path / "gates.yaml"
    write(file, {"prom": {"promql": says.url}, "desk": {"webhook": f"{says.url}/may-we", "token": TOKEN}})
    return FileSources(file)


def write(file: Path, sources: Any) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(json.dumps(sources))


def about(asks: str, **more: Any) -> Question:
    return Question(Gate.parse({"gate": "errors", "asks": asks, "timeout": "1s", **more}), "r", "rest", 42, "main")


def query(**more: Any) -> Question:
    return about("prom", query="sum(errors)", **({"below": 5} | more))


def vector(*values: str) -> bytes:
    found = [{"metric": {}, "value": [1, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}}).encode()


# ------------------------------------------------------------------------------------------------- Prometheus


@pytest.mark.parametrize(
    ("values", "bounds", "answer", "because"),
    [
        (["4.5"], {}, YES, "4.5 is below 5"),
        (["5"], {}, NOT_YET, "5 is not below 5"),
        (["7"], {"unmet": "no"}, NO, "7 is not below 5"),
        (["3"], {"above": 2}, YES, "3 is above 2 and below 5"),
        (["2"], {"above": 2}, NOT_YET, "2 is not above 2 and below 5"),
        (["1", "2", "3"], {}, YES, "all 3 values are below 5"),
        (["1", "9", "3"], {}, NOT_YET, "1 of 3 values, as 9, are not below 5"),
        ([], {}, NO_DATA, "the query finds nothing"),
        (["NaN"], {}, NO_DATA, "a value is no finite number"),
        (["1", "+Inf"], {}, NO_DATA, "a value is no finite number"),
        (["lots"], {}, NO_DATA, "a value is no number"),
        (["1"] * 1001, {}, NO_DATA, "the query finds 1,001 values; at most 1,000 are looked at"),
    ],
)
def test_values_against_their_bounds(
    says: Somebody, sources: FileSources, values: list[str], bounds: dict[str, Any], answer: GateAnswer, because: str
) -> None:
    says.body = vector(*values)
    assert sources.ask(query(**bounds)) == Said(answer, because)
    ((path, headers, body),) = says.asked
    assert path == "/api/v1/query"
    assert b"query=sum%28errors%29" in body
    assert "authorization" not in {key.lower() for key in headers}


def test_a_scalar_is_a_value(says: Somebody, sources: FileSources) -> None:
    says.body = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}).encode()
    assert sources.ask(query()).answer is YES


NONSENSE = [
    b"",
    b"yes",
    b"<html>",
    b"null",
    b"[]",
    b"1",
    b'{"status": "success"}',
    b'{"status": "success", "data": null}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": []}}',
    b'{"status": "success", "data": {"resultType": "string", "result": [1, "1"]}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": null}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": [1]}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, 1]}]}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": [{"value": "1"}]}}',
    b'{"status": "success", "data": {"resultType": "scalar", "result": {}}}',
    b'{"status": "error", "errorType": "bad_data", "error": "parse error"}',
    vector("1").replace(b'"success"', b'"success", "warnings": ["one of two stores did not answer"]'),
    b"\xff\xfe\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
def test_a_prometheus_that_answers_nonsense_says_nothing(says: Somebody, sources: FileSources, body: bytes) -> None:
    says.body = body
    said = sources.ask(query())
    assert said.answer is NO_DATA and said.because


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 404, 422, 500, 503])
def test_a_good_answer_with_another_status_is_none(says: Somebody, sources: FileSources, status: int) -> None:
    with somebody() as elsewhere:
        elsewhere.body = vector("1")
        says.status, says.headers = status, {"location": f"{elsewhere.url}/api/v1/query"}
        says.body = b"" if status == 204 else vector("1")
        assert sources.ask(query()).answer is NO_DATA
        says.body = b"" if status == 204 else b'{"answer": "yes"}'
        assert sources.ask(about("desk")).answer is NO_DATA
        assert elsewhere.asked == [], "no redirect is followed"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=5), st.floats(-10, 10), st.floats(-10, 10))
def test_a_yes_is_only_said_when_every_value_is_within(values: list[float], one: float, other: float) -> None:
    above, below = min(one, other), max(one, other)
    if above == below:
        return
    gate = Gate.parse({"gate": "g", "asks": "p", "query": "q", "above": above, "below": below})
    try:
        said = judged(values, gate).answer
    except _Nonsense:
        assert not values or any(value != value or abs(value) == float("inf") for value in values)
        return
    assert (said is YES) == all(above < value < below for value in values)


# ------------------------------------------------------------------------------------------------- webhook


@pytest.mark.parametrize("answer", ["yes", "no", "not_yet"])
def test_a_webhook_is_told_what_it_is_about_and_believed(says: Somebody, sources: FileSources, answer: str) -> None:
    says.body = json.dumps({"answer": answer, "because": "of the moon"}).encode()
    assert sources.ask(about("desk")) == Said(GateAnswer(answer), "of the moon")
    ((path, headers, body),) = says.asked
    assert path == "/may-we"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert json.loads(body) == {"gate": "errors", "rollout": "r", "wave": "rest", "target": 42, "tag": "main"}


@pytest.mark.parametrize(
    "body",
    [b"", b"yes", b'"yes"', b"{}", b'{"answer": "YES"}', b'{"answer": true}', b'{"answer": "no_data"}', b'["yes"]'],
)
def test_any_other_answer_of_a_webhook_is_none(says: Somebody, sources: FileSources, body: bytes) -> None:
    says.body = body
    assert sources.ask(about("desk")).answer is NO_DATA


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_who_does_not_answer_in_time_says_nothing(says: Somebody, sources: FileSources) -> None:
    says.pause = 30
    begun = time.monotonic()
    assert sources.ask(query()) == Said(NO_DATA, "no answer within 1 s")
    assert time.monotonic() - begun < 5


def test_who_answers_drop_by_drop_says_nothing(says: Somebody, sources: FileSources) -> None:
    says.body, says.drip = vector("1"), True
    begun = time.monotonic()
    assert sources.ask(query()).because == "no answer within 1 s"
    assert time.monotonic() - begun < 5


def test_who_says_too_much_says_nothing(says: Somebody, sources: FileSources) -> None:
    says.body = b" " * (MOST_BYTES + 1) + vector("1")
    assert sources.ask(query()) == Said(NO_DATA, "the answer has more than 1024 KiB")


def test_nobody_there_and_a_source_that_was_removed(tmp_path: Path) -> None:
    file = tmp_path / "gates.yaml"
    write(file, {"prom": {"promql": "http://127.0.0.1:1"}})
    said = FileSources(file).ask(query())
    assert said.answer is NO_DATA and said.because.startswith("it could not be asked: ")
    assert FileSources(file).ask(about("desk")) == Said(NO_DATA, "there is no source desk")
    assert FileSources(tmp_path / "none").kinds() == {}


def test_no_proxy_of_the_environment_is_asked(
    says: Somebody, sources: FileSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    says.body = vector("1")
    assert sources.ask(query()).answer is YES


# ------------------------------------------------------------------------------------------------- command


def told(tmp_path: Path, script: str, **more: Any) -> Said:
    program = tmp_path / "gate.py"
    program.write_text(f"#!{sys.executable} -I\nimport os, sys, time\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    write(tmp_path / "gates.yaml", {"own": {"command": [str(program), "a word", "$HOME; echo"]}})
    return FileSources(tmp_path / "gates.yaml").ask(about("own", **more))


@pytest.mark.parametrize(
    ("code", "answer"), [(0, YES), (1, NO), (75, NOT_YET), (2, NO_DATA), (127, NO_DATA), (255, NO_DATA)]
)
def test_a_command_answers_by_how_it_ends(tmp_path: Path, code: int, answer: GateAnswer) -> None:
    said = told(tmp_path, f"print('one'); print('the last line'); sys.exit({code})")
    assert said.answer is answer
    assert said.because == ("the last line" if answer is not NO_DATA else f"the program ended with {code}")


def test_a_command_has_its_words_and_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_DATABASE", "postgresql://wave:SECRET@db/wave")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    out = tmp_path / "seen"
    script = f"import json; json.dump([sys.argv[1:], dict(os.environ), sys.stdin.read()], open({str(out)!r}, 'w'))"
    assert told(tmp_path, script).answer is YES
    words, environment, stdin = json.loads(out.read_text())
    assert words == ["a word", "$HOME; echo"], "no shell has read them"
    assert stdin == ""
    assert "SECRET" not in json.dumps(environment)
    own = {key: value for key, value in environment.items() if key.startswith("WAVE_")}
    expected = {"GATE": "errors", "ROLLOUT": "r", "WAVE": "rest", "TARGET": "42", "TAG": "main"}
    assert own == {f"WAVE_{key}": value for key, value in expected.items()}
    assert set(environment) - set(own) <= {"PATH", "LC_ALL", "LC_CTYPE"}


def test_a_command_that_does_not_end_is_ended_with_all_it_began(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"child = os.fork(); open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    assert told(tmp_path, script) == Said(NO_DATA, "no answer within 1 s")
    assert all(ends(int(pid)) for pid in pids.read_text().split())


def ends(pid: int) -> bool:
    """Whether that process is gone, or goes within a while."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return select.select([watched], [], [], 10)[0] == [watched]
    finally:
        os.close(watched)


def test_a_command_may_print_as_much_as_it_likes(tmp_path: Path) -> None:
    said = told(tmp_path, "for _ in range(200): print('x' * 10_000)\nprint('done')", timeout="20s")
    assert said == Said(YES, "done")


def test_a_program_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "gates.yaml", {"own": {"command": ["/nowhere/at/all"]}})
    assert FileSources(tmp_path / "gates.yaml").ask(about("own")) == Said(NO_DATA, "the program cannot be run")


# ------------------------------------------------------------------------------------------------- the file


def test_the_file_says_what_may_be_asked(sources: FileSources) -> None:
    assert sources.kinds() == {"prom": SourceKind.PROMQL, "desk": SourceKind.WEBHOOK}


def test_a_file_that_others_may_read_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "gates.yaml", {})
    (tmp_path / "gates.yaml").chmod(0o640)
    with pytest.raises(InvalidInput, match="others may read it"):
        FileSources(tmp_path / "gates.yaml").kinds()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({}, "must be a mapping with promql, webhook or command"),
        ("http://x", "must be a mapping with promql, webhook or command"),
        ({"promql": "http://x", "webhook": "http://x"}, "must be a mapping with promql, webhook or command"),
        ({"promql": f"ftp://{TOKEN}@x"}, "no http:// or https:// address"),
        ({"promql": "http://"}, "no http:// or https:// address"),
        ({"promql": "http://x", "headers": {}}, "headers, which is no key of a promql"),
        ({"webhook": "http://x", "token": f"{TOKEN}\n"}, "a token that is no text"),
        ({"command": "/bin/true"}, "no list of words"),
        ({"command": []}, "no list of words"),
        ({"command": ["true"]}, "no absolute path"),
        ({"command": ["/bin/true", 1]}, "no list of words"),
        ({"command": ["/bin/true"], "token": TOKEN}, "token, which is no key of a command"),
    ],
)
def test_what_is_wrong_in_it_is_told_without_addresses(tmp_path: Path, source: Any, sentence: str) -> None:
    write(tmp_path / "gates.yaml", {"it": source})
    with pytest.raises(InvalidFile) as refused:
        FileSources(tmp_path / "gates.yaml").kinds()
    assert sentence in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_a_secret_is_shown_nowhere(sources: FileSources, says: Somebody) -> None:
    assert TOKEN not in repr(read_sources(sources._file))
    says.status = 500
    assert TOKEN not in repr(sources.ask(about("desk")))
