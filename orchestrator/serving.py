"""What ``wave serve`` runs: doors for devices, the operators' side, the clock and the builders of one installation."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.bootstrap import open_application, open_provider, open_store, open_tuf, traced, utc_now
from orchestrator.core.states import LIVE_ROLLOUT
from orchestrator.errors import InvalidInput, Unavailable
from orchestrator.services.gatekeeping import in_a_thread
from orchestrator.services.metering import Meter
from orchestrator.services.records import JobStatus
from orchestrator.services.settings import Settings

if TYPE_CHECKING:
    import socket
    import ssl

    from orchestrator.adapters.service_manager import ServiceManager
    from orchestrator.gateway.aktualizr.door import AktualizrDoor
    from orchestrator.gateway.ddi.door import DdiDoor
    from orchestrator.gateway.limits import Limits
    from orchestrator.gateway.mender.door import MenderDoor
    from orchestrator.gateway.server import Server
    from orchestrator.services.application import Application
    from orchestrator.services.openid import OpenId
    from orchestrator.services.store import Store

LOG = logging.getLogger(__name__)

STAND_BY_EVERY: Final = timedelta(seconds=1)
"""How often a second `wave serve` on one SQLite database looks whether the first is gone."""

END_WITHIN: Final = timedelta(seconds=15)
"""How long the operators' side gets to end."""

MOST_NAMED: Final = 5
"""Rollouts that the log names when a server starts."""

SCRAPER_AT_LEAST: Final = 32
"""Characters of the token that reads metrics."""


def lock_file(settings: Settings) -> Path:
    """Held by whoever serves this installation's SQLite database."""
    from orchestrator.adapters import lock

    return lock.lock_file(settings.database_url, settings.root)


def serve(settings: Settings) -> None:
    """Gateway, file server, clockwork and builders in one process group, until SIGTERM or SIGINT.

    On SQLite one process serves; a second one stands by, listens nowhere and takes over when the first is gone. On
    PostgreSQL all serve and one ticks. Raises StoreUnavailable, ContentUnavailable, Unavailable (the port is taken).
    """
    from orchestrator.adapters.lock import Lock
    from orchestrator.adapters.processes import stop_event
    from orchestrator.adapters.service_manager import ServiceManager

    manager = ServiceManager.of(os.environ)
    with traced(settings), stop_event() as stop:
        if settings.database_url.startswith("postgresql"):
            _serve(settings, stop, manager)
            return
        open_store(settings).close()
        lock = Lock(lock_file(settings))
        with lock.held():
            if not lock.take():
                LOG.warning(
                    "another `wave serve` (process %s) holds this database: standing by until it ends", lock.holder()
                )
                manager.ready("Standing by: another one serves this database.")
            while not lock.take():
                manager.alive()
                if stop.wait(STAND_BY_EVERY.total_seconds()):
                    return
            _serve(settings, stop, manager)


