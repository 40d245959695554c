"""Every option of the node, once: unit, default and meaning.

Read at start into one frozen object that is passed down; nothing else reads the environment.
Precedence: environment `TFKT_NODE_…` (nested names joined by `__`) over file over default.
Unknown keys are refused by name with the nearest known one. `config/tfkt_node.toml` holds the
same options with the same defaults; a test compares the two.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tfkt_node.records import Misconfigured, Reason, Verdict

PACKAGE = Path(__file__).parent


def data_folder(name: Literal["models", "config"]) -> Path:
    """Return the folder of shipped data: inside the wheel, else at the top of the source tree."""
    packed = PACKAGE / "_data" / name
    return packed if packed.is_dir() else PACKAGE.parent / name


class Group(BaseModel):
    """A table of the settings file: frozen, unknown keys refused, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        number = info.field_name and cls.model_fields[info.field_name].annotation in (int, float)
        if number and isinstance(value, bool):
            raise ValueError("expected a number")
        return value


AeTitle = str


def _check_ae_title(value: str) -> str:
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not value.isascii():
        raise ValueError("an AE title has 1 to 16 ASCII characters without a backslash")
    return value.strip()


class Reception(Group):
    """The Storage SCP."""

    ae_title: AeTitle = Field(
        "TFKT_NODE", description="called AE title; checked on every association"
    )
    host: str = Field(
        "127.0.0.1", description="address to listen on; beyond loopback only listed peers may call"
    )
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 lets the system choose")
    maximum_associations: int = Field(
        20, ge=1, le=200, description="associations at once; more are told to try later"
    )
    socket_timeout_s: float = Field(
        30.0, gt=0, description="seconds a PDU may take once it has begun"
    )
    network_timeout_s: float = Field(
        60.0, gt=0, description="seconds an association may stay idle between PDUs"
    )
    other_classes: Literal["set_aside", "refuse"] = Field(
        "set_aside",
        description="storage classes other than CT: keep them with a record, or refuse the context",
    )
    maximum_instance_mb: int = Field(
        2048, ge=1, description="MB; larger data sets are refused with 0xA700"
    )
    disk_reserve_mb: int = Field(
        1024, ge=0, description="MB kept free in the spool; below it 0xA700 is answered"
    )

    _ae = field_validator("ae_title")(_check_ae_title)


class Series(Group):
    """When a series counts as complete."""

    quiet_s: float = Field(
        30.0, gt=0, description="seconds without a new instance after which a revision is frozen"
    )


