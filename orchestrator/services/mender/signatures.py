"""A Mender device's request to be let in: what it says it is, and whether its signature holds.

The body is signed with the key that the body carries: that proves that whoever asks has the key, and nothing else.
Nothing in it is fresh, so whoever could read it under way could send it again: devices outside a trusted network need
TLS in front, as with every server for this client.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, NamedTuple

from orchestrator.errors import InvalidReport, Unauthorized
from orchestrator.services.mender.sets import set_id

LONGEST_IDENTITY: Final = 4_096
MOST_ATTRIBUTES: Final = 64
LONGEST_KEY: Final = 8_192
"""Characters of PEM; an RSA key of 8,192 bits has 1,500."""

SMALLEST_RSA: Final = 2_048
LARGEST_RSA: Final = 8_192
"""Bits. A larger key makes each request cost more than it is worth."""


class Claim(NamedTuple):
    """Who says that it is somebody: ``identity`` in canonical JSON, the key in PEM, and what both are called."""

    identity: str
    public_key: str
    id: str


def claim_of(body: bytes, signature: bytes) -> Claim:
    """Read and check a request. Raises InvalidReport for what is none, Unauthorized for a signature that does not
    hold."""
    message = _object(body, "The body")
    identity, key = message.get("id_data"), message.get("pubkey")
    if not isinstance(identity, str) or not isinstance(key, str):
        raise InvalidReport("A request to be let in needs `id_data` and `pubkey`, both texts.")
    identity = canonical(identity)
    loaded, public_key = _loaded(key)
    _check(loaded, signature, body)
    return Claim(identity, public_key, set_id(identity, public_key))


def canonical(identity: str) -> str:
    """Identity data as one text whatever its order and spaces. Raises InvalidReport."""
    if len(identity) > LONGEST_IDENTITY:
        raise InvalidReport(f"Identity data may have {LONGEST_IDENTITY} characters.")
    found = _object(identity.encode("utf-8", "surrogatepass"), "Identity data")
    if not 1 <= len(found) <= MOST_ATTRIBUTES:
        raise InvalidReport(f"Identity data has 1 to {MOST_ATTRIBUTES} attributes.")
    for name, value in found.items():
        texts = value if isinstance(value, list) else [value]
        if not name or not name.isprintable() or not texts:
            raise InvalidReport("An attribute of identity data needs a printable name and a value.")
        if not all(isinstance(text, str | int) and str(text).isprintable() for text in texts):
            raise InvalidReport("The values of identity data are printable texts and whole numbers.")
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_key(pem: str) -> str:
    """A public key as one text whatever its lines. Raises InvalidReport."""
    return _loaded(pem)[1]


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidReport(f"{what} is not JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise InvalidReport(f"{what} is no JSON object.")
    return found


def _loaded(pem: str) -> tuple[Any, str]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if len(pem) > LONGEST_KEY:
        raise InvalidReport(f"A public key may have {LONGEST_KEY} characters.")
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidReport("`pubkey` is no public key in PEM.") from None
    match key:
        case rsa.RSAPublicKey():
            good = SMALLEST_RSA <= key.key_size <= LARGEST_RSA
        case ec.EllipticCurvePublicKey():
            good = key.curve.key_size >= 224
        case _:
            good = isinstance(key, ed25519.Ed25519PublicKey)
    if not good:
        raise InvalidReport(
            f"`pubkey` is RSA with {SMALLEST_RSA} to {LARGEST_RSA} bits, on an elliptic curve, or Ed25519."
        )
    written = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, written.decode("ascii")


def _check(key: Any, signature: bytes, body: bytes) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    try:
        given = base64.b64decode(signature, validate=True)
        match key:
            case rsa.RSAPublicKey():
                key.verify(given, body, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePublicKey():
                key.verify(given, body, ec.ECDSA(hashes.SHA256()))
            case _:
                key.verify(given, body)
    except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, ValueError):
        raise Unauthorized("The signature of the request does not hold.") from None
