"""Which protocol a device speaks, on every store: kept when it changes, and asked of when devices shall go back."""

from __future__ import annotations

from orchestrator.adapters.sql.store import SqlStore
from orchestrator.core.protocols import ONLY_FORWARD, DeviceProtocol, Spoken
from orchestrator.services.protocols import Held
from tests.contract.building import OTHER, device, enroll, scope


def test_what_a_device_speaks_is_kept_and_changed(store: SqlStore) -> None:
    with store.writing() as w:
        keys = enroll(w, *(device(f"d{number}") for number in range(3)))
        assert w.spoken(keys) == {}
        assert w.spoken([]) == {}
        w.set_spoken({keys[0]: Spoken(DeviceProtocol.AKTUALIZR, 41), keys[1]: Spoken(DeviceProtocol.DDI)})
    with store.writing() as w:
        w.set_spoken({keys[0]: Spoken(DeviceProtocol.MENDER, 42)})
    with store.reading() as r:
        assert r.spoken(keys) == {keys[0]: Spoken(DeviceProtocol.MENDER, 42), keys[1]: Spoken(DeviceProtocol.DDI)}


def test_who_cannot_go_back_is_counted_and_named(store: SqlStore) -> None:
    names = [f"d{number}" for number in range(6)]
    fleet = [device(name, version=43, commit=OTHER) for name in names]
    fleet.append(device("other", version=43, commit=OTHER, tag="lab"))
    with store.writing() as w:
        keys = enroll(w, *fleet)
        for key, each in zip(keys, fleet, strict=True):
            w.save_device(key, each)
        spoken = dict.fromkeys(keys, Spoken(DeviceProtocol.AKTUALIZR, 43))
        spoken[keys[4]] = Spoken(DeviceProtocol.DDI, 43)
        del spoken[keys[5]]
        w.set_spoken(spoken)
    with store.reading() as r:
        back = scope(from_versions=(43,))
        assert r.only_forward(back, ONLY_FORWARD, limit=3) == Held(4, ("d0", "d1", "d2"))
        assert r.only_forward(back, [DeviceProtocol.DDI], limit=3) == Held(1, ("d4",))
        assert r.only_forward(scope(), ONLY_FORWARD, limit=3) == Held(0, ())
    assert str(Held(4, ("d0", "d1", "d2"))) == "d0, d1, d2 and 1 more"


def test_what_was_heard_is_noted_only_of_other_protocols_and_the_highest_version_stays() -> None:
    own = Spoken()
    assert own.heard(DeviceProtocol.OWN, 42) is own
    up = own.heard(DeviceProtocol.AKTUALIZR, 42).heard(DeviceProtocol.AKTUALIZR, 41)
    assert up == Spoken(DeviceProtocol.AKTUALIZR, 42)
    assert up.heard(DeviceProtocol.OWN, None) == Spoken(DeviceProtocol.OWN, 42)
