"""Letting devices with a bad outcome try once more; what was counted stays counted (RULES 7.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.core import update
from orchestrator.core.ddi import MOST_TRIES
from orchestrator.core.protocols import FAILED_FOR_GOOD
from orchestrator.errors import NotFound, Refused
from orchestrator.services.chronicle import rules_of
from orchestrator.services.records import RolloutRow
from orchestrator.services.store import Reading, Writing
from orchestrator.services.tallies import Tallies


def retry_devices(w: Writing, row: RolloutRow, devices: Sequence[str], *, now: datetime) -> tuple[int, str]:
    """Those named, or all that have a bad outcome and are in no excluded segment; how many, and what to say of those
    whose client will not. Raises NotFound, and Refused when one that is named cannot try again."""
    devices = tuple(dict.fromkeys(devices))
    keys = [_device_key(w, device) for device in devices]
    if not devices:
        keys = [each.device_key for _, each in w.list_updates(row.key, bad=True, limit=1_000_000)]
    found = w.load_updates([(row.key, key) for key in keys])
    out = row.state.excluded_segments
    again = [each for each in found.values() if each.update.bad_outcome and out.isdisjoint(each.segments)]
    if devices and len(again) < len(keys):
        fine = next(d for d, key in zip(devices, keys, strict=True) if key not in {u.device_key for u in again})
        raise Refused(
            f"Device {fine} has no bad outcome in rollout {row.state.rollout}, or is excluded: nothing to try again."
        )
    spent = [each for each in again if each.update.tries >= MOST_TRIES]
    if devices and spent:
        raise Refused(
            f"A device has {MOST_TRIES} tries at a rollout at most.", remedy="Bring it up to date in another."
        )
    again = [each for each in again if each.update.tries < MOST_TRIES]
    tallies = Tallies(now)
    for each in again:
        patience = update.Patience(rules_of(row).silent_after, each.usual_gap)
        tallies.step(each, update.retry(each.update, patience=patience, now=now))
    tallies.write(w)
    return len(again), _for_good(w, [each.device_key for each in again])


def _for_good(r: Reading, keys: Sequence[int]) -> str:
    """Offered again all the same: one that only could not fetch it, or was set up anew, does try."""
    many = sum(each.protocol in FAILED_FOR_GOOD for each in r.spoken(keys).values())
    if not many:
        return ""
    who = "1 of them speaks" if many == 1 else f"{many} of them speak"
    return (
        f"{who} aktualizr-lite, which never tries again a Target that failed to install: "
        "give its content a new name and version for those."
    )


def _device_key(r: Reading, device: str) -> int:
    row = r.device(device)
    if row is None:
        raise NotFound(f"There is no device {device}.")
    return row.key
