"""An ``Application`` that is elsewhere: its services have the methods of the real ones, each a call over the API.

What only the machine of the installation can do says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.adapters.files.library import check_file
from orchestrator.adapters.files.loader import load_fleet, load_policy, rollout_under
from orchestrator.adapters.files.private import private_text
from orchestrator.adapters.files.source import read_source
from orchestrator.adapters.remote.authority import RemoteAuthority
from orchestrator.adapters.remote.client import Client, not_here
from orchestrator.adapters.remote.uploading import Uploading
from orchestrator.core.artifact import Artifact
from orchestrator.core.fleet import Device, Target
from orchestrator.core.fleet_file import FleetFile
from orchestrator.core.policy import Policy
from orchestrator.core.roles import Role
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.services import remotely
from orchestrator.services.application import Application
from orchestrator.services.artifact_store import Progress, silent
from orchestrator.services.artifacts import Added, Said
from orchestrator.services.delta_provider import DeltaPair
from orchestrator.services.delta_views import DeltaView
from orchestrator.services.editing import Applied
from orchestrator.services.failing import Failing
from orchestrator.services.gate_trials import GateTrial
from orchestrator.services.mender.sets import AuthSet
from orchestrator.services.notices import Delivered
from orchestrator.services.people_views import NewToken, TokenView
from orchestrator.services.records import DeviceFilter
from orchestrator.services.replayed import Replayed
from orchestrator.services.static_deltas import StaticDeltaPlan
from orchestrator.services.tuf import TufView
from orchestrator.services.verifying import Verified
from orchestrator.services.views import RolloutPlan


class Elsewhere:
    """An orchestrator elsewhere. Raises InvalidInput for an address that cannot be; nobody is asked yet."""

    def __init__(self, server: str, token: str) -> None:
        self._client = Client(server, token)
        self.application = _application(self._client)

    def me(self) -> str:
        """Who this is there. Raises Unauthorized."""
        return self._client.me()

    def close(self) -> None:
        self._client.close()


def token_of(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token: from the file, else WAVE_TOKEN, else the file that WAVE_TOKEN_FILE names. A file that others may read
    is refused. Raises InvalidInput."""
    named = environment.get("WAVE_TOKEN_FILE")
    if file is None and (token := environment.get("WAVE_TOKEN", "").strip()):
        return _token(token, "WAVE_TOKEN")
    if file is None and named:
        file = Path(named)
    if file is None:
        raise InvalidInput(
            "--server needs a token.",
            remedy="Set WAVE_TOKEN, or name a file that only you can read: --token-file FILE.",
        )
    return _token(private_text(file).strip(), str(file))


