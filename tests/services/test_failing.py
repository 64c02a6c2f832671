"""What fails most: counted over the bad devices alone, at a cost that has a bound."""

from __future__ import annotations

from orchestrator.services.failing import Common, Failing, failing
from tests.services.fleet_world import World

TOLERANT = {"tolerate": {"failed": "90%"}, "budget": {"failed": 1000}, "slices": {"first": 100}}


def asked(world: World, *, limit: int = 5) -> Failing:
    with world.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None
        return failing(r, "lmp-42", row.key, 0, limit=limit)


def test_bad_devices_are_counted_by_code_version_and_label(world: World) -> None:
    """Thirty devices; the first ten fail, eight of them with EIO, all of them of site b."""
    found = world.fleet(30)
    world.devices.register.set_label(found[:10], "site", "b")
    world.apply(policy=TOLERANT)
    for number, device in enumerate(found):
        assert world.check_in(device) is not None
        if number < 10:
            world.report(device, world.event("failed", code="EIO" if number < 8 else "E17"))
    told = asked(world)
    assert told.bad == told.looked_at == 10
    assert told.commons == (
        Common("outcome", "failed", 10),
        Common("error code", "EIO", 8),
        Common("error code", "E17", 2),
        Common("hardware id", "rpi4", 10),
        Common("source version", "41", 10),
        Common("label site", "b", 10),
    )
    assert [each for each in asked(world, limit=1).commons if each.kind == "error code"] == [
        Common("error code", "EIO", 8)
    ]


def test_no_more_are_read_than_asked_for_and_nothing_is_sorted() -> None:
    world = World()
    found = world.fleet(12)
    world.apply(policy=TOLERANT)
    for device in found:
        assert world.check_in(device) is not None
        world.report(device, "failed")
    with world.store.reading() as r:
        row = r.rollout("lmp-42")
        assert row is not None
        assert len(r.some_bad(row.key, limit=5)) == 5 and len(r.some_bad(row.key, limit=100)) == 12
        plan = r.link.rows(
            "EXPLAIN QUERY PLAN SELECT u.key FROM device_update u INDEXED BY update_bad CROSS JOIN update_offer o "
            "CROSS JOIN device d WHERE u.rollout_key = 1 AND u.bad > 0 AND o.key = u.key AND d.key = u.device_key"
        )
    assert not any("TEMP B-TREE" in str(row) or "SCAN" in str(row) for row in plan)
    world.close()


def test_a_rollout_without_anything_bad_has_nothing_in_common(world: World) -> None:
    world.fleet(2)
    world.apply()
    assert asked(world) == Failing("lmp-42", 0, 0, ())
