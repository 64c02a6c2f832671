"""Files as people leave them: what the loader says, with file, line and key path, and that it never does worse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.files.loader import (
    find_policy,
    load_fleet,
    load_policy,
    load_rollout,
    parse_policy,
    parse_rollout,
    policy_names,
    policy_of,
)
from orchestrator.adapters.files.source import DEEPEST, MOST_BYTES, parse_source
from orchestrator.core.document import Document
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.schema import fleet_schema, policy_schema, rollout_schema
from orchestrator.errors import InvalidFile, NotFound, WaveError
from tests.adapters.ordinary import as_anybody

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
SHIPPED = ["accelerated", "demo", "emergency", "manual", "slow-roll", "standard"]


def refusal(text: str | bytes, file: str = "p.yaml") -> str:
    with pytest.raises(InvalidFile) as refused:
        parse_policy(text if isinstance(text, bytes) else text.encode(), file=file)
    return str(refused.value)


def value(text: str) -> Any:
    return parse_source(text.encode(), file="x.yaml").value


# What is shipped


def test_every_shipped_policy_is_found_by_its_name() -> None:
    assert policy_names([POLICIES]) == tuple(SHIPPED)
    for name in SHIPPED:
        assert find_policy(name, [POLICIES]).name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_policy_is_a_page_for_operators(name: str) -> None:
    """A heading that names it, says how long it takes and when to use it, and fits on a page."""
    text = (POLICIES / f"{name}.yaml").read_text()
    assert text.startswith(f"# {name}: ")
    assert "\n# Length: " in text
    assert "\n# When to use it: " in text
    assert len(text.splitlines()) <= 40


def test_the_examples_load() -> None:
    rollout = load_rollout(ROOT / "examples" / "rollout.yaml", policies=[POLICIES])
    assert rollout.topological_order == ("lab", "canary", "emea", "americas", "rest")
    assert len(load_fleet(ROOT / "examples" / "fleet.yaml").devices) == 5


def test_the_demo_fits_into_a_demonstration() -> None:
    demo = find_policy("demo", [POLICIES])
    assert demo.bake.at_least.total_seconds() <= 3
    assert demo.bake.at_most.total_seconds() <= 60
    assert demo.silent_after.total_seconds() == 60
    assert (demo.window, demo.offer_window) == (None, None)


# File, line, key path


def test_a_refusal_names_file_line_key_path_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# mine\npolicy: mine\ntolerate:\n  failed: 2\nbake:\n  at_leest: 3h\n")
    with pytest.raises(InvalidFile) as refused:
        load_policy(path)
    assert str(refused.value) == (
        f"{path}:4: tolerate.failed: has no unit: a share is written with a per cent sign, such as 2%.\n"
        f"{path}:6: bake.at_leest: is not a key here; allowed are at_least, reports, at_most, early. "
        "Did you mean 'at_least'?"
    )
    assert [(each.line, each.path) for each in refused.value.problems] == [
        (4, "tolerate.failed"),
        (6, "bake.at_leest"),
    ]
    assert refused.value.exit_code == 2


def test_a_missing_key_has_the_line_of_what_it_is_missing_from() -> None:
    text = "rollout: r\ntarget: 1\ntag: t\npolicy: p\nwaves:\n  - wave: a\n    devices: all\n  -\n    wave: b\n"
    with pytest.raises(InvalidFile) as refused:
        parse_rollout(text.encode(), file="r.yaml")
    assert str(refused.value) == "r.yaml:9: waves[1].devices: is missing; for example `devices: {group: lab}`."


def test_more_problems_than_anybody_reads_are_counted() -> None:
    told = refusal("policy: x\n" + "".join(f"k{index}: 1\n" for index in range(50))).splitlines()
    assert len(told) == 21
    assert told[-1] == "p.yaml: and 30 more problems."


def test_a_key_written_twice_is_refused_with_both_lines_and_the_other_problems() -> None:
    assert refusal("policy: x\nreach: 5d\nbake: 3\nreach: 6d\n") == (
        "p.yaml:2: reach: is written twice, in line 2 and in line 4.\n"
        "p.yaml:3: bake: must be a mapping with the keys at_least, reports, at_most, early, not 3."
    )


# YAML's surprises


def test_words_stay_words() -> None:
    text = "a: on\nb: no\nc: y\non: 1\nyes: 2\n42: 3\n~: 4\nd: 09:00\ne: 1:30:00\nf: 042\ng: 0x1f\nh: 2026-12-21\n"
    assert value(text) == {
        "a": "on", "b": "no", "c": "y", "on": 1, "yes": 2, "42": 3, "~": 4,
        "d": "09:00", "e": "1:30:00", "f": "042", "g": "0x1f", "h": "2026-12-21",
    }  # fmt: skip
    assert value("[1, -2, 1.5, .5, 1e3, true, False, null, ~, '', .inf, 1_000, 25%, =, <<]") == [
        1, -2, 1.5, 0.5, 1000.0, True, False, None, None, "", ".inf", "1_000", "25%", "=", "<<",
    ]  # fmt: skip
    assert value("9" * 5000) == "9" * 5000


def test_hours_and_dates_need_no_quotes() -> None:
    text = """
