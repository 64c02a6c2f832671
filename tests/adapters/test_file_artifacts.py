"""Deltas that are artifacts themselves: read as what they say they are, and looked at by the operator's program."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.core.artifact import Artifact, Digests, Format
from orchestrator.errors import BuildFailed, CorruptDelta
from orchestrator.services.delta_program import DeltaProgram
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.installable import is_name, smaller_file
from tests.adapters import artifact_files as files
from tests.adapters.test_file_provider import Shelf, build

DESCRIPTION = 'software = {{ version = "{0}"; name = "board"; hardware-compatibility = [ "1.0" ]; }}'


def image(version: str, payload: bytes, compatible: str = '"1.0"') -> bytes:
    said = DESCRIPTION.format(version).replace('"1.0" ]', f"{compatible} ]").encode()
    return b"".join(files.cpio(*each) for each in ((b"sw-description", said), (b"payload", payload)))


def maker(makes: str, *, verify: str = "", **more: Any) -> DeltaProgram:
    """A line for a shell, which the tests may use and the program never does: $1, $2 and $3 are from, to and delta."""
    places = ["{from}", "{to}", "{delta}"]
    looks = {"verify": ["sh", "-c", verify, "sh", *places]} if verify else {}
    said = {"name": "own", "makes": "artifact", "make": ["sh", "-c", makes, "sh", *places], **looks, **more}
    return DeltaProgram.model_validate(said)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.old, made.new = made.add(image("1.1.0", b"x" * 5_000)), made.add(image("1.2.0", b"y" * 5_000))
    made.pair = DeltaPair(made.old, made.new)
    return made


def given(shelf: Shelf, content: bytes, **more: Any) -> DeltaProgram:
    """A program that always makes this."""
    (shelf.root / "made").write_bytes(content)
    return maker(f"cp '{shelf.root}/made' \"$3\"", **more)


def test_a_smaller_artifact_is_published_under_its_sums(shelf: Shelf) -> None:
    content = image("1.2.0", b"only what changed")
    provider = shelf.provider(given(shelf, content, verify='cmp -s "$3" "$3" && ! cmp -s "$2" "$3"'))
    assert provider.settled(shelf.pair) is None
    record = build(provider, shelf.pair)
    file = shelf.root / "artifacts" / record.path
    sums = [made(content).hexdigest() for made in (hashlib.sha256, hashlib.sha1, hashlib.md5)]
    assert file.name == f"{'-'.join(sums)}.own" and is_name(file.name) and file.read_bytes() == content
    found = provider.find(shelf.pair)
    assert found is not None and (found.path, found.bytes, found.whole) == (record.path, len(content), False)
    assert provider.verify(shelf.pair).path == record.path == build(provider, shelf.pair).path
    file.write_bytes(b"!" + content[1:])
    with pytest.raises(CorruptDelta):
        provider.find(shelf.pair)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (image("1.1.0", b""), r"its version is 1\.1\.0, and the Target's 1\.2\.0"),
        (image("1.2.0", b"").replace(b"board", b"other"), "its name is other, and the Target's board"),
        (image("1.2.0", b"", '"2.0"'), r"it is for 2\.0, and the Target for 1\.0"),
        (image("1.2.0", b"", ""), r"it is for any hardware, and the Target for 1\.0"),
        (b"a patch", "any other file, where the Target is an SWUpdate image"),
        (image("1.2.0", b"")[:150], "It is no artifact"),
        (b"", "made but does not hold"),
    ],
    ids=["version", "name", "hardware", "no hardware", "a patch", "cut off", "empty"],
)
def test_what_is_another_artifact_is_not_published(shelf: Shelf, made: bytes, why: str) -> None:
    with pytest.raises(BuildFailed, match=why):
        build(shelf.provider(given(shelf, made)), shelf.pair)
    assert list(shelf.provider().published()) == [] and shelf.leftovers == []


def test_what_the_verifying_program_refuses_is_not_published(shelf: Shelf) -> None:
    strict = given(shelf, image("1.2.0", b""), verify="echo not signed >&2; exit 1; : $1 $2 $3")
    with pytest.raises(BuildFailed, match="not signed"):
        build(shelf.provider(strict), shelf.pair)
    assert list(shelf.provider().published()) == []


def test_an_encrypted_image_is_believed_only_by_a_program_that_can_read_it(shelf: Shelf) -> None:
    def hidden(payload: bytes) -> bytes:
        return files.cpio(b"sw-description", b"\xff\xfe" + payload[:4]) + files.cpio(b"payload", payload)

    pair = DeltaPair(shelf.add(hidden(b"x" * 5_000)), shelf.add(hidden(b"y" * 5_000)))
    with pytest.raises(BuildFailed, match="What it is cannot be read from it"):
        build(shelf.provider(given(shelf, hidden(b"few"))), pair)
    assert build(shelf.provider(given(shelf, hidden(b"few"), verify="test -s $3")), pair).bytes


def test_what_has_no_format_and_what_is_of_another_is_served_whole(shelf: Shelf) -> None:
    provider = shelf.provider(given(shelf, image("1.2.0", b"")))
    for source in (shelf.foreign, shelf.add(files.mender(files.tar({})))):
        pair = DeltaPair(source, shelf.new)
        settled = provider.settled(pair)
        assert settled is not None and settled.whole and settled == build(provider, pair)
        assert provider.estimate(pair).build_seconds == 0.0


def test_one_that_is_not_smaller_is_served_whole(shelf: Shelf) -> None:
    record = build(shelf.provider(maker('cp "$2" "$3"; : "$1"')), shelf.pair)
    assert record.whole and record.fallback_bytes == len(image("1.2.0", b"y" * 5_000))


def test_a_patch_is_not_what_a_program_of_that_name_makes_now(shelf: Shelf) -> None:
    content = image("1.2.0", b"")
    build(shelf.provider(given(shelf, content)), shelf.pair)
    copy = ["cp", "{from}{to}", "{delta}"]
    patching = DeltaProgram.model_validate({"name": "own", "make": copy, "apply": copy})
    assert shelf.provider(patching).find(shelf.pair) is None


def test_a_device_sees_it_under_a_name_of_its_own(shelf: Shelf) -> None:
    record = build(shelf.provider(given(shelf, image("1.2.0", b""))), shelf.pair)
    whole = Artifact(Digests(shelf.new, "0" * 40, "0" * 32, 9), Format.SWU, "x" * 124 + ".swu", "board", "1.2.0")
    found = smaller_file(record, whole)
    assert found is not None and found.path == record.path
    assert (found.artifact.size, found.artifact.version) == (record.bytes, whole.version)
    name = found.artifact.filename
    assert name.startswith(f"delta-{found.artifact.sha256[:8]}-x") and name.endswith(".swu") and len(name) == 128


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"apply": ["cp", "{from}", "{to}", "{delta}"]}, "apply is for `makes: patch`"),
        ({"verify": ["true"]}, "verify names {delta} nowhere"),
        ({"verify": ["true", "{delta}", "{scrap}"]}, "verify has {scrap}, which stands for nothing"),
        ({"makes": "patch", "verify": ["true", "{delta}"], "apply": ["cp", "{from}{to}", "{delta}"]}, "verify is for"),
        ({"makes": "patch"}, "apply must be a command"),
        ({"makes": "both"}, "artifact"),
    ],
)
def test_what_does_not_belong_to_what_it_makes_is_refused(said: dict[str, Any], why: str) -> None:
    make = {"name": "own", "makes": "artifact", "make": ["cp", "{from}{to}", "{delta}"]}
    with pytest.raises(ValidationError, match=re.escape(why)):
        DeltaProgram.model_validate({**make, **said})
