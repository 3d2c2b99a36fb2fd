"""What settings must be beside each other, and how long secrets must be."""

from collections.abc import Mapping
from typing import Any

from meter.settings.values import SQLITE_PREFIX

PEPPER_LENGTH_MIN = 32
ADMIN_TOKEN_LENGTH_MIN = 32
METRICS_TOKEN_LENGTH_MIN = 32
WEBHOOK_SECRET_LENGTH_MIN = 32

_WORKERS_NEED_POSTGRESQL = (
    "METER_WORKERS: SQLite serves one process; for several, set METER_DATABASE_URL to a PostgreSQL database "
    "(postgresql://user@host/name)"
)


def faults_together(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with settings together, a sentence each."""
    lengths = (
        ("pepper", PEPPER_LENGTH_MIN),
        ("admin_token", ADMIN_TOKEN_LENGTH_MIN),
        ("metrics_token", METRICS_TOKEN_LENGTH_MIN),
        ("webhook_secret", WEBHOOK_SECRET_LENGTH_MIN),
    )
    faults = [
        f"METER_{name.upper()}: must be at least {length_min} characters long"
        for name, length_min in lengths
        if values[name] is not None and len(values[name].reveal()) < length_min
    ]
    tokens = [values[name].reveal() for name in ("admin_token", "metrics_token") if values[name] is not None]
    if len(set(tokens)) < len(tokens):
        faults.append("METER_METRICS_TOKEN: must not be the admin token, which opens everything")
    if values["webhook_url"] is not None and values["webhook_secret"] is None:
        faults.append("METER_WEBHOOK_SECRET: must be set, so that the webhook can tell who calls it")
    on_sqlite = values["database_url"].reveal().startswith(SQLITE_PREFIX)
    if values["pepper"] is None and not on_sqlite:
        faults.append("METER_PEPPER: must be set with this database, which several servers may share")
    if values["workers"] > 1 and on_sqlite:
        faults.append(_WORKERS_NEED_POSTGRESQL)
    return faults
