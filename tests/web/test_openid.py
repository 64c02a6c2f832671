"""Signing in with OpenID Connect, with a real provider on loopback and with what could come instead of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import RSAKey

from orchestrator.adapters.openid import HttpProvider, is_safe
from orchestrator.adapters.sql.store import open_store
from orchestrator.core.roles import Role
from orchestrator.errors import InvalidInput, Unauthorized, Unavailable
from orchestrator.services.application import Application
from orchestrator.services.openid import OpenId, Trusted, parse_mapping
from orchestrator.services.passwords import Passwords
from orchestrator.services.people_door import Door
from orchestrator.services.people_orders import People
from orchestrator.web.app import operators_side

HTTPS = "https://wave.example"
ANN = {"email": "ann@example.org", "email_verified": True, "groups": ["release", "staff"]}
PROVIDER = """
import sys
import oidc_provider_mock
with oidc_provider_mock.run_server_in_thread(require_nonce=True) as server:
    print(server.server_port, flush=True)
    sys.stdin.read()
"""
MAPPING = ["release=releaser", "release=approver", "chiefs=admin"]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A real one; its issuer. ``claims`` of a person are put there by name."""
    # A process of its own: it uses parts of Authlib that will go, and here warnings are errors. It ends with its input.
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROVIDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        yield f"http://localhost:{int(process.stdout.readline())}"
        process.stdin.close()
        process.wait(10)


class Site:
    """The operators' side with a provider beside it, and one browser. ``sent``: what was posted for tokens."""

    def __init__(self, issuer: str, folder: Path, **trusted: Any) -> None:
        self.issuer = issuer
        self.store = open_store("sqlite://")
        passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

        def clock() -> datetime:
            return datetime.now(UTC)

        self.people = People(self.store, clock, passwords)
        self.door = Door(self.store, clock, idle=timedelta(hours=1), at_most=timedelta(hours=2), passwords=passwords)
        secret = folder / "secret"
        secret.write_text("hush\n")
        secret.chmod(0o600)
        self.sent: list[dict[str, list[str]]] = []
        self.http = HttpProvider(issuer, "wave", secret, transport=Listening(self.sent))
        told = Trusted(issuer, **{"roles": parse_mapping(MAPPING), "domains": ("example.org",), **trusted})
        self.openid = OpenId(self.store, clock, self.door, provider=self.http, trusted=told, console=HTTPS)
        app = operators_side(cast(Application, None), doorkeeper=self.door, openid=self.openid)
        self.client = TestClient(app, base_url=HTTPS, raise_server_exceptions=False, follow_redirects=False)

    def known(self, sub: str, **claims: object) -> None:
        httpx2.put(f"{self.issuer}/users/{sub}", json=claims).raise_for_status()

    def begin(self, onward: str = "/rollouts") -> str:
        answer = self.client.get("/sign-in/oidc", params={"next": onward})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def consent(self, address: str, sub: str, **form: str) -> str:
        """What the person does at the provider; the address to which it sends the browser back."""
        answer = httpx2.post(address, data={"sub": sub, **form})
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["location"])
        assert (back.scheme, back.netloc, back.path) == ("https", "wave.example", "/sign-in/oidc/callback")
        return f"{back.path}?{back.query}"

    def sign_in(self, sub: str) -> Any:
        return self.client.get(self.consent(self.begin(), sub), headers={"sec-fetch-site": "cross-site"})


class Listening(httpx2.HTTPTransport):
    def __init__(self, sent: list[dict[str, list[str]]]) -> None:
        super().__init__()
        self.sent = sent

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            self.sent.append(parse_qs(request.read().decode()))
        return super().handle_request(request)


