"""The configuration: environment over `meter.toml` over defaults, read in one place and checked as a whole.

Every setting is a row of `SETTINGS`. Its environment variable is its name in capitals behind `METER_`; in
`meter.toml` it is a top-level member. All faults of a configuration are reported together.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meter.core.stream_usage import check_mode
from meter.settings.agreement import faults_together
from meter.settings.bounds import BOUNDS, Bounds
from meter.settings.files import with_files
from meter.settings.rows import Setting
from meter.settings.upstreams import (
    DEFAULT_UPSTREAM_URL,
    UpstreamSettings,
    as_webhook_url,
    check_upstream_url,
    is_loopback,
    read_upstreams,
    upstream_url,
)
from meter.settings.values import (
    CONFIG_FILE,
    SQLITE_PREFIX,
    ConfigurationError,
    Secret,
    as_database_url,
    as_durability,
    as_limit,
    as_log_format,
    as_months,
    as_names,
    as_number,
    as_overrun,
    as_path,
    as_port,
    as_positive,
    as_prices_seed,
    as_redis_url,
    as_secret,
    as_switch,
    as_text,
    as_transport,
    as_unpriced,
    password_of,
)

__all__ = [
    "DEFAULT_UPSTREAM_URL",
    "SETTINGS",
    "ConfigurationError",
    "Secret",
    "Setting",
    "Settings",
    "UpstreamSettings",
    "check_upstream_url",
    "is_loopback",
    "load",
]


class Settings(Bounds, frozen=True, kw_only=True):
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
    metrics_token: Secret | None
    pepper: Secret | None
    upstreams: tuple[UpstreamSettings, ...]
    """In order of precedence; the first that serves a model gets it."""
    stream_usage: str
    hangup_grace_seconds: float
    body_bytes_max: int
    connect_timeout_seconds: float
    headers_timeout_seconds: float
    idle_timeout_seconds: float
    upstream_transport: str
    shutdown_delay_seconds: float
    shutdown_timeout_seconds: float
    overrun: str
    webhook_url: Secret | None
    """It may hold a credential."""
    webhook_secret: Secret | None
    durability: str
    journal_bytes_max: int
    grants_stale_seconds_max: float
    key_rpm: int
    """0 is no limit, here and below."""
    key_tpm: int
    key_concurrency: int
    team_rpm: int
    team_tpm: int
    redis_url: Secret | None
    """It may hold a password."""
    report_ledger_days_max: float
    retention_months: int
    """0 keeps everything."""
    session_seconds_max: int
    log_format: str
    access_log: bool
    prices_seed: str
    unpriced: str

    @property
    def sqlite_path(self) -> Path | None:
        """Where the SQLite database lies; `None` on another database."""
        url = self.database_url.reveal()
        return Path(url.removeprefix(SQLITE_PREFIX)) if url.startswith(SQLITE_PREFIX) else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that no log line may show."""
        own = [getattr(self, name) for name in self.__struct_fields__]
        found = [value for value in own if isinstance(value, Secret)]
        found += [entry.api_key for entry in self.upstreams if entry.api_key is not None]
        texts = [secret.reveal() for secret in found]
        return (*texts, *filter(None, map(password_of, texts)))


