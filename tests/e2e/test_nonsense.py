"""A source of gates that has gone mad, asked by a real ``wave serve``: nothing opens, everybody can read why, and when
it has come to its senses the rollout goes on by itself."""

from __future__ import annotations

import pytest

from tests.adapters.gates.test_asking import somebody, vector
from tests.e2e.faults import House
from tests.e2e.test_prometheus import ROLLOUT, said, wave_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

GATED = """policy: gated
tolerate: {failed: 2%}
deltas: {within: 0s, otherwise: full}
gates:
  - {gate: errors, asks: prometheus, query: 'rate(errors[5m])', below: 3, every: 5s}
"""


def test_a_prometheus_that_answers_nonsense_opens_nothing_and_is_told_of(house: House) -> None:
    house.settings(more="builders: 0")
    house.file("gated.yaml", GATED)
    house.file("rollout.yaml", ROLLOUT)
    with somebody() as prometheus:
        prometheus.body = b"<html>Sign in to Prometheus</html>"
        (house.root / "gates.yaml").touch(mode=0o600)
        house.file("gates.yaml", f"prometheus: {{promql: {prometheus.url}}}")
        server = house.serve()
        house.ok("apply", "rollout.yaml", "--start")
        until("nonsense is no yes", lambda: said(house, "errors") == ["no_data"], within=60.0, alive=server)
        asked = len(prometheus.asked)
        until("it is asked again", lambda: len(prometheus.asked) > asked, within=60.0, alive=server)
        assert wave_of(house)["status"] == "preparing"
        assert "no data" in house.ok("journal", "r3").said
        prometheus.body = vector("1")
        until("it opens by itself", lambda: wave_of(house)["status"] == "open", within=60.0, alive=server)
        assert said(house, "errors") == ["no_data", "yes"]
        assert "nothing differs" in house.ok("replay", "r3").said
    server.stop()