@pytest.fixture
def site(provider: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(provider, tmp_path)
    yield made
    made.http.close()
    made.store.close()


def test_who_the_provider_knows_is_made_known_with_the_roles_of_their_groups(site: Site) -> None:
    assert f"Sign in with {site.openid.name}" in site.client.get("/sign-in").text
    site.known("ann", **ANN)
    answer = site.sign_in("ann")
    assert answer.status_code == 200, answer.text
    assert re.findall(r'content="0;url=([^"]*)"', answer.text) == ["/rollouts"]
    kept = [each for each in answer.headers.get_list("set-cookie") if each.startswith("__Host-wave_session=")]
    assert "SameSite=strict" in kept[0] and "Secure" in kept[0]
    assert site.client.get("/api/v1/me").json() == {"name": "ann@example.org", "roles": ["approver", "releaser"]}
    row = site.people.get("ann@example.org")
    assert (row.subject, row.password) == (f"{site.issuer} ann", None)
    assert [each.event for each in site.people.events()] == ["signed_in", "added"]


def test_what_the_groups_say_now_is_what_counts(site: Site) -> None:
    site.known("ann", **ANN)
    site.sign_in("ann")
    site.known("ann", **{**ANN, "groups": ["chiefs"]})
    site.client.cookies.clear()
    site.sign_in("ann")
    assert site.people.get("ann@example.org").roles == {Role.ADMIN}
    site.known("ann", **{**ANN, "groups": ["staff"]})
    site.client.cookies.clear()
    answer = site.sign_in("ann")
    assert answer.status_code == 403
    assert "ann@example.org is in no group that may do anything here." in answer.text


def test_the_code_is_bound_to_this_browser_and_to_this_time(site: Site) -> None:
    asked = parse_qs(urlsplit(site.begin()).query)
    assert asked["response_type"] == ["code"] and asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{HTTPS}/sign-in/oidc/callback"]
    again = parse_qs(urlsplit(site.begin()).query)
    for each in ("state", "nonce", "code_challenge"):
        assert asked[each] != again[each]
    site.known("ann", **ANN)
    address = site.begin()
    site.client.get(site.consent(address, "ann"))
    (verifier,) = site.sent[-1]["code_verifier"]
    challenge = encoded(hashlib.sha256(verifier.encode()).digest())
    assert parse_qs(urlsplit(address).query)["code_challenge"] == [challenge]
    assert site.client.get("/api/v1/me").status_code == 200


def test_a_code_that_another_browser_began_with_signs_nobody_in(site: Site) -> None:
    """An attacker sends a person the end of their own sign-in."""
    site.known("ann", **ANN)
    back = site.consent(site.begin(), "ann")
    site.client.cookies.clear()
    assert site.client.get(back).status_code == 403
    site.begin()
    answer = site.client.get(back)
    assert answer.status_code == 403
    assert "was not begun in this browser" in answer.text
    assert "__Host-wave_session" not in site.client.cookies
    assert site.sent == []


def test_a_code_counts_once(site: Site) -> None:
    site.known("ann", **ANN)
    back = site.consent(site.begin(), "ann")
    cookie = site.client.cookies["__Host-wave_oidc"]
    assert site.client.get(back).status_code == 200
    site.client.cookies.clear()
    site.client.cookies.set("__Host-wave_oidc", cookie, domain="wave.example", path="/")
    assert site.client.get(back).status_code == 401
    assert "__Host-wave_session" not in site.client.cookies


def test_the_answer_of_another_provider_than_was_asked_is_none(site: Site) -> None:
    """Mix-up: its own code, sent back under this one's name."""
    site.known("ann", **ANN)
    back = site.consent(site.begin(), "ann")
    answer = site.client.get(f"{back}&iss=https%3A%2F%2Fevil.example")
    assert answer.status_code == 403
    assert "Another provider answered than was asked." in answer.text
    assert site.sent == [], "the code is shown to nobody"


def test_who_has_a_session_is_not_sent_to_the_provider(site: Site) -> None:
    site.known("ann", **ANN)
    site.sign_in("ann")
    answer = site.client.get("/sign-in/oidc", params={"next": "/fleet"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/fleet")


def test_who_says_no_at_the_provider_is_not_let_in(site: Site) -> None:
    answer = site.client.get(site.consent(site.begin(), "ann", action="deny"))
    assert answer.status_code == 401
    assert "The provider did not let you in." in answer.text


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({**ANN, "email_verified": False}, "has not verified your address"),
        ({"email": "ann@example.org", "groups": ["release"]}, "has not verified your address"),
        ({**ANN, "email": "ann@evil.example"}, "Nobody of evil.example signs in here."),
        ({**ANN, "email": "ann@example.org.evil.example"}, "Nobody of example.org.evil.example"),
        ({**ANN, "email": "ann@evil.example@example.org\n"}, "Nobody of example.org"),
        ({"email_verified": True, "groups": ["release"]}, "does not say who you are"),
        ({**ANN, "groups": "staff"}, "is in no group"),
        ({**ANN, "groups": {"release": 1}}, "is in no group"),
    ],
    ids=str,
)
def test_whom_nobody_vouches_for_is_not_let_in(site: Site, claims: dict[str, object], said: str) -> None:
    site.known("x", **claims)
    answer = site.sign_in("x")
    assert answer.status_code in (401, 403)
    assert said in answer.text
    assert "__Host-wave_session" not in site.client.cookies
    assert list(site.people.all()) == []


def test_nobody_takes_a_name_that_is_somebodys_here(site: Site) -> None:
    site.people.add("Ann@Example.org", [Role.ADMIN], by="root", password="correct horse battery")
    site.known("ann", **ANN)
    answer = site.sign_in("ann")
    assert answer.status_code == 403
    assert "who does not sign in with" in answer.text
    assert site.people.get("ann@example.org").roles == {Role.ADMIN}


def test_who_is_disabled_here_stays_out_whatever_the_provider_says(site: Site) -> None:
    site.known("ann", **ANN)
    site.sign_in("ann")
    site.people.disable("ann@example.org", by="root")
    site.client.cookies.clear()
    answer = site.sign_in("ann")
    assert answer.status_code == 401
    assert "ann@example.org is disabled here." in answer.text


def test_a_provider_that_is_not_there_is_told_and_passwords_go_on(tmp_path: Path) -> None:
    site = Site("http://localhost:1", tmp_path)
    answer = site.client.get("/sign-in/oidc")
    assert answer.status_code == 503
    assert "The provider does not answer." in answer.text and "Password" in answer.text
    site.store.close()


def test_where_no_provider_is_set_none_is_asked(site: Site) -> None:
    client = TestClient(operators_side(cast(Application, None), doorkeeper=site.door), base_url=HTTPS)
    assert "Sign in with" not in client.get("/sign-in").text
    assert client.get("/sign-in/oidc").status_code == 503


# ------------------------------------------------------------------------------------------------- a false provider

KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
ISSUER = "https://id.example"


def says(claims: dict[str, Any], *, key: RSAKey = KEY, metadata: dict[str, Any] | None = None) -> HttpProvider:
    """A provider that says this."""
    return tells(lambda: jwt.encode({"alg": "RS256", "kid": "1"}, claims, key), metadata=metadata)


def tells(
    token: Callable[[], str],
    *,
    keys: Callable[[], Sequence[RSAKey]] = lambda: [KEY],
    metadata: dict[str, Any] | None = None,
) -> HttpProvider:
    """A provider that hands this token out."""
    known = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/a",
        "token_endpoint": f"{ISSUER}/t",
        "jwks_uri": f"{ISSUER}/k",
        **(metadata or {}),
    }

    def answer(request: httpx2.Request) -> httpx2.Response:
        match request.url.path:
            case "/k":
                return httpx2.Response(200, json={"keys": [each.as_dict(private=False) for each in keys()]})
            case "/t":
                return httpx2.Response(200, json={"id_token": token()})
            case _:
                return httpx2.Response(200, json=known)

    return HttpProvider(ISSUER, "wave", None, transport=httpx2.MockTransport(answer))


