"""A small certificate authority in two files: ``ca.pem`` and ``ca.key``, ECDSA on P-256, the key for its owner only.

One level, no intermediate: who has the key can speak for every device, so it can also live elsewhere, and only
``ca.pem`` here. Devices' certificates are for clients only and the gateway's for servers only: no device can pass for
the gateway.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.adapters.files.private import private_text, write_new
from orchestrator.core.fleet import check_name
from orchestrator.errors import InvalidInput, NotFound, Refused
from orchestrator.services.authority import Issued

LONGEST_NAME: Final = 64
"""Characters of a common name (X.509)."""

_HOST: Final = re.compile(
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_SMALLEST_RSA: Final = 2048

_Signer = ec.EllipticCurvePrivateKey
_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class FileAuthority:
    """The authority in a directory; see ``services.authority``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def certificate_file(self) -> Path:
        return self._directory / "ca.pem"

    @property
    def key_file(self) -> Path:
        return self._directory / "ca.key"

    def make(self, name: str, *, lasts: timedelta, now: datetime) -> Issued:
        if self.certificate_file.exists() or self.key_file.exists():
            raise Refused(
                f"There is an authority in {self._directory} already.",
                remedy="Move it away first: every certificate that it signed is worth nothing without it.",
            )
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise InvalidInput(f"The authority's name must be 1 to {LONGEST_NAME} printable characters.")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        made = _sign(
            _begun(subject, subject, key.public_key(), lasts, now.replace(microsecond=0))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True),
            key,
            key.public_key(),
        )
        issued = _issued(name, made, None)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new(self.key_file, _key_text(key), private=True)
        write_new(self.certificate_file, issued.certificate)
        return issued

    def certificate(self) -> str:
        try:
            return self.certificate_file.read_text(encoding="ascii")
        except FileNotFoundError:
            raise _none(self._directory) from None

    def device(self, device_id: str, *, request: str | None, lasts: timedelta, since: datetime) -> Issued:
        subject = _of_device(device_id)
        key = ec.generate_private_key(ec.SECP256R1()) if request is None else None
        public = key.public_key() if key is not None else _requested(request or "", device_id)
        made = self._leaf(subject, public, ExtendedKeyUsageOID.CLIENT_AUTH, (), lasts, since)
        return _issued(device_id, made, key)

    def server(self, names: Sequence[str], *, lasts: timedelta, since: datetime) -> Issued:
        if not names:
            raise InvalidInput("A server certificate needs a name or an address.")
        key = ec.generate_private_key(ec.SECP256R1())
        others = tuple(_host(name) for name in names)
        made = self._leaf(
            _named(names[0][:LONGEST_NAME]), key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, others, lasts, since
        )
        return _issued(names[0], made, key)

    def save(self, issued: Issued, directory: Path, name: str) -> Sequence[Path]:
        return save(issued, directory, name, trusted=self.certificate)

    def _leaf(
        self,
        subject: x509.Name,
        public: _Public,
        purpose: x509.ObjectIdentifier,
        names: Sequence[x509.GeneralName],
        lasts: timedelta,
        since: datetime,
    ) -> x509.Certificate:
        authority, signer = self._load()
        if since + lasts > authority.not_valid_after_utc:
            raise InvalidInput(
                f"The authority itself is good until {authority.not_valid_after_utc:%Y-%m-%d} only.",
                remedy="Give fewer --days, or make a new authority and let devices trust both.",
            )
        builder = (
            _begun(subject, authority.subject, public, lasts, since)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _sign(builder, signer, signer.public_key())

    def _load(self) -> tuple[x509.Certificate, _Signer]:
        authority = x509.load_pem_x509_certificate(self.certificate().encode("ascii"))
        if not self.key_file.exists():
            raise NotFound(
                f"The key of the authority is not in {self._directory}.",
                remedy="Sign where it is kept; here only revoking is possible.",
            )
        try:
            key = serialization.load_pem_private_key(private_text(self.key_file).encode("ascii"), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidInput(f"{self.key_file} is no private key in PEM without a password.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidInput(f"{self.key_file} is no key on an elliptic curve.")
        return authority, key


def save(issued: Issued, directory: Path, name: str, *, trusted: Callable[[], str]) -> Sequence[Path]:
    """As ``Authority.save``; ``trusted`` is what goes into ``ca.pem``."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be made: {error.strerror}.") from None
    made = []
    for ending, text in (("key", issued.key), ("pem", issued.certificate)):
        if text is not None:
            made.append(directory / f"{name}.{ending}")
            write_new(made[-1], text, private=ending == "key")
    beside = directory / "ca.pem"
    if not beside.exists():
        write_new(beside, trusted())
        made.append(beside)
    return made


def new_request(device_id: str) -> tuple[str, str]:
    """A new key, and a signing request with it for that device, both in PEM. Raises InvalidInput."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_of_device(device_id)).sign(key, hashes.SHA256())
    return _key_text(key), request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _of_device(device_id: str) -> x509.Name:
    check_name(device_id, "device id")
    if len(device_id) > LONGEST_NAME:
        raise InvalidInput(f"A certificate's name has {LONGEST_NAME} characters at most, and {device_id} more.")
    return _named(device_id)


def _none(directory: Path) -> NotFound:
    return NotFound(f"There is no authority in {directory}.", remedy="`wave ca init` makes one.")


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is neither a host name nor an address.")
    return x509.DNSName(name)


def _requested(text: str, device_id: str) -> _Public:
    """The key of a signing request that is signed with it."""
    try:
        request = x509.load_pem_x509_csr(text.encode("ascii", "replace"))
        good = request.is_signature_valid
        public = request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise InvalidInput("This is no certificate signing request in PEM.") from None
    if not good:
        raise InvalidInput("The signing request is not signed with its own key.")
    names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names and names != [device_id]:
        raise InvalidInput(f"The signing request is of {', '.join(names)[:200]}, not of {device_id}.")
    match public:
        case ec.EllipticCurvePublicKey() if public.curve.key_size >= 256:
            return public
        case ed25519.Ed25519PublicKey():
            return public
        case rsa.RSAPublicKey() if public.key_size >= _SMALLEST_RSA:
            return public
    raise InvalidInput(
        "The key in the signing request is too weak or of a kind that is not taken.",
        remedy=f"Use P-256, Ed25519 or RSA with {_SMALLEST_RSA} bits.",
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, public: _Public, lasts: timedelta, since: datetime
) -> x509.CertificateBuilder:
    if lasts < timedelta(days=1):
        raise InvalidInput("A certificate is good for a day at least.")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since.astimezone(UTC))
        .not_valid_after((since + lasts).astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, signer: _Signer, issuer: ec.EllipticCurvePublicKey) -> x509.Certificate:
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    return builder.add_extension(known, critical=False).sign(signer, hashes.SHA256())


def _issued(subject: str, made: x509.Certificate, key: _Signer | None) -> Issued:
    return Issued(
        subject=subject,
        certificate=made.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        serial=f"{made.serial_number:x}",
        fingerprint=made.fingerprint(hashes.SHA256()).hex(),
        not_before=made.not_valid_before_utc,
        not_after=made.not_valid_after_utc,
        key=None if key is None else _key_text(key),
    )


def _key_text(key: _Signer) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
