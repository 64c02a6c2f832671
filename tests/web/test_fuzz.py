"""A short and always equal slice of ``make fuzz``: what fits the description of the operators' API and what does not,
by people of every role and by nobody. No answer is a mistake, or one that the description does not know."""

from __future__ import annotations

import json
import re
from itertools import cycle
from typing import Any
from urllib.parse import quote

from schemathesis import GenerationMode

from orchestrator.core.roles import Role, may
from tests.cli.house import House
from tests.load.fuzzing import generate
from tests.web.asking import Asking
from tests.web.cases import operations
from tests.web.everything import furnish

NUMBER = 2
"""Cases of each kind and operation."""

NEVER_ENDS = "journal_feed"
ROLES = (None, *Role)


def test_whatever_is_sent_is_answered_as_the_description_says(api: Asking, house: House) -> None:
    furnish(house, api.app)
    asked, wrong = 0, []
    roles = cycle(ROLES)
    for operation in operations():
        raw = operation.definition.raw
        if raw["operationId"] == NEVER_ENDS:
            continue
        needed = Role(raw.get("x-role", "viewer"))

        def use(case: Any, raw: Any = raw, needed: Role = needed) -> None:
            nonlocal asked
            for role in (Role.ADMIN, next(roles)):
                answer = sent(api, case, role)
                asked += 1
                allowed = role is not None and may([role], needed)
                barred = answer.status_code in ((401,) if role is None else (403,))
                problem = answer.status_code < 300 or answer.headers["content-type"] == "application/problem+json"
                bare = case.method.upper() == "HEAD" or answer.status_code == 204
                if (
                    str(answer.status_code) not in raw["responses"]
                    or (answer.status_code >= 500 and answer.status_code != 503)
                    or not (problem or bare)
                    or (not allowed and not barred and answer.status_code not in (404, 405, 413))
                ):
                    wrong.append(f"{role} {case.method} {case.path} {case.body!r:.200}: {answer.text[:300]}")

        for mode in GenerationMode:
            generate(operation, mode, NUMBER, 1, use)
    assert not wrong, "\n".join(wrong[:5])
    assert asked > 300


def sent(api: Asking, case: Any, role: Role | None) -> Any:
    """A case by somebody; what can stand in no request is left out."""
    parameters = {name: quote(str(value), safe="") for name, value in (case.path_parameters or {}).items()}
    path = re.sub(r"\{(\w+)\}", lambda found: parameters.get(found[1]) or "1", case.path)
    headers = {"authorization": f"Bearer {role}"} if role is not None else {}
    for name, value in dict(case.headers or {}).items():
        if str(name).lower() != "authorization" and re.fullmatch(r"[!-~]+", str(name)):
            headers[str(name)] = re.sub(r"[^ -~]", "", str(value))
    query = {str(name): value for name, value in dict(case.query or {}).items()}
    body = b"" if type(case.body).__name__ == "NotSet" else case.body
    if not isinstance(body, bytes):
        body = json.dumps(body).encode("utf-8", "surrogatepass")
        headers.setdefault("content-type", "application/json")
    url = f"{path}?{'&'.join(_words(query))}" if query else path
    return api.client.request(case.method, url, headers=headers, content=body)


def _words(query: dict[str, Any]) -> list[str]:
    found = []
    for name, value in query.items():
        for each in value if isinstance(value, list) else [value]:
            text = each if isinstance(each, str) else json.dumps(each)
            found.append(f"{quote(name.encode('utf-8', 'replace'))}={quote(text.encode('utf-8', 'replace'))}")
    return found
