"""Let keys and teams have limits: models, requests and tokens a minute, requests at once."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("rpm", sa.BigInteger()),
        sa.Column("tpm", sa.BigInteger()),
        sa.Column("concurrency", sa.BigInteger()),
    )


def upgrade() -> None:
    for table in ("api_keys", "teams"):
        for column in _columns():
            op.add_column(table, column)


def downgrade() -> None:
    for table in ("teams", "api_keys"):
        for column in reversed(_columns()):
            op.drop_column(table, column.name)
