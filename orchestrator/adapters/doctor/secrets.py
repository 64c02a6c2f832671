"""What must be secret, and what runs out: files' modes, certificates, roots and keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from sqlalchemy.engine import make_url

from orchestrator.adapters.doctor.words import date, days
from orchestrator.adapters.tuf.keys import TufFolder
from orchestrator.core.tuf import ONLINE, Role, read_root
from orchestrator.errors import InvalidInput, WaveError
from orchestrator.services.doctor import Area, Finding, broken, doubtful, fine
from orchestrator.services.settings import Settings

SOON: Final = timedelta(days=30)
"""What ends within this time is said."""

VERY_SOON: Final = timedelta(days=3)
"""What ends within this time fails."""


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False  # what it would lie in is not there either


def settings_file(settings: Settings, file: Path | None) -> Iterator[Finding]:
    """It was read already, so that it can be read and holds no wrong key is known."""
    if file is None:
        yield fine(Area.SETTINGS, f"No settings file is used; the root is {settings.root.absolute()}.")
    elif make_url(settings.database_url).password and _open_to_others(file):
        yield broken(
            Area.SETTINGS, f"{file} holds the database's password, and others may read it.", f"`chmod 600 {file}`."
        )
    else:
        yield fine(Area.SETTINGS, f"The settings are in {file}; the root is {settings.root.absolute()}.")
    if settings.traces is not None and not _installed("opentelemetry.exporter.otlp.proto.http"):
        yield broken(
            Area.SETTINGS,
            "Traces are asked for, and what makes them is not installed: `wave serve` does not start.",
            "`pip install 'wave-orchestrator[traces]'`, or `traces: off`.",
        )
    if not settings.root.is_dir():
        yield broken(
            Area.SETTINGS, f"There is no directory {settings.root.absolute()}.", "`wave init` makes an installation."
        )


def _open_to_others(file: Path) -> bool:
    return bool(stat.S_IMODE(file.stat().st_mode) & 0o077)


# --------------------------------------------------------------------------------------------------- file modes


def files(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Files that hold secrets, as far as they are there."""
    tuf, ca = settings.tuf_path / "keys", settings.root / "ca"
    held = [settings.root / "ca" / "ca.key", settings.artifacts_path / "urls.key"]
    held += sorted(tuf.glob("**/*.key")) if tuf.is_dir() else []
    held += sorted(ca.glob("*.key")) if ca.is_dir() else []
    named = (settings.tls_key, settings.metrics_token_file, settings.oidc_secret_file)
    held += [each for each in named if each is not None]
    # Addresses of chats and pagers hold their passwords, sources of gates their tokens.
    held += [settings.destinations_path, settings.gates_path]
    address = make_url(settings.database_url)
    if address.get_backend_name() == "sqlite" and address.database:
        held.append(Path(address.database))
    there = [each for each in dict.fromkeys(held) if each.is_file()]
    loose = [each for each in there if _open_to_others(each)]
    for each in loose:
        yield broken(
            Area.SECRETS,
            f"{each} can be read by others than its owner (mode {stat.S_IMODE(each.stat().st_mode):04o}).",
            f"`chmod 600 {each}`, and make a new one if somebody may have read it.",
        )
    if not loose:
        count = f"{len(there)} file{'' if len(there) == 1 else 's'}"
        yield fine(Area.SECRETS, f"Only their owner can read the {count} with secrets.")
    if settings.gpg_homedir is not None and settings.gpg_homedir.is_dir() and _open_to_others(settings.gpg_homedir):
        yield broken(
            Area.SECRETS,
            f"The directory of GPG keys {settings.gpg_homedir} is open to others.",
            f"`chmod 700 {settings.gpg_homedir}`.",
        )


# ------------------------------------------------------------------------------------------------- certificates


def certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    if settings.tls_certificate is None or settings.tls_key is None:
        yield fine(Area.CERTIFICATES, "No TLS is set: the gateway speaks HTTP.")
    else:
        yield from _served(settings.tls_certificate, settings.tls_key, now)
    if settings.tls_client_ca is not None:
        for each in _pem(settings.tls_client_ca):
            yield _ends(f"The authority {_name(each)} that names devices", each.not_valid_after_utc, now, _NEW_CA)
    own = settings.root / "ca" / "ca.pem"
    if own.is_file():
        for each in _pem(own):
            yield _ends("The installation's own authority", each.not_valid_after_utc, now, _NEW_CA)


_NEW_CA: Final = "Make a new one in good time, and let devices trust both: `wave ca init` elsewhere."
_NEW_CERTIFICATE: Final = "Issue a new one (`wave ca server`, or your own authority) and start `wave serve` again."


def _served(certificate: Path, key: Path, now: datetime) -> Iterator[Finding]:
    chain = _pem(certificate)
    leaf = chain[0]
    if now < leaf.not_valid_before_utc:
        yield broken(
            Area.CERTIFICATES,
            f"The gateway's certificate is good from {date(leaf.not_valid_before_utc)} on only.",
            "Set the clock, or issue a new one.",
        )
    yield _ends("The gateway's certificate", leaf.not_valid_after_utc, now, _NEW_CERTIFICATE)
    try:
        private = load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield broken(
            Area.CERTIFICATES, f"{key} is no private key in PEM without a password.", "Name the certificate's key."
        )
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        yield broken(Area.CERTIFICATES, f"{key} is not the key of {certificate}.", "Name the two that belong together.")
    for below, above in pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            yield broken(
                Area.CERTIFICATES,
                f"In {certificate} {_name(above)} stands behind {_name(below)} and has not issued it.",
                "Write the chain in its order: the gateway's own first, then who issued it, and so on.",
            )
    for each in chain[1:]:
        yield _ends(f"{_name(each)} of the gateway's chain", each.not_valid_after_utc, now, _NEW_CERTIFICATE)


def _pem(file: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError:
        raise InvalidInput(f"{file} holds no certificate in PEM.", remedy="Name a file that does.") from None
    return found


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"


def _ends(what: str, ends: datetime, now: datetime, remedy: str, area: Area = Area.CERTIFICATES) -> Finding:
    when = f"{date(ends)}, {days(ends - now)}"
    if ends <= now:
        return broken(area, f"{what} is over since {when}.", remedy)
    said = f"{what} is good until {when}."
    if ends - now <= VERY_SOON:
        return broken(area, said, remedy)
    return doubtful(area, said, remedy) if ends - now <= SOON else fine(area, said)


# ---------------------------------------------------------------------------------------------------------- TUF


def tuf(settings: Settings, now: datetime) -> Iterator[Finding]:
    folder = TufFolder(settings.tuf_path)
    roots = folder.roots()
    if not roots:
        yield fine(Area.TUF, "No roots and keys for aktualizr-lite were made (`wave tuf init`).")
        return
    newest = max(roots)
    if missing := sorted(set(range(min(roots), newest)) - set(roots)):
        yield broken(
            Area.TUF,
            f"Root {missing[0]} is missing between the others: a device that is that far behind follows none.",
            f"Put {missing[0]}.root.json back into {folder.place} from a backup.",
        )
    root = read_root(roots[newest])
    renew = "`wave tuf rotate --same-keys` makes its successor; devices take nothing from one that is over."
    yield _ends(f"Root {newest}", root.expires_at, now, renew, Area.TUF)
    try:
        online = folder.online()
        kept = folder.kept_root() is not None
    except WaveError as error:
        yield broken(Area.TUF, error.message, error.remedy or renew)
        return
    wrong = [role for role in ONLINE if role not in online or online[role].key.id not in root.roles[role].keyids]
    if wrong:
        yield broken(
            Area.TUF,
            f"The keys for {', '.join(wrong)} in {folder.place} are not those that root {newest} names.",
            "Put the right ones there from a backup, or make new ones with `wave tuf rotate`.",
        )
    else:
        yield fine(Area.TUF, f"The online keys are those that root {newest} names.")
    if kept:
        yield fine(Area.TUF, f"The key of the {Role.ROOT} lies beside them; it is safer away from this machine.")
