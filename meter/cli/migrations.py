"""Alembic's migrations: where they lie, and how a database is brought up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from meter.store import revision
from meter.store.database import Database

# What a statement of a migration may take on PostgreSQL; a server that starts does not wait longer.
STATEMENT_SECONDS = 300.0

_PACKAGE = Path(__file__).parent.parent


def script_location() -> Path:
    """Return where the migrations lie: inside an installed package, beside it in a checkout."""
    installed = _PACKAGE / "migrations"
    return installed if installed.exists() else _PACKAGE.parent / "migrations"


def configuration() -> Config:
    """Return Alembic's configuration, which needs no file."""
    config = Config()
    config.set_main_option("script_location", str(script_location()))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(year)d-%%(month).2d-%%(day).2d_%%(slug)s")
    return config


def bring_up_to_date(database: Database, statement_seconds: float = STATEMENT_SECONDS) -> None:
    """Run the migrations that the database has not seen, all of them or none."""
    if revision.current(database) == revision.HEAD:
        return
    config = configuration()
    with database.write_long(statement_seconds) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_known(version: str | None) -> bool:
    """Say whether this meter has a migration to a version; an empty database is at none."""
    scripts = ScriptDirectory.from_config(configuration())
    return version is None or version in {script.revision for script in scripts.walk_revisions()}
