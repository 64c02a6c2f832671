"""Artifacts in the store: recorded once, and recognised by what a device says."""

from __future__ import annotations

import pytest

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.artifact import FILES, Artifact, Digests, Format
from orchestrator.core.fleet import Target
from orchestrator.errors import Refused
from tests.contract.building import NOW


def artifact(letter: str, version: str = "1.0", *ids: str, kind: Format = Format.SWU, name: str = "os") -> Artifact:
    digests = Digests(letter * 64, letter * 40, letter * 32, 1 << 33)
    return Artifact(digests, kind, f"{letter}.swu", name, version, ids, ("board:1.0", "#RE:^.*$"), NOW)


def test_an_artifact_comes_back_as_it_went_in_newest_first(store: SqlStore) -> None:
    one, two = artifact("a", "1.0", "rpi4", "imx8"), artifact("b", "2.0")
    with store.writing() as w:
        assert w.add_artifact(one)
        assert w.add_artifact(two)
        assert not w.add_artifact(one)
    with store.reading() as r:
        assert r.artifact("a" * 64) == one
        assert list(r.artifacts()) == [one, two]
        assert r.artifact("c" * 64) is None


def test_an_artifact_is_not_said_to_be_something_else(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_artifact(artifact("a", "1.0", "rpi4"))
    for other in (artifact("a", "1.1", "rpi4"), artifact("a", "1.0", "imx8"), artifact("a", "1.0", "rpi4", name="x")):
        with pytest.raises(Refused, match=r"there already as os, version 1\.0, for rpi4"), store.writing() as w:
            w.add_artifact(other)


def test_of_one_hardware_a_version_is_one_artifact(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_artifact(artifact("a", "1.0", "rpi4"))
        w.add_artifact(artifact("b", "1.0", "imx8"))
    with pytest.raises(Refused, match=r"A device imx8 that says '1\.0' runs the artifact bbbb"), store.writing() as w:
        w.add_artifact(artifact("c", "1.0", "other", "imx8"))
    with store.reading() as r:
        assert r.artifact_of_version("rpi4", "1.0") == "a" * 64
        assert r.artifact_of_version("imx8", "1.0") == "b" * 64
        assert r.artifact_of_version("other", "1.0") is None
        assert r.artifact_of_version("rpi4", "1.0\0") is None
        assert r.artifact("c" * 64) is None


def test_a_mender_device_says_the_artifacts_name(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_artifact(artifact("a", "1.0", "rpi4", kind=Format.MENDER, name="app-1.0"))
    with store.reading() as r:
        assert r.artifact_of_version("rpi4", "app-1.0") == r.artifact_of_version("rpi4", "1.0") == "a" * 64


def test_what_names_no_hardware_is_recognised_by_its_target_while_that_is_the_only_one(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_artifact(artifact("a", "1.0"))
        w.add_artifact(artifact("b", "1.0"))
        assert w.artifact_of_version("rpi4", "1.0") is None
        w.add_target(Target("os-1", 1, "a" * 64, ("rpi4",), provider=FILES), now=NOW)
        assert w.artifact_of_version("rpi4", "1.0") == "a" * 64
        assert w.artifact_of_version("imx8", "1.0") is None
        w.add_target(Target("os-2", 2, "b" * 64, ("rpi4",), provider=FILES), now=NOW)
        assert w.artifact_of_version("rpi4", "1.0") is None


def test_a_removed_artifact_is_forgotten_with_its_words(store: SqlStore) -> None:
    with store.writing() as w:
        w.add_artifact(artifact("a", "1.0", "rpi4"))
        assert w.remove_artifact("a" * 64)
        assert not w.remove_artifact("a" * 64)
        assert w.artifact_of_version("rpi4", "1.0") is None
        assert w.add_artifact(artifact("b", "1.0", "rpi4"))