SETTINGS: tuple[Setting, ...] = (
    Setting("data_dir", as_path, "meter-data", "Where the database, the admin token and the pepper lie."),
    Setting(
        "database_url",
        as_database_url,
        "",
        "The database; unset: SQLite, `meter.db` in the data directory.",
        quotable=False,
    ),
    Setting("host", as_text, "127.0.0.1", "Address of the data listener (`/v1`, `/health`)."),
    Setting("port", as_port, "8080", "Port of the data listener."),
    Setting("admin_host", as_text, "127.0.0.1", "Address of the control listener (admin API, `/metrics`)."),
    Setting("admin_port", as_port, "8081", "Port of the control listener."),
    Setting("admin_hosts", as_names, "", "Names by which the control listener is reached, beside localhost."),
    Setting("workers", as_positive, "1", "Processes that serve requests; more than one need PostgreSQL."),
    Setting(
        "admin_token",
        as_secret,
        "",
        "The admin token; unset: made at the first start, in the data directory.",
    ),
    Setting(
        "metrics_token",
        as_secret,
        "",
        "A token that opens `/metrics` and nothing else; at least 32 characters.",
    ),
    Setting(
        "pepper",
        as_secret,
        "",
        "Secret that key digests are made with; unset on SQLite: made at the first start.",
    ),
    Setting(
        "upstream_url",
        upstream_url,
        "",
        f"The provider's base URL; unset: `{DEFAULT_UPSTREAM_URL}`.",
        quotable=False,
    ),
    Setting("upstream_api_key", as_secret, "", "The provider's API key; falls back to `ROUTERHUB_API_KEY`."),
    Setting(
        "stream_usage",
        check_mode,
        "ensure",
        "How streams are metered: `ensure`, `always_sent`, `observe`.",
    ),
    Setting(
        "hangup_grace_seconds", as_number, "5", "How long to read on for the usage when a client has left."
    ),
    Setting("body_bytes_max", as_positive, "20000000", "Largest request body; a larger one gets 413."),
    Setting("connect_timeout_seconds", as_number, "10", "How long connecting to an upstream may take."),
    Setting(
        "headers_timeout_seconds", as_number, "600", "How long an upstream may take to its response headers."
    ),
    Setting(
        "idle_timeout_seconds", as_number, "300", "How long an upstream may be silent within a response."
    ),
    Setting(
        "upstream_transport",
        as_transport,
        "httptools",
        "What carries requests to upstreams: `httptools`, or `httpx`, which takes far more CPU.",
    ),
    Setting(
        "shutdown_delay_seconds",
        as_number,
        "0",
        "On SIGTERM, how long to go on while `/health/ready` says 503.",
    ),
    Setting(
        "shutdown_timeout_seconds", as_number, "30", "Then, how long running requests may take to finish."
    ),
    Setting(
        "overrun",
        as_overrun,
        "finish",
        "What becomes of a stream for which a `standard` budget has no more room: `finish` or `cut`.",
    ),
    Setting(
        "webhook_url",
        as_webhook_url,
        "",
        "Where alerts of budgets are sent; unset: nowhere.",
        quotable=False,
    ),
    Setting("webhook_secret", as_secret, "", "Secret that alerts are signed with; at least 32 characters."),
    Setting(
        "durability",
        as_durability,
        "power",
        "What an event survives before its response ends: `power` (a power cut) or `crash` (of meter).",
    ),
    Setting(
        "journal_bytes_max",
        as_positive,
        "1000000000",
        "Room for events that are not in the database; past it requests get 503.",
    ),
    Setting(
        "grants_stale_seconds_max",
        as_number,
        "86400",
        "How long known keys go on while the database is away.",
    ),
    Setting(
        "report_ledger_days_max",
        as_number,
        "93",
        "The longest report by `user` or `tag`, which reads the ledger.",
    ),
    Setting(
        "retention_months",
        as_months,
        "0",
        "Events leave the ledger after so many months beside the running one, and their sums stay; 0: never.",
    ),
    Setting(
        "session_seconds_max", as_positive, "43200", "How long one sign-in to the spend page lasts at most."
    ),
    Setting(
        "log_format",
        as_log_format,
        "auto",
        "How lines of the log are written: `json`, `text`, or `auto`: text on a terminal, else JSON.",
    ),
    Setting(
        "access_log",
        as_switch,
        "off",
        "Whether each request is a line of the log: `on`, `off`; no content.",
    ),
    Setting("key_rpm", as_limit, "0", "Requests a minute of a key that has no limit of its own; 0: any."),
    Setting("key_tpm", as_limit, "0", "Tokens a minute of such a key; 0: any."),
    Setting(
        "key_concurrency",
        as_limit,
        "0",
        "Requests under way at once of such a key, in each process; 0: any.",
    ),
    Setting("team_rpm", as_limit, "0", "Requests a minute of a team that has no limit of its own; 0: any."),
    Setting("team_tpm", as_limit, "0", "Tokens a minute of such a team; 0: any."),
    Setting(
        "redis_url",
        as_redis_url,
        "",
        "A Redis in which all processes count rates together; unset: each counts for itself.",
        quotable=False,
    ),
    Setting(
        "prices_seed",
        as_prices_seed,
        "genai-prices",
        "Where the first prices are from: `genai-prices` (the Python package) or `none`.",
    ),
    Setting(
        "unpriced",
        as_unpriced,
        "allow",
        "What becomes of requests for models without a price: `allow`, `block` (403).",
    ),
    *BOUNDS,
)


def load(environment: Mapping[str, str], config: Path | None = None, **options: object) -> Settings:
    """Read the configuration; `options`, from the command line, win over everything if not `None`.

    Raises `ConfigurationError` with every fault there is.
    """
    faults: list[str] = []
    environment = with_files(environment, [f"METER_{setting.name.upper()}" for setting in SETTINGS], faults)
    document = _read_file(environment, config, faults)
    given = {name: value for name, value in options.items() if value is not None}
    values = {setting.name: _value(setting, given, environment, document, faults) for setting in SETTINGS}
    known = {setting.name for setting in SETTINGS} | {"upstreams"}
    faults += [f"{CONFIG_FILE}: there is no setting named {name!r}" for name in document if name not in known]
    upstreams = read_upstreams(values, environment, document, faults)
    values["database_url"] = values["database_url"] or Secret(f"sqlite:///{values['data_dir'] / 'meter.db'}")
    faults += faults_together(values)
    if faults:
        raise ConfigurationError(faults)
    del values["upstream_url"], values["upstream_api_key"]
    return Settings(**values, upstreams=upstreams)


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
