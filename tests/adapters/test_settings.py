"""Settings: what belongs together, where paths count from, and what is not said of a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.files.settings import as_environment, load_settings
from orchestrator.errors import InvalidFile, InvalidInput


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("tls_certificate: a.pem", "belong together"),
        ("trusted_proxies: '*'", "no address and no network"),
        ("trusted_proxies: 10.0.0.1, proxy.example.com", "no address and no network"),
        ("tls_client_ca: a.pem", "needs tls_certificate"),
        ("tls_certificate: a.pem\ntls_key: b.pem\ntls_client_required: true", "needs tls_client_ca"),
    ],
)
def test_settings_of_tls_belong_together(tmp_path: Path, page: str, said: str) -> None:
    (tmp_path / "wave.yaml").write_text(page, encoding="utf-8")
    with pytest.raises(InvalidInput, match=said):
        load_settings(tmp_path / "wave.yaml", {}, {})


def test_paths_of_tls_count_from_the_file_and_the_url_follows(tmp_path: Path) -> None:
    (tmp_path / "wave.yaml").write_text("tls_certificate: a.pem\ntls_key: b.key\n", encoding="utf-8")
    settings = load_settings(tmp_path / "wave.yaml", {}, {})
    assert (settings.tls_certificate, settings.tls_key) == (tmp_path / "a.pem", tmp_path / "b.key")
    assert settings.url == "https://127.0.0.1:8700"
    again = load_settings(None, {}, as_environment(settings))
    assert again.tls_key == tmp_path / "b.key" and again.tls_client_required is False


@pytest.mark.parametrize(
    "address",
    ["wave:SECRET", "postgresql:wave:SECRET@db", "postgresql://wave:SECRET@db:port/wave", "mysql://w:SECRET@db/w"],
)
def test_an_address_of_no_database_is_refused_without_what_it_holds(tmp_path: Path, address: str) -> None:
    (tmp_path / "wave.yaml").write_text(f"database: {address}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="database") as refused:
        load_settings(tmp_path / "wave.yaml", {}, {})
    assert "SECRET" not in str(refused.value)
    with pytest.raises(InvalidInput, match="database") as refused:
        load_settings(None, {}, {"WAVE_DATABASE": address})
    assert "SECRET" not in str(refused.value) and refused.value.remedy


def test_what_cannot_be_taken_is_said_by_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "wave.yaml"
    file.write_text("root: .\nport: eighty\ntick_at_most: 5\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match="has no unit") as refused:
        load_settings(file, {}, {})
    assert refused.value.line == 3
    file.write_text("root: .\nport: eighty\nconsole_port: 99999\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"valid integer.*`port`: Port the gateway listens on") as refused:
        load_settings(file, {}, {})
    assert refused.value.line == 2 and [each.line for each in refused.value.problems] == [2, 3]
    with pytest.raises(InvalidInput, match=r"WAVE_PORT in the environment cannot be taken: .*`port`: Port the gateway"):
        load_settings(None, {}, {"WAVE_PORT": "eighty"})
    with pytest.raises(InvalidInput, match=r"WAVE_LEASE in the environment has no unit"):
        load_settings(None, {}, {"WAVE_LEASE": "30"})
    with pytest.raises(InvalidInput, match=r"WAVE_PROT in the environment is no setting. Did you mean 'port'\?"):
        load_settings(None, {}, {"WAVE_PROT": "80"})
    with pytest.raises(InvalidInput, match=r"port in the command line cannot be taken"):
        load_settings(None, {"port": "99999"}, {})


def test_a_setting_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    """Which of two databases was meant?"""
    file = tmp_path / "wave.yaml"
    file.write_text("database: sqlite:///one.db\nport: 80\ndatabase: sqlite:///two.db\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match="is written twice, in line 1 and in line 3") as refused:
        load_settings(file, {}, {})
    assert refused.value.path == "database"
