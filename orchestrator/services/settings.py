"""Settings: where things are and how much of them, parsed once into a frozen value. Files and environment are read in
``adapters.files``."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from orchestrator.core.limits import Limit, LimitField
from orchestrator.services.delta_program import DeltaProgram, Makes
from orchestrator.services.log_lines import LogFormat


def _off_is_none(value: object) -> object:
    # YAML reads a bare ``off`` as false
    return None if value is False or value == "off" else value


class Settings(BaseModel):
    """Everything an installation may set; every key has a safe default.

    ``root`` holds the database, the repository and the state of a default installation. ``public_url`` is how devices
    reach the gateway.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(default=Path(".wave"), description="Directory of the default database and repository.")
    database: str | None = Field(default=None, description="Database URL; without it SQLite under the root.")
    synchronous: str = Field(default="FULL", pattern="^(FULL|NORMAL)$", description="SQLite's synchronous level.")
    repository: Path | None = Field(
        default=None, description="The OSTree repository; without it `repo` under the root."
    )
    policies: tuple[Path, ...] = Field(default=(), description="Further directories of policies, before the shipped.")
    host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port the gateway listens on; 0 for any free one.")
    console_host: str = Field(default="127.0.0.1", description="Address the operators' side listens on.")
    console_port: Annotated[int | None, BeforeValidator(_off_is_none)] = Field(
        default=8701,
        ge=0,
        le=65535,
        description="Port of the operators' side; 0 for any free one, `off` for none.",
    )
    console_url: str | None = Field(
        default=None,
        pattern="^https?://",
        description="URL under which people reach the operators' side; messages link to it.",
    )
    destinations: Path | None = Field(
        default=None, description="File of where messages go; without it `destinations.yaml` under the root."
    )
    gates: Path | None = Field(
        default=None, description="File of what gates may ask; without it `gates.yaml` under the root."
    )
    metrics_token_file: Path | None = Field(
        default=None, description="File with the token that reads `/metrics` there, for its owner alone; beside people."
    )
    session_idle: timedelta = Field(
        default=timedelta(hours=12), gt=timedelta(0), description="After this without a look a person is signed out."
    )
    session_at_most: timedelta = Field(
        default=timedelta(days=7), gt=timedelta(0), description="After this a person signs in again in any case."
    )
    oidc_issuer: str | None = Field(
        default=None, pattern="^https?://", description="OpenID provider with which people may sign in."
    )
    oidc_client: str = Field(default="wave", min_length=1, description="What this program is called there.")
    oidc_secret_file: Path | None = Field(
        default=None, description="File with the secret that it knows this program by, for its owner alone."
    )
    oidc_name: str = Field(default="email", description="The claim that names a person.")
    oidc_groups: str = Field(default="groups", description="The claim that names a person's groups.")
    oidc_roles: tuple[str, ...] = Field(
        default=(), description="Which group has which role, each as GROUP=ROLE; nobody else comes in."
    )
    oidc_domains: tuple[str, ...] = Field(
        default=(), description="Domains that a person's verified address must be of; without them any."
    )
    public_url: str | None = Field(default=None, description="URL under which devices reach the gateway.")
    tls_certificate: Path | None = Field(
        default=None, description="The gateway's certificate in PEM, with its chain; with it only HTTPS is spoken."
    )
    tls_key: Path | None = Field(default=None, description="Its key in PEM, readable by its owner alone.")
    tls_client_ca: Path | None = Field(
        default=None, description="Authorities in PEM whose client certificates name devices."
    )
    tls_client_required: bool = Field(
        default=False, description="Whether every connection must show a client certificate."
    )
    trusted_proxies: str | None = Field(
        default=None, description="Addresses and networks, with commas, whose `X-Forwarded-For` is believed."
    )
    limit_per_device: LimitField = Field(
        default=Limit(10, "s", 60), description="How often one device may ask, such as `10/s burst 60`, or `off`."
    )
    limit_per_address: LimitField = Field(
        default=Limit(200, "s", 2_000), description="The same for one address, behind which a whole site may stand."
    )
    limit_failures: LimitField = Field(
        default=Limit(5, "s", 50), description="The same for requests of one address that show a wrong credential."
    )
    check_in_every: timedelta = Field(default=timedelta(minutes=5), description="How often devices shall check in.")
    check_in_at_most: timedelta = Field(
        default=timedelta(minutes=30), description="How far that may stretch while the server is overloaded."
    )
    check_in_jitter: float = Field(default=0.2, ge=0, le=0.5, description="Part by which that is spread.")
    devices_in_memory: int = Field(
        default=1_000_000, ge=0, description="Devices remembered between check-ins, at about 300 to 400 bytes each."
    )
    mender_token_for: timedelta = Field(
        default=timedelta(days=7), gt=timedelta(0), description="How long a Mender device's token is good."
    )
    mender_pending: int = Field(
        default=1000, ge=1, le=1_000_000, description="Mender devices that may wait for a person at once."
    )
    log: LogFormat = Field(
        default=LogFormat.TEXT, description="How the log's lines look: `text` for people, `json` for programs."
    )
    traces: Annotated[str | None, BeforeValidator(_off_is_none)] = Field(
        default=None,
        pattern="^(environment|https?://.+)$",
        description="Where traces go: a collector's `http://` address, which takes OTLP; `environment`: as OTEL_"
        " variables say; or `off`.",
    )
    tick_at_most: timedelta = Field(default=timedelta(seconds=60), description="Longest time between two ticks.")
    builders: int = Field(default=2, ge=0, le=64, description="Deltas built at once.")
    build_nice: int = Field(default=10, ge=0, le=19, description="Niceness of builds.")
    build_timeout: timedelta = Field(default=timedelta(hours=2), description="After that a build is ended.")
    max_bsdiff_size: int = Field(default=8, ge=0, description="MB, old and new file together, that bsdiff may compare.")
    gpg_sign: str | None = Field(
        default=None, min_length=1, description="Id of the GPG key that signs the repository's summary."
    )
    gpg_homedir: Path | None = Field(default=None, description="Directory of that key; without it gpg's own.")
    artifacts: Path | None = Field(
        default=None, description="Directory of artifacts and their deltas; without it `artifacts` under the root."
    )
    delta_program: DeltaProgram | None = Field(
        default=None, description="How deltas between artifacts are made and checked; without it they are served whole."
    )
    tuf: Path | None = Field(
        default=None, description="Roots and keys for aktualizr-lite; without it `tuf` under the root."
    )
    tuf_timestamp_for: timedelta = Field(
        default=timedelta(days=7), ge=timedelta(hours=1), description="How long a timestamp.json is good for."
    )
    tuf_targets_for: timedelta = Field(
        default=timedelta(days=365), ge=timedelta(days=1), description="How long a targets.json is good for."
    )
    tuf_root_for: timedelta = Field(
        default=timedelta(days=365), ge=timedelta(days=1), description="How long a new root is good for."
    )
    ddi_tenant: str = Field(
        default="DEFAULT", pattern="^[A-Za-z0-9_-]{1,64}$", description="The tenant that hawkBit's clients name."
    )
    ddi_version_attributes: tuple[str, ...] = Field(
        default=("sw_version", "swVersion", "version", "os_version"),
        description="Attributes in which hawkBit's clients say the version that they run; the first one there counts.",
    )
    ddi_hardware_attributes: tuple[str, ...] = Field(
        default=("hardware_id", "hw_boardname", "board"),
        description="Attributes in which hawkBit's clients say their hardware id; one that no Target is for says"
        " nothing, and without one it is as enrolled.",
    )
    lease: timedelta = Field(default=timedelta(seconds=30), description="Length of the ticker's and builders' leases.")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.root / 'wave.db'}"

    @property
    def repository_path(self) -> Path:
        return self.repository or self.root / "repo"

    @property
    def gates_path(self) -> Path:
        return self.gates or self.root / "gates.yaml"

    @property
    def destinations_path(self) -> Path:
        return self.destinations or self.root / "destinations.yaml"

    @property
    def console(self) -> str | None:
        """Where people reach the operators' side, without a slash at the end; None: nowhere."""
        if self.console_url is not None:
            return self.console_url.rstrip("/")
        if not self.console_port:
            return None
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://{self.console_host}:{self.console_port}"

    @property
    def makes_artifacts(self) -> bool:
        """Whether deltas between artifacts are artifacts themselves."""
        return self.delta_program is not None and self.delta_program.makes is Makes.ARTIFACT

    @property
    def tuf_path(self) -> Path:
        return self.tuf or self.root / "tuf"

    @property
    def artifacts_path(self) -> Path:
        return self.artifacts or self.root / "artifacts"

    @property
    def url(self) -> str:
        """Where devices reach the gateway, without a slash at the end."""
        scheme = "http" if self.tls_certificate is None else "https"
        return (self.public_url or f"{scheme}://{self.host}:{self.port}").rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, text: str | None) -> str | None:
        for each in () if text is None else text.split(","):
            try:
                ip_network(each.strip())
            except ValueError:
                raise ValueError(f"{each.strip()!r} is no address and no network") from None
        return text

    @field_validator("oidc_roles", "oidc_domains")
    @classmethod
    def _have_no_colon(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        # In the environment colons stand between them.
        if wrong := [each for each in words if ":" in each]:
            raise ValueError(f"{wrong[0]!r} has a colon")
        return words

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.oidc_issuer is not None and self.console is None:
            raise ValueError("oidc_issuer needs console_url, or console_port, to which people come back")
        if self.tls_client_required and self.tls_client_ca is None:
            raise ValueError("tls_client_required needs tls_client_ca")
        return self
