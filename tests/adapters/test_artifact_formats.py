"""What files say of themselves: made by the real tools, and by whoever means ill."""

from __future__ import annotations

import gzip
import json
import lzma
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.artifacts.formats import mender
from orchestrator.adapters.artifacts.formats.libconfig import DEEPEST, NotLibconfig, parse
from orchestrator.adapters.artifacts.store import FolderStore
from orchestrator.core.artifact import Described, Format, fits, own_hardware_ids
from orchestrator.errors import InvalidInput
from tests.adapters import artifact_files as files

DESCRIPTION = """
/* a release */
software =
{
    version = "1.1.0";  // what a device says afterwards
    name = "demo";
    description = "demo" " image";
    hardware-compatibility = [ "1.0", "1.2" ];
    rpi4: { hardware-compatibility: [ "#RE:^2[.]", "3.0" ]; stable: { images: ( { filename = "x"; size = 10L; } ); } };
    files: ( { filename = "payload"; path = "/opt/x"; properties: { atomic-install = "true"; }; } );
    embedded-script = "function f() -- { } \\" end";
}
"""


def described(content: bytes | Path, name: str = "x.bin") -> Described:
    if isinstance(content, Path):
        return FolderStore(Path("unused")).describe(content)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        return FolderStore(Path("unused")).describe(file)


# ------------------------------------------------------------------------------------------------ real tools


def test_a_signed_swupdate_image_says_version_name_and_hardware(tmp_path: Path) -> None:
    found = described(files.make_swu(tmp_path, DESCRIPTION))
    assert found == Described(Format.SWU, "demo", "1.1.0", ("1.0", "1.2", "rpi4:#RE:^2[.]", "rpi4:3.0"))
    assert own_hardware_ids(found) == ("rpi4:3.0",)
    assert described(files.make_swu(tmp_path, DESCRIPTION, name="release")) == found


@pytest.mark.parametrize("packed", ["gzip", "lzma", "none"])
def test_a_mender_artifact_says_its_name_and_device_types(tmp_path: Path, packed: str) -> None:
    file = files.make_mender(tmp_path, "--compression", packed)
    assert described(file) == Described(Format.MENDER, "app-1.1.0", "app-1.1.0", ("simdev", "otherdev"))


def test_a_rauc_bundle_says_compatible_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Described(Format.RAUCB, None, "2026.11-1", ("Board X",))
    bundle = files.make_raucb(tmp_path)
    assert described(bundle) == said
    monkeypatch.setattr("orchestrator.adapters.artifacts.formats.raucb.shutil.which", lambda name: None)
    unread = described(bundle)
    assert (unread.version, unread.compatible) == (None, ()) and "unsquashfs" in (unread.remark or "")


def test_of_a_verity_bundle_the_manifest_is_read_from_its_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = files.make_raucb(tmp_path, verity=True)
    monkeypatch.setattr("orchestrator.adapters.artifacts.formats.raucb.shutil.which", lambda name: None)
    assert described(bundle) == Described(Format.RAUCB, None, "2026.11-1", ("Board X",))


def test_all_else_is_a_plain_file() -> None:
    for content in (b"x", b"hsqs" + bytes(200), files.tar({"other": b"x"}), files.cpio(b"init", b"x"), bytes(1000)):
        assert described(content) == Described(Format.PLAIN)
    assert described(files.tar({"version": b'{"format": "other"}'})) == Described(Format.PLAIN)


# ------------------------------------------------------------------------------------------------ what fits


@pytest.mark.parametrize(
    ("kind", "compatible", "hardware_id", "may"),
    [
        (Format.SWU, ("1.0", "1.2"), "rpi4", True),
        (Format.SWU, ("1.0", "1.2"), "rpi4:1.2", True),
        (Format.SWU, ("1.0", "1.2"), "rpi4:1.3", False),
        (Format.SWU, ("rpi4:1.0",), "rpi4", True),
        (Format.SWU, ("rpi4:1.0",), "imx8", False),
        (Format.SWU, ("rpi4:1.0",), "imx8:1.0", False),
        (Format.SWU, ("#RE:^1",), "rpi4:7", True),
        (Format.MENDER, ("simdev",), "simdev", True),
        (Format.MENDER, ("simdev",), "other", False),
        (Format.RAUCB, ("Board X",), "Board-Y", False),
        (Format.PLAIN, (), "anything", True),
    ],
)
def test_a_file_goes_only_to_hardware_that_it_names(
    kind: Format, compatible: tuple[str, ...], hardware_id: str, may: bool
) -> None:
    assert fits(Described(kind, compatible=compatible), hardware_id) is may


