"""How Alembic runs: on the connection that meter hands it, inside meter's own write transaction."""

from alembic import context

from meter.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column in place; batch mode copies the table.
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