def good(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": "wave", "sub": "7", "iat": now, "exp": now + 300, "nonce": "n", **more}


def ask(provider: HttpProvider) -> str:
    try:
        return str(provider.claims("c", redirect=f"{HTTPS}/x", nonce="n", verifier="v")["sub"])
    finally:
        provider.close()


def test_what_is_signed_for_this_program_now_counts() -> None:
    assert ask(says(good())) == "7"
    assert ask(says(good(aud=["wave", "other"], azp="wave"))) == "7"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"aud": ["wave", "other"]},
        {"exp": 600},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"exp": None},
    ],
    ids=str,
)
def test_what_is_for_another_or_of_another_time_counts_for_nothing(wrong: dict[str, Any]) -> None:
    """None: the claim is not there. Made when it is looked at, so that nothing but this is wrong with it."""
    changed = {"exp": int(time.time()) - wrong["exp"]} if isinstance(wrong.get("exp"), int) else wrong
    claims = {key: value for key, value in good(**changed).items() if value is not None}
    with pytest.raises(Unauthorized):
        ask(says(claims))


def test_what_another_key_has_signed_counts_for_nothing() -> None:
    with pytest.raises(Unauthorized, match="not signed"):
        ask(says(good(), key=OTHER))


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("alg", ["none", "HS256 with the public key", "HS256 with the client's secret"])
def test_what_is_signed_with_nothing_or_with_what_is_no_secret_counts_for_nothing(alg: str) -> None:
    """Whoever may choose how a signature is checked needs no key."""
    secret = {
        "none": b"",
        "HS256 with the public key": KEY.as_pem(private=False),
        "HS256 with the client's secret": b"hush",
    }[alg]
    head = {"alg": alg.partition(" ")[0], "kid": "1", "typ": "JWT"}
    signed = ".".join(encoded(json.dumps(each).encode()) for each in (head, good()))
    mac = b"" if alg == "none" else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    token = f"{signed}.{encoded(mac)}"
    with pytest.raises(Unauthorized, match="not signed"):
        ask(tells(lambda: token))


