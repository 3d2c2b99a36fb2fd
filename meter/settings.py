"""The configuration: environment over `meter.toml` over defaults, read in one place and checked as a whole.

Every setting is a row of `SETTINGS`. Its environment variable is its name in capitals behind `METER_`; in
`meter.toml` it is a top-level member. All faults of a configuration are reported together.
"""

import fnmatch
import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from meter.core.stream_usage import check_mode

DEFAULT_UPSTREAM_URL = "https://api.routerhub.ai/v1"
CONFIG_FILE = "meter.toml"
SQLITE_PREFIX = "sqlite:///"
DATABASE_PREFIXES = (SQLITE_PREFIX, "postgresql://", "postgresql+psycopg://")
UPSTREAM_NAME_LENGTH_MAX = 64
PEPPER_LENGTH_MIN = 32
ADMIN_TOKEN_LENGTH_MIN = 32

_WORKERS_NEED_POSTGRESQL = (
    "METER_WORKERS: SQLite serves one process; for several, set METER_DATABASE_URL to a PostgreSQL database "
    "(postgresql://user@host/name)"
)


class ConfigurationError(Exception):
    """A configuration that cannot be used; `faults` has a sentence for each thing that is wrong."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Secret:
    """A credential that no traceback, log line or `repr` shows."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: where it is, with what credential, and for which models."""

    name: str
    url: str
    api_key: Secret | None = None
    models: tuple[str, ...] = ("*",)
    stream_usage: str | None = None

    def serves(self, model: str) -> bool:
        """Say whether a model's name matches one of the patterns (`*` and `?` as in a shell)."""
        return any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked."""

    data_dir: Path
    database_url: Secret
    """It may hold a password."""
    host: str
    port: int
    admin_host: str
    admin_port: int
    admin_hosts: tuple[str, ...]
    workers: int
    admin_token: Secret | None
    pepper: Secret | None
    upstreams: tuple[UpstreamSettings, ...]
    """In order of precedence; the first that serves a model gets it."""
    stream_usage: str
    hangup_grace_seconds: float
    body_bytes_max: int
    connect_timeout_seconds: float
    headers_timeout_seconds: float
    idle_timeout_seconds: float
    shutdown_delay_seconds: float
    shutdown_timeout_seconds: float
    durability: str
    journal_bytes_max: int
    grants_stale_seconds_max: float

    @property
    def sqlite_path(self) -> Path | None:
        """Where the SQLite database lies; `None` on another database."""
        url = self.database_url.reveal()
        return Path(url.removeprefix(SQLITE_PREFIX)) if url.startswith(SQLITE_PREFIX) else None


class Setting(NamedTuple):
    """One row of the configuration."""

    name: str
    read: Callable[[str], Any]
    default: str
    """As it would be written in the environment; empty is unset."""
    help: str
    quotable: bool = True
    """Whether a fault may repeat the value, which could hold a password."""


def _text(value: str) -> str:
    return value


def _database_url(value: str) -> Secret | None:
    if value and not value.startswith(DATABASE_PREFIXES):
        raise ValueError(f"must begin with {SQLITE_PREFIX} or postgresql://")
    return Secret(value) if value else None


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _path(value: str) -> Path:
    return Path(value).expanduser().absolute()


def _secret(value: str) -> Secret | None:
    return Secret(value) if value else None


def _number(value: str) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError("must be a number, 0 or more")
    return number


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise ValueError("must be a whole number above 0")
    return number


def _port(value: str) -> int:
    number = int(value)
    port_max = 65535
    if not 0 <= number <= port_max:
        raise ValueError("must be a port, 0 to 65535 (0 takes a free one)")
    return number


def _durability(value: str) -> str:
    if value not in {"power", "crash"}:
        raise ValueError("must be power or crash")
    return value


def _upstream_url(value: str) -> str:
    return check_upstream_url(value) if value else ""


SETTINGS: tuple[Setting, ...] = (
    Setting("data_dir", _path, "meter-data", "Where the database, the admin token and the pepper lie."),
    Setting(
        "database_url",
        _database_url,
        "",
        "The database; unset: SQLite, `meter.db` in the data directory.",
        quotable=False,
    ),
    Setting("host", _text, "127.0.0.1", "Address of the data listener (`/v1`, `/health`)."),
    Setting("port", _port, "8080", "Port of the data listener."),
    Setting("admin_host", _text, "127.0.0.1", "Address of the control listener (admin API, `/metrics`)."),
    Setting("admin_port", _port, "8081", "Port of the control listener."),
    Setting("admin_hosts", _names, "", "Names by which the control listener is reached, beside localhost."),
    Setting("workers", _positive, "1", "Processes that serve requests; more than one need PostgreSQL."),
    Setting(
        "admin_token", _secret, "", "The admin token; unset: made at the first start, in the data directory."
    ),
    Setting(
        "pepper",
        _secret,
        "",
        "Secret that key digests are made with; unset on SQLite: made at the first start.",
    ),
    Setting(
        "upstream_url",
        _upstream_url,
        "",
        f"The provider's base URL; unset: `{DEFAULT_UPSTREAM_URL}`.",
        quotable=False,
    ),
    Setting("upstream_api_key", _secret, "", "The provider's API key; falls back to `ROUTERHUB_API_KEY`."),
    Setting(
        "stream_usage",
        check_mode,
        "ensure",
        "How streams are metered: `ensure`, `always_sent`, `observe`.",
    ),
    Setting(
        "hangup_grace_seconds", _number, "5", "How long to read on for the usage when a client has left."
    ),
    Setting("body_bytes_max", _positive, "20000000", "Largest request body; a larger one gets 413."),
    Setting("connect_timeout_seconds", _number, "10", "How long connecting to an upstream may take."),
    Setting(
        "headers_timeout_seconds", _number, "600", "How long an upstream may take to its response headers."
    ),
    Setting("idle_timeout_seconds", _number, "300", "How long an upstream may be silent within a response."),
    Setting(
        "shutdown_delay_seconds",
        _number,
        "0",
        "On SIGTERM, how long to go on while `/health/ready` says 503.",
    ),
    Setting("shutdown_timeout_seconds", _number, "30", "Then, how long running requests may take to finish."),
    Setting(
        "durability",
        _durability,
        "power",
        "What an event survives before its response ends: `power` (a power cut) or `crash` (of meter).",
    ),
    Setting(
        "journal_bytes_max",
        _positive,
        "1000000000",
        "Room for events that are not in the database; past it requests get 503.",
    ),
    Setting(
        "grants_stale_seconds_max",
        _number,
        "86400",
        "How long known keys go on while the database is away.",
    ),
)


def load(environment: Mapping[str, str], config: Path | None = None, **options: object) -> Settings:
    """Read the configuration; `options`, from the command line, win over everything if not `None`.

    Raises `ConfigurationError` with every fault there is.
    """
    faults: list[str] = []
    document = _read_file(environment, config, faults)
    given = {name: value for name, value in options.items() if value is not None}
    values = {setting.name: _value(setting, given, environment, document, faults) for setting in SETTINGS}
    known = {setting.name for setting in SETTINGS} | {"upstreams"}
    faults += [f"{CONFIG_FILE}: there is no setting named {name!r}" for name in document if name not in known]
    upstreams = _upstreams(values, environment, document, faults)
    values["database_url"] = values["database_url"] or Secret(f"sqlite:///{values['data_dir'] / 'meter.db'}")
    faults += _faults_together(values)
    if faults:
        raise ConfigurationError(faults)
    del values["upstream_url"], values["upstream_api_key"]
    return Settings(**values, upstreams=upstreams)


def check_upstream_url(url: str) -> str:
    """Return a base URL without its last slash, or raise `ValueError`; plain HTTP only to this machine."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.hostname is None:
        raise ValueError("must be a URL such as https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment; the API key has a setting of its own")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https, since the API key travels with every request")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Say whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_file(environment: Mapping[str, str], config: Path | None, faults: list[str]) -> dict[str, Any]:
    named = config or (Path(environment["METER_CONFIG"]) if environment.get("METER_CONFIG") else None)
    path = named or Path(CONFIG_FILE)
    if named is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        faults.append(f"{path}: cannot be read: {fault.strerror}")
    except ValueError as fault:
        faults.append(f"{path}: is not valid TOML: {fault}")
    return {}


