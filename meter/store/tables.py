"""All tables. Migrations are written against this metadata and `alembic check` keeps both the same."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from meter.core.rollup import AMOUNTS, COUNTS, TALLIES
from meter.core.spans import Grain

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def in_utc(value: datetime) -> datetime:
    """Return an instant in UTC; refuse naive times, which would mean another one on every machine."""
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError(f"naive time {value!r} for the database")
    return value.astimezone(UTC)


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware instant: `timestamptz` on PostgreSQL, sortable text in UTC on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Store instants in UTC."""
        return None if value is None else in_utc(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Give the zone back to what SQLite stores without one."""
        if value is None:
            return None
        stored: datetime = value
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


def dump_json(value: object) -> str:
    """Write a JSON column; three of them to an event are too many for the standard library's pace."""
    return msgspec.json.encode(value).decode()


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _limits() -> tuple[sa.Column[Any], ...]:
    """Make the columns of `meter.core.limits.Limits`; NULL is as the settings say, 0 is no limit."""
    return (
        # Exact names and `provider/*`; NULL: every model.
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("rpm", sa.BigInteger),
        sa.Column("tpm", sa.BigInteger),
        sa.Column("concurrency", sa.BigInteger),
    )


def _sums(name: str, counts: tuple[str, ...], **options: Any) -> sa.Table:
    """Make a table with a line for each of its periods, and team, key, upstream and model."""
    return sa.Table(
        name,
        metadata,
        # Where the period begins, in UTC.
        sa.Column("bucket", UtcDateTime, primary_key=True),
        sa.Column("team_id", sa.String(32), primary_key=True),
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("upstream", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(256), primary_key=True),
        *(_count(count) for count in counts),
        **options,
    )


# What holds for all servers on this database.
installation = sa.Table(
    "installation",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    *_limits(),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    # The public id is the middle part of the key itself.
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("team_id", sa.ForeignKey("teams.id"), nullable=False, index=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    # NULL: as the upstream, and then the settings, say.
    sa.Column("stream_usage", sa.String(16)),
    # What becomes of requests for models without a price; NULL: as the settings say.
    sa.Column("unpriced", sa.String(16)),
    # The key that this one took over from; one has one successor at most.
    sa.Column("rotated_from", sa.String(32), unique=True, index=True),
    # The first key of its line, under which budgets of all of them are kept; NULL: the key itself.
    sa.Column("first_id", sa.String(32), index=True),
    *_limits(),
)

admin_tokens = sa.Table(
    "admin_tokens",
    metadata,
    # The public id is the middle part of the token itself.
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    # Whose things it shows; NULL: everybody's.
    sa.Column("team_id", sa.ForeignKey("teams.id")),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
)

# Append-only: every change that somebody made, written in the transaction of the change.
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", sa.String(256), nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
)

# What has been asked for with an Idempotency-Key, so that asking again does not do it again.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    # Of who asked for what with which key.
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
    # NULL: under way, or nobody knows how it ended.
    sa.Column("status", sa.Integer),
    sa.Column("response", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False, index=True),
)

