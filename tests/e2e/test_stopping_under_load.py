"""A server told to stop under load: whoever was being heard is answered, and what was acknowledged is in the store."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random

import pytest

from tests.load.kills import Device, Tally, recount
from tests.load.serving import ALONE, installation, process, wave_serve
from tests.loopback import free_port
from tests.waiting import gone

CONNECTIONS = 24


async def talk(port: int, device: Device, tally: Tally) -> str:
    """Report after report, until the server says that it closes; ``cut`` when it did so without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    chance = Random(device.name)
    while True:
        writer.write(device.next_report(chance))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
        except (ConnectionError, asyncio.IncompleteReadError):
            return "cut"
        assert head.startswith(b"http/1.1 200"), head
        tally.acknowledged |= device.answered(body)
        tally.answers += 1
        if b"\r\nconnection: close" in head:
            writer.close()
            return "told"


async def stopped(port: int, pid: int, fleet: list[Device], tally: Tally) -> list[str]:
    talks = [asyncio.create_task(talk(port, device, tally)) for device in fleet]
    while tally.answers < 200:
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    return list(await asyncio.wait_for(asyncio.gather(*talks), 30))


@pytest.mark.e2e
def test_a_stop_under_load_cuts_nobody_off_and_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "house"
    tokens = installation(root, CONNECTIONS, slices=CONNECTIONS, offered=True)
    fleet, tally, port = [Device(name, token) for name, token in tokens.items()], Tally(), free_port()
    with process(wave_serve(root, port), port, ALONE, tmp_path) as server:
        ends = asyncio.run(stopped(port, server.pid, fleet, tally))
        gone([server.pid], within=15)
    assert ends == ["told"] * CONNECTIONS
    assert all(not device.unanswered for device in fleet)
    recount(root, tally)
    assert len(tally.logged) == len(tally.acknowledged) > 200
