"""Which of the three files one plainly is."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.files.loader import load_policy, load_rollout
from orchestrator.errors import InvalidFile


def test_a_file_of_another_kind_is_named_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    for text, load, said in (
        ("rollout: r\nwaves: []\npolicy: p\n", load_policy, "is a rollout file; a policy file is asked for."),
        ("devices: []\n", load_policy, "is a fleet file; a policy file is asked for."),
        ("policy: mine\n", load_rollout, "is a policy file; a rollout file is asked for."),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidFile, match=said) as refused:
            load(path)
        assert len(refused.value.problems) == 1
    path.write_text("rollout: r\nwavez: []\npolicy: p\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match="Did you mean 'waves'"):  # it is no policy for want of waves
        load_rollout(path)