policy: x
window:
  days: [mon, wed-fri]
  hours: 09:00-16:00
  timezone: Europe/Berlin
  except: [2026-12-21..2027-01-06, 2026-05-01]
"""
    window = parse_policy(text.encode(), file="p.yaml").window
    assert window is not None
    assert window.document() == {
        "days": ["mon", "wed", "thu", "fri"],
        "hours": "09:00-16:00",
        "timezone": "Europe/Berlin",
        "except": ["2026-05-01", "2026-12-21..2027-01-06"],
    }


def test_the_norwegian_label_is_text() -> None:
    text = "rollout: r\ntarget: 1\ntag: t\npolicy: p\nexcluded: others\n"
    text += "waves: [{wave: a, devices: {labels: {country: no}}}]"
    assert parse_rollout(text.encode(), file="r.yaml").waves[0].devices.labels == (("country", "no"),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "p.yaml: is empty."),
        ("# only a comment\n", "p.yaml: is empty."),
        ("a: [1", "p.yaml:1: is not YAML: did not find expected ',' or ']'."),
        (
            "policy: x\n\treach: 5d",
            "p.yaml:2: is not YAML: found a tab character that violates indentation. Indent with spaces.",
        ),
        ("a:\n\tb: 1", "p.yaml:2: is not YAML: found a tab where only spaces may stand. Indent with spaces."),
        ("policy: @x", "p.yaml:1: is not YAML: no value begins with '@'. Write it in quotes"),
        ("policy: x\n---\npolicy: y", "p.yaml:2: has a second document ('---'); one is allowed."),
        ("policy: !!python/object/apply:os.system [ls]", "p.yaml:1: policy: has a YAML tag"),
        ("policy: !!str x", "p.yaml:1: policy: has a YAML tag"),
        ("? [a]\n: x", "p.yaml:1: has a key that is not a word."),
        ("policy: *x", "p.yaml:1: policy: refers to '*x', which is not finished above it."),
        ("a: &a [*a]", "p.yaml:1: a[0]: refers to '*a', which is not finished above it."),
        ("policy: " + "[" * 50 + "]" * 50, f"is nested deeper than {DEEPEST} levels."),
        ("[" * 200_000, f"is nested deeper than {DEEPEST} levels."),
        ("policy: \x07", "p.yaml: is not YAML: "),
    ],
)
def test_what_is_not_a_page_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    assert sentence in refusal(text).splitlines()[0]


def test_aliases_are_followed_and_laughs_are_not_multiplied() -> None:
    assert value("a: &a {b: 1}\nc: *a\n") == {"a": {"b": 1}, "c": {"b": 1}}
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "repeats itself too often through aliases" in refusal("\n".join(lines))


def test_json_is_taken_too(tmp_path: Path) -> None:
    policy = find_policy("standard", [POLICIES])
    path = tmp_path / "standard.json"
    path.write_text(json.dumps(policy.document(), indent="\t"))
    assert find_policy("standard", [tmp_path]).digest() == policy.digest()
    assert parse_policy(policy.canonical(), file="x.json") == policy
    assert parse_policy(policy.canonical(), file="x.yaml") == policy
    text = b'{"policy":"x",\n"label":"\\ud83d\\ude00",\n"policy":"y"}'
    assert parse_source(text, file="x.json").value["label"] == "😀"
    assert refusal(text, "x.json").startswith("x.json:1: policy: is written twice, in line 1 and in line 3.\n")


# Files that cannot be read


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    def told(path: Path | str) -> str:
        with pytest.raises(InvalidFile) as refused:
            load_policy(path)
        return str(refused.value).removeprefix(str(path))

    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "latin.yaml").write_bytes("policy: x\n# für\n".encode("latin-1"))
    (tmp_path / "sixteen.yaml").write_text("policy: x", encoding="utf-16")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MOST_BYTES + 1))
    (tmp_path / "round.yaml").symlink_to(tmp_path / "round.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert told(tmp_path / "none.yaml") == ": there is no such file."
    assert told(tmp_path) == ": is a directory; give a file."
    assert told(tmp_path / "binary.yaml") == (
        ": is not text: it has zero bytes (a binary file, or UTF-16); save it as UTF-8."
    )
    assert told(tmp_path / "latin.yaml") == ":2: is not UTF-8; save it as UTF-8."
    assert "is not" in told(tmp_path / "sixteen.yaml")
    assert told(tmp_path / "large.yaml") == ": is larger than 1,000,000 bytes, which is the most that is read."
    assert told(tmp_path / "pipe.yaml") == ": is not a regular file."
    assert told(tmp_path / "round.yaml") == ": there is no such file."
    assert told(tmp_path / ("x" * 300)) == ": cannot be read: File name too long."
    assert "there is no such file" in told("a\0b")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("policy: p")
    path.chmod(0)

    def read() -> None:
        with pytest.raises(InvalidFile, match=r"cannot be read: Permission denied\."):
            load_policy(path)

    as_anybody(read)


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert parse_policy(b"\xef\xbb\xbfpolicy: x\r\nreach: 3d\r\n", file="p.yaml").name == "x"


# Policies by name, rollouts with their policy


def test_a_policy_is_found_by_name_in_the_first_directory_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "standard.yaml").write_text("policy: standard\nreach: 3d\n")
    assert find_policy("standard", [tmp_path, POLICIES]).reach.days == 3
    assert find_policy("standard", [tmp_path / "none", POLICIES, tmp_path]).reach.days == 7
    with pytest.raises(NotFound) as unknown:
        find_policy("standart", [POLICIES])
    assert str(unknown.value) == (
        "There is no policy 'standart'. There are accelerated, demo, emergency, manual, slow-roll, standard. "
        "Did you mean 'standard'?"
    )


@pytest.mark.parametrize("name", ["../standard", "/etc/passwd", "standard.yaml/..", "a/b", "", ".", "A", "x\0"])
def test_a_name_never_leads_out_of_the_directories(name: str) -> None:
    with pytest.raises(NotFound):
        find_policy(name, [POLICIES / "inner", POLICIES])


def test_a_policy_is_named_as_its_file_is(tmp_path: Path) -> None:
    path = tmp_path / "fast.yaml"
    path.write_text("# mine\npolicy: standard\n")
    assert load_policy(path).name == "standard"
    with pytest.raises(InvalidFile) as refused:
        find_policy("fast", [tmp_path])
    assert str(refused.value) == f"{path}:2: policy: says standard, but the file's name says fast; make them the same."


ROLLOUT = """
rollout: r
target: 7
tag: main
policy: POLICY
waves:
  - wave: rest
    devices: all
    policy: {bake: {at_least: 30d}}
