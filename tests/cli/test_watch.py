"""``wave status --watch``: a tree that is drawn over itself, and that ends well however it ends."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.render.tree import tree
from orchestrator.cli.watch import over, shortened
from tests.cli.house import House
from tests.cli.test_rollouts import halted, narrow, until_lab_baked


def drawn(house: House, *, width: int = 80) -> list[str]:
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with house.application() as app, console.capture() as captured:
        console.print(tree(app.queries.rollout("lmp-42"), app.clock()))
    return captured.get().splitlines()


def test_the_tree_has_the_rollout_its_waves_and_what_watches_them(fleet: House) -> None:
    until_lab_baked(fleet)
    fleet.devices_do("failed", most=2)
    fleet.tick()
    lines = drawn(fleet)
    narrow("\n".join(lines))
    assert lines[0].startswith("lmp-42  RUNNING  for 3 h 5 min, by mika")
    text = "\n".join(lines)
    assert re.search(r"^├─ \+ lab +passed +#{10} 4 of 4, for ", text, re.MULTILINE)
    assert re.search(r"^├─ > canary +open +x=*\.* 0 of 20, 2 bad, for ", text, re.MULTILINE)
    assert re.search(r"^├─ [!+] (rollout/bad|rollout/failed|bad)  2 bad in \d+ places; ", text, re.MULTILINE)
    assert re.search(r"^└─ : rest +preparing", text, re.MULTILINE)


def test_waves_of_a_cancelled_rollout_do_not_look_as_if_they_went_on(fleet: House) -> None:
    until_lab_baked(fleet)
    fleet.ok("cancel", "lmp-42", "--reason", "x")
    text = "\n".join(drawn(fleet))
    assert re.search(r"^├─ \+ lab +passed ", text, re.MULTILINE)
    assert re.search(r"^├─ - canary +cancelled ", text, re.MULTILINE)
    assert re.search(r"^└─ - rest +cancelled ", text, re.MULTILINE)
    rows = [line.split() for line in fleet.ok("status", "lmp-42").splitlines()]
    assert ["-", "canary", "cancelled"] in [row[:3] for row in rows]


def test_a_halt_is_said_first(fleet: House) -> None:
    halted(fleet)
    lines = drawn(fleet)
    assert lines[0].startswith("lmp-42  HALTED  for ")
    assert any(("├─ x " in line and "crossed" in line) or "used up" in line for line in lines)
    assert any(re.match(r"[├└]─ x canary +failed", line) for line in lines)


@pytest.mark.parametrize("width", [40, 60, 200])
def test_it_fits_whatever_the_window(fleet: House, width: int) -> None:
    halted(fleet)
    assert max(len(line) for line in drawn(fleet, width=width)) <= width


def test_lines_that_are_the_same_are_left_alone() -> None:
    assert over([], ["a", "b"], anew=True) == "\x1b[?2026h\ra\x1b[K\n\rb\x1b[K\n\x1b[?2026l"
    assert over(["a", "b"], ["a", "c"], anew=False) == "\x1b[?2026h\x1b[2A\r\n\rc\x1b[K\n\x1b[?2026l"
    assert over(["a", "b"], ["a"], anew=False) == "\x1b[?2026h\x1b[2A\r\n\x1b[J\x1b[?2026l"
    assert over(["a"], ["a"], anew=True) == "\x1b[?2026h\x1b[2J\x1b[Ha\n\x1b[?2026l"


def test_a_window_that_is_too_low_shows_the_beginning_and_says_so() -> None:
    assert shortened(list("abcd"), 5) == list("abcd")
    assert shortened(list("abcd"), 4) == ["a", "b", "… 2 more lines: a higher window shows them"]


def test_when_the_time_is_over_it_ends_with_14(fleet: House) -> None:
    fleet.ok("apply", str(fleet.rollout()))
    ended = fleet.run("status", "lmp-42", "--watch", "--exit-code", "--timeout", "1s")
    assert ended.exit_code == 14 and " draft " in ended.stdout
    refused = fleet.run("status", "lmp-42", "--timeout", "1s")
    assert refused.exit_code == 2 and "--timeout is for --watch" in refused.output
    assert fleet.run("status", "--watch", "--timeout", "soon").exit_code == 2
    fleet.ok("cancel", "lmp-42", "--reason", "x", "--yes")
    assert fleet.run("status", "lmp-42", "--watch", "--timeout", "1h").exit_code == 0, "it rests: nothing is waited for"
    assert "--timeout has no unit: write 90s, 90m" in fleet.run("status", "--watch", "--timeout", "90").output


def test_a_wave_that_only_a_person_helps_ends_the_waiting_as_held_and_one_that_was_to_wait_does_not(
    fleet: House,
) -> None:
    """day 0, 09:00 its deltas are to be there within a minute. 09:05 they are not: the wave holds, the rollout runs.
    09:06 somebody resumes it, and it waits on, for nothing but its deltas."""
    (fleet.root / "mine.yaml").write_text("policy: mine\ndeltas: {within: 1m}\n")
    fleet.ok("apply", str(fleet.rollout(policy="./mine.yaml")), "--start")
    fleet.tick()
    assert fleet.run("status", "--exit-code").exit_code == 0
    fleet.tick(timedelta(minutes=5))
    assert fleet.json("status")["status"] == "running"
    for more in ((), ("--watch",), ("--watch", "--timeout", "1h")):
        assert fleet.run("status", "lmp-42", "--exit-code", *more).exit_code == 10
    assert fleet.run("status", "lmp-42", "--watch", "--timeout", "1h").exit_code == 0, "it rests, and no code was asked"
    fleet.ok("resume", "lmp-42", "--wave", "lab")
    assert fleet.run("status", "lmp-42", "--watch", "--exit-code", "--timeout", "1s").exit_code == 14


@pytest.mark.e2e
def test_in_a_terminal_ctrl_c_ends_it_with_the_page_and_the_cursor_left(fleet: House, tmp_path: Path) -> None:
    """A real process in a real pseudo-terminal of 80 by 30."""
    fleet.ok("apply", str(fleet.rollout()))
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm-256color", "LINES": "30", "PYTHONPATH": str(Path(__file__).parents[2])}
        os.execv(sys.executable, [sys.executable, "-m", "orchestrator", "status", "--watch", "--every", "0.1"])
    seen, end = b"", time.monotonic() + 60
    try:
        while seen.count(b"\x1b[?2026l") < 2 and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65_536)
        os.write(terminal, b"\x03")
        while time.monotonic() < end:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:  # the other end is shut
                break
        _, status = os.waitpid(child, 0)
        child = 0
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    text = seen.decode()
    assert text.startswith("\x1b[?25l") and text.rstrip().endswith("\x1b[?25h") and "Traceback" not in text
    assert "lmp-42" in text and "DRAFT" in text and "\x1b[2J" not in text


def test_top_shows_what_the_bad_devices_have_in_common(fleet: House) -> None:
    assert fleet.run("top").exit_code == 3
    until_lab_baked(fleet)
    assert fleet.ok("top") == "Nothing bad in rollout lmp-42.\n"
    bad = fleet.devices_do("failed", most=6)
    shown = fleet.ok("top", "lmp-42")
    narrow(shown)
    assert shown.startswith(
        f"lmp-42  {bad} devices with a bad outcome\n\nBy outcome\n  failed  {bad}  xxxxxxxxxxxxxxxxxxxx  100%\n"
    )
    told = fleet.json("top")
    assert set(told) == {"rollout", "bad", "looked_at", "commons"}
    assert {"kind": "hardware id", "value": "rpi4", "devices": bad} in told["commons"]
