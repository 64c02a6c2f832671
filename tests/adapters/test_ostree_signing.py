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


def pull_summary(repo: Path, home: Path, client: Path) -> set[str]:
    """What a new device takes from the index: the deltas that it names. Raises CalledProcessError when the signature is
    not that of the index, or is not by the key."""
    ostree(client, "init", "--mode=archive")
    ostree(client, "remote", "add", "wave", f"file://{repo}", "--set=gpg-verify-summary=true")
    export = subprocess.run(["gpg", f"--homedir={home}", "--export"], check=True, capture_output=True).stdout
    command = ["ostree", f"--repo={client}", "remote", "gpg-import", "wave", "--stdin"]
    subprocess.run(command, input=export, check=True, capture_output=True)
    assert ostree(client, "remote", "refs", "wave").split() == [f"wave:os/{n}" for n in (1, 2, 3, 4)]
    return set(re.findall(r"'([0-9a-f]{64}-[0-9a-f]{64})'", ostree(client, "remote", "summary", "wave")))


def test_a_signed_index_stays_signed(versions: Versions, key: tuple[str, Path], tmp_path: Path) -> None:
    """Publishing and dropping both write it anew, and sign what they wrote."""
    fingerprint, home = key
    repo, pair = versions.repo, versions.pair(1, 2)
    provider = OstreeProvider(OstreeSettings(repo, gpg_sign=fingerprint, gpg_homedir=home))
    ostree(repo, "summary", "-u", f"--gpg-sign={fingerprint}", f"--gpg-homedir={home}")
    assert pull_summary(repo, home, tmp_path / "before") == set()
    old = (repo / "summary.sig").read_bytes()

    build(provider, pair)
    named = f"{pair.from_commit}-{pair.to_commit}"
    assert pull_summary(repo, home, tmp_path / "published") == {named}

    provider.drop(pair)
    assert pull_summary(repo, home, tmp_path / "dropped") == set()

    build(provider, pair)
    (repo / "summary.sig").write_bytes(old)
    with pytest.raises(subprocess.CalledProcessError):  # a device does look: the first signature is not for this index
        pull_summary(repo, home, tmp_path / "forged")


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
