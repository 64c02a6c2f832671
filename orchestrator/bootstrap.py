"""Puts an installation together: the only place that knows every concrete class."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ContentUnavailable, StoreUnavailable
from orchestrator.services.settings import Settings

if TYPE_CHECKING:
    import ssl

    from orchestrator.adapters.authority import FileAuthority
    from orchestrator.adapters.ostree.provider import OstreeProvider
    from orchestrator.adapters.sql.store import SqlStore
    from orchestrator.gateway.aktualizr.door import AktualizrDoor
    from orchestrator.gateway.ddi.door import DdiDoor
    from orchestrator.gateway.limits import Limits
    from orchestrator.gateway.mender.door import MenderDoor
    from orchestrator.services.application import Application
    from orchestrator.services.providers import Providers
    from orchestrator.services.tuf import Tuf


LOG = logging.getLogger(__name__)

STAND_BY_EVERY: Final = timedelta(seconds=1)
"""How often a second `wave serve` on one SQLite database looks whether the first is gone."""


def utc_now() -> datetime:
    """The one clock."""
    return datetime.now(UTC)


def load_settings(path: Path | None, overrides: Mapping[str, str]) -> Settings:
    """Settings from file, environment and command line. Raises InvalidFile, InvalidInput."""
    from orchestrator.adapters.files.settings import load_settings as load

    return load(path, overrides, os.environ)


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


def open_application(
    settings: Settings,
    *,
    create: bool = False,
    clock: Callable[[], datetime] = utc_now,
    poke: Callable[[], None] = lambda: None,
    later: Callable[[Callable[[], None]], None] | None = None,
) -> Application:
    """Every service over this installation's store and repository. ``poke`` is called after each change, from any
    thread. ``later`` runs work soon in another thread."""
    from orchestrator.adapters.artifacts.keys import signing_key
    from orchestrator.adapters.artifacts.store import FolderStore
    from orchestrator.adapters.files.library import Library
    from orchestrator.adapters.lock import process_name
    from orchestrator.services.application import Application
    from orchestrator.services.artifacts import Artifacts
    from orchestrator.services.deltas import Deltas
    from orchestrator.services.devices import Devices
    from orchestrator.services.downloads import Downloads, Signer
    from orchestrator.services.mender.operating import Operating
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
    downloads = Downloads(settings.url, Signer(lambda: signing_key(settings.artifacts_path)))
    deltas = Deltas(store, provider, clock)
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
    ticker = Ticker(store, devices.expire, deltas.ensure, changed=devices.refresh, prove=Proof(store, provider))
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
        rollouts=Rollouts(store, clock, poke),
        planner=Planner(store, provider, deltas, clock, builders=settings.builders),
        queries=Queries(store, clock, devices.why_not),
        deltas=deltas,
        ticker=ticker,
        turn=Turn(ticker, store, process_name(), settings.lease),
        verifier=Verifier(store),
        replayer=Replayer(store),
        authority=lambda: open_authority(settings),
        clock=clock,
    )


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the newest schema; the version it has then. Raises StoreUnavailable."""
    from orchestrator.adapters.sql.store import upgrade

    return upgrade(settings.database_url)


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
        with stop_event(with_parent=True) as stop:
            builder.run(stop)
    finally:
        store.close()


def lock_file(settings: Settings) -> Path:
    """Beside the database and named after it, so that the database is served once whatever root it is reached from."""
    from sqlalchemy.engine import make_url

    database = make_url(settings.database_url).database
    return (Path(database) if database else settings.root / "wave").resolve().with_suffix(".lock")


def serve(settings: Settings) -> None:
    """Gateway, file server, clockwork and builders in one process group, until SIGTERM or SIGINT.

    On SQLite one process serves; a second one stands by, listens nowhere and takes over when the first is gone. On
    PostgreSQL all serve and one ticks. Raises StoreUnavailable, ContentUnavailable, Unavailable (the port is taken).
    """
    from orchestrator.adapters.lock import Lock
    from orchestrator.adapters.processes import stop_event

    with stop_event() as stop:
        if settings.database_url.startswith("postgresql"):
            _serve(settings, stop)
            return
        open_store(settings).close()
        lock = Lock(lock_file(settings))
        with lock.held():
            if not lock.take():
                LOG.warning("another `wave serve` (process %s) holds this database: standing by", lock.holder())
            while not lock.take():
                if stop.wait(STAND_BY_EVERY.total_seconds()):
                    return
            _serve(settings, stop)