"""


def test_a_rollout_is_held_against_its_policy(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(ROLLOUT.replace("POLICY", "standard"))
    assert load_rollout(path).policy == "standard"
    with pytest.raises(InvalidFile) as refused:
        load_rollout(path, policies=[POLICIES])
    assert str(refused.value) == (
        f"{path}:9: waves[0].policy.bake: has at_most 2d below at_least 30d; give an at_most of at least 30d."
    )
    path.write_text(ROLLOUT.replace("POLICY", "fast"))
    with pytest.raises(InvalidFile) as refused:
        load_rollout(path, policies=[POLICIES])
    assert str(refused.value).startswith(f"{path}:5: policy: There is no policy 'fast'.")


def test_a_path_to_a_policy_starts_beside_the_rollout_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("policy: mine\nbake: {at_most: 40d}\n")
    path = tmp_path / "r.yaml"
    path.write_text(ROLLOUT.replace("POLICY", "./mine.yaml"))
    rollout = load_rollout(path, policies=[])
    assert policy_of(rollout, [], beside=path).name == "mine"


# Schema and loader agree

ALL = [{"wave": "a", "devices": "all"}]
GOOD: list[tuple[type[Document], Any]] = [
    *((Policy, yaml.safe_load((POLICIES / f"{name}.yaml").read_text())) for name in SHIPPED if name != "x"),
    (Policy, {"policy": "x", "promote": {"approvals": 1}, "window": "always", "budget": {"failed": 3, "silent": "2%"}}),
    (Policy, {"policy": "x", "tolerate": {"failed": "0.5%", "silent": {"at_most": "3%", "then": "count"}}}),
    (Policy, {"policy": "x", "window": {"timezone": "UTC", "days": ["mon", "wed-fri"], "except": "2026-01-01"}}),
    (Policy, {"policy": "x", "window": {"timezone": "UTC", "days": "mon, wed", "hours": "22:00 - 04:00"}}),
    (Policy, {"policy": "x", "pace": "evidence", "bake": {"early": "confident"}}),
    (Policy, {"policy": "x", "pace": {"stake": 5, "per": {"label": "a/site", "at_most": 1}, "rate": "20/min"}}),
    (RolloutFile, {"rollout": "r", "target": 1, "tag": "T:1", "policy": "./p.yaml", "waves": ALL}),
    (
        RolloutFile,
        {
            "rollout": "r", "target": 1, "tag": "t", "policy": "p", "allow_older": True, "running": [2],
            "start_at": "2026-12-01T09:00:00+01:00", "supersedes": "q", "excluded": "others",
            "waves": [
                {"wave": "a", "devices": {"count": 3, "spread": "hardware_id"}, "after": [],
                 "policy": {"promote": "manual", "window": "always", "bake": {"reports": "90%"}}},
                {"wave": "b", "devices": {"labels": {"a": "b"}, "group": "g", "share": "5%"}, "after": "a",
                 "policy": {"window": {"hours": "09:00-24:00"}, "deltas": {"within": "0s"}, "pace": {"in_flight": 1}}},
            ],
        },
    ),
    (FleetFile, {"devices": [{"id": "a:b", "hardware_id": "h", "tag": "t", "labels": {"x": "y"}}]}),
]  # fmt: skip

WAVES = {"rollout": "r", "target": 1, "tag": "t", "policy": "p"}
BAD: list[tuple[type[Document], Any]] = [
    (Policy, {}),
    (Policy, {"policy": "x", "typo": 1}),
    (Policy, {"policy": "X"}),
    (Policy, {"policy": "x", "segments": "hardware_id"}),
    (Policy, {"policy": "x", "segments": ["region"]}),
    (Policy, {"policy": "x", "segments": ["label:a", "label:a"]}),
    (Policy, {"policy": "x", "segments": [f"label:l{number}" for number in range(9)]}),
    (Policy, {"policy": "x", "tolerate": {"failed": "0%"}}),
    (Policy, {"policy": "x", "tolerate": {"failed": "0.00%"}}),
    (Policy, {"policy": "x", "tolerate": {"failed": "100%"}}),
    (Policy, {"policy": "x", "tolerate": {"failed": {"at_most": "100.0%"}}}),
    (Policy, {"policy": "x", "tolerate": {"failed": {"then": "halt"}}}),
    (Policy, {"policy": "x", "tolerate": {"failed": 2}}),
    (Policy, {"policy": "x", "tolerate": {"failed": {"at_most": "2%", "then": "stop"}}}),
    (Policy, {"policy": "x", "silent_after": "24"}),
    (Policy, {"policy": "x", "silent_after": 24}),
    (Policy, {"policy": "x", "silent_after": "h"}),
    (Policy, {"policy": "x", "deltas": {"otherwise": "wait"}}),
    (Policy, {"policy": "x", "deltas": {"cover": "101%"}}),
    (Policy, {"policy": "x", "promote": {"approvals": 2}}),
    (Policy, {"policy": "x", "promote": "auto"}),
    (Policy, {"policy": "x", "pace": "evidenze"}),
    (Policy, {"policy": "x", "pace": {"in_flight": 0}}),
    (Policy, {"policy": "x", "pace": None}),
    (Policy, {"policy": "x", "pace": {}}),
    (Policy, {"policy": "x", "pace": {"rate": "20"}}),
    (Policy, {"policy": "x", "pace": {"per": {"label": "a b", "at_most": 1}}}),
    (Policy, {"policy": "x", "bake": {"early": True}}),
    (Policy, {"policy": "x", "budget": {"failed": "0%"}}),
    (Policy, {"policy": "x", "slices": {"growth": 1}}),
    (Policy, {"policy": "x", "window": {"days": "mon"}}),
    (Policy, {"policy": "x", "window": {"timezone": "UTC", "days": "monday"}}),
    (Policy, {"policy": "x", "window": {"timezone": "UTC", "hours": "9-17"}}),
    (Policy, {"policy": "x", "window": {"timezone": "UTC", "except": ["tomorrow"]}}),
    (RolloutFile, {**WAVES, "waves": []}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": "most"}]}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": {}}]}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": {"share": "5%", "count": 5}}]}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": {"share": "5%", "spread": "hardware_id"}}]}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": {"labels": {"a": 1}}}]}),
    (RolloutFile, {**WAVES, "waves": [{"wave": "a", "devices": "all", "policy": {"tolerate": {}}}]}),
    (RolloutFile, {**WAVES, "target": "1", "waves": [{"wave": "a", "devices": "all"}]}),
    (RolloutFile, {**WAVES, "excluded": "lab", "waves": [{"wave": "a", "devices": "all"}]}),
    (FleetFile, {"devices": []}),
    (FleetFile, {"devices": [{"id": "a b", "hardware_id": "h", "tag": "t"}]}),
    (FleetFile, {"devices": [{"id": "a", "hardware_id": "h"}]}),
]

SCHEMAS = {Policy: policy_schema(), RolloutFile: rollout_schema(), FleetFile: fleet_schema()}


def editor_accepts(kind: type[Document], document: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMAS[kind]).is_valid(document)


def loader_accepts(kind: type[Document], document: Any) -> bool:
    try:
        kind.parse(document)
    except WaveError:
        return False
    return True


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_schemas_are_schemas_and_describe_every_key(kind: type[Document]) -> None:
    schema = SCHEMAS[kind]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(kind.allowed_keys())
    for part in (schema, *schema["$defs"].values()):
        for each in (part, *part.get("anyOf", [])):
            assert all("description" in key for key in each.get("properties", {}).values() if "const" not in key)
    assert "null" not in json.dumps(schema)


def as_yaml_gives_it(document: Any) -> Any:
    """yaml.safe_load makes dates of dates; what we read is what the file says."""
    return json.loads(json.dumps(document, default=str))


@pytest.mark.parametrize(("kind", "document"), GOOD)
def test_schema_and_loader_both_take_it(kind: type[Document], document: Any) -> None:
    document = as_yaml_gives_it(document)
    assert loader_accepts(kind, document)
    jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(document)
    bound = kind.parse(document)
    assert editor_accepts(kind, bound.document())
    assert kind.from_canonical(bound.canonical()) == bound


@pytest.mark.parametrize(("kind", "document"), BAD)
def test_schema_and_loader_both_refuse_it(kind: type[Document], document: Any) -> None:
    assert not loader_accepts(kind, document)
    assert not editor_accepts(kind, document)


# Whatever it is


WORDS = st.sampled_from(
    """policy tolerate failed silent bake at_least at_most reports deltas window days hours timezone except promote pace
    in_flight rollout target tag waves wave devices all group labels share count spread after budget slices 2% 24h 7 7.5
    on no ~ 09:00-16:00 2026-12-21..2027-01-06 [a] {b:c} &a *a !!str | > - ? : , # ' " % @""".split()
)
junk = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.tuples(st.sampled_from(["", " ", "  ", "- ", "\n", ": ", ", ", "{", "}", "[", "]"]), WORDS)).map(
        lambda parts: "".join(space + word for space, word in parts).encode()
    ),
    st.recursive(
        WORDS | st.integers() | st.none() | st.booleans() | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
        max_leaves=15,
    ).map(lambda document: yaml.safe_dump(document).encode()),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=junk, file=st.sampled_from(["x.yaml", "x.json"]))
def test_junk_never_raises_anything_but_our_own_errors(raw: bytes, file: str) -> None:
    for parse in (parse_policy, parse_rollout):
        try:
            parse(raw, file=file)
        except WaveError as error:
            assert str(error).startswith("x.")  # noqa: PT017 most junk is refused, some is not


@settings(max_examples=50, deadline=None)
@given(
    raw=st.sampled_from([(POLICIES / f"{name}.yaml").read_bytes() for name in SHIPPED]),
    at=st.integers(0, 2000),
    byte=st.binary(min_size=1, max_size=3),
)
def test_a_damaged_page_never_raises_anything_but_our_own_errors(raw: bytes, at: int, byte: bytes) -> None:
    at %= len(raw)
    try:
        parse_policy(raw[:at] + byte + raw[at + 1 :], file="x.yaml")
    except WaveError as error:
        assert "x.yaml" in str(error)  # noqa: PT017
