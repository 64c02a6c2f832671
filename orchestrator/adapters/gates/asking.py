"""Asks a source of the installation, within the gate's time, and reads what it says strictly.

* **promql**: an instant query. Every value that it finds within the bounds is yes; none at all, one that is no number,
  a warning (as of a part that did not answer) or anything that is not Prometheus's answer is no data.
* **webhook**: a POST of ``{gate, rollout, wave, target, tag}``; ``{"answer": "yes" | "no" | "not_yet", "because": …}``
  with status 200 is an answer, all else is no data.
* **command**: 0 is yes, 1 is no, 75 is not yet, all else is no data; the last line it prints is the reason. It gets no
  shell, no input, and none of this process's environment.

Only what was written down is asked: no redirect is followed, no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from orchestrator.adapters.commands import TimedOut, start, watch
from orchestrator.adapters.gates.sources import Command, Http, read_sources
from orchestrator.core.gates import Gate, GateAnswer, Unmet
from orchestrator.services.gatekeeping import Question, Said, SourceKind
from orchestrator.services.tracing import carried_headers

MOST_BYTES: Final = 1024 * 1024
"""Of an answer; more is nonsense."""

MOST_VALUES: Final = 1_000
"""Of one query."""

NOT_YET: Final = 75
"""``EX_TEMPFAIL``: try again later."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Nonsense(Exception):
    """What was said is no answer; ``str()`` says why."""


class FileSources:
    """The sources in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def kinds(self) -> Mapping[str, SourceKind]:
        return {name: source.kind for name, source in read_sources(self._file).items()}

    def ask(self, question: Question) -> Said:
        source = read_sources(self._file).get(question.gate.asks)
        try:
            match source:
                case Http(kind=SourceKind.PROMQL):
                    return promql(source, question.gate)
                case Http():
                    return webhook(source, question)
                case Command():
                    return command(source, question)
                case None:
                    raise _Nonsense(f"there is no source {question.gate.asks}")
        except _Nonsense as nonsense:
            return Said(GateAnswer.NO_DATA, str(nonsense))


# ------------------------------------------------------------------------------------------------- Prometheus


def promql(source: Http, gate: Gate) -> Said:
    """Raises _Nonsense."""
    url = f"{source.url.rstrip('/')}/api/v1/query"
    form = {"query": gate.query or "", "timeout": f"{gate.timeout.total_seconds():g}s"}
    status, body = _asked(source, url, gate, data=form)
    said = _json(body, status)
    if not isinstance(said, dict) or status != 200 or said.get("status") != "success":
        reason = said.get("error") if isinstance(said, dict) else None
        raise _Nonsense(f"HTTP {status}{f': {reason}' if isinstance(reason, str) else ''}")
    if said.get("warnings"):
        raise _Nonsense("the answer has warnings, so a part of it may be missing")
    return judged(_values(said.get("data")), gate)


def _values(found: Any) -> list[float]:
    """Raises _Nonsense."""
    kind, result = (found.get("resultType"), found.get("result")) if isinstance(found, dict) else (None, None)
    if kind == "scalar":
        samples = [result]
    elif kind == "vector" and isinstance(result, list):
        samples = [each.get("value") if isinstance(each, dict) else None for each in result]
    else:
        raise _Nonsense("the query finds no values, but something else")
    if len(samples) > MOST_VALUES:
        raise _Nonsense(f"the query finds {len(samples):,} values; at most {MOST_VALUES:,} are looked at")
    values = []
    for sample in samples:
        if not isinstance(sample, list) or len(sample) != 2 or not isinstance(sample[1], str):
            raise _Nonsense("the answer has not Prometheus's shape")
        try:
            values.append(float(sample[1]))
        except ValueError:
            raise _Nonsense("a value is no number") from None
    return values


def judged(values: list[float], gate: Gate) -> Said:
    """Raises _Nonsense for no values, and for one that is no finite number."""
    if not values:
        raise _Nonsense("the query finds nothing")
    if not all(map(math.isfinite, values)):
        raise _Nonsense("a value is no finite number")
    wrong = [
        value
        for value in values
        if (gate.above is not None and value <= gate.above) or (gate.below is not None and value >= gate.below)
    ]
    if not wrong:
        shown = f"{values[0]:g} is" if len(values) == 1 else f"all {len(values)} values are"
        return Said(GateAnswer.YES, f"{shown} {gate.bounds}")
    answer = GateAnswer.NO if gate.unmet is Unmet.NO else GateAnswer.NOT_YET
    shown = f"{wrong[0]:g} is" if len(values) == 1 else f"{len(wrong)} of {len(values)} values, as {wrong[0]:g}, are"
    return Said(answer, f"{shown} not {gate.bounds}")


# ------------------------------------------------------------------------------------------------- webhook


def webhook(source: Http, question: Question) -> Said:
    """Raises _Nonsense."""
    status, body = _asked(source, source.url, question.gate, json=dict(question.told))
    if status != 200:
        raise _Nonsense(f"HTTP {status}")
    said = _json(body, status)
    answer = said.get("answer") if isinstance(said, dict) else None
    if answer not in (GateAnswer.YES, GateAnswer.NO, GateAnswer.NOT_YET):
        raise _Nonsense("the answer is neither yes nor no nor not_yet")
    because = said.get("because")
    return Said(GateAnswer(answer), because if isinstance(because, str) else "")


def _json(body: bytes, status: int) -> Any:
    """Raises _Nonsense."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Nonsense(f"HTTP {status}, and no JSON") from None


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """The system's authorities; read once."""
    return ssl.create_default_context()


