"""TLS at the door: the context that Uvicorn serves with, and the client certificate of a connection as a credential.

A client certificate is asked for and may be missing: tokens go on working beside it. What the handshake has verified is
read once for each connection; whether it is over or revoked by now is asked with each request.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from orchestrator.core.fleet import check_name
from orchestrator.errors import InvalidInput
from orchestrator.services.credentials import Certificate

CERTIFICATE: Final = "wave.certificate"
"""Where among the ASGI scope's ``extensions`` the verified client certificate of the connection stands."""

HANDSHAKE_SECONDS: Final = 10.0
"""How long the handshake of a connection may take."""

GOODBYE_SECONDS: Final = 1.0
"""How long a connection that is closed waits for the other side to close it too."""


def server_context(*, certificate: Path, key: Path, client_ca: Path | None, required: bool = False) -> ssl.SSLContext:
    """TLS 1.2 and newer. With ``client_ca`` devices may show certificates that it signed, with ``required`` they must.
    Raises InvalidInput. (Who may read the key is looked at elsewhere.)"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        # Without a password: one that is asked for would stop an unattended start.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The certificate {certificate} and the key {key} cannot be used: {_reason(error)}.",
            remedy="Both in PEM: the certificate with its chain, the key without a password.",
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(cafile=client_ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"The authority {client_ca} cannot be used: {_reason(error)}.") from None
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: OSError) -> str:
    # an SSLError is an OSError whose strerror is OpenSSL's own word
    return getattr(error, "reason", None) or error.strerror or "it cannot be read"


def peer_certificate(transport: asyncio.BaseTransport) -> Certificate | None:
    """The verified client certificate of a connection; None without TLS, without one, or when it names no device: then
    it says nothing, and a token may."""
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    whole: bytes | None = connection.getpeercert(binary_form=True)
    if whole is None or connection.context.verify_mode is ssl.CERT_NONE:
        return None
    return certificate_of(connection.getpeercert(), whole)


def certificate_of(said: dict[str, Any] | None, whole: bytes) -> Certificate | None:
    """From the words of ``ssl.SSLSocket.getpeercert`` and the whole in DER."""
    if not said:
        return None
    names = [value for part in said["subject"] for name, value in part if name == "commonName"]
    if len(names) != 1:
        return None
    try:
        device_id = check_name(names[0], "device id")
    except InvalidInput:
        return None
    return Certificate(
        device_id=device_id,
        serial=str(said["serialNumber"]).lower().lstrip("0"),
        fingerprint=hashlib.sha256(whole).hexdigest(),
        not_before=datetime.fromtimestamp(ssl.cert_time_to_seconds(said["notBefore"]), UTC),
        not_after=datetime.fromtimestamp(ssl.cert_time_to_seconds(said["notAfter"]), UTC),
    )


class TlsLoop(uvloop.Loop):
    """A loop whose servers wait neither long for a handshake nor for the other side's goodbye: Uvicorn would wait a
    minute for the one and half a minute for the other, and so would the server's end."""

    async def create_server(self, *arguments: Any, **more: Any) -> Any:
        if more.get("ssl") is not None:
            more.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
            more.setdefault("ssl_shutdown_timeout", GOODBYE_SECONDS)
        return await super().create_server(*arguments, **more)