def _value(
    setting: Setting,
    options: Mapping[str, object],
    environment: Mapping[str, str],
    document: Mapping[str, Any],
    faults: list[str],
) -> Any:
    variable = f"METER_{setting.name.upper()}"
    sources = (
        (f"--{setting.name.replace('_', '-')}", options.get(setting.name)),
        (variable, environment.get(variable) or None),
        (f"{CONFIG_FILE}: {setting.name}", document.get(setting.name)),
    )
    place, value = next(((place, value) for place, value in sources if value is not None), ("", None))
    text = setting.default if value is None else _as_text(value)
    try:
        return setting.read(text)
    except ValueError as fault:
        faults.append(f"{place}: {_sentence(fault)}{f', not {text!r}' if setting.quotable else ''}")
        return setting.read(setting.default)


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _sentence(fault: ValueError) -> str:
    # int() and float() explain themselves in Python's terms.
    text = str(fault)
    return text if text.startswith("must") else "must be a number"


def _upstreams(
    values: Mapping[str, Any],
    environment: Mapping[str, str],
    document: Mapping[str, Any],
    faults: list[str],
) -> tuple[UpstreamSettings, ...]:
    listed = document.get("upstreams", [])
    if not isinstance(listed, list):
        faults.append(f"{CONFIG_FILE}: upstreams must be written as [[upstreams]] tables")
        return ()
    named = [_upstream(entry, number, environment, faults) for number, entry in enumerate(listed, 1)]
    fallback = _default_upstream(values, environment)
    found = tuple(upstream for upstream in [*named, fallback] if upstream is not None)
    names = [upstream.name for upstream in found]
    twice = {name for name in names if names.count(name) > 1}
    faults += [f"{CONFIG_FILE}: two upstreams are named {name!r}" for name in sorted(twice)]
    return found


