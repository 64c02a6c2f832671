"""``wave tuf``: what people type, and what they are told."""

from __future__ import annotations

from tests.cli.house import House


def fails(house: House, code: int, *words: str) -> str:
    """What it says when it ends so."""
    ended = house.run(*words)
    assert ended.exit_code == code, ended.output
    return str(ended.stderr)


def test_a_repository_from_its_beginning_to_its_second_root(house: House) -> None:
    assert "`wave tuf init`" in fails(house, 4, "tuf", "show")
    said = house.ok("tuf", "init")
    assert "Root 1 is made" in said and "root.key" in said
    assert "already" in fails(house, 4, "tuf", "init")
    root_key = house.root / "tuf" / "keys" / "root.key"
    away = house.root / "away.key"
    root_key.rename(away)
    assert "--root-key FILE" in fails(house, 4, "tuf", "rotate", "--yes")
    assert "Root 2 is made" in house.ok("tuf", "rotate", "--root-key", str(away), "--yes")
    shown = house.json("tuf", "show")
    assert [root["version"] for root in shown["roots"]] == [2, 1]
    assert shown["root_key"] is False and shown["problem"] is None
    assert "ROOT" in house.ok("tuf", "show")
    away.chmod(0o644)
    assert "chmod 600" in fails(house, 4, "tuf", "rotate", "--root-key", str(away), "--yes")
    fails(house, 2, "tuf", "rotate", "--same-keys", "--keys", str(house.root), "--yes")


def test_roots_that_are_not_there_are_named(house: House) -> None:
    assert "There is no file" in fails(house, 3, "tuf", "init", "--import", str(house.root / "1.root.json"))
    fails(house, 2, "tuf", "init", "--root-key", "a", "--root-key", "b")
