"""Real SWUpdate clients that really install signed images from the real ``wave serve``."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.swupdate_devices import Press, SwuDevice, SwuHouse, alone, block
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # most of it waiting for one's turn

SLOW: Final = 200_000
"""Bytes a second."""

LARGE: Final = 500_000
"""Bytes of padding of an image that fails: of one that fits between its processes a client may ask itself how it went
before it has begun, and say that it went well."""


@pytest.fixture(scope="session")
def press(tmp_path_factory: pytest.TempPathFactory) -> Press:
    return Press(tmp_path_factory.mktemp("press"))


@pytest.fixture
def house() -> Iterator[SwuHouse]:
    """Below a short path: a client's control sockets lie in it, and an address of one has 107 bytes at most."""
    with alone(), tempfile.TemporaryDirectory(prefix="wave-") as short:
        made = SwuHouse(Path(short) / "house")
        try:
            yield made
        finally:
            made.close()


def test_six_devices_take_it_in_two_waves_while_the_server_is_killed(house: SwuHouse, press: Press) -> None:
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0", padding=800_000))
    devices = house.fleet(press, 3, 3, speed=SLOW)
    server = house.serve()
    house.boot()
    house.roll_out()
    until(
        "some have begun", lambda: "downloading" in house.statuses().values() or len(house.statuses()) == 4, within=30
    )
    server.kill()
    house.serve()
    # A client whose first poll after its reboot finds no server comes again after 45 seconds, whatever it was told.
    house.all_are("confirmed", within=100)
    assert {device.runs for device in devices} == {device.installed() for device in devices} == {"1.2.0"}
    house.comes_to("completed")
    house.counts_up()


def test_a_bad_release_halts_in_the_first_wave_and_nobody_in_the_second_is_offered_it(
    house: SwuHouse, press: Press
) -> None:
    """Its script fails after the file was written: 4 devices in the first wave, the second failure halts."""
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0", fails=True, padding=LARGE))
    devices = house.fleet(press, 4, 4)
    house.serve()
    house.boot()
    house.roll_out(more="budget: {failed: 2}")
    house.comes_to("halted")
    house.all_poll(2)
    found = house.statuses()
    assert set(found) <= {"a-0", "a-1", "a-2", "a-3"}, house.picture()
    assert set(found.values()) <= {"failed", "withdrawn"}, house.picture()
    assert list(found.values()).count("failed") >= 2
    assert {device.runs for device in devices} == {"1.1.0"}
    house.counts_up()


def test_a_file_that_is_damaged_on_its_way_has_failed(house: SwuHouse, press: Press) -> None:
    """Which class it counts in depends on whether the client's thread for its log is in time with the line that names
    the checksum; the last line of such a failure is always there."""
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0", padding=LARGE), damaged=True)
    house.fleet(press, 1)
    house.serve()
    house.boot()
    house.roll_out()
    house.all_are("failed")
    said = house.rows("SELECT kind, message FROM event WHERE kind IN ('failed', 'verify_failed')")
    assert len(said) == 1 and "No suitable .swu image found" in said[0][1], house.picture()
    assert (said[0][0] == "verify_failed") is ("Checksum does not match" in said[0][1])


def test_what_does_not_boot_has_failed(house: SwuHouse, press: Press) -> None:
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0"))
    (device,) = house.fleet(press, 1, boots=False)
    house.serve()
    house.boot()
    house.roll_out()
    house.all_are("failed")
    assert (device.installed(), device.runs) == ("1.2.0", "1.1.0")


def test_a_halt_stops_a_device_in_mid_download_where_the_policy_says_so(house: SwuHouse, press: Press) -> None:
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0", padding=3_000_000))
    (device,) = house.fleet(press, 1, speed=SLOW)
    house.serve()
    house.boot()
    house.roll_out(more="on_halt: [withdraw, cancel]")
    house.all_are("downloading", "installing")
    house.app.rollouts.halt("r2", by="tester", reason="black screens")
    house.all_are("withdrawn")
    assert (device.installed(), device.runs) == ("", "1.1.0")
    assert house.value("SELECT count(*) FROM event WHERE kind = 'cancelled'") == 1
    house.counts_up()


def test_a_device_that_loses_power_in_mid_install_installs_it_again(house: SwuHouse, press: Press) -> None:
    house.target(1, press.image("1.1.0"))
    house.target(2, press.image("1.2.0", padding=600_000))
    (device,) = house.fleet(press, 1, speed=SLOW)
    house.serve()
    house.boot()
    house.roll_out()
    house.all_are("downloading", "installing")
    starts = device.starts
    device.kill()
    house.all_are("confirmed", within=50)
    assert device.starts >= starts + 2, "once after the power, once after the reboot"
    assert device.runs == "1.2.0"
    house.counts_up()


def test_the_page_for_operators_from_the_first_line_to_the_confirmation(house: SwuHouse, press: Press) -> None:
    for version in ("1.1.0", "1.2.0"):
        shutil.copy(press.image(version), house.root)
    house.file("board-2.yaml", block("yaml: rollout"))
    lines = block("sh: update").splitlines()
    enrolled = house.ok(*shlex.split(lines[0])[1:], "--json").result["devices"]
    device = SwuDevice(house, "gw-7f3a", enrolled[0]["token"], press)
    house.devices = [device]
    house.serve()
    house.boot()
    for line in lines[1:]:
        house.ok(*shlex.split(line)[1:])
    house.all_are("confirmed", within=50)
    assert device.runs == "1.2.0"