def _serve(settings: Settings, stop: threading.Event) -> None:
    from orchestrator.adapters.files.settings import as_environment
    from orchestrator.adapters.lock import process_name
    from orchestrator.adapters.processes import Workers, wave_command
    from orchestrator.adapters.scheduler import TickScheduler
    from orchestrator.gateway.aktualizr.treehub import Treehub
    from orchestrator.gateway.app import Gateway
    from orchestrator.gateway.artifact_files import ArtifactServer
    from orchestrator.gateway.files import FileServer
    from orchestrator.gateway.guard import connections_possible
    from orchestrator.gateway.own import OwnDoor
    from orchestrator.gateway.server import Server, listen, spare_collector

    tls = _tls(settings)
    ticks: list[TickScheduler] = []

    def poke() -> None:
        for each in ticks:
            each.poke()

    door = listen(settings.host, settings.port)
    # With port 0 the system has chosen one; devices are told the real one.
    settings = settings.model_copy(update={"port": door.getsockname()[1]})
    # What the gateway must look up in the store is looked up beside its event loop.
    aside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="aside")
    app = open_application(settings, poke=poke, later=lambda work: _aside(aside, work))
    try:
        app.provider.check()
        # On SQLite the lock above says who ticks, so a lease that a killed process left is no reason to wait.
        owner = process_name() if settings.database_url.startswith("postgresql") else "serve"
        scheduler = TickScheduler(
            app.ticker, app.store, utc_now, at_most=settings.tick_at_most, lease=settings.lease, owner=owner
        )
        ticks.append(scheduler)
        files = FileServer(settings.repository_path)
        gateway = Gateway(
            [
                OwnDoor(app.devices),
                _ddi_door(app),
                _mender_door(app),
                aktualizr_door(app, later=lambda work: _aside(aside, work)),
            ],
            files=files,
            artifacts=ArtifactServer(settings.artifacts_path, app.downloads.signer, utc_now),
            limits=_limits(settings),
        )
        server = Server(
            Treehub(gateway, files),
            sockets=[door],
            signals=False,
            at_once=connections_possible(),
            tls=tls,
            proxies=settings.trusted_proxies,
            late=app.devices.pressure.late,
        )
        environment = {**os.environ, **as_environment(settings)}
        # The provider makes each build nice; the process around it is cheap and must renew its lease in time.
        with Workers(wave_command("builder"), settings.builders, nice=0, environment=environment):
            scheduler.start()
            threading.Thread(target=_stop_when, args=(stop, server.stop), name="stop", daemon=True).start()
            LOG.info("serving devices on %s", settings.url)
            spare_collector()
            try:
                server.run()
            finally:
                scheduler.stop()
    finally:
        app.close()
        aside.shutdown(cancel_futures=True)
        door.close()


def aktualizr_door(app: Application, *, later: Callable[[Callable[[], None]], None] | None = None) -> AktualizrDoor:
    """The door for aktualizr-lite over the services of an installation."""
    from orchestrator.gateway.aktualizr.door import AktualizrDoor
    from orchestrator.services.aktualizr import Aktualizr
    from orchestrator.services.catalogue import Catalogue
    from orchestrator.services.delta_sizes import StatsFiles
    from orchestrator.services.devices import MOST_KEPT
    from orchestrator.services.editions import Editions

    kept = 0 if app.settings.database_url.startswith("postgresql") else MOST_KEPT
    tuf = open_tuf(app.settings, clock=app.clock)
    editions = Editions(app.store, app.devices.writer, tuf, app.clock, later=later, most_kept=kept)
    catalogue = Catalogue(app.store, app.clock, later=later)
    stats = StatsFiles(open_provider(app.settings).sizes)
    service = Aktualizr(app.store, app.devices, editions, catalogue, stats, app.clock)
    return AktualizrDoor(app.devices, service)


def _ddi_door(app: Application) -> DdiDoor:
    from orchestrator.gateway.artifact_files import ArtifactServer
    from orchestrator.gateway.ddi.door import DdiDoor
    from orchestrator.services.ddi import Ddi

    settings = app.settings
    service = Ddi(app.devices, app.store, settings)
    # Who may have a file is asked at the door.
    files = ArtifactServer(settings.artifacts_path, None, app.clock)
    return DdiDoor(app.devices, service, url=settings.url, tenant=settings.ddi_tenant, files=files)


def _mender_door(app: Application) -> MenderDoor:
    from orchestrator.gateway.mender.door import MenderDoor
    from orchestrator.services.mender.authentication import Authentication
    from orchestrator.services.mender.conversation import Conversations

    authentication = Authentication(
        app.store,
        app.devices,
        app.clock,
        token_for=app.settings.mender_token_for,
        most_pending=app.settings.mender_pending,
    )
    return MenderDoor(app.devices, authentication, Conversations(app.store, app.devices, app.clock))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """What the gateway serves with. Raises InvalidInput for files that cannot be used or that others may read."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    from orchestrator.adapters.files.private import check_private
    from orchestrator.gateway.tls import server_context

    check_private(settings.tls_key)
    return server_context(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
        required=settings.tls_client_required,
    )


def _limits(settings: Settings) -> Limits | None:
    """How often one may ask; None where nothing is limited."""
    from orchestrator.gateway.limits import Limits

    per_device, per_address, failures = settings.limit_per_device, settings.limit_per_address, settings.limit_failures
    if per_device.off and per_address.off and failures.off:
        return None
    return Limits(per_device=per_device, per_address=per_address, failures=failures)


def _aside(pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    pool.submit(work)


def _stop_when(stop: threading.Event, end: Callable[[], None]) -> None:
    stop.wait()
    end()
