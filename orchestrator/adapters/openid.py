"""An OpenID provider over HTTP: its metadata, its keys, and what it says of a person (``services.openid.Provider``).

Everything that comes is bounded in size and time; redirects are not followed. ``https`` alone, but on this machine.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from orchestrator.adapters.files.private import private_text
from orchestrator.errors import InvalidInput, Unauthorized, Unavailable

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "RS384", "ES384", "RS512", "ES512", "EdDSA")
"""With public keys; a token that is signed with the client's secret, or not at all, is none."""

FRESH_FOR: Final = 3600.0
"""Seconds for which metadata and keys are kept."""

LEEWAY: Final = 60
"""Seconds by which the provider's clock may differ."""

MOST_BYTES: Final = 1 << 20
WITHIN: Final = 10.0


def is_safe(address: str) -> bool:
    """Whether nobody on the way can read or change what is said there."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


class HttpProvider:
    """Thread-safe. ``now``: seconds since 1970."""

    def __init__(
        self,
        issuer: str,
        client: str,
        secret: Path | None,
        *,
        now: Callable[[], float] = time.time,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        if not is_safe(issuer):
            raise InvalidInput(f"The provider {issuer} must be reached by https.")
        self._issuer = issuer
        self._client = client
        self._secret = secret
        self._now = now
        self._http = httpx2.Client(timeout=WITHIN, follow_redirects=False, transport=transport, trust_env=False)
        self._guard = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = 0.0

    def close(self) -> None:
        """End what is open."""
        self._http.close()

    def authorize(self, *, redirect: str, state: str, nonce: str, challenge: str) -> str:
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": redirect,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._place("authorization_endpoint")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"

    def claims(self, code: str, *, redirect: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
            "client_id": self._client,
        }
        auth = None
        if self._secret is not None:
            secret = private_text(self._secret).strip()
            methods = self._known().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
            if "client_secret_basic" in methods:
                auth = httpx2.BasicAuth(self._client, secret)
            else:
                form["client_secret"] = secret
        answer = self._json("POST", self._place("token_endpoint"), data=form, auth=auth, refused=True)
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str):
            raise Unauthorized("The provider did not say who you are.")
        found = self._verified(token, nonce)
        if isinstance(access, str) and (place := self._known().get("userinfo_endpoint")):
            told = self._json("GET", str(place), headers={"authorization": f"Bearer {access}"})
            # Of somebody else it says nothing about this one.
            if told.get("sub") == found["sub"]:
                found = {**told, **found}
        return found

    def _verified(self, token: str, nonce: str) -> dict[str, Any]:
        found = self._signed(token)
        rules = jwt.JWTClaimsRegistry(
            now=int(self._now()),
            leeway=LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            rules.validate(found)
        except JoseError as error:
            raise Unauthorized(f"What the provider said does not count: {error}.") from None
        audiences = found["aud"] if isinstance(found["aud"], list) else [found["aud"]]
        if len(audiences) > 1 and found.get("azp") != self._client:
            raise Unauthorized("What the provider said is for another program.")
        if not secrets.compare_digest(str(found.get("nonce", "")).encode(), nonce.encode()):
            raise Unauthorized("What the provider said was said at another time.")
        return found

    def _signed(self, token: str) -> dict[str, Any]:
        for again in (False, True):
            try:
                return dict(jwt.decode(token, self._key_set(again), algorithms=list(ALGORITHMS)).claims)
            except (JoseError, ValueError, TypeError, KeyError):
                # It may have changed its keys since they were read.
                continue
        raise Unauthorized("What the provider said is not signed by it.")

    def _key_set(self, again: bool) -> KeySet:
        self._known()
        with self._guard:
            if self._keys is None or again:
                found = self._json("GET", self._place("jwks_uri"))
                try:
                    self._keys = KeySet.import_key_set({"keys": found["keys"]})
                except (JoseError, ValueError, TypeError, KeyError):
                    raise Unavailable("The provider's keys cannot be read.") from None
            return self._keys

    def _known(self) -> dict[str, Any]:
        now = self._now()
        if not self._metadata or now - self._read_at >= FRESH_FOR:
            found = self._json("GET", f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self._issuer:
                raise Unavailable(f"The provider at {self._issuer} says that it is another.")
            self._metadata, self._keys, self._read_at = found, None, now
        return self._metadata

    def _place(self, name: str) -> str:
        found = self._known().get(name)
        if not isinstance(found, str) or not is_safe(found):
            raise Unavailable(f"The provider names no {name} that can be used.")
        return found

    def _json(self, method: str, address: str, *, refused: bool = False, **more: Any) -> dict[str, Any]:
        if not is_safe(address):
            raise Unavailable("The provider names an address that must not be used.")
        try:
            with self._http.stream(method, address, **more) as answer:
                body = b""
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise Unavailable("The provider says too much.")
                if refused and answer.status_code in (400, 401, 403):
                    raise Unauthorized("The provider refused this sign-in: begin again.")
                if answer.status_code != 200:
                    raise Unavailable(f"The provider answered {answer.status_code}.")
                found = httpx2.Response(200, content=body).json()
        except httpx2.HTTPError:
            raise Unavailable(
                "The provider does not answer.", remedy="Try again, or sign in with a password."
            ) from None
        except ValueError:
            raise Unavailable("The provider's answer cannot be read.") from None
        if not isinstance(found, dict):
            raise Unavailable("The provider's answer cannot be read.")
        return found