class Scoring(Group):
    """The model and the supervised process that runs it."""

    bundle: str = Field(
        "tfkt-v2-lite", description="name of a shipped bundle, or path of a bundle folder"
    )
    engine: Literal["openvino", "torch"] = Field(
        "openvino", description="openvino (CPU) or torch (extra `torch`)"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda only with the torch engine")
    streams: int = Field(
        0, ge=0, le=256, description="parallel inference streams; 0 means one per core"
    )
    time_limit_s: float = Field(
        900.0, gt=0, description="seconds one attempt at a revision may take"
    )
    read_time_limit_s: float = Field(
        120.0, gt=0, description="seconds that reading one slice may take; milliseconds are usual"
    )
    memory_limit_mb: int = Field(
        8192, ge=1024, description="MB of address space of the scoring process"
    )
    lease_s: float = Field(
        60.0, gt=1, description="seconds after which a dead process loses its claims"
    )
    retry_delay_s: float = Field(
        10.0, ge=0, description="seconds between attempts at one revision (three in all)"
    )
    backlog_after_s: float = Field(
        3600.0, gt=0, description="seconds after its last instance when a series becomes backlog"
    )


class Limits(Group):
    """What one instance may hold. What goes beyond is kept, but not assessed."""

    nesting: int = Field(64, ge=1, le=200, description="levels of nested sequences")
    elements: int = Field(
        2_000_000,
        ge=1000,
        description="elements of one data set, with those in sequences, items and fragments",
    )
    frames: int = Field(20_000, ge=1, description="frames of one instance")
    decoded_mb: int = Field(128, ge=1, description="MB of one frame once it is decoded")
    inflated_mb: int = Field(
        1024, ge=1, description="MB to which a deflated data set may inflate, in memory"
    )


class Criteria(Group):
    """Thresholds of the verdict for one population, on the score's scale 0 to 4."""

    diagnostic_from: float = Field(
        2.5, ge=0, le=4, description="score from which a series is DIAGNOSTIC"
    )
    limited_from: float = Field(
        1.5, ge=0, le=4, description="score from which a series is LIMITED, else NON_DIAGNOSTIC"
    )
    flag_at: Verdict = Field(Verdict.LIMITED, description="verdicts this bad or worse are flagged")
    min_slices: int = Field(
        5, ge=1, description="in-scope slices a stack needs to decide a sure verdict"
    )
    owner: str = Field(
        "default",
        min_length=1,
        max_length=64,
        description="who answers for these thresholds; printed in reports (ASCII)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Criteria:
        if self.limited_from > self.diagnostic_from:
            raise ValueError("limited_from must not be above diagnostic_from")
        if not self.owner.isascii():
            raise ValueError("owner must be ASCII: it is written into reports of any character set")
        return self


class CriteriaByPopulation(Group):
    """Criteria for adults, and for children under `child_below_years`."""

    child_below_years: int = Field(
        18, ge=0, le=30, description="years; younger patients are judged by `child`"
    )
    adult: Criteria = Field(
        default_factory=Criteria, description="criteria for adults and for unknown age"
    )
    child: Criteria = Field(default_factory=Criteria, description="criteria for children")


class Report(Group):
    """What is reported."""

    silent_reasons: tuple[Reason, ...] = Field(
        (Reason.LOCALIZER, Reason.NOT_CT, Reason.NO_PIXELS, Reason.DERIVED_SECONDARY),
        description="NOT_ASSESSED reasons that owe no report",
    )
    worst_slices: int = Field(10, ge=0, le=30, description="slices listed one by one, worst first")
    summary_picture: bool = Field(
        False,
        description="true: also a picture: scores, worst slice, verdict; for viewers without SR",
    )
    timezone: str = Field(
        "",
        description="IANA name (Europe/Berlin) of the times in reports where a study states no "
        "zone; empty: the zone of this machine",
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value or "UTC")
        except (OSError, ValueError, LookupError):
            raise ValueError(
                "no such time zone here; write a name like Europe/Berlin, and install the system's "
                "tzdata where it is missing"
            ) from None
        return value

    def local(self, at: datetime) -> datetime:
        """Return an aware instant in the zone in force."""
        return at.astimezone(ZoneInfo(self.timezone) if self.timezone else None)


class Delivery(Group):
    """How reports go out."""

    ae_title: AeTitle = Field("TFKT_NODE", description="calling AE title towards destinations")
    connection_timeout_s: float = Field(
        10.0, gt=0, description="seconds to wait for a destination to answer the call"
    )
    response_timeout_s: float = Field(
        60.0, gt=0, description="seconds to wait for a C-STORE response"
    )
    first_retry_s: float = Field(
        5.0, gt=0, description="seconds before the first retry; doubles each time, with jitter"
    )
    longest_retry_s: float = Field(
        3600.0, gt=0, description="ceiling of the retry interval in seconds"
    )

    _ae = field_validator("ae_title")(_check_ae_title)


class Storage(Group):
    """Where things are kept."""

    spool: Path = Field(
        Path("spool"), description="folder of received instances and made objects; a local disk"
    )
    database: str = Field(
        "",
        description="SQLAlchemy URL (postgresql+psycopg://…); empty: SQLite, audit.db in the spool",
    )

    @property
    def database_url(self) -> str:
        """The URL in force."""
        return self.database or f"sqlite:///{self.spool.absolute() / 'audit.db'}"


class Logging(Group):
    """What is written about the work."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severity written; DEBUG quotes libraries, identifiers included"
    )
    format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, else JSON lines"
    )


class Peer(Group):
    """One DICOM application at the other end. `[[peers]]` in the file, one table each."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,32}$", description="short name used in commands and logs"
    )
    ae_title: AeTitle = Field(description="its AE title, case counts")
    host: str = Field(
        "", description="name or address to call; also admits calls from it when `network` is empty"
    )
    port: int = Field(104, ge=1, le=65535, description="port to call")
    network: str = Field("", description="address or network (CIDR) its calls may come from")
    send: bool = Field(False, description="true: it may send instances to the node")
    deliver: bool = Field(False, description="true: reports are delivered to it")
    sr_class: Literal["comprehensive", "enhanced"] = Field(
        "comprehensive",
        description="comprehensive, or enhanced: it takes reports as Enhanced SR only",
    )

    _ae = field_validator("ae_title")(_check_ae_title)

    @model_validator(mode="after")
    def _complete(self) -> Peer:
        if self.network:
            ipaddress.ip_network(self.network, strict=False)
        try:
            self.host.encode("idna")
        except UnicodeError:
            raise ValueError(f"host {self.host!r} is not a host name or address") from None
        if self.deliver and not self.host:
            raise ValueError("a peer with deliver = true needs a host")
        if self.send and not (self.network or self.host):
            raise ValueError("a peer with send = true needs a network or a host")
        return self


class Settings(BaseSettings):
    """All settings, frozen."""

    model_config = SettingsConfigDict(
        env_prefix="TFKT_NODE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    reception: Reception = Reception()
    series: Series = Series()
    scoring: Scoring = Scoring()
    limits: Limits = Limits()
    criteria: CriteriaByPopulation = CriteriaByPopulation()
    report: Report = Report()
    delivery: Delivery = Delivery()
    storage: Storage = Storage()
    logging: Logging = Logging()
    peers: tuple[Peer, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over what `load` read from the file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [peer.name for peer in self.peers]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"peers: the name {doubled[0]!r} is used twice")
        if self.scoring.device == "cuda" and self.scoring.engine != "torch":
            raise ValueError("scoring.device 'cuda' needs scoring.engine 'torch'")
        if not is_loopback(self.reception.host) and not any(peer.send for peer in self.peers):
            raise ValueError(
                f"reception.host {self.reception.host!r} is beyond loopback and no peer has "
                "send = true: nobody could call; list the senders under [[peers]] or listen "
                "on 127.0.0.1"
            )
        return self

    @property
    def destinations(self) -> tuple[Peer, ...]:
        """Peers that receive reports."""
        return tuple(peer for peer in self.peers if peer.deliver)


def is_loopback(host: str) -> bool:
    """Tell whether an address or name stands for this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(path: Path | None) -> Settings:
    """Read the settings file (none: defaults and environment only).

    Raises Misconfigured with one sentence for each error found.
    """
    unknown = _unknown_environment()
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{path}: cannot be read ({type(error).__name__})") from error
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"{path}: not valid TOML: {error}") from error
    try:
        settings = Settings(**values)
    except ValidationError as error:
        where = str(path) if path else "settings"
        raise Misconfigured(
            *unknown, *(_sentence(where, item) for item in error.errors())
        ) from None
    except SettingsError as error:
        raise Misconfigured(*unknown, f"environment: {error}") from None
    if unknown:
        raise Misconfigured(*unknown)
    return settings


def digest(group: BaseModel) -> str:
    """Name the exact values of a group of settings: 64 hex digits (SHA-256 of its JSON)."""
    return hashlib.sha256(group.model_dump_json().encode()).hexdigest()


NOT_SETTINGS = frozenset({"TFKT_NODE_TEST_DATA", "TFKT_NODE_CONFIG"})
"""Variables with the prefix that name a file or folder instead of setting an option."""


def _unknown_environment() -> list[str]:
    known = [f"TFKT_NODE_{name.upper()}" for name in Settings.model_fields]
    problems = []
    for name in sorted(os.environ):
        table = name.split("__")[0].upper()
        if (
            name.upper().startswith("TFKT_NODE_")
            and name not in NOT_SETTINGS
            and table not in known
        ):
            near = difflib.get_close_matches(table, known, n=1, cutoff=0.85)
            hint = f"; did you mean {near[0]}__…?" if near else ""
            problems.append(f"environment: {name} is not a setting{hint}")
    return problems


def _sentence(where: str, item: Any) -> str:
    place = [str(part) for part in item["loc"]]
    key = ".".join(place) or "settings"
    if place[:1] == ["peers"] and len(place) > 1:
        key = f"[[peers]] number {int(place[1]) + 1}" + "".join(f", {part}" for part in place[2:])
    variable = f"TFKT_NODE_{'__'.join(place)}".upper()
    if variable in {name.upper() for name in os.environ}:
        where, key = "environment", variable
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_names(item["loc"][:-1]), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: {key} is not a setting{hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    got = "" if isinstance(item["input"], dict | BaseModel) else f" (got {item['input']!r})"
    return f"{where}: {key}: {message}{got}"


def _known_names(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in loc:
        if part == "peers":
            model = Peer
        elif part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
    return list(model.model_fields)
