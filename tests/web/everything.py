"""An installation in which no list is empty: some of everything that the operators' API lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestrator.core.artifact import Artifact, Digests, Format
from orchestrator.core.notices import Notice
from orchestrator.core.roles import Role
from orchestrator.services.application import Application
from orchestrator.services.credentials import GrantKind, RevokedKind
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.mender.sets import AuthSet, SetStatus
from orchestrator.services.notice_store import Wanted
from tests.cli.house import ROLLOUT, House
from tests.services.fake_provider import commit

PASSWORD: Final = "correct horse battery"
NAMES: Final = ("ann", "ben", "cem")

_NOTICE = Notice("id", "r", 42, 1, "halted", None, "policy", "now", "halted", None, "t", "s", "m", ("wave explain r",))


def furnish(house: House, app: Application) -> list[str]:
    """Put three of each into it; secrets that no answer may hold."""
    secrets = [PASSWORD, "argon2"]
    for each in ("second", "third"):
        app.rollouts.apply(*app.files.said(ROLLOUT.format(policy="accelerated").replace("lmp-42", each), None), by="m")
    for order in (app.rollouts.start, app.rollouts.pause, app.rollouts.resume):
        order("lmp-42", by="m")
    pairs = [DeltaPair(commit(before), commit(after)) for before, after in ((30, 41), (30, 42), (41, 42))]
    app.deltas.request(pairs, by="m")
    for name in NAMES:
        app.targets.add(version=42, commit=commit(42), hardware_ids=[f"board-{name}"], by="m")
        app.people.add(name, [Role.RELEASER], by="m", password=PASSWORD if name == "ann" else None)
        secrets.append(app.people.add_token(name, [Role.VIEWER], until=house.now + timedelta(days=9), by="m")[1])
        secrets.append(app.devices.identity.add(GrantKind.ENROLMENT, by="m", tag=name)[1])
        app.devices.identity.revoke_certificates(RevokedKind.DEVICE, name, by="m")
    with app.store.writing() as w:
        for n in range(3):
            sums = Digests(f"{n}" * 64, f"{n}" * 40, f"{n}" * 32, 7)
            w.add_artifact(
                replace(_ARTIFACT, digests=sums, filename=f"image-{n}.swu", name=f"image {n}", version=f"{n}.0")
            )
            w.save_auth_set(_auth_set(n, house))
        keys = [row.key for row in w.rollouts()]
        for key in keys:
            w.add_notices(Wanted(key, "journal 1", _NOTICE, house.now, house.now), ["oncall"])
    return secrets


_ARTIFACT: Final = Artifact(Digests("0" * 64, "0" * 40, "0" * 32, 7), Format.SWU, "i.swu", "i", "1.0", ("rpi4",))


def _auth_set(n: int, house: House) -> AuthSet:
    return AuthSet(
        id=f"{n}" * 64,
        identity=f'{{"mac":"{n}"}}',
        public_key=f"key {n}",
        status=SetStatus.PENDING,
        asked_at=house.now,
        seen_at=house.now,
    )
