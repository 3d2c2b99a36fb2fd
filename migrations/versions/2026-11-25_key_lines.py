"""Remember the first key of each line, whose budgets are those of all keys that took over from it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Which key began each line: a key without a predecessor began its own.
_LINES = """
WITH RECURSIVE lines (id, first_id) AS (
    SELECT id, id FROM api_keys WHERE rotated_from IS NULL
    UNION ALL
    SELECT api_keys.id, lines.first_id FROM api_keys JOIN lines ON api_keys.rotated_from = lines.id
)
UPDATE api_keys SET first_id = (SELECT lines.first_id FROM lines WHERE lines.id = api_keys.id)
WHERE rotated_from IS NOT NULL
"""
# Until now a successor had copies of its own. The newest key's budgets are what somebody wanted last.
_OLDER_COPIES = """
DELETE FROM budgets WHERE owner_kind = 'key' AND EXISTS (
    SELECT 1 FROM budgets AS later
    JOIN api_keys AS newer ON newer.id = later.owner_id
    JOIN api_keys AS older ON older.id = budgets.owner_id
    WHERE later.owner_kind = 'key' AND later.measure = budgets.measure
    AND later.period = budgets.period AND later.model = budgets.model
    AND coalesce(newer.first_id, newer.id) = coalesce(older.first_id, older.id)
    AND (newer.created_at, newer.id) > (older.created_at, older.id)
)
"""
_SUCCESSORS_BUDGETS = """
owner_kind = 'key' AND owner_id IN (SELECT id FROM api_keys WHERE first_id IS NOT NULL)
"""
# They are made anew, and then begin with what all keys of the line have spent.
_THEIR_WINDOWS = f"""
DELETE FROM budget_windows WHERE budget_id IN (SELECT id FROM budgets WHERE {_SUCCESSORS_BUDGETS})
"""  # noqa: S608 (a condition of ours)
_TO_THE_FIRST = f"""
UPDATE budgets SET owner_id = (SELECT first_id FROM api_keys WHERE api_keys.id = budgets.owner_id)
WHERE {_SUCCESSORS_BUDGETS}
"""  # noqa: S608 (a condition of ours)


def upgrade() -> None:
    """Widen the table, and leave each line the budgets of its first key."""
    op.add_column("api_keys", sa.Column("first_id", sa.String(32)))
    op.create_index("ix_api_keys_first_id", "api_keys", ["first_id"])
    for statement in (_LINES, _OLDER_COPIES, _THEIR_WINDOWS, _TO_THE_FIRST):
        op.execute(statement)


def downgrade() -> None:
    """Narrow it again."""
    op.drop_index("ix_api_keys_first_id", "api_keys")
    op.drop_column("api_keys", "first_id")
