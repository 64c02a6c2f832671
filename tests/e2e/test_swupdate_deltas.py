"""Real SWUpdate clients that install a delta: an image for their handler for `rdiff`, made by the server's builder with
the operator's program, while a device on another version gets the whole image."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import swu_delta
from tests.e2e.swupdate_devices import Press, SwuHouse, alone

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # most of it waiting for one's turn

PADDING = 400_000
HOLD = "{cover: 100%, within: 1h, otherwise: hold}"


@pytest.fixture
def press(tmp_path: Path) -> Press:
    return Press(tmp_path)


@pytest.fixture
def house(press: Press) -> Iterator[SwuHouse]:
    def words(what: str, *places: str) -> str:
        return json.dumps([sys.executable, swu_delta.__file__, what, str(press.folder), *places])

    program = f"""delta_program:
  name: swu-rdiff
  makes: artifact
  make: {words("make", "{from}", "{to}", "{delta}")}
  verify: {words("check", "{delta}")}
"""
    with alone(), tempfile.TemporaryDirectory(prefix="wave-") as short:
        made = SwuHouse(Path(short) / "house", more=program)
        try:
            yield made
        finally:
            made.close()


def test_a_device_installs_the_delta_from_what_it_runs_and_another_the_whole(house: SwuHouse, press: Press) -> None:
    old, new = press.image("1.1.0", padding=PADDING), press.image("1.2.0", padding=PADDING)
    house.target(1, old)
    house.target(2, new)
    known, stranger = house.fleet(press, 1, 1)
    known.comes_with(old)
    stranger.runs = "0.9.0"
    house.serve()
    house.boot()
    house.roll_out(deltas=HOLD)
    house.all_are("confirmed", within=90)
    content = (new.parent / "version.txt").read_bytes()
    assert {(device.root / "place" / "version.txt").read_bytes() for device in (known, stranger)} == {content}
    with house.app.store.reading() as r:
        by_delta = {name: row.by_delta for name, row in r.list_updates(1, limit=100)}
        (record,) = r.deltas()
    assert by_delta == {known.id: True, stranger.id: False}
    assert 0 < record.bytes < new.stat().st_size / 50
    assert ("version.rdiff" in known.said(), "version.rdiff" in stranger.said()) == (True, False)
    house.counts_up()