# ------------------------------------------------------------------------------------------------ broken and hostile


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"070701short", "x.swu", "first cpio header is cut off"),
        (b"not a cpio at all" * 20, "x.swu", "first cpio header is cut off or damaged"),
        (files.cpio(b"sw-description", b"x", size=0x7FFFFFFF), "x.swu", "has 2147483647 bytes"),
        (files.cpio(b"sw-description", b"x", size=100), "x.swu", "ends within its sw-description"),
        (files.cpio(b"sw-description", b"x", name_size=0x0FFFFFFF), "x.swu", "a name of 268435455 bytes"),
        (files.cpio(b"../etc/passwd", b"x"), "x.swu", "first member is not sw-description"),
        (files.cpio(b"sw-description", b"x").replace(b"00000001", b"-0000001"), "x.swu", "damaged"),
        (files.cpio(b"sw-description", b"software = { version = "), "x.swu", "the text ends too early"),
        (files.cpio(b"sw-description", b'@include "/etc/passwd"\nsoftware = {}'), "x.swu", "cannot be read"),
        (files.cpio(b"sw-description", b'software = "x"'), "x.swu", "no group `software`"),
        (
            files.tar({"version": b"x"})[:124] + b"\x80" + b"\xff" * 11 + files.tar({"version": b"x"})[136:],
            "x",
            "damaged",
        ),
        (b"zzz", "x.mender", "is no Mender Artifact"),
        (b"zzz", "x.raucb", "is no RAUC bundle"),
        (files.tar({"version": b"[]"}), "x", "version is no JSON object"),
        (files.tar({"version": b'{"format": "mender", "version": 9}'}), "x", "version is 9, not 2 or 3"),
        (files.tar({"version": b'{"format": "mender", "version": 3}'}), "x", "no header.tar is among version"),
        (files.mender(b""), "x", "no header-info"),
        (files.mender(files.tar({"header-info": b"[" * 100_000})), "x", "header-info is no JSON object"),
        (files.mender(b"junk", suffix=".gz"), "x", "cannot be unpacked"),
        (files.mender(files.tar({"header-info": b"{}"})[:600], suffix=".xz"), "x", "cannot be unpacked"),
    ],
)
def test_what_claims_a_format_and_breaks_it_is_refused_in_words(content: bytes, name: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        described(content, name)


def test_what_cannot_be_read_is_left_to_the_operator() -> None:
    sealed = files.cpio(b"sw-description", bytes(range(128, 256)) * 4)
    assert described(sealed, "x.swu").remark
    zstd = described(files.mender(b"x", suffix=".zst"))
    assert (zstd.format, zstd.version) == (Format.MENDER, None) and ".zst" in (zstd.remark or "")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_bomb_does_not_go_off(suffix: str, pack: object) -> None:
    """A gigabyte of nothing in a megabyte: refused within a few times the header's own limit."""
    assert callable(pack)
    once = pack(bytes(64 << 20))
    bomb = files.mender(once * 8, suffix=suffix)
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        described(bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * mender.LARGEST_HEADER


def test_a_text_nested_too_deep_ends_in_words() -> None:
    for opening in ("{ a = ", "( ", "[ "):
        with pytest.raises(NotLibconfig, match="nested more than"):
            parse("a = " + opening * (DEEPEST * 1000))


WORDS = [
    "software",
    "=",
    ":",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    '"1.0"',
    "10L",
    "0x1F",
    "true",
    "# x\n",
    "/*",
    "\\",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_or_refused(words: list[str]) -> None:
    with suppress(NotLibconfig):
        assert isinstance(parse(" ".join(words)), dict)


SWU = files.cpio(b"sw-description", DESCRIPTION.encode()) + files.cpio(b"payload", b"x")
INFO = json.dumps({"artifact_provides": {"artifact_name": "a"}, "artifact_depends": {"device_type": ["b"]}}).encode()
MENDER = files.mender(gzip.compress(files.tar({"header-info": INFO}), mtime=0), suffix=".gz")
BUNDLE = b"hsqs" + bytes(200) + b"\x30\x82\x00\x40[update]\nversion=1\n" + bytes(44) + (68 + 0).to_bytes(8, "big")


@given(
    st.sampled_from([SWU, MENDER, BUNDLE]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 1 << 16),
    st.sampled_from(["x", "x.swu", "x.mender", "x.raucb"]),
)
@settings(max_examples=400, deadline=None)
def test_any_damage_is_described_or_refused(whole: bytes, damage: list[tuple[int, bytes]], cut: int, name: str) -> None:
    broken = bytearray(whole)
    for at, piece in damage:
        at %= len(broken)
        broken[at : at + len(piece)] = piece
    content = bytes(broken[: cut % len(broken) or len(broken)])
    try:
        found = described(content, name)
    except InvalidInput:
        return
    assert isinstance(found.format, Format)
    assert all(len(text) <= 300 for text in (found.version or "", found.name or "", *found.compatible))


@given(st.binary(max_size=3000), st.sampled_from(["x", "x.swu", "x.mender", "x.raucb"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_described_or_refused(content: bytes, name: str) -> None:
    with suppress(InvalidInput):
        described(content or b"x", name)
