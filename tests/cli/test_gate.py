"""``wave gate ask``: what the gates of a policy or a rollout say now, here and from afar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.elsewhere import MIKA, served
from tests.cli.house import House

SECRET = "not-for-anybody"
PROGRAM = """#!/bin/sh
echo "$WAVE_ROLLOUT $WAVE_WAVE $WAVE_TARGET $WAVE_TAG"
exit {code}
"""
POLICY = """policy: gated
gates:
  - {gate: moon, asks: moon}
  - {gate: desk, asks: desk, otherwise: open, at_most: 4h}
"""


@pytest.fixture
def gated(fleet: House) -> House:
    """Two programs: one says yes, the other not yet."""
    words = []
    for name, code in (("moon", 0), ("desk", 75)):
        program = fleet.root / name
        program.write_text(PROGRAM.format(code=code))
        program.chmod(0o700)
        words.append(f"{name}: {{command: [{program}, {SECRET}]}}\n")
    sources = fleet.root / "gates.yaml"
    sources.touch(mode=0o600)
    sources.write_text("".join(words))
    (fleet.root / "gated.yaml").write_text(POLICY)
    return fleet


def one_line(said: str) -> str:
    """With neither breaks of lines nor how long it took."""
    return re.sub(r"after \d+\.\d s", "after a moment", " ".join(said.split()))


def test_a_policy_is_asked_without_any_rollout(gated: House) -> None:
    said = one_line(gated.ok("gate", "ask", str(gated.root / "gated.yaml")))
    assert "moon: yes (dry-run dry-run 0 dry-run), after a moment" in said
    assert "desk: not yet (dry-run dry-run 0 dry-run), after a moment" in said
    assert "It is asked again after 1m; without a yes within 4h the wave opens without it." in said
    assert "The wave would wait for its gates." in said
    assert SECRET not in said and str(gated.root / "moon") not in said


def test_a_rollout_is_asked_and_its_journal_is_as_it_was(gated: House, tmp_path: Path) -> None:
    file = Path(gated.rollout())
    (file.parent / "gated.yaml").write_text(POLICY)
    file.write_text(file.read_text().replace("policy: accelerated", "policy: ./gated.yaml"))
    gated.ok("apply", str(file))
    before = gated.json("journal", "lmp-42")
    tried = gated.json("gate", "ask", "--rollout", "lmp-42", "--wave", "canary", "--gate", "moon")
    (moon,) = tried["gates"]
    assert (tried["rollout"], tried["wave"], tried["target"], tried["tag"]) == ("lmp-42", "canary", 42, "promoted")
    assert (moon["answer"], moon["because"], moon["kind"]) == ("yes", "lmp-42 canary 42 promoted", "command")
    assert moon["asked"] == "WAVE_GATE=moon WAVE_ROLLOUT=lmp-42 WAVE_WAVE=canary WAVE_TARGET=42 WAVE_TAG=promoted"
    assert 0 < moon["seconds"] < 10
    assert gated.json("gate", "ask", "--rollout", "lmp-42")["wave"] == "lab", "the first that is not open"
    assert gated.json("journal", "lmp-42") == before
    assert "no wave" in gated.run("gate", "ask", "--rollout", "lmp-42", "--wave", "none").output


def test_from_afar_the_sources_there_are_asked(gated: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ("gate", "ask", str(gated.root / "gated.yaml"))
    here = one_line(gated.ok(*ask))
    monkeypatch.setenv("WAVE_TOKEN", MIKA)
    with served(gated) as url:
        assert one_line(gated.ok(*ask, "--server", url)) == here
        assert len(gated.json(*ask, "--server", url, "--gate", "desk")["gates"]) == 1
    newest = gated.json("log", "--limit", "1")[0]
    assert newest["sentence"] == "mika asked for a try, of the policy gated: desk."
