"""SQL and Python say the same of every device: whose wave it is, whether it is eligible, which slice holds it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.sql.members import all_of, eligible, in_some_wave
from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.fleet import Device, DeviceStatus, Scope
from orchestrator.core.membership import WaveSelector, wave_of
from orchestrator.core.offers import segments_of
from orchestrator.core.position import SPACE, position
from orchestrator.core.protocols import TAKES_WHOLE, DeviceProtocol, Spoken
from tests.contract.building import NEW, NOW, OLD, OTHER, WEEK_AGO, device, enroll, scope, selector, undone

AGAIN = settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
HARDWARE = ("rpi4", "imx8", "x86")
SITES = ("berlin", "paris")
SEGMENTS = ("hardware_id=rpi4", "source_version=41", "source_version=x", "label:site=berlin", "label:rack=paris")


@st.composite
def fleets(draw: st.DrawFn) -> list[Device]:
    some: list[dict[str, Any]] = draw(
        st.lists(
            st.builds(
                dict,
                hardware_id=st.sampled_from(HARDWARE),
                tag=st.sampled_from(("promoted", "promoted", "devel")),
                group=st.sampled_from((None, "lab", "office")),
                labels=st.dictionaries(st.sampled_from(("site", "rack")), st.sampled_from(SITES), max_size=2),
                commit=st.sampled_from((None, OLD, NEW, OTHER)),
                version=st.sampled_from((None, 39, 40, 41, 42, 43)),
                status=st.sampled_from((*[DeviceStatus.ACTIVE] * 3, DeviceStatus.HELD, DeviceStatus.RETIRED)),
                last_seen_at=st.sampled_from((None, NOW, WEEK_AGO, WEEK_AGO - timedelta(microseconds=1))),
            ),
            max_size=25,
        )
    )
    return [device(f"device-{number}", **one) for number, one in enumerate(some)]


@st.composite
def selectors(draw: st.DrawFn) -> tuple[WaveSelector, ...]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        bounds = st.dictionaries(st.sampled_from(HARDWARE), st.integers(0, SPACE), max_size=3)
        kind = draw(st.sampled_from(("all", "bound", "bounds")))
        found.append(
            selector(
                f"wave-{number}",
                group=draw(st.sampled_from((None, None, "lab"))),
                labels=tuple(
                    draw(st.dictionaries(st.sampled_from(("site", "rack")), st.sampled_from(SITES), max_size=2)).items()
                ),
                bound=draw(st.integers(0, SPACE)) if kind == "bound" else None,
                bounds=tuple(draw(bounds).items()) if kind == "bounds" else None,
            )
        )
    return tuple(found)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    return scope(
        *draw(selectors()),
        commits=draw(st.sampled_from(({"rpi4": NEW, "imx8": NEW}, {"rpi4": NEW}, {"imx8": OTHER, "x86": OLD}))),
        from_versions=draw(st.sampled_from(((), (), (43,), (41, 43), (42, 43)))),
        version=draw(st.sampled_from((42, 41))),
        excluded=tuple(sorted(draw(st.sets(st.sampled_from(SEGMENTS), max_size=2)))),
    )


def wave_in_python(one: Device, of: Scope) -> str | None:
    found = wave_of(one.member, of.selectors)
    return found.wave if found else None


@AGAIN
@given(fleet=fleets(), of=scopes())
def test_a_look_counts_what_python_counts(store: SqlStore, fleet: list[Device], of: Scope) -> None:
    with undone(store) as w:
        enroll(w, *fleet)
        for wave in (one.wave for one in of.selectors):
            count = w.look(of, wave, seen_since=WEEK_AGO)
            mine = [one for one in fleet if of.follows(one) and wave_in_python(one, of) == wave]
            able = [one for one in mine if of.eligible(one)]
            near = [one for one in able if one.last_seen_at is not None and one.last_seen_at >= WEEK_AGO]
            assert count.eligible == len(able)
            assert count.already_there == sum(1 for one in mine if of.already_there(one))
            assert count.reachable == len(near)
            assert {(one.hardware_id, one.commit, one.version): one.devices for one in count.running} == Counter(
                (one.hardware_id, one.commit, one.version) for one in near
            )


@AGAIN
@given(fleet=fleets(), of=scopes(), data=st.data())
def test_a_look_finds_whose_protocol_has_no_deltas(
    store: SqlStore, fleet: list[Device], of: Scope, data: st.DataObject
) -> None:
    spoken = [data.draw(st.sampled_from(DeviceProtocol)) for _ in fleet]
    with undone(store) as w:
        keys = enroll(w, *fleet)
        w.set_spoken({key: Spoken(over) for key, over in zip(keys, spoken, strict=True)})
        for wave in (one.wave for one in of.selectors):
            found = Counter(
                (over, one.hardware_id, one.commit, one.version)
                for one, over in zip(fleet, spoken, strict=True)
                if of.eligible(one) and wave_in_python(one, of) == wave and over in TAKES_WHOLE
                if one.last_seen_at is not None and one.last_seen_at >= WEEK_AGO
            )
            whole = w.look(of, wave, seen_since=WEEK_AGO).whole
            assert found == {
                (over, one.hardware_id, one.commit, one.version): one.devices
                for over, running in whole.items()
                for one in running
            }


@AGAIN
@given(fleet=fleets(), of=scopes())
def test_who_is_eligible_is_the_same_in_sql(store: SqlStore, fleet: list[Device], of: Scope) -> None:
    with undone(store) as w:
        keys = dict(zip(enroll(w, *fleet), fleet, strict=True))
        asked = all_of(eligible(of), in_some_wave(of))
        rows = w.link.rows(f"SELECT d.key FROM device d WHERE {asked.sql}", asked.parameters)
        found = {keys[key].id for (key,) in rows}
        assert found == {one.id for one in fleet if of.eligible(one) and wave_in_python(one, of) is not None}


@AGAIN
@given(fleet=fleets(), of=scopes(), dimension=st.sampled_from(("hardware_id", "source_version", "label:site")))
def test_segments_have_the_devices_that_python_finds(
    store: SqlStore, fleet: list[Device], of: Scope, dimension: str
) -> None:
    with undone(store) as w:
        enroll(w, *fleet)
        members = [one for one in fleet if wave_in_python(one, of) is not None]
        found = Counter(name for one in members if of.eligible(one) for name in segments_of(one, (dimension,)))
        largest = sorted(found.items(), key=lambda each: (-each[1], each[0]))
        assert list(w.segments(of, dimension, limit=2).items()) == largest[:2]
        whole = replace(of, excluded=())
        for segment in SEGMENTS:
            inside = [
                one for one in members if whole.eligible(one) and replace(of, excluded=(segment,)).leaves_out(one)
            ]
            assert w.in_segment(of, segment) == len(inside)


@AGAIN
@given(fleet=fleets(), of=scopes(), count=st.integers(0, 6), only=st.sampled_from((None, "rpi4")))
def test_strata_and_bounds_are_pythons(
    store: SqlStore, fleet: list[Device], of: Scope, count: int, only: str | None
) -> None:
    with undone(store) as w:
        enroll(w, *fleet)
        for number, mine in enumerate(of.selectors):
            # Its own bounds left aside, those of the waves before it kept.
            free = (*of.selectors[:number], replace(mine, bound=None, bounds=None))
            able = [
                one
                for one in fleet
                if of.eligible(one) and (got := wave_of(one.member, free)) is not None and got.wave == mine.wave
            ]
            assert w.strata(of, mine.wave) == Counter(one.hardware_id for one in able)
            stand = sorted(
                position(one.member.hash, mine.salt) for one in able if only is None or one.hardware_id == only
            )
            bound = w.bound(of, mine.wave, only, count)
            assert sum(1 for place in stand if place < bound) == min(count, len(stand))
            assert (bound == SPACE) == (count > len(stand))


@AGAIN
@given(fleet=fleets(), more=fleets(), of=scopes())
def test_devices_that_are_added_move_none(store: SqlStore, fleet: list[Device], more: list[Device], of: Scope) -> None:
    with undone(store) as w:
        enroll(w, *fleet)
        waves = [one.wave for one in of.selectors]
        before = {wave: w.look(of, wave, seen_since=WEEK_AGO).eligible for wave in waves}
        newcomers = [replace(one, id=f"new-{one.id}") for one in more]
        enroll(w, *newcomers)
        for wave in waves:
            added = sum(1 for one in newcomers if of.eligible(one) and wave_in_python(one, of) == wave)
            assert w.look(of, wave, seen_since=WEEK_AGO).eligible == before[wave] + added
