"""Puts an installation together. With ``serving`` it is the only place that knows the concrete classes."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ContentUnavailable, InvalidInput, Refused, StoreUnavailable
from orchestrator.services.settings import Settings

if TYPE_CHECKING:
    from orchestrator.adapters.authority import FileAuthority
    from orchestrator.adapters.ostree.provider import OstreeProvider
    from orchestrator.adapters.remote.application import Elsewhere
    from orchestrator.adapters.sql.store import SqlStore
    from orchestrator.services.application import Application
    from orchestrator.services.backups import Backed, Restored
    from orchestrator.services.doctor import Finding
    from orchestrator.services.providers import Providers
    from orchestrator.services.tuf import Tuf


def utc_now() -> datetime:
    """The one clock."""
    return datetime.now(UTC)


def load_settings(path: Path | None, overrides: Mapping[str, str]) -> Settings:
    """Settings from file, environment and command line. Raises InvalidFile, InvalidInput."""
    from orchestrator.adapters.files.settings import load_settings as load

    return load(path, overrides, os.environ)


def settings_file(path: Path | None, overrides: Mapping[str, str]) -> Path | None:
    """The file that those settings come from; None where there is none."""
    from orchestrator.adapters.files.settings import settings_file as found

    return found(path, overrides, os.environ)


def open_store(settings: Settings, *, create: bool = False) -> SqlStore:
    """The store of this installation. Raises StoreUnavailable."""
    from orchestrator.adapters.sql.store import open_store as open_sql

    if not create and settings.database is None and not (settings.root / "wave.db").exists():
        raise StoreUnavailable(
            f"There is no installation under {settings.root.absolute()}.",
            remedy="`wave init` makes one; `--root DIR` or a settings file names another.",
        )
    return open_sql(settings.database_url, create=create, synchronous=settings.synchronous)


def open_provider(settings: Settings) -> OstreeProvider:
    """The OSTree provider of this installation's repository; it is not touched before it is used."""
    from orchestrator.adapters.ostree.provider import OstreeProvider, OstreeSettings

    return OstreeProvider(
        OstreeSettings(
            repository=settings.repository_path,
            max_bsdiff_size=settings.max_bsdiff_size,
            nice=settings.build_nice,
            timeout=settings.build_timeout,
            gpg_sign=settings.gpg_sign,
            gpg_homedir=settings.gpg_homedir,
        ),
    )


