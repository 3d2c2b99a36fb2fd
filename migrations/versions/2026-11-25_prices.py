"""Make the price book and closed months, and room in the ledger and the rollup for what they need."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTS_OF_EVENTS = ("cache_write_1h_tokens", "input_audio_tokens", "output_audio_tokens")
_COUNTS_OF_LINES = (
    *_COUNTS_OF_EVENTS,
    "compared_cost",
    "compared_upstream_cost",
    "corrections",
    "correction_cost",
)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _of_corrections() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("price_id", sa.BigInteger()),
        sa.Column("corrects_id", sa.Uuid(as_uuid=False)),
        sa.Column("priced_tokens", sa.BigInteger()),
        sa.Column("counted_at", sa.DateTime(timezone=True)),
        sa.Column("actor", sa.String(length=128)),
        sa.Column("reason", sa.String(length=256)),
    )


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("catalog", sa.String(length=64), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("service_tier", sa.String(length=64), nullable=False),
        sa.Column("effective_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hours", sa.JSON(none_as_null=True)),
        sa.Column("rates", sa.JSON(), nullable=False),
        sa.Column("long_context", sa.JSON(), nullable=False),
        sa.Column("max_output_tokens", sa.BigInteger()),
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
    )
    op.create_table(
        "closed_months",
        sa.Column("month", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("month", name="pk_closed_months"),
    )
    # Adding columns needs no batch mode, which would copy the whole ledger on SQLite.
    for column in (*map(_count, _COUNTS_OF_EVENTS), *_of_corrections()):
        op.add_column("usage_events", column)
    for name in _COUNTS_OF_LINES:
        op.add_column("usage_15m", _count(name))
    op.add_column("api_keys", sa.Column("unpriced", sa.String(length=16)))


def downgrade() -> None:
    op.drop_column("api_keys", "unpriced")
    for name in reversed(_COUNTS_OF_LINES):
        op.drop_column("usage_15m", name)
    for name in (*(column.name for column in reversed(_of_corrections())), *reversed(_COUNTS_OF_EVENTS)):
        op.drop_column("usage_events", name)
    op.drop_table("closed_months")
    op.drop_table("prices")