def _serve(settings: Settings, stop: threading.Event, manager: ServiceManager) -> None:
    from orchestrator.adapters.files.settings import as_environment
    from orchestrator.adapters.lock import process_name
    from orchestrator.adapters.notify.courier import Courier
    from orchestrator.adapters.processes import Workers, wave_command
    from orchestrator.adapters.scheduler import TickScheduler
    from orchestrator.gateway.aktualizr.treehub import Treehub
    from orchestrator.gateway.app import Gateway
    from orchestrator.gateway.artifact_files import ArtifactServer
    from orchestrator.gateway.counting import counted
    from orchestrator.gateway.files import FileServer
    from orchestrator.gateway.guard import connections_possible
    from orchestrator.gateway.own import OwnDoor
    from orchestrator.gateway.server import Server, listen, spare_collector

    tls = _tls(settings)
    meter = Meter()
    ticks: list[TickScheduler] = []

    def poke() -> None:
        for each in ticks:
            each.poke()

    def late(by: timedelta) -> None:
        meter.late_seconds += by.total_seconds()
        app.devices.pressure.late(by)
        if app.devices.writer.alive:
            manager.alive()

    door = listen(settings.host, settings.port)
    # With port 0 the system has chosen one; devices are told the real one.
    settings = settings.model_copy(update={"port": door.getsockname()[1]})
    # What the gateway must look up in the store is looked up beside its event loop.
    aside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="aside")
    app = open_application(settings, poke=poke, later=lambda work: _aside(aside, work), beside=in_a_thread)
    try:
        app.provider.check()
        # On SQLite the lock above says who ticks, so a lease that a killed process left is no reason to wait.
        owner = process_name() if settings.database_url.startswith("postgresql") else "serve"
        scheduler = TickScheduler(
            app.ticker,
            app.store,
            utc_now,
            at_most=settings.tick_at_most,
            lease=settings.lease,
            owner=owner,
            ticks=meter.ticks,
            on_beat=app.devices.writer.heard,
        )
        ticks.append(scheduler)
        files = FileServer(settings.repository_path, on_sent=counted("ostree", meter.refused))
        limits = _limits(settings)
        meter.limited = {} if limits is None else limits.refused
        gateway = Gateway(
            [
                OwnDoor(app.devices),
                _ddi_door(app, meter),
                _mender_door(app),
                aktualizr_door(app, later=lambda work: _aside(aside, work)),
            ],
            files=files,
            artifacts=ArtifactServer(
                settings.artifacts_path, app.downloads.signer, utc_now, on_sent=counted("artifacts", meter.refused)
            ),
            limits=limits,
            refused=meter.refused,
        )

        answering = threading.Event()

        carried = carried_on(app.store)

        def started(port: int) -> None:
            LOG.info("serving devices on %s", settings.url)
            LOG.info("%s", carried)
            manager.ready(f"Serving devices on port {port}.")
            answering.set()

        server = Server(
            Treehub(gateway, files),
            sockets=[door],
            signals=False,
            at_once=connections_possible(),
            tls=tls,
            proxies=settings.trusted_proxies,
            refused=meter.refused,
            started=started,
            late=late,
        )
        environment = {**os.environ, **as_environment(settings)}
        # The provider makes each build nice; the process around it is cheap and must renew its lease in time.
        with Workers(wave_command("builder"), settings.builders, nice=0, environment=environment):
            scheduler.start()
            threading.Thread(target=_stop_when, args=(stop, server.stop, manager), name="stop", daemon=True).start()
            try:
                with Courier(app.notices), _operators_side(app, tls, meter, after=answering):
                    spare_collector()
                    try:
                        server.run()
                    finally:
                        scheduler.stop()
            finally:
                scheduler.stop()  # also where the operators' side could not begin
    finally:
        app.close()
        aside.shutdown(cancel_futures=True)
        door.close()
    LOG.info("stopped: whatever was accepted is written")


def carried_on(store: Store) -> str:
    """What a server takes over when it starts: whoever has just started one again wants to know."""
    with store.reading() as r:
        rollouts = sorted((row.state.rollout, row.state.status) for row in r.rollouts(LIVE_ROLLOUT))
        builds = len(r.jobs(statuses=(JobStatus.QUEUED, JobStatus.RUNNING)))
        frozen = r.frozen()
    said = "no rollout is on its way; what was completed is offered on"
    if rollouts:
        named = ", ".join(f"{name} ({status})" for name, status in rollouts[:MOST_NAMED])
        more = f" and {len(rollouts) - MOST_NAMED} more" if len(rollouts) > MOST_NAMED else ""
        said = f"carrying on with {named}{more}"
    if builds:
        said += f"; deltas to build: {builds}"
    return said + ("; all offers are frozen" if frozen else "")


@contextmanager
def _operators_side(
    app: Application, tls: ssl.SSLContext | None, meter: Meter, *, after: threading.Event
) -> Iterator[None]:
    """The console and the API for operators, on a listener, a thread and an event loop of their own, so that no page
    delays a device. What they are made of takes seconds to load, so that begins when ``after`` is set; who asks earlier
    waits at the door. Raises, before anything is served, Unavailable when the port that was set is taken, InvalidInput
    for a token of metrics that is none."""
    settings = app.settings
    if settings.console_port is None:
        yield
        return
    from orchestrator.gateway.server import listen

    with ExitStack() as ending:
        try:
            door = ending.enter_context(
                listen(settings.console_host, settings.console_port, keys=("console_port", "console_host"))
            )
        except Unavailable as error:
            if "console_port" in settings.model_fields_set:
                raise
            # Nobody asked for that port: devices are served all the same.
            LOG.warning("the operators' side is off: %s Set `console_port`, or `off`.", error.message)
            yield
            return
        side = _OperatorsSide(app, door, tls, meter, scraper=_scraper(settings), openid=_openid(app))
        thread = threading.Thread(target=side.run, args=(after,), name="operators", daemon=True)
        thread.start()
        ending.callback(thread.join, END_WITHIN.total_seconds())
        ending.callback(after.set)
        ending.callback(side.stop)
        yield