def _asked(source: Http, url: str, gate: Gate, **more: Any) -> tuple[int, bytes]:
    """Status and body. Raises _Nonsense for what does not come, or not in time, or is too much."""
    import httpx2

    headers = {"user-agent": "wave", "accept": "application/json", **carried_headers()}
    if source.token is not None:
        headers["authorization"] = f"Bearer {source.token}"
    seconds = gate.timeout.total_seconds()

    async def once() -> tuple[int, bytes]:
        async with (
            asyncio.timeout(seconds),
            httpx2.AsyncClient(verify=_trusted(), trust_env=False, timeout=seconds) as client,
            client.stream("POST", url, headers=headers, follow_redirects=False, **more) as answer,
        ):
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    raise _Nonsense(f"the answer has more than {MOST_BYTES // 1024} KiB")
            return answer.status_code, body

    try:
        return asyncio.run(once())
    except (TimeoutError, httpx2.TimeoutException):
        raise _Nonsense(f"no answer within {seconds:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.DecodingError, UnicodeError, OSError) as error:
        raise _Nonsense(f"it could not be asked: {type(error).__name__}") from None


# ------------------------------------------------------------------------------------------------- command


def command(source: Command, question: Question, *, cancelled: Callable[[], bool] | None = None) -> Said:
    """Raises _Nonsense."""
    gate = question.gate
    environment = {
        "PATH": _PATH,
        "LC_ALL": "C.UTF-8",
        **{f"WAVE_{name.upper()}": str(value) for name, value in question.told.items()},
        **{name.upper(): value for name, value in carried_headers().items()},
    }
    seconds = gate.timeout.total_seconds()
    if not os.access(source.words[0], os.X_OK):
        raise _Nonsense("the program cannot be run")
    try:
        process = start(source.words, environment=environment)
    except OSError as error:
        raise _Nonsense(f"the program cannot be run: {error.strerror}") from None
    try:
        result = watch(process, time.monotonic() + seconds, cancelled, None)
    except TimedOut:
        raise _Nonsense(f"no answer within {seconds:g} s") from None
    said = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    because = said[-1] if said else ""
    answers = {0: GateAnswer.YES, 1: GateAnswer.NO, NOT_YET: GateAnswer.NOT_YET}
    if result.returncode not in answers:
        raise _Nonsense(f"the program ended with {result.returncode}")
    return Said(answers[result.returncode], because)
