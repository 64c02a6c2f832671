"""One orchestrator elsewhere, asked over its HTTP API: the rows of ``services.operations`` as calls.

The token goes to that server and nowhere else: no redirect is followed, and none is sent in the clear but on loopback.
What comes back as a problem document is raised as the error that it was there.
"""

from __future__ import annotations

import inspect
import ipaddress
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit

import httpx2 as httpx
import msgspec

from orchestrator.errors import (
    Forbidden,
    InvalidFile,
    InvalidInput,
    NotFound,
    TooMany,
    Unauthorized,
    Unavailable,
    WaveError,
)
from orchestrator.services.operations import BY_KEY, NOBODY, NOT_SENT, Operation, shape_of
from orchestrator.services.wire import decoded, encoded

API: Final = "/api/v1"
PAGE: Final = 1_000
CONNECT_WITHIN: Final = 10.0
ANSWER_WITHIN: Final = 600.0
"""Seconds: a large plan or replay takes its time."""


class Client:
    """A connection, kept for as long as a command runs."""

    def __init__(self, server: str, token: str) -> None:
        self.server = checked(server)
        timeout = httpx.Timeout(ANSWER_WITHIN, connect=CONNECT_WITHIN)
        self.http = httpx.Client(
            base_url=self.server,
            headers={"authorization": f"Bearer {token}", "user-agent": "wave"},
            timeout=timeout,
            follow_redirects=False,
            trust_env=True,
        )
        self._now: datetime | None = None

    def close(self) -> None:
        self.http.close()

    def now(self) -> datetime:
        """What time it was there with the last answer."""
        if self._now is None:
            self._now = self.call("now")
        assert self._now is not None
        return self._now

    def me(self) -> str:
        """Who this is there."""
        said = msgspec.json.decode(self.send("GET", f"{API}/me").content)
        return str(said["name"])

    # --------------------------------------------------------------------------------------------- operations

    def call(self, key: str, *positional: Any, **named: Any) -> Any:
        """Do it, and give what the service there gave. A list is read to its end. Raises what was raised there, and
        Unavailable when nobody answers."""
        operation = BY_KEY[key]
        if operation.listing is not None:
            return list(self.listed(key, *positional, **named))
        answer = self._asked(operation, _bound(operation, positional, named), {})
        return decoded(answer.content, shape_of(operation).answer)

    def listed(self, key: str, *positional: Any, **named: Any) -> Iterator[Any]:
        """The items of a list, asked for page by page as they are taken."""
        operation = BY_KEY[key]
        return self._pages(operation, _bound(operation, positional, named))

    def _pages(self, operation: Operation, given: Mapping[str, Any]) -> Iterator[Any]:
        """Items until the list ends, or until there are as many as asked for."""
        wanted = given.get("limit") if operation.listing is not None and operation.listing.native else None
        given = {name: value for name, value in given.items() if name != "limit" or wanted is None}
        cursor: str | None = None
        page = _PAGES.setdefault(operation.key, _page_type(shape_of(operation).answer))
        left = wanted
        while left is None or left > 0:
            words = {"limit": str(min(PAGE, left) if left is not None else PAGE)}
            if cursor is not None:
                words["cursor"] = cursor
            found = decoded(self._asked(operation, given, words).content, page)
            yield from found.items
            cursor = found.next
            left = None if left is None else left - len(found.items)
            if cursor is None:
                return

    def _asked(self, operation: Operation, given: Mapping[str, Any], words: Mapping[str, str]) -> httpx.Response:
        shape = shape_of(operation)
        path = operation.path
        for name in shape.path:
            value = given.get(name)
            path = path.replace(f"{{{name}}}", NOBODY if value is None else quote(str(value), safe=""))
        rest = {name: value for name, value in given.items() if name not in shape.path}
        if operation.method == "POST":
            return self.send("POST", API + path, content=encoded(rest), headers={"content-type": "application/json"})
        query = [(name, word) for name, value in rest.items() for word in _words(value)]
        return self.send(operation.method, API + path, params=[*query, *words.items()])

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request. Raises what the answer says."""
        if method in ("POST", "DELETE"):
            # Where the answer is lost on its way, the same may be sent again.
            more["headers"] = {"idempotency-key": uuid.uuid4().hex, **more.get("headers", {})}
        try:
            try:
                answer = self.http.request(method, path, **more)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                if method == "PATCH":
                    raise
                answer = self.http.request(method, path, **more)
        except httpx.TimeoutException:
            raise Unavailable(f"{self.server} did not answer in time.", remedy="Try again.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"{self.server} cannot be reached: {str(error) or type(error).__name__}.",
                remedy="See that `wave serve` runs there with `console_port` set, and that --server names it.",
            ) from None
        if "wave-now" in answer.headers:
            self._now = datetime.fromisoformat(answer.headers["wave-now"])
        if not 200 <= answer.status_code < 300:
            raise error_of(answer, self.server)
        return answer


def not_here(*asked: object) -> NoReturn:
    """Raises InvalidInput: only the machine of the installation can do this."""
    raise InvalidInput(
        "This works on the machine of the installation itself, and --server or WAVE_SERVER names another.",
        remedy="Run it there, without them.",
    )


def checked(server: str) -> str:
    """The server's address without a slash at its end. Raises InvalidInput for what is none, and for one in the clear
    that is not this machine."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(f"{server[:200]!r} is no address of a server.", remedy="Write it as https://HOST:PORT.")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            "An address with a name or password in it ends up in logs.", remedy="Give the token by WAVE_TOKEN."
        )
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise InvalidInput(
            f"The token would go to {parts.hostname} in the clear.", remedy="Use https, or a tunnel to loopback."
        )
    return server.rstrip("/")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(operation: Operation, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent, by name: neither what the other side knows itself, nor what stands as it is anyway."""
    signature = inspect.signature(operation.call)
    found = dict(signature.bind(None, *positional, **named).arguments)
    for name, given in signature.parameters.items():
        if given.kind is inspect.Parameter.VAR_KEYWORD:
            found |= {word: value for word, value in found.pop(name, {}).items() if value is not None}
    left_out = {name for name, given in signature.parameters.items() if given.default is None}
    return {
        name: value
        for name, value in found.items()
        if name not in NOT_SENT and not (value is None and name in left_out)
    }


def _words(value: Any) -> list[str]:
    """A value as it stands in a query: one word, or several."""
    match value:
        case None:
            return []
        case bool():
            return [str(value).lower()]
        case str():
            return [str(value)]
        case int() | float():
            return [str(value)]
        case _:
            return [word for each in value for word in _words(each)]


_PAGES: Final[dict[str, Any]] = {}


def _page_type(item: Any) -> Any:
    return msgspec.defstruct("Page", [("items", list[item]), ("next", str | None)])


def error_of(answer: httpx.Response, server: str) -> WaveError:
    """The error that a problem document tells of."""
    if not answer.content and (plain := _WITHOUT_BODY.get(answer.status_code)) is not None:
        return plain(f"{server} answered {answer.status_code}.")
    try:
        said = msgspec.json.decode(answer.content, type=dict[str, Any])
        kind = str(said["type"]).removeprefix("urn:wave:problem:")
        message, remedy = str(said["detail"]), said.get("remedy")
    except (msgspec.DecodeError, KeyError):
        return Unavailable(
            f"{server} answered {answer.status_code}, and not as an orchestrator does.",
            remedy="See that --server names the operators' side of one.",
        )
    if kind == InvalidFile.kind and "file" in said:
        files = [
            InvalidFile(each["message"], file=each["file"], line=each["line"], path=each["path"], remedy=each["remedy"])
            for each in said.get("problems", ())
        ]
        return InvalidFile(
            message, file=said["file"], line=said["line"], path=said["path"], remedy=remedy, further=files[1:]
        )
    if kind == TooMany.kind:
        return TooMany(message, after=float(answer.headers.get("retry-after", "1")), remedy=remedy)
    if kind == Unauthorized.kind:
        return Unauthorized(message, remedy=remedy or "WAVE_TOKEN, or the file of --token-file, holds the token.")
    known = _KINDS.get(kind)
    if known is None:
        return Unavailable(f"{server} answered {answer.status_code}: {message}", remedy=remedy)
    return known(message, remedy=remedy)


_WITHOUT_BODY: Final[Mapping[int, type[WaveError]]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}
"""What an answer to HEAD can say."""


def _below(kind: type[WaveError]) -> Iterator[type[WaveError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


_KINDS: Final[Mapping[str, type[WaveError]]] = {
    each.kind: each for each in _below(WaveError) if each.__module__ == WaveError.__module__
}