def open_tuf(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> Tuf:
    """Roots and keys for aktualizr-lite; nothing is touched before it is used."""
    from orchestrator.adapters.tuf.keys import TufFolder
    from orchestrator.core.editions import Lifetimes
    from orchestrator.services.tuf import Tuf

    lifetimes = Lifetimes(settings.tuf_timestamp_for, settings.tuf_targets_for)
    return Tuf(TufFolder(settings.tuf_path), clock, settings.tuf_root_for, lifetimes)


def open_authority(settings: Settings) -> FileAuthority:
    """The installation's own certificate authority; nothing is read before it is used."""
    from orchestrator.adapters.authority import FileAuthority

    return FileAuthority(settings.root / "ca")


def open_providers(settings: Settings, store: SqlStore) -> Providers:
    """Every content system of this installation: its repository, and its artifacts."""
    from orchestrator.adapters.artifacts.provider import FileProvider, FileSettings
    from orchestrator.services.providers import Providers

    files = FileProvider(
        FileSettings(
            root=settings.artifacts_path,
            program=settings.delta_program,
            nice=settings.build_nice,
            timeout=settings.build_timeout,
        )
    )

    def in_use() -> set[str]:
        with store.reading() as r:
            return {target.provider for target in r.targets()}

    return Providers((open_provider(settings), files), in_use)


@contextmanager
def traced(settings: Settings) -> Iterator[None]:
    """With traces inside, where the settings want them. Raises InvalidInput where what makes them is not installed."""
    if settings.traces is None:
        yield
        return
    from orchestrator.services import tracing

    try:
        from orchestrator.adapters.traces import tracer
    except ImportError as missing:
        raise InvalidInput(
            f"The setting traces needs OpenTelemetry, and {missing.name} is not installed.",
            remedy="`pip install 'wave-orchestrator[traces]'`, or `traces: off`.",
        ) from None
    tracing.switch_on(tracer(settings.traces))
    try:
        yield
    finally:
        tracing.switch_off()


def open_application(
    settings: Settings,
    *,
    create: bool = False,
    clock: Callable[[], datetime] = utc_now,
    poke: Callable[[], None] = lambda: None,
    later: Callable[[Callable[[], None]], None] | None = None,
    beside: Callable[[Callable[[], None]], None] = lambda work: work(),
) -> Application:
    """Every service over this installation's store and repository. ``poke`` is called after each change, from any
    thread. ``later`` runs work soon in another thread, ``beside`` what may take a minute."""
    from orchestrator.adapters.artifacts.keys import SigningKey
    from orchestrator.adapters.artifacts.store import FolderStore
    from orchestrator.adapters.files.library import Library
    from orchestrator.adapters.gates.asking import FileSources
    from orchestrator.adapters.lock import process_name
    from orchestrator.adapters.notify.sender import DestinationSender
    from orchestrator.services.application import Application
    from orchestrator.services.artifacts import Artifacts
    from orchestrator.services.deltas import Deltas
    from orchestrator.services.devices import Devices
    from orchestrator.services.downloads import Downloads, Signer
    from orchestrator.services.gate_trials import GateTrials
    from orchestrator.services.gatekeeping import Gatekeeper
    from orchestrator.services.house_log import HouseLog
    from orchestrator.services.measuring import Measuring
    from orchestrator.services.mender.operating import Operating
    from orchestrator.services.notices import Notices
    from orchestrator.services.passwords import Passwords
    from orchestrator.services.people_door import Door
    from orchestrator.services.people_orders import People
    from orchestrator.services.planning import Planner
    from orchestrator.services.proof import Proof
    from orchestrator.services.queries import Queries
    from orchestrator.services.replaying import Replayer
    from orchestrator.services.rollouts import Rollouts
    from orchestrator.services.settling import settle
    from orchestrator.services.targets import Targets
    from orchestrator.services.tick import Ticker
    from orchestrator.services.turn import Turn
    from orchestrator.services.verifying import Verifier

    store = open_store(settings, create=create)
    provider = open_providers(settings, store)
    files = FolderStore(settings.artifacts_path)
    downloads = Downloads(settings.url, Signer(SigningKey(settings.artifacts_path)), settings.makes_artifacts)
    deltas = Deltas(store, provider, clock, makes_artifacts=settings.makes_artifacts)
    # Where several processes serve one database, what one of them remembers of a device may be old.
    kept = 0 if settings.database_url.startswith("postgresql") else settings.devices_in_memory
    devices = Devices(
        store,
        settings,
        clock,
        settle=settle,
        poke=poke,
        knows=provider.has_commit,
        later=later,
        most_kept=kept,
        downloads=downloads,
    )
    sender = DestinationSender(settings.destinations_path)
    passwords = Passwords()
    sources = FileSources(settings.gates_path)
    ticker = Ticker(
        store,
        devices.expire,
        deltas.ensure,
        changed=devices.refresh,
        prove=Proof(store, provider),
        ask=Gatekeeper(store, sources, clock, poke, beside).ask,
    )
    return Application(
        settings=settings,
        store=store,
        provider=provider,
        files=Library(settings.policies),
        targets=Targets(store, provider, clock),
        artifacts=Artifacts(store, files, clock),
        downloads=downloads,
        devices=devices,
        mender=Operating(store, devices.register, clock),
        rollouts=Rollouts(store, clock, poke, sender.names, sources.kinds),
        notices=Notices(store, sender, clock, settings.console, random.random),
        planner=Planner(store, provider, deltas, clock, builders=settings.builders, sources=sources.kinds),
        queries=Queries(store, clock, devices.why_not),
        measuring=Measuring(store, clock),
        deltas=deltas,
        ticker=ticker,
        turn=Turn(ticker, store, process_name(), settings.lease),
        verifier=Verifier(store),
        replayer=Replayer(store),
        people=People(store, clock, passwords),
        house_log=HouseLog(store, clock),
        gates=GateTrials(store, sources, time.monotonic, HouseLog(store, clock)),
        door=Door(
            store,
            clock,
            idle=settings.session_idle,
            at_most=settings.session_at_most,
            passwords=passwords,
            spared=_is_loopback,
            site=_site_of,
        ),
        authority=lambda: open_authority(settings),
        tuf=lambda: open_tuf(settings, clock=clock),
        clock=clock,
    )


def open_elsewhere(server: str, token_file: Path | None) -> Elsewhere:
    """An orchestrator that another machine runs, with the token of that file or of the environment. Raises
    InvalidInput."""
    from orchestrator.adapters.remote.application import Elsewhere, token_of

    return Elsewhere(server, token_of(token_file, os.environ))


def _is_loopback(address: str) -> bool:
    from orchestrator.gateway.limits import is_loopback

    return is_loopback(address)


def _site_of(address: str) -> str:
    from orchestrator.gateway.limits import site_of

    return site_of(address)


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the newest schema; the version it has then. Raises StoreUnavailable."""
    from orchestrator.adapters.sql.store import upgrade

    return upgrade(settings.database_url)


def examine(settings: Settings, file: Path | None) -> list[Finding]:
    """How everything stands that the installation needs; see ``services.doctor``."""
    from orchestrator.adapters.doctor.examining import examine as look

    return look(settings, utc_now(), file=file)


def back_up(settings: Settings, file: Path | None, into: Path, *, content: bool) -> Backed:
    """One file with all that cannot be made again, also while the installation is at work."""
    from orchestrator.adapters.backup.making import make

    return make(settings, file, into, now=utc_now(), content=content)


def restore(
    archive: Path, file: Path | None, overrides: Mapping[str, str], *, by: str, yes: bool, dry_run: bool
) -> Restored:
    """Put what a backup holds in the place of an installation. ``file``: the settings, where they are not in it."""
    from orchestrator.adapters.backup.restoring import restore as put_back
    from orchestrator.adapters.files.settings import load_settings as load

    present = load(file, overrides, os.environ)
    root = present.root.absolute()
    given = {**overrides, "root": str(root)}

    def settings(found: Path | None) -> Settings:
        return present if found is None or file is not None else load(found, given, os.environ, beside=root)

    return put_back(archive, root, settings, by=by, now=utc_now(), yes=yes, dry_run=dry_run)


def copy_database(settings: Settings, to: Settings, by: str) -> dict[str, int]:
    """Everything of this installation's SQLite database into the empty PostgreSQL one of other settings; rows by table.
    The log there has it, and who ordered it; the old one is as it was. Raises Refused while a server runs, or when the
    other is not empty."""
    from orchestrator.adapters.lock import Lock, lock_file
    from orchestrator.adapters.sql.moving import move
    from orchestrator.services.house_log import HouseLog

    open_store(settings).close()
    lock = Lock(lock_file(settings.database_url, settings.root))
    with lock.held():
        if not lock.take():
            raise Refused(
                f"`wave serve` (process {lock.holder()}) serves this database.",
                remedy="Stop it: what devices report meanwhile would not be in the copy.",
            )
        counts = move(settings.database_url, to.database_url)
    with closing(open_store(to)) as store:
        HouseLog(store, utc_now).note("database_copied", "database", "copied everything here from SQLite", by=by)
    return counts


def initialise(root: Path) -> list[str]:
    """Make an installation: directory, database, repository, settings file. What is there stays; what was made is
    told."""
    from orchestrator.adapters.files.settings import DEFAULT_FILE, settings_page
    from orchestrator.adapters.ostree.making import make_repository

    made: list[str] = []
    try:
        if not root.is_dir():
            root.mkdir(parents=True, mode=0o700)
            made.append(f"directory {root}")
        file = root / DEFAULT_FILE
        if not file.exists():
            # 0600: the database's URL may come to hold a password
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "w", encoding="utf-8") as stream:
                stream.write(settings_page())
            made.append(f"settings {file}")
    except OSError as error:
        raise StoreUnavailable(f"{root} cannot be made: {error.strerror}.") from None
    settings = load_settings(file, {"root": str(root)})
    fresh = settings.database is None and not (settings.root / "wave.db").exists()
    open_store(settings, create=True).close()
    if fresh:
        made.append(f"database {settings.root / 'wave.db'}")
    try:
        if make_repository(settings.repository_path):
            made.append(f"repository {settings.repository_path}")
    except ContentUnavailable:
        # an installation for devices that take files needs neither
        if shutil.which("ostree") is not None:
            raise
        made.append("no repository, for `ostree` is not there: Targets can be files")
    return made


def run_builder(settings: Settings) -> None:
    """Build deltas until told to stop by SIGTERM or SIGINT, or until whoever started this process is gone."""
    from orchestrator.adapters.lock import process_name
    from orchestrator.adapters.processes import stop_event
    from orchestrator.services.builder import Builder, Pace

    store = open_store(settings)
    try:
        pace = Pace(lease=settings.lease)
        builder = Builder(store, open_providers(settings, store), utc_now, owner=process_name(), pace=pace)
        with traced(settings), stop_event(with_parent=True) as stop:
            builder.run(stop)
    finally:
        store.close()
