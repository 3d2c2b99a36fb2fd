"""How single values of the configuration are read, and what hides the secret ones."""

from pathlib import Path
from urllib.parse import urlsplit

from meter.core.limits import LIMIT_MAX
from meter.core.retention import MONTHS_MAX
from meter.core.unpriced import POLICIES as UNPRICED_POLICIES

CONFIG_FILE = "meter.toml"
SQLITE_PREFIX = "sqlite:///"
REDIS_PREFIXES = ("redis://", "rediss://")
DATABASE_PREFIXES = (SQLITE_PREFIX, "postgresql://", "postgresql+psycopg://")


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


def as_text(value: str) -> str:
    """Take a value as it is."""
    return value


def as_database_url(value: str) -> Secret | None:
    """Read the URL of a database that meter can work with."""
    if value and not value.startswith(DATABASE_PREFIXES):
        raise ValueError(f"must begin with {SQLITE_PREFIX} or postgresql://")
    return Secret(value) if value else None


def as_names(value: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def as_path(value: str) -> Path:
    """Read a path; it is made absolute."""
    return Path(value).expanduser().absolute()


def as_secret(value: str) -> Secret | None:
    """Hide a value; an empty one is none."""
    return Secret(value) if value else None


def password_of(url: str) -> str | None:
    """Return the password in a URL, as it is written there; what is no URL has none."""
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def as_number(value: str) -> float:
    """Read a number, 0 or more."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError("must be a number, 0 or more")
    return number


def as_seconds(value: str) -> float:
    """Read a time that is more than none."""
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return number


def as_positive(value: str) -> int:
    """Read a whole number above 0."""
    number = int(value)
    if number < 1:
        raise ValueError("must be a whole number above 0")
    return number


def as_limit(value: str) -> int:
    """Read a limit: a whole number, 0 for none."""
    number = int(value)
    if not 0 <= number <= LIMIT_MAX:
        raise ValueError(f"must be a whole number up to {LIMIT_MAX}, or 0 for no limit")
    return number


def as_months(value: str) -> int:
    """Read for how many months something is kept, 0 for ever."""
    number = int(value)
    if not 0 <= number <= MONTHS_MAX:
        raise ValueError(f"must be a whole number of months up to {MONTHS_MAX}, or 0 for ever")
    return number


def as_redis_url(value: str) -> Secret | None:
    """Read the URL of a Redis."""
    if value and not (value.startswith(REDIS_PREFIXES) and _has_host_and_port(value)):
        raise ValueError("must be a URL such as redis://host:6379/0, or rediss:// for TLS")
    return Secret(value) if value else None


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def as_port(value: str) -> int:
    """Read a port."""
    number = int(value)
    port_max = 65535
    if not 0 <= number <= port_max:
        raise ValueError("must be a port, 0 to 65535 (0 takes a free one)")
    return number


def as_overrun(value: str) -> str:
    """Read what becomes of a stream that has no more room."""
    if value not in {"finish", "cut"}:
        raise ValueError("must be finish or cut")
    return value


def as_durability(value: str) -> str:
    """Read what an event has to survive."""
    if value not in {"power", "crash"}:
        raise ValueError("must be power or crash")
    return value


def as_transport(value: str) -> str:
    """Read what carries requests to upstreams."""
    if value not in {"httptools", "httpx"}:
        raise ValueError("must be httptools or httpx")
    return value


def as_prices_seed(value: str) -> str:
    """Read where the first prices are from."""
    if value not in {"genai-prices", "none"}:
        raise ValueError("must be genai-prices or none")
    return value


def as_unpriced(value: str) -> str:
    """Read what becomes of requests for models without a price."""
    if value not in UNPRICED_POLICIES:
        raise ValueError("must be allow or block")
    return value


def as_log_format(value: str) -> str:
    """Read how the log is written."""
    if value not in {"auto", "json", "text"}:
        raise ValueError("must be auto, json or text")
    return value


def as_switch(value: str) -> bool:
    """Read whether something is on."""
    switches = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if value.lower() not in switches:
        raise ValueError("must be on or off")
    return switches[value.lower()]