class _OperatorsSide:
    """Made and served in one thread; ``stop`` comes from another, at any time."""

    def __init__(
        self,
        app: Application,
        door: socket.socket,
        tls: ssl.SSLContext | None,
        meter: Meter,
        *,
        scraper: str | None,
        openid: OpenId | None,
    ) -> None:
        self._app = app
        self._door = door
        self._tls = tls
        self._meter = meter
        self._scraper = scraper
        self._openid = openid
        self._over = threading.Event()
        self._server: Server | None = None

    def run(self, after: threading.Event) -> None:
        after.wait()
        try:
            if not self._over.is_set():
                self._serve()
        except Exception:
            # A fault of the pages is no reason to leave devices alone; nobody is to wait at a door that none opens.
            LOG.exception("the operators' side has ended by a fault; devices are served all the same")
        finally:
            self._door.close()

    def stop(self) -> None:
        self._over.set()
        if self._server is not None:
            self._server.stop()

    def _serve(self) -> None:
        from orchestrator.gateway.server import Server, spare_collector
        from orchestrator.services.census import Censuses
        from orchestrator.web.app import operators_side
        from orchestrator.web.following import Following
        from orchestrator.web.problems import form

        app, settings = self._app, self._app.settings
        side = operators_side(
            app,
            over=self._over,
            doorkeeper=app.door,
            meter=self._meter,
            scraper=self._scraper,
            openid=self._openid,
            secure=(settings.console_url or "").startswith("https:"),
        )
        host, port = self._door.getsockname()[:2]
        where = f"http{'' if self._tls is None else 's'}://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = Server(
            Following(side, self._meter),
            sockets=[self._door],
            signals=False,
            tls=self._tls,
            proxies=settings.trusted_proxies,
            refused=self._meter.beside,
            form=form,
            started=lambda port: LOG.info("serving operators on %s", where),
        )
        if self._over.is_set():
            return
        spare_collector()
        # The first stranger must not be told by the time it takes.
        threading.Thread(target=app.door.prepare, name="door", daemon=True).start()
        census = Censuses(app.store, app.clock)
        counting = threading.Thread(target=census.run, args=(self._over,), name="census", daemon=True)
        counting.start()
        try:
            self._server.run()
        finally:
            self._over.set()
            counting.join(END_WITHIN.total_seconds())


def _scraper(settings: Settings) -> str | None:
    """The token that reads ``/metrics``. Raises InvalidInput for one that others may read or could guess."""
    if settings.metrics_token_file is None:
        return None
    from orchestrator.adapters.files.private import private_text

    token = private_text(settings.metrics_token_file).strip()
    if len(token) < SCRAPER_AT_LEAST:
        raise InvalidInput(
            f"The token in {settings.metrics_token_file} has fewer than {SCRAPER_AT_LEAST} characters.",
            remedy="`openssl rand -hex 32` makes one.",
        )
    return token


def _openid(app: Application) -> OpenId | None:
    """Signing in with another's word. Raises InvalidInput for what cannot be."""
    settings = app.settings
    if settings.oidc_issuer is None or settings.console is None:
        return None
    from orchestrator.adapters.files.private import check_private
    from orchestrator.adapters.openid import HttpProvider
    from orchestrator.services.openid import OpenId, Trusted, parse_mapping

    if settings.oidc_secret_file is not None:
        check_private(settings.oidc_secret_file)
    trusted = Trusted(
        settings.oidc_issuer,
        name=settings.oidc_name,
        groups=settings.oidc_groups,
        roles=parse_mapping(settings.oidc_roles),
        domains=settings.oidc_domains,
    )
    provider = HttpProvider(settings.oidc_issuer, settings.oidc_client, settings.oidc_secret_file)
    return OpenId(app.store, app.clock, app.door, provider=provider, trusted=trusted, console=settings.console)


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


def _ddi_door(app: Application, meter: Meter) -> DdiDoor:
    from orchestrator.gateway.artifact_files import ArtifactServer
    from orchestrator.gateway.counting import counted
    from orchestrator.gateway.ddi.door import DdiDoor
    from orchestrator.services.ddi import Ddi

    settings = app.settings
    service = Ddi(app.devices, app.store, settings)
    # Who may have a file is asked at the door.
    files = ArtifactServer(settings.artifacts_path, None, app.clock, on_sent=counted("artifacts", meter.refused))
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
    pool.submit(copy_context().run, work)  # what it writes into the log belongs to the same request


def _stop_when(stop: threading.Event, end: Callable[[], None], manager: ServiceManager) -> None:
    stop.wait()
    manager.stopping()
    end()