def test_keys_that_the_provider_has_changed_are_read_again() -> None:
    """Both between two sign-ins: the key that signs, and what its list says."""
    current = [KEY]
    provider = tells(lambda: jwt.encode({"alg": "RS256", "kid": "1"}, good(), current[0]), keys=lambda: current)
    told = {"redirect": f"{HTTPS}/x", "nonce": "n", "verifier": "v"}
    assert provider.claims("c", **told)["sub"] == "7"
    current[:] = [OTHER]
    assert provider.claims("c", **told)["sub"] == "7"
    provider.close()


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "http://id.example/t"}, {"token_endpoint": 7}],
    ids=str,
)
def test_a_provider_that_is_another_or_speaks_in_the_open_is_not_asked(metadata: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        ask(says(good(), metadata=metadata))


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b"x" * (2 << 20)], ids=len)
def test_a_provider_that_answers_nonsense_is_unavailable(body: bytes) -> None:
    provider = HttpProvider(
        ISSUER, "wave", None, transport=httpx2.MockTransport(lambda request: httpx2.Response(200, content=body))
    )
    with pytest.raises(Unavailable):
        ask(provider)


def test_only_this_machine_is_spoken_to_without_tls() -> None:
    assert is_safe("https://id.example") and is_safe("http://localhost:9400") and is_safe("http://127.0.0.1:1/x")
    assert not is_safe("http://id.example") and not is_safe("file:///etc/passwd")
    with pytest.raises(InvalidInput):
        HttpProvider("http://id.example", "wave", None)


@pytest.mark.parametrize("words", [["release"], ["=admin"], ["release=boss"]])
def test_a_mapping_says_which_group_has_which_role(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        parse_mapping(words)
