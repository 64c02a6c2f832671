"""A signed summary: it is signed again with every change, or nothing is changed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.ostree import OstreeProvider, OstreeSettings
from orchestrator.errors import ContentUnavailable
from orchestrator.services.delta_provider import DeltaPair, DeltaRecord
from tests.adapters.ostree_trees import Versions, make_versions, ostree

pytestmark = [pytest.mark.ostree, pytest.mark.timeout(120)]


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return make_versions(tmp_path / "versions")


def build(provider: OstreeProvider, pair: DeltaPair) -> DeltaRecord:
    return provider.build(pair, progress=lambda _: None, cancelled=lambda: False)


@pytest.fixture
def key() -> Iterator[tuple[str, Path]]:
    """The fingerprint of a fresh key without a passphrase, and the directory of gpg that has it."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: its sockets have at most 108 characters

    def gpg(*words: str) -> str:
        command = ["gpg", f"--homedir={home}", "--batch", "--passphrase", "", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    gpg("--quick-generate-key", "wave@example.org", "ed25519", "sign", "never")
    (found,) = re.findall(r"^fpr:+([0-9A-F]{40}):$", gpg("--with-colons", "--list-keys"), re.MULTILINE)
    yield found, home
    subprocess.run(["gpgconf", f"--homedir={home}", "--kill", "gpg-agent"], check=False)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
def test_a_signed_index_stays_signed(versions: Versions, key: tuple[str, Path]) -> None:
    """Publishing and dropping both write it anew, and the signature is that of the new one."""
    fingerprint, home = key
    ostree(versions.repo, "summary", "-u", f"--gpg-sign={fingerprint}", f"--gpg-homedir={home}")
    signature = versions.repo / "summary.sig"
    provider = OstreeProvider(OstreeSettings(versions.repo, gpg_sign=fingerprint, gpg_homedir=home))
    seen = [signature.read_bytes()]
    for change in (lambda: build(provider, versions.pair(1, 2)), lambda: provider.drop(versions.pair(1, 2))):
        change()
        seen.append(signature.read_bytes())
    # Without the delta again, within one second, it may be the first summary to the letter, and so its signature.
    assert seen[0] != seen[1] != seen[2]
    client = versions.repo.parent / "client"
    ostree(client, "init", "--mode=archive")
    ostree(client, "remote", "add", "wave", f"file://{versions.repo}", "--set=gpg-verify-summary=true")
    subprocess.run(
        f"gpg --homedir={home} --export | ostree --repo={client} remote gpg-import wave --stdin",
        shell=True,
        check=True,
        capture_output=True,
    )
    assert "os/1" in ostree(client, "remote", "refs", "wave")


def test_a_signed_index_is_not_stripped_of_its_signature(versions: Versions) -> None:
    """Devices that ask for a signature would take nothing any more: nothing is published, and the summary stays."""
    provider = OstreeProvider(OstreeSettings(versions.repo))
    build(provider, versions.pair(2, 3))
    (versions.repo / "summary.sig").write_bytes(b"somebody signed it")
    before = (versions.repo / "summary").read_bytes()
    for call in (lambda: build(provider, versions.pair(1, 2)), lambda: provider.drop(versions.pair(2, 3))):
        with pytest.raises(ContentUnavailable, match=r"is signed, and no key is set .* Set `gpg_sign`"):
            call()
    assert (versions.repo / "summary").read_bytes() == before
    assert (versions.repo / "summary.sig").read_bytes() == b"somebody signed it"
    assert provider.published() == [versions.pair(2, 3)]
