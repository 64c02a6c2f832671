"""A house to be examined: made once, and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.bootstrap import initialise, load_settings
from orchestrator.services.settings import Settings


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "house"
    initialise(root)
    return root


@pytest.fixture
def house(template: Path, tmp_path: Path) -> Settings:
    shutil.copytree(template, tmp_path / "house")
    return load_settings(None, {"root": str(tmp_path / "house"), "port": "0", "console_port": "0"})
