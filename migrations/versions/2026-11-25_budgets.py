"""Make budgets, their windows, and what processes hold of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner_kind", sa.String(length=8), nullable=False),
        sa.Column("owner_id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("measure", sa.String(length=16), nullable=False),
        sa.Column("period", sa.String(length=8), nullable=False),
        sa.Column("tz", sa.String(length=64), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("enforcement", sa.String(length=16), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
        sa.UniqueConstraint(
            "owner_kind",
            "owner_id",
            "measure",
            "period",
            "model",
            name="uq_budgets_owner_kind_owner_id_measure_period_model",
        ),
    )
    op.create_table(
        "budget_windows",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("budget_id", sa.String(length=32), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True)),
        sa.Column("spent", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["budget_id"], ["budgets.id"], name="fk_budget_windows_budget_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_budget_windows"),
        sa.UniqueConstraint("budget_id", "start", name="uq_budget_windows_budget_id_start"),
    )
    op.create_table(
        "allowances",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("window_id", _big_id(), nullable=False),
        sa.Column("amount", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"], ["budget_windows.id"], name="fk_allowances_window_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_allowances"),
        sa.UniqueConstraint("holder", "window_id", name="uq_allowances_holder_window_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_allowances_window_id", "allowances", ["window_id"])
    op.create_table(
        "holders",
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("holder", name="pk_holders"),
    )
    op.add_column("usage_events", sa.Column("cost_bound", sa.BigInteger()))
    op.add_column("usage_events", sa.Column("reserved", sa.JSON(), server_default="[]", nullable=False))
    # A window's sum is the rollup's, but for the few events that count in another month than their own.
    op.create_index(
        "ix_usage_events_counted_at",
        "usage_events",
        ["counted_at"],
        postgresql_where=sa.text("counted_at IS NOT NULL"),
        sqlite_where=sa.text("counted_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_usage_events_counted_at", "usage_events")
    op.drop_column("usage_events", "reserved")
    op.drop_column("usage_events", "cost_bound")
    op.drop_table("holders")
    op.drop_index("ix_allowances_window_id", "allowances")
    op.drop_table("allowances")
    op.drop_table("budget_windows")
    op.drop_table("budgets")
