"""A Mender client's half of being let in: keys, identities and signed requests."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa


def key_of(name: str, kind: str = "ec") -> Any:
    """The private key that goes by a name: the same each time."""
    return _made(name, kind)


@cache
def _made(name: str, kind: str) -> Any:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "small":
            return rsa.generate_private_key(65537, 1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def signature_of(key: Any, body: bytes) -> bytes:
    match key:
        case rsa.RSAPrivateKey():
            made = key.sign(body, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            made = key.sign(body, ec.ECDSA(hashes.SHA256()))
        case _:
            made = key.sign(body)
    return base64.b64encode(made)


def request_of(name: str, *, key: str | None = None, kind: str = "ec", **more: Any) -> tuple[bytes, bytes]:
    """A body as the client sends it, and its signature."""
    private = key_of(key or name, kind)
    said = {"id_data": json.dumps({"mac": name}), "tenant_token": "", "pubkey": pem_of(private), **more}
    body = json.dumps(said).encode() + b"\n"
    return body, signature_of(private, body)


def private_pem_of(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode())
