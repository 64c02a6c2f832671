"""Targets: added, tagged, shown, and taken over from a Foundries ``targets.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ContentUnavailable, InvalidInput, NotFound, Refused
from orchestrator.services import targets as module
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.targets import Import
from tests.services.delta_fleet import SmallFleet
from tests.services.fake_provider import commit


@pytest.fixture
def fleet(tmp_path: Path) -> SmallFleet:
    return SmallFleet(tmp_path)


def names(fleet: SmallFleet, **which: Any) -> list[str]:
    return [target.name for target in fleet.targets.list(**which)]


# ---------------------------------------------------------------------------------------------------- add, list, show


def test_a_target_is_added_once(fleet: SmallFleet) -> None:
    target, new = fleet.targets.add(version=5, commit=commit(5), hardware_ids=["rpi4"], tags=["a", "b", "a"])
    assert (target.name, target.tags, target.provider, target.added_at, new) == (
        "rpi4-5",
        ("a", "b"),
        "fake",
        fleet.now,
        True,
    )
    assert fleet.targets.add(version=5, commit=commit(5), hardware_ids=["rpi4"], tags=["a", "b"])[1] is False
    assert names(fleet) == ["rpi4-5"]


def test_the_commit_may_be_a_ref_or_its_first_digits(fleet: SmallFleet) -> None:
    by_ref, _ = fleet.targets.add(version=5, commit=f"lmp/{commit(5)[:8]}", hardware_ids=["rpi4"])
    by_prefix, _ = fleet.targets.add(version=6, commit=commit(6)[:9], hardware_ids=["rpi4"])
    assert (by_ref.commit, by_prefix.commit) == (commit(5), commit(6))


@pytest.mark.parametrize("text", [commit("a"), "no/such/ref", "abcdef12", "--help"])
def test_a_commit_that_the_repository_lacks_is_refused_with_the_remedy(fleet: SmallFleet, text: str) -> None:
    with pytest.raises(ContentUnavailable, match=r"is not in the repository\. Push it first"):
        fleet.targets.add(version=5, commit=text, hardware_ids=["rpi4"])


def test_a_hardware_id_and_version_have_one_commit(fleet: SmallFleet) -> None:
    fleet.targets.add(version=5, commit=commit(5), hardware_ids=["rpi4", "imx8"], name="lmp-5")
    for dry_run in (True, False):
        with pytest.raises(Refused, match="Version 5 for imx8 has the commit"):
            fleet.targets.add(version=5, commit=commit(6), hardware_ids=["imx8"], dry_run=dry_run)
        with pytest.raises(Refused, match="lmp-5 is version 5"):
            fleet.targets.add(version=6, commit=commit(6), hardware_ids=["imx8"], name="lmp-5", dry_run=dry_run)
    fleet.targets.add(version=5, commit=commit(6), hardware_ids=["other"])
    fleet.targets.add(version=6, commit=commit(5), hardware_ids=["imx8"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 0},
        {"version": 2**53},
        {"hardware_ids": []},
        {"hardware_ids": ["../rpi4"]},
        {"tags": ["a b"]},
        {"tags": [f"t{number}" for number in range(65)]},
        {"name": "a/b"},
        {"name": ""},
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_added(fleet: SmallFleet, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        fleet.targets.add(**{"version": 5, "commit": commit(5), "hardware_ids": ["rpi4"], **wrong})
    assert names(fleet) == []


def test_a_dry_run_adds_nothing(fleet: SmallFleet) -> None:
    _, new = fleet.targets.add(version=5, commit=commit(5), hardware_ids=["rpi4"], dry_run=True)
    assert (new, names(fleet)) == (True, [])


def test_show_says_who_runs_it_and_which_deltas_lead_to_it(fleet: SmallFleet) -> None:
    for version in (5, 9):
        fleet.target(version)
    fleet.devices(3, 9)
    fleet.devices(2, 5)
    with fleet.store.writing() as w:
        w.record_delta(fleet.provider.publish(DeltaPair(commit(5), commit(9))), now=fleet.now)
    (by_name,) = fleet.targets.show("rpi4-9")
    (by_version,) = fleet.targets.show("9")
    assert by_name == by_version
    assert (by_name.devices, [record.pair.from_commit for record in by_name.deltas]) == (3, [commit(5)])
    assert by_name.from_versions == {commit(5): (5,)}, "of its own deltas, however many Targets there are"
    for unknown in ("rpi4-7", "77", ""):
        with pytest.raises(NotFound):
            fleet.targets.show(unknown)


# ---------------------------------------------------------------------------------------------------- tags


def test_tags_are_replaced_or_appended_by_name_or_version(fleet: SmallFleet) -> None:
    fleet.target(9)
    fleet.target(9, "imx8")
    fleet.target(5)
    changes = fleet.targets.tag(["9"], ["main", "promoted"], by_version=True)
    assert [change.line for change in changes] == [
        "Changing tags of imx8-9 from [promoted] -> [main, promoted]",
        "Changing tags of rpi4-9 from [promoted] -> [main, promoted]",
    ]
    fleet.targets.tag(["rpi4-5"], ["lab"], append=True)
    assert names(fleet, tag="main") == ["imx8-9", "rpi4-9"]
    assert names(fleet, tag="lab") == ["rpi4-5"]
    assert names(fleet, tag="promoted") == ["imx8-9", "rpi4-9", "rpi4-5"]


def test_tagging_is_all_or_nothing_and_a_dry_run_changes_nothing(fleet: SmallFleet) -> None:
    fleet.target(5)
    with pytest.raises(NotFound, match="no version '7'"):
        fleet.targets.tag(["5", "7"], ["x"], by_version=True)
    with pytest.raises(NotFound, match="no Target '5'"):
        fleet.targets.tag(["5"], ["x"])
    with pytest.raises(InvalidInput):
        fleet.targets.tag(["rpi4-5"], ["x y"])
    assert fleet.targets.tag(["rpi4-5"], ["x"], dry_run=True)[0].after == ("x",)
    assert names(fleet, tag="x") == []


# ---------------------------------------------------------------------------------------------------- Foundries


def entry(version: object = "5", **custom: Any) -> dict[str, Any]:
    sha = custom.pop("sha", commit(5))
    return {
        "hashes": {"sha256": sha},
        "length": 0,
        "custom": {
            "name": "intel-corei7-64-lmp",
            "version": version,
            "hardwareIds": ["intel-corei7-64"],
            "tags": ["master", "promoted"],
            "targetFormat": "OSTREE",
            "docker_compose_apps": {"shellhttpd": {"uri": "hub.foundries.io/acme/shellhttpd@sha256:00"}},
            **custom,
        },
    }


def signed(targets: dict[str, Any]) -> bytes:
    body = {"_type": "Targets", "expires": "2030-01-01T00:00:00Z", "version": 3, "targets": targets}
    return json.dumps({"signatures": [{"keyid": "00", "method": "ed25519", "sig": "x"}], "signed": body}).encode()


@pytest.mark.parametrize("form", ["envelope", "signed", "bare"])
def test_a_factorys_targets_are_taken_over_from_any_of_its_forms(fleet: SmallFleet, form: str) -> None:
    targets = {"intel-corei7-64-lmp-5": entry()}
    document = signed(targets)
    if form != "envelope":
        document = json.dumps(json.loads(document)["signed"] if form == "signed" else targets).encode()
    (done,) = fleet.targets.import_foundries(document)
    assert (done.what, done.version) == (Import.ADDED, 5)
    (target,) = fleet.targets.list()
    assert (target.name, target.commit, target.hardware_ids, target.tags) == (
        "intel-corei7-64-lmp-5",
        commit(5),
        ("intel-corei7-64",),
        ("master", "promoted"),
    )


def test_what_cannot_be_taken_is_skipped_with_its_reason(fleet: SmallFleet) -> None:
    good = "good-5"
    entries: dict[str, Any] = {
        good: entry(),
        "binary-5": entry(targetFormat="BINARY"),
        "short-5": entry(sha="abc"),
        "upper-5": entry(sha="AB" * 32),
        "elsewhere-5": entry(sha=commit("a")),
        "word-5": entry("five"),
        "number-5": entry(5),
        "zero-0": entry("0"),
        "huge-5": entry("9" * 30),
        "boards-5": entry(hardwareIds="rpi4"),
        "none-5": entry(hardwareIds=[]),
        "tags-5": entry(tags=[1]),
        "../../etc/passwd": entry(),
        "x" * 5000: entry(),
        "bare-5": 7,
        "other-5": entry(sha=commit(6)),
    }
    done = {one.name: one for one in fleet.targets.import_foundries(signed(entries))}
    assert len(done) == len(entries)
    assert [name for name, one in done.items() if one.what is not Import.SKIPPED] == [good]
    assert all(one.reason for name, one in done.items() if name != good)
    assert "not OSTREE" in str(done["binary-5"].reason)
    assert "is not in the repository" in str(done["elsewhere-5"].reason)
    assert "Version 5 for intel-corei7-64 has the commit" in str(done["other-5"].reason)
    assert names(fleet) == [good]


def test_importing_again_changes_only_tags(fleet: SmallFleet) -> None:
    fleet.targets.import_foundries(signed({"a-5": entry(), "b-6": entry("6", sha=commit(6))}))
    later = signed({"a-5": entry(tags=["main"]), "b-6": entry("6", sha=commit(6)), "c-7": entry("7", sha=commit(7))})
    would = [one.what for one in fleet.targets.import_foundries(later, dry_run=True)]
    assert would == [Import.RETAGGED, Import.UNCHANGED, Import.ADDED]
    assert names(fleet) == ["b-6", "a-5"]
    assert [one.what for one in fleet.targets.import_foundries(later)] == would
    assert names(fleet, tag="main") == ["a-5"]
    assert [one.what for one in fleet.targets.import_foundries(later)] == [Import.UNCHANGED] * 3


@pytest.mark.parametrize(
    "document",
    [b"", b"\xff\xfe", b"[]", b"7", b'{"signed": 7}', b'{"signed": {}}', b'{"targets": []}', b"[" * 100_000],
)
def test_what_is_no_targets_json_is_said(fleet: SmallFleet, document: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"The file (is not JSON|has no targets)"):
        fleet.targets.import_foundries(document)


def test_a_file_that_is_too_large_is_not_read(fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_DOCUMENT", 10)
    with pytest.raises(InvalidInput, match="are read at most"):
        fleet.targets.import_foundries(signed({}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=st.text(),
    part=st.sampled_from(["version", "hardwareIds", "tags", "targetFormat", "custom", "hashes", ""]),
    junk=json_values,
)
def test_junk_in_one_entry_never_hinders_another(
    tmp_path_factory: pytest.TempPathFactory, name: str, part: str, junk: Any
) -> None:
    fleet = SmallFleet(tmp_path_factory.getbasetemp())
    broken: Any = entry("6", sha=commit(6))
    match part:
        case "":
            broken = junk
        case "custom" | "hashes":
            broken[part] = junk
        case _:
            broken["custom"][part] = junk
    document = json.dumps({"targets": {name: broken, "good-5": entry()}}).encode()
    done = fleet.targets.import_foundries(document)
    fleet.store.close()
    assert done[-1].what is Import.ADDED
    assert done[-1].name == "good-5"
