"""Make teams, keys, the ledger, its rollup, and what is known of the installation."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_installation"),
    )
    op.create_table(
        "teams",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "usage_15m",
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("errors", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("upstream_cost", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated_requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("estimated_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("invalid_requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("invalid_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unpriced_requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unpriced_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("bucket", "team_id", "key_id", "upstream", "model", name="pk_usage_15m"),
    )
    op.create_table(
        "usage_events",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("route", sa.String(length=64), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("upstream_id", sa.String(length=256)),
        sa.Column("model_requested", sa.String(length=256), nullable=False),
        sa.Column("model_served", sa.String(length=256)),
        sa.Column("service_tier", sa.String(length=256)),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("finish_reasons", sa.JSON(), nullable=False),
        sa.Column("usage_source", sa.String(length=16), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usage_raw", sa.Text()),
        sa.Column("anomalies", sa.JSON(), nullable=False),
        sa.Column("cost", sa.BigInteger()),
        sa.Column("upstream_cost", sa.BigInteger()),
        sa.Column("upstream_cost_source", sa.String(length=64)),
        sa.Column("ttfb_ms", sa.Integer()),
        sa.Column("duration_ms", sa.Integer()),
        sa.Column("end_user", sa.String(length=256)),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "started_at", name="pk_usage_events"),
        postgresql_partition_by="RANGE (started_at)",
    )
    if op.get_bind().dialect.name == "postgresql":
        # For months that nobody made a partition for in time; the server makes the others ahead.
        op.execute("CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT")
    op.create_index("ix_usage_events_key_id_started_at", "usage_events", ["key_id", "started_at"])
    op.create_index("ix_usage_events_started_at", "usage_events", ["started_at"])

    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("team_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("stream_usage", sa.String(length=16)),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_api_keys_team_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_team_id", "api_keys", ["team_id"])


def downgrade() -> None:
    op.drop_index("ix_api_keys_team_id", "api_keys")

    op.drop_table("api_keys")
    op.drop_index("ix_usage_events_started_at", "usage_events")
    op.drop_index("ix_usage_events_key_id_started_at", "usage_events")

    op.drop_table("usage_events")
    op.drop_table("usage_15m")
    op.drop_table("teams")
    op.drop_table("installation")
