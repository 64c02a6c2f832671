"""``wave artifact`` and Targets that are files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.cli.house import House


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs-1.1.0.img"
    path.write_bytes(b"a root file system " * 5000)
    return path


def add(house: House, image: Path, *more: str) -> str:
    return house.ok("artifact", "add", str(image), "--version", "1.1.0", "--hardware-id", "rpi4", *more)


def test_a_file_is_added_listed_shown_verified_and_removed(house: House, image: Path) -> None:
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    said = "rootfs-1.1.0.img: plain rootfs-1.1.0, version 1.1.0, for rpi4, sha256"
    assert f"Would add {said}" in " ".join(add(house, image, "--dry-run").split())
    assert house.json("artifact", "list") == []
    assert f"Added {said}" in " ".join(add(house, image).split())
    assert f"There already: {said}" in " ".join(add(house, image).split())
    listed = house.ok("artifact", "list")
    assert "1.1.0" in listed and sha256[:12] in listed
    [found] = house.json("artifact", "list")
    assert found == house.json("artifact", "show", sha256[:8])
    assert (found["sha256"], found["bytes"], found["there"], found["hardware_ids"]) == (sha256, 95000, True, ["rpi4"])
    assert found["sha1"] == hashlib.sha1(image.read_bytes()).hexdigest()
    assert sha256 in house.ok("artifact", "show", "rootfs-1.1.0")
    assert "it is whole" in house.ok("artifact", "verify")
    assert "Would remove" in house.ok("artifact", "remove", image.name, "--dry-run")
    assert "Removed" in house.ok("artifact", "remove", image.name, "--yes")
    assert "No artifact." in house.ok("artifact", "list")
    assert not list((house.root / "artifacts" / sha256[:2]).iterdir())


def test_a_file_that_does_not_say_its_version_needs_a_word(house: House, image: Path) -> None:
    ended = house.run("artifact", "add", str(image))
    assert ended.exit_code == 2
    assert "does not say its version" in ended.output and "--version" in ended.output
    assert house.run("artifact", "add", str(image.with_name("none"))).exit_code == 2


def test_a_damaged_file_is_told_and_can_be_added_again(house: House, image: Path) -> None:
    add(house, image)
    sha256 = house.json("artifact", "list")[0]["sha256"]
    stored = house.root / "artifacts" / sha256[:2] / sha256
    stored.write_bytes(b"x" * 95000)
    ended = house.run("artifact", "verify")
    assert ended.exit_code == 6 and "is not what it was" in ended.output
    stored.unlink()
    assert "(not there)" in house.ok("artifact", "list")
    ended = house.run("artifact", "verify", sha256[:8], "--json")
    assert ended.exit_code == 6 and "is not there" in ended.output
    add(house, image)
    assert "it is whole" in house.ok("artifact", "verify")


def test_a_target_is_a_file_by_its_path_or_its_name(house: House, image: Path) -> None:
    add(house, image)
    sha256 = house.json("artifact", "list")[0]["sha256"]
    assert "Would add rpi4-7" in house.ok("target", "add", "7", "--artifact", str(image), "--dry-run")
    added = house.json("target", "add", "7", "--artifact", str(image), "--tag", "promoted")
    assert (added["commit"], added["provider"], added["hardware_ids"]) == (sha256, "files", ["rpi4"])
    assert house.json("target", "add", "7", "--artifact", sha256[:12], "--tag", "promoted")["new"] is False
    ended = house.run("target", "add", "8", "--artifact", image.name, "--hardware-id", "imx8")
    assert ended.exit_code == 4 and "for rpi4, not for imx8" in " ".join(ended.output.split())
    ended = house.run("artifact", "remove", image.name, "--yes")
    assert ended.exit_code == 4 and "is what rpi4-7 is" in " ".join(ended.output.split())


def test_a_target_is_either_a_commit_or_a_file(house: House) -> None:
    for words in (("7",), ("7", "abcdef12", "--artifact", "x")):
        ended = house.run("target", "add", *words, "--hardware-id", "rpi4")
        assert ended.exit_code == 2 and "one of both" in " ".join(ended.output.split())
    assert house.run("target", "add", "7", "--artifact", "nothing").exit_code == 3
