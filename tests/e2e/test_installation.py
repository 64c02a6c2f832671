"""Making an installation: what is made is where it was asked for, tight, and made once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from freezegun import freeze_time

from orchestrator.adapters.files.settings import HEADINGS, settings_page
from orchestrator.bootstrap import initialise, load_settings, open_application, open_store
from orchestrator.core.fleet import Device
from orchestrator.services.settings import Settings


def test_an_installation_is_made_where_it_is_asked_for_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVE_ROOT", str(tmp_path / "elsewhere"))
    here = tmp_path / "here"
    made = initialise(here)
    assert [line.split()[0] for line in made] == ["directory", "settings", "database", "repository"]
    assert (here / "wave.db").is_file()
    assert (here / "repo" / "config").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_making_it_again_makes_nothing_and_keeps_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    initialise(root)
    (root / "wave.yaml").write_text("root: .\nport: 9999\n", encoding="utf-8")
    assert initialise(root) == []
    assert load_settings(None, {"root": str(root)}).port == 9999


def test_all_of_it_is_for_its_owner_alone_even_where_the_directory_was_there(tmp_path: Path) -> None:
    """The settings may come to hold the password of a database."""
    (tmp_path / "open").mkdir(mode=0o755)
    initialise(tmp_path / "open")
    assert (tmp_path / "open" / "wave.yaml").stat().st_mode & 0o777 == 0o600
    root = tmp_path / "root"
    initialise(root)
    assert root.stat().st_mode & 0o077 == 0
    assert (root / "wave.db").stat().st_mode & 0o077 == 0


def test_the_settings_page_loads_with_every_line_uncommented(tmp_path: Path) -> None:
    root = tmp_path / "root"
    initialise(root)
    page = (root / "wave.yaml").read_text(encoding="utf-8")
    keys = [line.removeprefix("# ") for line in page.splitlines() if line.startswith("# ") and ": " in line]
    settable = [line for line in keys if line.split(":")[0].replace("_", "").isalpha() and line.split(": ")[1]]
    (root / "wave.yaml").write_text("root: .\n" + "\n".join(settable))
    settings = load_settings(None, {"root": str(root)})
    open_store(settings).close()
    assert settings.model_copy(update={"root": settings.root}).port == 8700


def test_the_settings_page_has_every_setting_below_a_heading_and_says_what_to_do() -> None:
    page = settings_page()
    assert set(HEADINGS) <= set(Settings.model_fields)
    assert page.index("wave doctor") < page.index("\nroot: .")
    for key in set(Settings.model_fields) - {"root"}:
        assert re.search(rf"(?m)^# [A-Z].*[.]\n# {key}:( |$)", page), key
    assert page.index("# ----") < page.index("# database:")


def test_what_is_written_bears_the_time_of_the_one_clock(tmp_path: Path) -> None:
    initialise(tmp_path / "root")
    app = open_application(load_settings(None, {"root": str(tmp_path / "root")}))
    with freeze_time("2026-03-29 01:30:00"):
        list(app.devices.enroll([Device("lab-1", "rpi4", "main")], tokens=False))
    enrolled_at = app.queries.device("lab-1").device.enrolled_at
    app.close()
    assert enrolled_at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