def _token(text: str, where: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInput(f"{where} holds no token.", remedy="A token is one word, as it was shown when it was made.")
    return text


def _application(client: Client) -> Application:
    here: dict[str, Any] = {
        "store": _Nothing(),
        "files": RemoteFiles(client),
        "targets": _Targets(client, "targets"),
        "artifacts": _Artifacts(client, "artifacts"),
        "devices": _Devices(client),
        "mender": _Mender(client, "mender"),
        "rollouts": _Rollouts(client, "rollouts"),
        "notices": _Notices(client, "notices"),
        "people": _People(client, "people"),
        "settings": _Settings(client),
        "planner": _Planner(client, "planner"),
        "queries": _Queries(client, "queries"),
        "house_log": _HouseLog(client, "house_log"),
        "gates": _Gates(client, "gates"),
        "deltas": _Deltas(client, "deltas"),
        "verifier": _Verifier(client, "verifier"),
        "replayer": _Replayer(client, "replayer"),
        "authority": lambda: RemoteAuthority(client),
        "tuf": lambda: _Tuf(client),
        "clock": client.now,
    }
    return Application(**{each.name: here.get(each.name, _Elsewhere()) for each in fields(Application)})


class _Elsewhere:
    """What cannot be reached from here."""

    def __getattr__(self, name: str) -> NoReturn:
        not_here()


class _Nothing(_Elsewhere):
    """What needs no end here."""

    def close(self) -> None:
        """The connection ends with ``Elsewhere``."""


class _Service:
    """Each method that the table has is a call; the others are not to be had from here."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from orchestrator.services.operations import BY_KEY

        key = f"{self._name}.{name}"
        if key not in BY_KEY:
            not_here()
        return lambda *positional, **named: self._client.call(key, *positional, **named)


class _Rollouts(_Service):
    def apply(self, spec: RolloutFile, policy: Policy, **more: Any) -> Applied:
        done: Applied = self._client.call("apply", rollout=spec.document(), policy=policy.document(), **more)
        return done


class _Planner(_Service):
    def plan(self, spec: RolloutFile, policy: Policy) -> RolloutPlan:
        made: RolloutPlan = self._client.call("plan", rollout=spec.document(), policy=policy.document())
        return made


class _Queries(_Service):
    def failing(self, name: str | None = None, *, limit: int = 5) -> Failing:
        found: Failing = self._client.call("failing", name=name, limit=limit)
        return found

    def is_device(self, name: str) -> bool:
        try:
            self._client.call("queries.device", name)
        except NotFound:
            return False
        return True

    def devices(self, which: DeviceFilter, *, after: str | None = None, limit: int = 100) -> Sequence[Device]:
        found: Sequence[Device] = self._client.call("devices", **_filtered(which), after=after, limit=limit)
        return found

    def count_devices(self, which: DeviceFilter) -> int:
        return int(self._client.call("count_devices", **_filtered(which)))


def _filtered(which: DeviceFilter) -> dict[str, Any]:
    return {**asdict(which), "label": None if which.label is None else "=".join(which.label)}


class _Gates(_Service):
    def ask(self, policy: Policy | None, *, only: Sequence[str] = (), **more: Any) -> GateTrial:
        document = None if policy is None else policy.document()
        tried: GateTrial = self._client.call("ask_gates", policy=document, gates=only, **more)
        return tried


class _Verifier(_Service):
    def verify(self, name: str | None = None, *, progress: object = None) -> Iterator[Verified]:
        yield from self._client.listed("verify_journals", name=name)


class _Replayer(_Service):
    def replay(self, name: str, *, policy: Policy | None = None, progress: object = None) -> Replayed:
        under = None if policy is None else policy.document()
        found: Replayed = self._client.call("replay", name=name, policy=under)
        return found


class _Devices:
    """The two parts of the device path that people use."""

    def __init__(self, client: Client) -> None:
        self.register = _Register(client, "devices.register")
        self.identity = _Service(client, "devices.identity")

    def close(self) -> None:
        """Nothing is open here."""


class _Register(_Service):
    def enroll(
        self, devices: Iterable[Device], *, tokens: bool, renew: bool = False, by: str = ""
    ) -> Iterator[tuple[str, str | None]]:
        source = iter(devices)
        while some := list(islice(source, remotely.MOST_AT_ONCE)):
            sent = [remotely.Enrolled(one.id, one.hardware_id, one.tag, one.group, dict(one.labels)) for one in some]
            yield from self._client.call("enroll", devices=sent, tokens=tokens, renew=renew, by=by)


class _HouseLog(_Service):
    def note(self, event: str, what: str, deed: str, *, by: str) -> None:
        """Written there, with the deed."""


class _Mender(_Service):
    def waiting(self, *, asked_within: timedelta | None = None, limit: int = 100) -> Sequence[AuthSet]:
        return list(islice(self._client.listed("sets_that_wait", asked_within=asked_within), limit))


class _Notices(_Service):
    def destinations(self) -> Sequence[str]:
        found: remotely.Destinations = self._client.call("destinations")
        return found.names

    def deliver(self) -> Delivered:
        done: Delivered = self._client.call("deliver_notices")
        return done


class _People(_Service):
    def add_token(
        self, person: str, roles: Collection[Role], *, until: datetime, by: str, **more: Any
    ) -> tuple[TokenView, str]:
        made: NewToken = self._client.call("people.add_token", person, roles, until=until, by=by, **more)
        return made.made, made.token


class _Settings(_Elsewhere):
    """What of the settings there may be known here."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def destinations_path(self) -> Path:
        return Path(self._client.call("destinations").file)


class _Tuf(_Elsewhere):
    """The keys lie there; the roots are for anybody."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self) -> TufView:
        found: remotely.TufRoots = self._client.call("tuf_roots")
        return TufView(Path(found.place), found.roots, found.root_key, found.problem)


class _Targets(_Service):
    def add_artifact(self, *, artifact: Artifact, **more: Any) -> tuple[Target, bool]:
        made: tuple[Target, bool] = self._client.call("add_target_of_artifact", artifact=artifact.sha256, **more)
        return made

    def import_foundries(self, document: bytes, *, dry_run: bool = False, by: str = "") -> Any:
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput("This is no targets.json: it is not UTF-8.") from None
        return self._client.call("import_targets", document=text, dry_run=dry_run, by=by)


class _Artifacts(_Service):
    def find(self, which: str) -> Artifact:
        found: Artifact = self._client.call("artifacts.show", which).artifact
        return found

    def verify(self, which: str | None = None, *, progress: object = None) -> Sequence[tuple[Artifact, str | None]]:
        return [(each.artifact, each.problem) for each in self._client.call("verify_artifacts", which=which)]

    def add(
        self, path: Path, said: Said | None = None, *, dry_run: bool = False, progress: Progress = silent, by: str = ""
    ) -> Added:
        return Uploading(self._client).add(path, said or Said(), dry_run=dry_run, progress=progress)

    def take_in(self, path: Path, *, dry_run: bool = False, progress: Progress = silent) -> Artifact:
        return Uploading(self._client).add(path, Said(), dry_run=dry_run, progress=progress).artifact


class _Deltas(_Service):
    def show(self, pair: DeltaPair) -> DeltaView:
        before = pair.from_commit or "nothing"
        found: DeltaView = self._client.call("show_delta", before=before, after=pair.to_commit)
        return found

    def request(self, pairs: Iterable[DeltaPair], *, by: str = "") -> int:
        return int(self._client.call("request_deltas", pairs=list(pairs), by=by))

    def queue(self, plan: StaticDeltaPlan, *, by: str = "") -> int:
        lacking = [item.pair for item in plan.items if item.state.can_be_queued]
        return self.request(lacking, by=by) if lacking else 0


class RemoteFiles:
    """Files are read here, where the person sits; policies that are only named are those of the orchestrator there."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Policy] = {}

    def rollout(self, path: Path) -> tuple[RolloutFile, Policy]:
        def policy_for(found: RolloutFile) -> Policy:
            if not found.policy_is_path:
                return self.policy(found.policy)
            named = Path(found.policy)
            return load_policy(named if named.is_absolute() else path.parent / named)

        return rollout_under(read_source(path), policy_for)

    def policy(self, name_or_path: str) -> Policy:
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json")):
            return load_policy(Path(name_or_path))
        if name_or_path not in self._known:
            view = self._client.call("policy", name=name_or_path)
            self._known[name_or_path] = Policy.parse(view.document)
        return self._known[name_or_path]

    def policies(self) -> tuple[str, ...]:
        views = self._client.call("policies")
        self._known.update({view.name: Policy.parse(view.document) for view in views})
        return tuple(view.name for view in views)

    def said(
        self, rollout: str | Mapping[str, Any], policy: str | Mapping[str, Any] | None
    ) -> tuple[RolloutFile, Policy]:
        not_here()

    def policy_said(self, policy: str | Mapping[str, Any]) -> Policy:
        not_here()

    def fleet(self, path: Path) -> FleetFile:
        return load_fleet(path)

    def check(self, path: Path) -> str:
        return check_file(path, self.rollout)
