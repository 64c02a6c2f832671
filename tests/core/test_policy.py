"""What a release manager writes in a policy, and the exact sentence when it cannot be taken."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.document import InvalidDocument, Problem
from orchestrator.core.evidence.darkness import Darkness
from orchestrator.core.outcomes import Answer, OutcomeClass, Tolerance
from orchestrator.core.pace import Rate
from orchestrator.core.policy import OnHalt, OnSegment, Otherwise, Policy, Promotion
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.rules import bind
from orchestrator.core.slices import next_size
from orchestrator.core.window import Window

PAGE: dict[str, Any] = {
    "policy": "standard",
    "tolerate": {
        "failed": "2%",
        "rolled_back": "1%",
        "silent": {"at_most": "0.5%"},
        "download_failed": {"at_most": "15%", "then": "hold"},
    },
    "false_halt": "5%",
    "segments": ["hardware_id", "label:region"],
    "false_exclude": "4%",
    "on_segment": "halt",
    "escalate_over": "30%",
    "on_halt": ["cancel", "withdraw"],
    "budget": {"failed": "3%", "silent": 40},
    "silent_after": "24h",
    "slices": {"first": 10, "growth": 1.5},
    "deltas": {"cover": "95%", "within": "0s", "otherwise": "full", "from_unknown": "skip"},
    "bake": {"at_least": "12h", "reports": "95%", "at_most": "48h"},
    "promote": {"approvals": 1},
    "window": {
        "days": "mon-thu",
        "hours": "09:00-16:00",
        "timezone": "Europe/Berlin",
        "except": ["2026-12-21..2027-01-06"],
    },
    "pace": {"in_flight": 500},
}


def refusal(document: object) -> str:
    with pytest.raises(InvalidDocument) as refused:
        Policy.parse(document)
    return str(refused.value)


def test_a_page_is_read() -> None:
    policy = Policy.parse(PAGE)
    assert policy.name == "standard"
    assert policy.tolerances[OutcomeClass.FAILED] == Tolerance(0.02, Answer.HALT)
    assert policy.tolerances[OutcomeClass.SILENT] == Tolerance(0.005, Answer.HALT)
    assert policy.tolerances[OutcomeClass.DOWNLOAD_FAILED] == Tolerance(0.15, Answer.HOLD)
    assert policy.segments == ("hardware_id", "label:region")
    assert (policy.false_exclude, policy.on_segment, policy.escalate_over) == (0.04, OnSegment.HALT, 0.3)
    assert policy.on_halt == (OnHalt.WITHDRAW, OnHalt.CANCEL)
    assert policy.deltas.otherwise is Otherwise.FULL
    assert policy.deltas.within == timedelta(0)
    assert policy.bake.at_most == timedelta(days=2)
    assert policy.promote is Promotion.MANUAL
    assert policy.pace is not None
    assert policy.pace.in_flight == 500
    assert isinstance(policy.window, Window)
    failed, silent = policy.budget.limit(OutcomeClass.FAILED), policy.budget.limit(OutcomeClass.SILENT)
    assert failed is not None
    assert silent is not None
    assert (failed.devices(1000), silent.devices(1000)) == (30, 40)
    assert failed.devices(5) == 1
    assert policy.budget.limit(OutcomeClass.IGNORED) is None


def test_evidence_alone_is_short_for_a_stake_of_twenty() -> None:
    written, short = (Policy.parse({"policy": "x", "pace": pace}) for pace in ({"stake": 20}, "evidence"))
    assert written == short
    assert short.document()["pace"] == {"stake": 20}


def test_a_waves_own_pace_stands_beside_the_policys_and_inherits_nothing_of_it() -> None:
    policy = Policy.parse({"policy": "x", "pace": {"in_flight": 500, "rate": "200/h"}, "bake": {"early": "confident"}})
    file = RolloutFile.parse(
        {
            "rollout": "lmp-42",
            "target": 42,
            "tag": "promoted",
            "policy": "x",
            "waves": [
                {"wave": "lab", "devices": {"group": "lab"}, "policy": {"bake": {"early": "never"}}},
                {"wave": "rest", "devices": "all", "policy": {"pace": {"stake": 5}}},
            ],
        }
    )
    rules = bind(file, policy)
    lab, rest = rules.waves
    assert (rules.in_flight, rules.rate, rules.stake) == (500, Rate(200, "h"), None)
    assert (lab.in_flight, lab.rate, lab.early) == (None, None, False)
    assert (rest.in_flight, rest.rate, rest.stake, rest.early) == (None, None, 5, True)


def test_a_name_alone_gives_the_documented_defaults() -> None:
    policy = Policy.parse({"policy": "bare"})
    assert policy.tolerances == {
        OutcomeClass.FAILED: Tolerance(0.02, Answer.HALT),
        OutcomeClass.ROLLED_BACK: Tolerance(0.01, Answer.HALT),
        OutcomeClass.SILENT: Tolerance(0.05, Answer.HOLD),
        OutcomeClass.IGNORED: Tolerance(0.15, Answer.HOLD),
        OutcomeClass.DOWNLOAD_FAILED: Tolerance(0.15, Answer.HOLD),
    }
    assert policy.document() == {
        "policy": "bare",
        "tolerate": {
            "failed": {"at_most": "2%", "then": "halt"},
            "rolled_back": {"at_most": "1%", "then": "halt"},
            "ignored": {"at_most": "15%", "then": "hold"},
            "download_failed": {"at_most": "15%", "then": "hold"},
            "codes": {},
        },
        "false_halt": "5%",
        "segments": [],
        "false_exclude": "5%",
        "on_segment": "exclude",
        "escalate_over": "20%",
        "budget": {"codes": {}},
        "unhealthy_before": "count",
        "silent_after": "1d",
        "slices": {"first": 20, "growth": 2},
        "slice_at_most": "1d",
        "reach": "7d",
        "open_at_most": "7d",
        "deltas": {"cover": "100%", "within": "6h", "otherwise": "hold", "from_unknown": "full"},
        "bake": {"at_least": "12h", "reports": "95%", "at_most": "2d", "early": "never"},
        "promote": "automatic",
    }


def test_what_is_said_of_silence_is_on_top_of_the_darkness_learnt() -> None:
    unnamed, named = (
        Policy.parse({"policy": "x", "tolerate": tolerate})
        for tolerate in ({}, {"silent": {"at_most": "4%", "then": "hold"}})
    )
    silent = OutcomeClass.SILENT
    assert unnamed.tolerances_over(None)[silent] == Tolerance(0.05, Answer.HOLD)
    assert unnamed.tolerances_over(Darkness(0.0))[silent] == Tolerance(0.02, Answer.HALT)
    assert unnamed.tolerances_over(Darkness(0.03))[silent].at_most == pytest.approx(0.0494)
    assert (
        named.tolerances_over(None)[silent]
        == named.tolerances_over(Darkness(0.0))[silent]
        == Tolerance(0.04, Answer.HOLD)
    )
    assert named.tolerances_over(Darkness(0.5))[silent].at_most == pytest.approx(0.52)
    assert unnamed.tolerances_over(Darkness(0.0, 0.5), segment=True)[silent].at_most == pytest.approx(0.51)
    over = unnamed.tolerances_over(Darkness(0.3))
    assert {each: over[each] for each in over if each != silent} == {
        each: found for each, found in unnamed.tolerances.items() if each != silent
    }
    assert Policy.from_canonical(unnamed.canonical()) == unnamed


def test_a_class_that_is_often_not_the_releases_fault_holds_unless_it_says_otherwise() -> None:
    tolerate = {"failed": "3%", "ignored": "20%", "download_failed": {"at_most": "10%"}, "silent": "1%"}
    tolerances = Policy.parse({"policy": "x", "tolerate": tolerate}).tolerances
    assert tolerances[OutcomeClass.FAILED].then is Answer.HALT
    assert tolerances[OutcomeClass.SILENT].then is Answer.HALT
    assert tolerances[OutcomeClass.IGNORED] == Tolerance(0.2, Answer.HOLD)
    assert tolerances[OutcomeClass.DOWNLOAD_FAILED] == Tolerance(0.1, Answer.HOLD)
    tolerate = {"ignored": {"at_most": "20%", "then": "count"}}
    assert Policy.parse({"policy": "x", "tolerate": tolerate}).tolerances[OutcomeClass.IGNORED].then is Answer.COUNT


ALL_KEYS = (
    "policy, tolerate, false_halt, segments, false_exclude, on_segment, escalate_over, budget, on_halt, "
    "unhealthy_before, silent_after, slices, slice_at_most, reach, open_at_most, deltas, bake, promote, gates, "
    "approve, window, offer_window, pace, notify"
)

HOLD = {"at_most": "1%", "then": "hold"}
REFUSED = [
    ({"toleratte": {}}, f"toleratte: is not a key here; allowed are {ALL_KEYS}. Did you mean 'tolerate'?"),
    (
        {"tolerate": {"fialed": "2%"}},
        "tolerate.fialed: is not a key here; allowed are failed, verify_failed, rolled_back, silent, ignored, "
        "download_failed, codes. "
        "Did you mean 'failed'?",
    ),
    ({"segments": "hardware_id"}, "segments: must be a list such as [hardware_id, label:region], not 'hardware_id'."),
    (
        {"segments": ["hardware_id", "region"]},
        "segments: has 'region'; a dimension is hardware_id, source_version or label:KEY.",
    ),
    ({"segments": ["label:a", "label:a"]}, "segments: names label:a twice."),
    (
        {"segments": [f"label:l{number}" for number in range(9)]},
        "segments: has 9 dimensions; 8 at most can be watched.",
    ),
    ({"on_segment": "hold"}, "on_segment: must be one of exclude, halt, not 'hold'."),
    ({"on_halt": "cancel"}, "on_halt: must be [withdraw], with cancel or notify beside it, not 'cancel'."),
    (
        {"on_halt": ["cancel"]},
        "on_halt: must have withdraw, cancel or notify beside it: a halt always withdraws offers not started.",
    ),
    ({"on_halt": ["withdraw", "page"]}, "on_halt: must be one of withdraw, cancel, notify, not 'page'."),
    ({"escalate_over": "0%"}, "escalate_over: must be more than 0% and at most 100%, not '0%'."),
    ({"false_exclude": "60%"}, "false_exclude: must be more than 0% and at most 50%, not '60%'."),
    ({"tolerate": {"failed": "0%"}}, "tolerate.failed: must be more than 0% and less than 100%, not '0%'."),
    ({"tolerate": {"failed": "100%"}}, "tolerate.failed: must be more than 0% and less than 100%, not '100%'."),
    (
        {"tolerate": {"ignored": {"at_most": "100%"}}},
        "tolerate.ignored.at_most: must be more than 0% and less than 100%, not '100%'.",
    ),
    (
        {"tolerate": {"failed": 2}},
        "tolerate.failed: has no unit: a share is written with a per cent sign, such as 2%.",
    ),
    (
        {"tolerate": {"failed": {"then": "stop", "at_most": "2%"}}},
        "tolerate.failed.then: must be one of halt, hold, count, not 'stop'.",
    ),
    (
        {"tolerate": {"failed:EIO": "2%"}},
        "tolerate.failed:EIO: is no class; one of your own by error codes stands below codes, with a name: "
        "{match, at_most, then}.",
    ),
    (
        {"tolerate": ["failed"]},
        "tolerate: must be a mapping with the keys failed, verify_failed, rolled_back, silent, ignored, "
        "download_failed, codes, not a list.",
    ),
    ({"false_halt": "60%"}, "false_halt: must be more than 0% and at most 50%, not '60%'."),
    ({"budget": {"failed": "130%"}}, "budget.failed: is more than the whole: a share is at most 100%, not '130%'."),
    ({"budget": {"failed": 0}}, "budget.failed: must be a count of at least 1 device or a share such as 3%, not 0."),
    ({"silent_after": 24}, "silent_after: has no unit: write 24s, 24m, 24h or 24d."),
    ({"silent_after": "0s"}, "silent_after: must be longer than nothing: at least 1s."),
    ({"silent_after": None}, "silent_after: is empty: give a value or leave the key out."),
    ({"slices": {"first": 0}}, "slices.first: must be at least 1, not 0."),
    ({"slices": {"first": "20"}}, "slices.first: must be a whole number, not '20'."),
    (
        {"slices": {"growth": 3}},
        "slices.growth: must be a number above 1 and at most 2 (a slice is never larger than all before it), not 3.",
    ),
    (
        {"deltas": {"otherwise": "ful"}},
        "deltas.otherwise: must be one of hold, full, skip, not 'ful'. Did you mean 'full'?",
    ),
    (
        {"bake": {"at_least": "3d"}},
        "bake: has at_most 2d below at_least 3d; give an at_most of at least 3d.",
    ),
    (
        {"bake": {"early": "confidnet"}},
        "bake.early: must be one of never, confident, not 'confidnet'. Did you mean 'confident'?",
    ),
    (
        {"bake": {"early": "confident"}, "tolerate": {"failed": HOLD, "rolled_back": HOLD}},
        "bake.early: needs classes that halt, with tolerances of less than 100% together; no class halts.",
    ),
    (
        {"bake": {"early": "confident"}, "tolerate": {"failed": "60%", "rolled_back": "50%"}},
        "bake.early: needs classes that halt, with tolerances of less than 100% together; those that halt sum to 110%.",
    ),
    ({"promote": "auto"}, "promote: must be one of automatic, manual, not 'auto'. Did you mean 'automatic'?"),
    (
        {"promote": {"approvals": 2}},
        "promote: takes one promotion, not 2: a second person's word is asked for by approve: {open: 1}. "
        "Allowed are automatic, manual and {approvals: 1}.",
    ),
    ({"promote": {"approvals": 0}}, "promote: must be automatic, manual or {approvals: 1}."),
    (
        {"pace": "evidenze"},
        "pace: must be evidence or a mapping with in_flight, stake, per, rate, not 'evidenze'. "
        "Did you mean 'evidence'?",
    ),
    ({"pace": {}}, "pace: limits nothing: give in_flight, stake, per or rate."),
    ({"pace": {"stake": 0}}, "pace.stake: must be at least 1, not 0."),
    ({"pace": {"in_flight": 5, "per": {"label": "site"}}}, "pace.per.at_most: is missing; for example `at_most: 2`."),
    (
        {"pace": {"per": {"label": "a site", "at_most": 1}}},
        "pace.per.label: is no name for a label: use letters, digits and . _ / : -, beginning with a letter or digit, "
        "128 at most.",
    ),
    ({"pace": {"rate": 3}}, "pace.rate: must be offers in a time such as 20/min, 200/h or 1000/d, not 3."),
    ({"pace": {"rate": "0/h"}}, "pace.rate: must be offers in a time such as 20/min, 200/h or 1000/d, not '0/h'."),
    ({"pace": {"rate": "5/w"}}, "pace.rate: must be offers in a time such as 20/min, 200/h or 1000/d, not '5/w'."),
    ({"window": {"days": "mon-thu"}}, "window.timezone: is missing; for example `timezone: Europe/Berlin`."),
    (
        {"policy": "Standard"},
        "policy: must be made of small letters, digits and . _ -, beginning with a letter or digit, at most 63, "
        "not 'Standard'.",
    ),
]


@pytest.mark.parametrize(("keys", "sentence"), REFUSED)
def test_what_is_refused_and_how(keys: dict[str, object], sentence: str) -> None:
    assert refusal({"policy": "x", **keys}) == sentence


@pytest.mark.parametrize(
    "key",
    "observe_only retain".split(),
)
def test_keys_of_a_later_version_are_refused_by_name(key: str) -> None:
    assert refusal({"policy": "x", key: "anything"}).startswith(f"{key}: is not in this version.")
    assert refusal({"policy": "x", key: None}).startswith(f"{key}: is not in this version.")


@pytest.mark.parametrize("document", [None, 5, "standard", [], ["policy"]])
def test_what_is_no_mapping_at_all(document: object) -> None:
    assert ALL_KEYS in refusal(document)


def test_all_problems_are_told_at_once() -> None:
    told = refusal({"tolerate": {"failed": "200%", "silent": {"then": "halt"}}, "bake": {"at_least": 5}, "x": 1})
    assert [line.split(": ")[0] for line in told.splitlines()] == [
        "policy",
        "tolerate.failed",
        "tolerate.silent.at_most",
        "bake.at_least",
        "x",
    ]


def test_the_next_slice_is_never_larger_than_all_before_it() -> None:
    policy = Policy.parse(PAGE)
    sizes, so_far = [], 0
    for _ in range(6):
        sizes.append(next_size(so_far, first=policy.slices.first, growth=policy.slices.growth))
        so_far += sizes[-1]
    assert sizes == [10, 5, 7, 11, 16, 24]
    slices = Policy.parse({"policy": "x"}).slices
    assert next_size(60, first=slices.first, growth=slices.growth) == 60


shares = st.integers(1, 99).map(lambda percent: f"{percent}%")
durations = st.sampled_from(["90m", "24h", "1d12h", "7d", "45s"])
answers = st.sampled_from(["halt", "hold", "count"])
MATCHES = {"modem": ["NET-*", "E1?", "E17"], "disk": ["EIO", "E*"], "1.x": ["*"]}
pages = st.fixed_dictionaries(
    {"policy": st.sampled_from(["a", "standard", "x-1"])},
    optional={
        "tolerate": st.builds(
            lambda built_in, own: {**built_in, **({"codes": own} if own else {})},
            st.dictionaries(
                st.sampled_from([each.value for each in OutcomeClass]),
                st.one_of(shares, st.fixed_dictionaries({"at_most": shares}, optional={"then": answers})),
            ),
            st.dictionaries(
                st.sampled_from(["modem", "disk", "1.x"]),
                st.fixed_dictionaries({"at_most": shares}, optional={"then": answers}),
            ).map(lambda own: {name: {"match": MATCHES[name], **each} for name, each in own.items()}),
        ),
        "unhealthy_before": st.sampled_from(["count", "exclude"]),
        "budget": st.dictionaries(
            st.sampled_from([each.value for each in OutcomeClass if each is not OutcomeClass.VERIFY_FAILED]),
            st.one_of(shares, st.integers(1, 99)),
        ),
        "silent_after": durations,
        "slices": st.fixed_dictionaries(
            {}, optional={"first": st.integers(1, 500), "growth": st.sampled_from([1.5, 2])}
        ),
        "bake": st.fixed_dictionaries({"at_most": st.just("9d")}, optional={"at_least": durations, "reports": shares}),
        "deltas": st.fixed_dictionaries(
            {}, optional={"cover": shares, "within": durations, "otherwise": st.sampled_from(["hold", "full", "skip"])}
        ),
        "promote": st.sampled_from(["automatic", "manual", {"approvals": 1}]),
        "window": st.one_of(
            st.just("always"),
            st.fixed_dictionaries(
                {"timezone": st.sampled_from(["UTC", "Europe/Berlin"])},
                optional={
                    "days": st.sampled_from(["mon-thu", ["mon", "tue"], "daily"]),
                    "hours": st.sampled_from(["09:00-16:00", "22:00-04:00", "00:00-24:00"]),
                    "except": st.sampled_from([[], ["2026-12-21..2027-01-06", "2026-05-01"], "2026-05-01"]),
                },
            ),
        ),
        "pace": st.one_of(
            st.just("evidence"),
            st.fixed_dictionaries(
                {"in_flight": st.integers(1, 9999)},
                optional={
                    "stake": st.integers(1, 99),
                    "rate": st.sampled_from(["1/d", "200/h", "20/min"]),
                    "per": st.just({"label": "site", "at_most": 2}),
                },
            ),
        ),
    },
)


def shuffled(value: Any, draw: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}


@settings(max_examples=60, deadline=None)
@given(page=pages, data=st.data())
def test_the_order_of_keys_never_matters_and_a_bound_copy_means_the_same(page: Any, data: st.DataObject) -> None:
    policy = Policy.parse(page)
    again = Policy.parse(shuffled(page, data.draw))
    assert again.canonical() == policy.canonical()
    assert again.digest() == policy.digest()
    bound = Policy.from_canonical(policy.canonical())
    assert bound == policy
    assert bound.canonical() == policy.canonical()
    assert hash(bound) == hash(policy)


def test_the_digest_of_a_page_is_pinned_so_that_bound_copies_stay_valid() -> None:
    policy = Policy.parse({"policy": "x"})
    assert json.loads(policy.canonical()) == policy.document()
    assert policy.digest() == "5b61fac0802d1e92b00cf181a71a0e5447eed7ce88897b03119a3a3b6656851a"
    assert Policy.parse({"policy": "x", "silent_after": "1440m"}).digest() == policy.digest()
    assert Policy.parse({"policy": "x", "silent_after": "25h"}).digest() != policy.digest()


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*Policy.allowed_keys(), "at_most", "failed", "approvals", "days", "except", "x"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_junk_is_refused_in_words_and_never_otherwise(junk: object) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        Policy.parse(junk)
    except InvalidDocument as refused:
        problems = refused.problems
    assert all(problem.sentence.endswith((".", "?")) for problem in problems)