def _default_upstream(values: Mapping[str, Any], environment: Mapping[str, str]) -> UpstreamSettings | None:
    routerhub_key = _secret(environment.get("ROUTERHUB_API_KEY", ""))
    api_key: Secret | None = values["upstream_api_key"] or routerhub_key
    url: str = values["upstream_url"]
    if not url and api_key is None:
        return None
    url = url or DEFAULT_UPSTREAM_URL
    host = urlsplit(url).hostname or "upstream"
    name = "routerhub" if url == DEFAULT_UPSTREAM_URL else host[:UPSTREAM_NAME_LENGTH_MAX]
    return UpstreamSettings(name=name, url=url, api_key=api_key)


def _upstream(
    entry: object, number: int, environment: Mapping[str, str], faults: list[str]
) -> UpstreamSettings | None:
    place = f"{CONFIG_FILE}: upstreams[{number}]"
    try:
        table = msgspec.convert(entry, _UpstreamTable)
        _check_upstream_name(table.name)
        url = check_upstream_url(table.url)
        mode = check_mode(table.stream_usage) if table.stream_usage else None
    except (msgspec.ValidationError, ValueError) as fault:
        faults.append(f"{place}: {fault}")
        return None
    key = environment.get(table.api_key_env, "") if table.api_key_env else ""
    if table.api_key_env and not key:
        faults.append(f"{place}: the environment has no {table.api_key_env}, which api_key_env names")
    return UpstreamSettings(
        name=table.name, url=url, api_key=_secret(key), models=tuple(table.models), stream_usage=mode
    )


def _check_upstream_name(name: str) -> None:
    if not 0 < len(name) <= UPSTREAM_NAME_LENGTH_MAX or not name.isprintable():
        raise ValueError(f"name must have 1 to {UPSTREAM_NAME_LENGTH_MAX} printable characters")


class _UpstreamTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    url: str
    models: list[str]
    api_key_env: str | None = None
    stream_usage: str | None = None


def _faults_together(values: Mapping[str, Any]) -> list[str]:
    lengths = (("pepper", PEPPER_LENGTH_MIN), ("admin_token", ADMIN_TOKEN_LENGTH_MIN))
    faults = [
        f"METER_{name.upper()}: must be at least {length_min} characters long"
        for name, length_min in lengths
        if values[name] is not None and len(values[name].reveal()) < length_min
    ]
    on_sqlite = values["database_url"].reveal().startswith(SQLITE_PREFIX)
    if values["pepper"] is None and not on_sqlite:
        faults.append("METER_PEPPER: must be set with this database, which several servers may share")
    if values["workers"] > 1 and on_sqlite:
        faults.append(_WORKERS_NEED_POSTGRESQL)
    return faults