# Append-only: a version is never changed, and a later one takes its place from its instant on.
prices = sa.Table(
    "prices",
    metadata,
    # BIGINT would not number itself on SQLite.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    # Whose list it is from; empty: the operator's own.
    sa.Column("catalog", sa.String(64), nullable=False),
    # The one upstream that it holds for; empty: any.
    sa.Column("upstream", sa.String(64), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    # Empty: the standard tier.
    sa.Column("service_tier", sa.String(64), nullable=False),
    sa.Column("effective_from", UtcDateTime, nullable=False),
    # The part of every day that it holds for; NULL: all of it.
    sa.Column("hours", sa.JSON(none_as_null=True)),
    # Picodollars a token (microdollars a million tokens) by kind, as `meter.core.prices.Rates`.
    sa.Column("rates", sa.JSON, nullable=False),
    sa.Column("long_context", sa.JSON, nullable=False),
    sa.Column("max_output_tokens", sa.BigInteger),
    sa.Column("source", sa.String(256), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)

# What is posted of these months from then on counts in the month in which it is posted.
closed_months = sa.Table(
    "closed_months",
    metadata,
    # The first instant of the month, in UTC.
    sa.Column("month", UtcDateTime, primary_key=True),
    sa.Column("closed_at", UtcDateTime, nullable=False),
    sa.Column("closed_by", sa.String(128), nullable=False),
)

# Append-only. No foreign keys: an event must land whatever happened to its key meanwhile.
usage_events = sa.Table(
    "usage_events",
    metadata,
    sa.Column("event_id", sa.Uuid(as_uuid=False), primary_key=True),
    # Part of the key so that PostgreSQL can partition on it; it comes from admission and never changes.
    sa.Column("started_at", UtcDateTime, primary_key=True),
    sa.Column("posted_at", UtcDateTime, nullable=False),
    sa.Column("team_id", sa.String(32), nullable=False),
    sa.Column("key_id", sa.String(32), nullable=False),
    sa.Column("route", sa.String(64), nullable=False),
    sa.Column("upstream", sa.String(64), nullable=False),
    sa.Column("upstream_id", sa.String(256)),
    sa.Column("model_requested", sa.String(256), nullable=False),
    sa.Column("model_served", sa.String(256)),
    sa.Column("service_tier", sa.String(256)),
    sa.Column("stream", sa.Boolean, nullable=False),
    sa.Column("outcome", sa.String(32), nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("finish_reasons", sa.JSON, nullable=False),
    sa.Column("usage_source", sa.String(16), nullable=False),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    _count("cached_tokens"),
    _count("cache_write_tokens"),
    _count("reasoning_tokens"),
    _count("cache_write_1h_tokens"),
    _count("input_audio_tokens"),
    _count("output_audio_tokens"),
    sa.Column("usage_raw", sa.Text),
    sa.Column("anomalies", sa.JSON, nullable=False),
    # Picodollars. NULL is unpriced, 0 is free.
    sa.Column("cost", sa.BigInteger),
    sa.Column("price_id", sa.BigInteger),
    sa.Column("upstream_cost", sa.BigInteger),
    sa.Column("upstream_cost_source", sa.String(64)),
    sa.Column("ttfb_ms", sa.Integer),
    sa.Column("duration_ms", sa.Integer),
    sa.Column("end_user", sa.String(256)),
    sa.Column("tags", sa.JSON, nullable=False),
    # What a strict budget had to expect, and what budgets had reserved; see `meter.core.budgets`.
    sa.Column("cost_bound", sa.BigInteger),
    sa.Column("reserved", sa.JSON, nullable=False, server_default="[]"),
    # Of corrections; see `meter.core.events.UsageEvent`.
    sa.Column("corrects_id", sa.Uuid(as_uuid=False)),
    sa.Column("priced_tokens", sa.BigInteger),
    sa.Column("counted_at", UtcDateTime),
    sa.Column("actor", sa.String(128)),
    sa.Column("reason", sa.String(256)),
    sa.Index("ix_usage_events_started_at", "started_at"),
    sa.Index("ix_usage_events_key_id_started_at", "key_id", "started_at"),
    # Few: the events of closed months.
    sa.Index(
        "ix_usage_events_counted_at",
        "counted_at",
        postgresql_where=sa.text("counted_at IS NOT NULL"),
        sqlite_where=sa.text("counted_at IS NOT NULL"),
    ),
    # A partition a month, see `meter.store.partitions`; on PostgreSQL only.
    postgresql_partition_by="RANGE (started_at)",
)

# Sums of the ledger, folded in the transaction that inserts the events. Every zone in use starts its hours
# on a quarter, so that quarter hours suffice for all reports; days and months in UTC make long ones short.
usage_15m = _sums("usage_15m", COUNTS)
# A month of odd amounts could be more picodollars than 64 bits hold: they are kept in two parts.
_PARTS = (*TALLIES, *(f"{name}_{part}" for name in AMOUNTS for part in ("whole", "rest")))
usage_days = _sums("usage_days", _PARTS, sqlite_with_rowid=False)
usage_months = _sums("usage_months", _PARTS, sqlite_with_rowid=False)

ROLLUP: dict[Grain, sa.Table] = {"month": usage_months, "day": usage_days, "quarter": usage_15m}

# Requests that meter refused itself, which are no events; a count may be lost.
refusals_hourly = sa.Table(
    "refusals_hourly",
    metadata,
    sa.Column("hour", UtcDateTime, primary_key=True),
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("reason", sa.String(64), primary_key=True),
    _count("count"),
    sqlite_with_rowid=False,
)

_BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner_kind", sa.String(8), nullable=False),
    # Empty: the organisation.
    sa.Column("owner_id", sa.String(32), nullable=False),
    # A pattern of requested models; empty: any.
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("measure", sa.String(16), nullable=False),
    sa.Column("period", sa.String(8), nullable=False),
    sa.Column("tz", sa.String(64), nullable=False),
    # Picodollars, tokens or requests.
    sa.Column("limit", sa.BigInteger, nullable=False),
    sa.Column("enforcement", sa.String(16), nullable=False),
    sa.Column("thresholds", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("owner_kind", "owner_id", "measure", "period", "model"),
)

# `spent` is the ledger's sum, `reserved` that of the allowances.
budget_windows = sa.Table(
    "budget_windows",
    metadata,
    sa.Column("id", _BIG_ID, primary_key=True),
    sa.Column("budget_id", sa.ForeignKey("budgets.id", ondelete="CASCADE"), nullable=False),
    sa.Column("start", UtcDateTime, nullable=False),
    # NULL: for ever.
    sa.Column("end", UtcDateTime),
    _count("spent"),
    _count("reserved"),
    sa.UniqueConstraint("budget_id", "start"),
)

# What processes hold of windows. A row goes when its holder's journal has been shipped to its end.
allowances = sa.Table(
    "allowances",
    metadata,
    sa.Column("id", _BIG_ID, primary_key=True),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column(
        "window_id", sa.ForeignKey("budget_windows.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    _count("amount"),
    sa.UniqueConstraint("holder", "window_id"),
    # An id is never used again: events that come late name the allowance that they were reserved in.
    sqlite_autoincrement=True,
)

# Processes that may hold allowances, and when each was last heard of, by the database's clock.
holders = sa.Table(
    "holders",
    metadata,
    sa.Column("holder", sa.String(128), primary_key=True),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("heartbeat_at", UtcDateTime, nullable=False),
)

# One for each threshold that a window has reached. NULL in `next_at`: delivered, or given up.
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", _BIG_ID, primary_key=True),
    sa.Column("window_id", sa.ForeignKey("budget_windows.id", ondelete="CASCADE"), nullable=False),
    sa.Column("threshold", sa.Integer, nullable=False),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("last_error", sa.String(256)),
    sa.Column("next_at", UtcDateTime, index=True),
    sa.UniqueConstraint("window_id", "threshold"),
)
