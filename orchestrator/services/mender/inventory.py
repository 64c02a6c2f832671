"""What a Mender device says of itself, as labels and as what it runs.

Nothing here refuses: a client cannot be told to leave out an attribute, so what cannot be a label is left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from orchestrator.core.fleet import LONGEST_LABEL_VALUE, wrong_key, wrong_value
from orchestrator.services.messages import MOST_LABELS

ARTIFACT_NAME: Final = "artifact_name"
DEVICE_TYPE: Final = "device_type"
ROOTFS_VERSION: Final = "rootfs-image.version"
INCONSISTENT: Final = "_INCONSISTENT"
"""The end of an artifact's name once an installation broke off: what the device runs is not known."""

LONGEST_TEXT: Final = 128

_SOFTWARE: Final = (".version", ".checksum")
"""Ends of attributes that say what a device runs: they change with every update, and are no labels."""


class Provides(NamedTuple):
    """What the device says it runs, in the client's words, most telling first; none: it cannot say. ``device_type``
    None: as before."""

    device_type: str | None
    names: tuple[str, ...]


def provides_of(said: Mapping[str, str]) -> Provides | None:
    """From what an artifact provides on the device; None when nothing about it was said."""
    if ARTIFACT_NAME not in said:
        return None
    name, version = said[ARTIFACT_NAME], said.get(ROOTFS_VERSION, "")
    names = () if name.endswith(INCONSISTENT) else (name, version)
    return Provides(said.get(DEVICE_TYPE) or None, tuple(each for each in names if 0 < len(each) <= LONGEST_TEXT))


def labels_of(said: Iterable[tuple[str, str]]) -> dict[str, str]:
    """At most as many as a device may have, first come, first kept; a later word about the same counts."""
    found: dict[str, str] = {}
    for name, text in said:
        value = " ".join(text.split())[:LONGEST_LABEL_VALUE].strip()
        if name in (ARTIFACT_NAME, DEVICE_TYPE) or name.endswith(_SOFTWARE) or wrong_key(name) or wrong_value(value):
            continue
        if name in found or len(found) < MOST_LABELS:
            found[name] = value
    return found
