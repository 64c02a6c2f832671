"""Every look of `wave doctor` on an installation that is well, and on one where just that is wrong."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters.authority import FileAuthority
from orchestrator.adapters.doctor import secrets
from orchestrator.adapters.doctor.examining import examine
from orchestrator.adapters.doctor.words import days, size
from orchestrator.adapters.sql.store import open_store
from orchestrator.adapters.sql.times import stored
from orchestrator.bootstrap import open_tuf
from orchestrator.services.delta_program import DeltaProgram
from orchestrator.services.doctor import Area, Finding, Level, worst
from orchestrator.services.settings import Settings
from tests.loopback import answering, free_port

NOW = datetime.now(UTC)

pytestmark = pytest.mark.ostree


def found(settings: Settings, area: Area, *, now: datetime = NOW, file: Path | None = None) -> list[Finding]:
    return [each for each in examine(settings, now, file=file) if each.area is area]


def bad(settings: Settings, area: Area, *, now: datetime = NOW, file: Path | None = None) -> Finding:
    """The worst of an area, which must be one of its own kind."""
    (finding, *others) = [each for each in found(settings, area, now=now, file=file) if each.level is not Level.OK]
    assert others == []
    assert finding.remedy
    return finding


def test_a_new_installation_fails_in_nothing_and_every_area_was_looked_at(house: Settings) -> None:
    seen = examine(house, NOW, file=house.root / "wave.yaml")
    assert [each for each in seen if each.level is Level.FAIL] == []
    assert {each.area for each in seen} == set(Area) - {Area.PORTS}, "port 0 is any free one"
    assert all(each.sentence.endswith(".") and (each.remedy is None) == (each.level is Level.OK) for each in seen)


def test_no_installation_is_said_once_and_the_other_looks_are_made(tmp_path: Path) -> None:
    seen = examine(Settings(root=tmp_path / "nowhere"), NOW)
    assert worst(seen) is Level.FAIL
    assert "`wave init`" in " ".join(each.remedy or "" for each in seen)
    assert {Area.CLOCK, Area.LIMITS, Area.DISK} <= {each.area for each in seen}


# -------------------------------------------------------------------------------------------------------- store


def test_a_damaged_database_is_found(house: Settings) -> None:
    file = house.root / "wave.db"
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    with file.open("r+b") as stream:
        stream.seek(4096 * 3)
        stream.write(b"\x55" * 4096 * 8)
    assert any(each.level is Level.FAIL for each in found(house, Area.STORE))


def test_a_schema_of_another_version_is_found(house: Settings) -> None:
    for version, word in (("0001", "`wave db upgrade`"), ("9999", "newer")):
        with sqlite3.connect(house.root / "wave.db") as raw:
            raw.execute("UPDATE alembic_version SET version_num = ?", (version,))
        raw.close()
        finding = bad(house, Area.STORE)
        assert finding.level is Level.FAIL
        assert word in f"{finding.sentence} {finding.remedy}"


# -------------------------------------------------------------------------------------------------------- clock


def test_a_database_ahead_of_the_clock_is_found(house: Settings) -> None:
    open_store(house.database_url).close()
    with sqlite3.connect(house.root / "wave.db") as raw:
        later = stored(datetime.now(UTC) + timedelta(hours=2))
        raw.execute("INSERT INTO house (name, at) VALUES ('alive:gateway', ?)", (later,))
    raw.close()
    wrong = [each for each in found(house, Area.CLOCK) if each.level is Level.FAIL]
    assert [each.sentence for each in wrong if "seconds ahead of the clock" in each.sentence]


def test_a_clock_before_the_program_was_installed_is_found(house: Settings) -> None:
    wrong = found(house, Area.CLOCK, now=datetime(1990, 1, 1, tzinfo=UTC))
    assert any(each.level is Level.FAIL and "1990" in each.sentence for each in wrong)


# ------------------------------------------------------------------------------------------------------ content


def test_a_repository_that_is_not_there_or_of_the_wrong_mode_is_found(house: Settings) -> None:
    config = house.repository_path / "config"
    config.write_text(config.read_text().replace("archive-z2", "bare"))
    assert "mode bare" in bad(house, Area.CONTENT).sentence
    shutil.rmtree(house.repository_path)
    assert "no OSTree repository" in bad(house, Area.CONTENT).sentence


def test_a_delta_program_that_is_not_installed_is_found(house: Settings) -> None:
    words = ("no-such-program", "{from}", "{to}", "{delta}")
    program = DeltaProgram(name="none", make=(words,), apply=(words,))
    assert "no-such-program" in bad(house.model_copy(update={"delta_program": program}), Area.DELTAS).sentence


# ------------------------------------------------------------------------------------------------------ secrets


def test_files_with_secrets_that_others_may_read_are_found(house: Settings) -> None:
    (house.root / "wave.db").chmod(0o644)
    finding = bad(house, Area.SECRETS)
    assert "0644" in finding.sentence and f"chmod 600 {house.root / 'wave.db'}" in (finding.remedy or "")


@pytest.mark.parametrize("name", ["destinations.yaml", "gates.yaml"])
def test_addresses_and_tokens_that_others_may_read_are_found(house: Settings, name: str) -> None:
    (house.root / name).write_text("desk: json://hunter2\n")
    (house.root / name).chmod(0o640)
    assert name in bad(house, Area.SECRETS).sentence


def test_traces_without_what_makes_them_are_found(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = house.model_copy(update={"traces": "environment"})
    assert worst(found(wanted, Area.SETTINGS)) is Level.OK
    monkeypatch.setattr(secrets, "find_spec", lambda name: None)
    assert "wave-orchestrator[traces]" in (bad(wanted, Area.SETTINGS).remedy or "")
    assert worst(found(house, Area.SETTINGS)) is Level.OK


def test_a_settings_file_with_a_password_that_others_may_read_is_found(house: Settings, tmp_path: Path) -> None:
    file = tmp_path / "wave.yaml"
    file.touch(mode=0o644)
    with_password = house.model_copy(update={"database": "postgresql+psycopg://wave:SECRET@/wave?host=/nowhere"})
    seen = examine(with_password, NOW, file=file)
    assert any(each.area is Area.SETTINGS and each.level is Level.FAIL for each in seen)
    assert not any("SECRET" in f"{each.sentence}{each.remedy}" for each in seen)


@pytest.mark.parametrize(
    ("after", "level"), [(0, Level.OK), (380, Level.WARN), (395, Level.FAIL), (400, Level.FAIL)], ids=str
)
def test_a_certificate_is_said_to_end_before_it_does(house: Settings, after: int, level: Level) -> None:
    served = with_certificate(house)
    seen = found(served, Area.CERTIFICATES, now=NOW + timedelta(days=after))
    assert worst([each for each in seen if "gateway's certificate" in each.sentence]) is level


def with_certificate(house: Settings) -> Settings:
    authority = FileAuthority(house.root / "ca")
    authority.make("factory", lasts=timedelta(days=3650), now=NOW)
    made = authority.server(["gateway"], lasts=timedelta(days=397), since=NOW - timedelta(minutes=1))
    authority.save(made, house.root / "tls", "gateway")
    keys = {"tls_certificate": house.root / "tls/gateway.pem", "tls_key": house.root / "tls/gateway.key"}
    return house.model_copy(update=keys)


def test_a_key_of_another_certificate_and_a_chain_out_of_order_are_found(house: Settings) -> None:
    served = with_certificate(house)
    other = served.model_copy(update={"tls_key": house.root / "ca/ca.key"})
    assert "is not the key of" in bad(other, Area.CERTIFICATES).sentence
    chain = house.root / "tls/gateway.pem"
    other_house = FileAuthority(house.root / "elsewhere")
    other_house.make("somebody", lasts=timedelta(days=3650), now=NOW)
    chain.write_text(chain.read_text() + other_house.certificate())
    assert "has not issued it" in bad(served, Area.CERTIFICATES).sentence


def test_a_tuf_root_is_said_to_end_and_keys_that_do_not_belong_to_it_are_found(house: Settings) -> None:
    open_tuf(house, clock=lambda: NOW).init()
    assert worst(found(house, Area.TUF)) is Level.OK
    assert "--same-keys" in (bad(house, Area.TUF, now=NOW + timedelta(days=350)).remedy or "")
    keys = house.tuf_path / "keys"
    (keys / "timestamp.key").unlink()
    assert "timestamp" in bad(house, Area.TUF).sentence
    (keys / "snapshot.key").chmod(0o640)
    assert worst(found(house, Area.SECRETS)) is Level.FAIL


# -------------------------------------------------------------------------------------------------------- ports


def test_a_port_is_free_ours_or_somebody_elses(house: Settings) -> None:
    class Somebody(BaseHTTPRequestHandler):
        says = b"hello"

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.says)

    with answering(Somebody) as url:
        taken = house.model_copy(update={"port": urlsplit(url).port})
        assert "held by something else" in bad(taken, Area.PORTS).sentence
        Somebody.says = b'{"status":"ok"}'
        assert "by `wave serve`" in found(taken, Area.PORTS)[0].sentence
    assert "is free" in found(house.model_copy(update={"port": free_port()}), Area.PORTS)[0].sentence


def test_devices_served_to_everybody_without_tls_or_under_no_address_are_warned_of(house: Settings) -> None:
    to_all = house.model_copy(update={"host": "0.0.0.0", "public_url": "http://updates.example.com"})
    assert bad(to_all, Area.PORTS).level is Level.WARN
    warned = [each for each in found(to_all.model_copy(update={"public_url": None}), Area.PORTS) if each.remedy]
    assert [each.level for each in warned] == [Level.WARN, Level.WARN]
    assert "`public_url`" in (warned[1].remedy or "")


# -------------------------------------------------------------------------------------------------------- words


def test_numbers_are_said_as_people_say_them() -> None:
    assert [size(each) for each in (0, 999, 1500, 2_000_000, 5 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2 MB",
        "5 TB",
    ]
    spans = (timedelta(hours=3), timedelta(days=1, hours=3), timedelta(days=-12), timedelta(hours=-3))
    assert [days(each) for each in spans] == ["within a day", "in 1 day", "12 days ago", "today"]
