"""The door for Mender devices under whatever may come."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.services.mender.deployments import Deployment
from tests.gateway.mender_house import AUTH, DEPLOYMENTS, INVENTORY, NEXT, NEXT_V1, Client, House


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.world.close()


@pytest.fixture
def offered(house: House) -> tuple[Client, str]:
    """A device with a deployment, and which."""
    (client,) = house.fleet(1)
    house.world.apply()
    return client, client.offered()


class TestFuzzed:
    """Whatever comes, the answer is defined: no 500."""

    ROUTES = [
        ("PUT", INVENTORY),
        ("PATCH", INVENTORY),
        ("POST", NEXT),
        ("POST", NEXT_V1),
        ("GET", NEXT_V1),
        ("POST", AUTH),
        ("PUT", f"{DEPLOYMENTS}/%s/status"),
        ("PUT", f"{DEPLOYMENTS}/%s/log"),
    ]
    JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "value", "status", "messages", "device_provides", "artifact_name", "device_type",
                             "id_data", "pubkey", "level", "message"]) | st.text(max_size=10),
            inner,
            max_size=5,
        ),
        max_leaves=12,
    )  # fmt: skip

    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        route=st.sampled_from(ROUTES),
        body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
        query=st.dictionaries(st.sampled_from(["artifact_name", "device_type", "x"]), st.text(max_size=40), max_size=3),
    )
    def test_nothing_is_answered_with_500(
        self, offered: tuple[Client, str], route: tuple[str, str], body: bytes, query: dict[str, str]
    ) -> None:
        client, deployment = offered
        method, path = route
        path = path % deployment if "%s" in path else path
        clean = {name: text.encode("utf-8", "replace").decode() for name, text in query.items()}
        answer = client.ask(method, path, content=body, params=clean)
        assert answer.status_code in (200, 204, 400, 401, 404, 409)


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 31), st.integers(0, 2**41 - 1), st.text(max_size=20), st.text(max_size=20)
)
def test_the_name_of_a_deployment_is_read_back_by_its_device_alone(
    key: int, tries: int, ms: int, device: str, other: str
) -> None:
    deployment = Deployment(key, tries, ms)
    name = deployment.name(device)
    assert Deployment.parse(name, device) == deployment
    assert len(name) == 36 and name[14] == "8" and name[19] in "89ab"
    if other != device:
        assert Deployment.parse(name, other) is None
