"""Keep sums of days and months beside those of quarter hours, and count refusals."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TALLIES = (
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "estimated_requests",
    "estimated_tokens",
    "invalid_requests",
    "invalid_tokens",
    "unpriced_requests",
    "unpriced_tokens",
    "corrections",
)
_AMOUNTS = ("cost", "upstream_cost", "compared_cost", "compared_upstream_cost", "correction_cost")
# How each column is added up from quarter hours.
_SUMS = (
    {name: f"sum({name})" for name in _TALLIES}
    | {f"{name}_whole": f"sum({name} / 1000000)" for name in _AMOUNTS}
    | {f"{name}_rest": f"sum({name} % 1000000)" for name in _AMOUNTS}
)
_COLUMNS = (*_TALLIES, *(f"{name}_{part}" for name in _AMOUNTS for part in ("whole", "rest")))
_KEY = ("team_id", "key_id", "upstream", "model")
_STARTS = {
    "usage_days": {
        "sqlite": "substr(bucket, 1, 10) || ' 00:00:00.000000'",
        "postgresql": "date_trunc('day', bucket, 'UTC')",
    },
    "usage_months": {
        "sqlite": "substr(bucket, 1, 7) || '-01 00:00:00.000000'",
        "postgresql": "date_trunc('month', bucket, 'UTC')",
    },
}


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _fill(table: str) -> None:
    """Add up what the quarter hours hold."""
    start = _STARTS[table][op.get_bind().dialect.name]
    key = ", ".join(_KEY)
    op.execute(
        f"INSERT INTO {table} (bucket, {key}, {', '.join(_SUMS)}) "  # noqa: S608 (names of ours)
        f"SELECT {start}, {key}, {', '.join(_SUMS.values())} FROM usage_15m GROUP BY {start}, {key}"
    )


def upgrade() -> None:
    for table in _STARTS:
        op.create_table(
            table,
            sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
            sa.Column("team_id", sa.String(length=32), nullable=False),
            sa.Column("key_id", sa.String(length=32), nullable=False),
            sa.Column("upstream", sa.String(length=64), nullable=False),
            sa.Column("model", sa.String(length=256), nullable=False),
            *map(_count, _COLUMNS),
            sa.PrimaryKeyConstraint("bucket", *_KEY, name=f"pk_{table}"),
            sqlite_with_rowid=False,
        )
        _fill(table)
    op.create_table(
        "refusals_hourly",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        _count("count"),
        sa.PrimaryKeyConstraint("hour", "key_id", "reason", name="pk_refusals_hourly"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("refusals_hourly")
    for table in reversed(_STARTS):
        op.drop_table(table)
