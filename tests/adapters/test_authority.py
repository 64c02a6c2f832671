"""The installation's own authority: what it signs, what it refuses, and who may read its key."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.adapters.authority import FileAuthority
from orchestrator.errors import InvalidInput, NotFound, Refused
from orchestrator.services.authority import earliest
from orchestrator.services.credentials import Revoked, RevokedKind

NOW = datetime(2026, 5, 4, 9, 0, 0, 500_000, tzinfo=UTC)
START = NOW.replace(microsecond=0)
YEAR = timedelta(days=365)


@pytest.fixture
def authority(tmp_path: Path) -> FileAuthority:
    made = FileAuthority(tmp_path / "ca")
    made.make("test devices", lasts=10 * YEAR, now=NOW)
    return made


def request(name: str | None, key: CertificateIssuerPrivateKeyTypes | None = None) -> str:
    signer = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)])
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(signer, digest)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_the_key_is_for_its_owner_alone_and_never_read_otherwise(authority: FileAuthority) -> None:
    assert stat.S_IMODE(authority.key_file.stat().st_mode) == 0o600
    authority.key_file.chmod(0o640)
    with pytest.raises(InvalidInput, match=r"others may read it\. `chmod 600"):
        authority.device("gw-1", request=None, lasts=YEAR, since=START)


def test_there_is_one_authority_and_it_is_made_once(tmp_path: Path, authority: FileAuthority) -> None:
    before = authority.certificate()
    with pytest.raises(Refused, match="already"):
        authority.make("another", lasts=YEAR, now=NOW)
    assert authority.certificate() == before
    nobody = FileAuthority(tmp_path / "none")
    with pytest.raises(NotFound, match="wave ca init"):
        nobody.certificate()
    authority.key_file.unlink()
    with pytest.raises(NotFound, match="key of the authority"):
        authority.device("gw-1", request=None, lasts=YEAR, since=START)
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(InvalidInput):
            nobody.make(name, lasts=YEAR, now=NOW)


def test_a_devices_certificate_is_for_clients_and_names_it(authority: FileAuthority) -> None:
    issued = authority.device("gw-1", request=None, lasts=YEAR, since=START)
    made = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert made.subject.rfc4514_string() == "CN=gw-1"
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (issued.not_before, issued.not_after) == (START, START + YEAR)
    assert (issued.serial, issued.fingerprint) == (f"{made.serial_number:x}", made.fingerprint(hashes.SHA256()).hex())
    assert issued.key is not None and issued.key not in repr(issued)
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate().encode()))


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), None],
    ids=["P-384", "Ed25519", "its own"],
)
def test_the_key_of_a_request_stays_on_the_device(
    authority: FileAuthority, key: CertificateIssuerPrivateKeyTypes | None
) -> None:
    for name in ("gw-1", None):
        issued = authority.device("gw-1", request=request(name, key), lasts=YEAR, since=START)
        assert issued.key is None and issued.subject == "gw-1"


def test_requests_that_are_none_name_another_or_are_weak_are_refused(authority: FileAuthority) -> None:
    good = request("gw-1")
    lines = good.splitlines()
    lines[-2] = lines[-2][:10] + ("A" if lines[-2][10] != "A" else "B") + lines[-2][11:]
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    small = ec.generate_private_key(ec.SECP192R1())
    cases = ["", "hello", "\n".join(lines), request("gw-2"), request("gw-1", weak), request("gw-1", small)]
    for each in cases:
        with pytest.raises(InvalidInput):
            authority.device("gw-1", request=each, lasts=YEAR, since=START)
    for device in ("no id", "x" * 65, "../x"):
        with pytest.raises(InvalidInput):
            authority.device(device, request=None, lasts=YEAR, since=START)


def test_nothing_outlives_the_authority(authority: FileAuthority) -> None:
    with pytest.raises(InvalidInput, match="good until"):
        authority.device("gw-1", request=None, lasts=11 * YEAR, since=START)
    with pytest.raises(InvalidInput, match="a day at least"):
        authority.device("gw-1", request=None, lasts=timedelta(hours=1), since=START)


def test_a_server_certificate_has_names_and_addresses(authority: FileAuthority, tmp_path: Path) -> None:
    issued = authority.server(["updates.example.com", "*.example.org", "10.0.0.5", "::1"], lasts=YEAR, since=START)
    made = x509.load_pem_x509_certificate(issued.certificate.encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["updates.example.com", "*.example.org"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "::1"]
    for wrong in ((), ("a b",), ("-x",), ("x" * 254,)):
        with pytest.raises(InvalidInput):
            authority.server(wrong, lasts=YEAR, since=START)
    files = authority.save(issued, tmp_path / "out", "server")
    assert [(each.name, stat.S_IMODE(each.stat().st_mode)) for each in files] == [
        ("server.key", 0o600),
        ("server.pem", 0o644),
        ("ca.pem", 0o644),
    ]
    with pytest.raises(InvalidInput, match="there already"):
        authority.save(issued, tmp_path / "out", "server")


def test_a_new_certificate_is_good_though_the_old_ones_were_revoked_in_this_second() -> None:
    revoked = [
        Revoked(RevokedKind.DEVICE, "gw-1", NOW, "ann"),
        Revoked(RevokedKind.DEVICE, "gw-2", NOW + timedelta(days=1), "ann"),
        Revoked(RevokedKind.SERIAL, "gw-3", NOW, "ann"),
    ]
    assert earliest("gw-1", revoked, NOW) == START + timedelta(seconds=1)
    assert earliest("gw-1", revoked, NOW + timedelta(seconds=5)) == START + timedelta(seconds=5)
    assert earliest("gw-3", revoked, NOW) == START
