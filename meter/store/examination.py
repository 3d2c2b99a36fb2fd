"""What can be seen of a database from outside, without changing anything in it."""

import sqlite3

from meter.core import doctor
from meter.core.doctor import Check
from meter.store.database import Database


def reach(database: Database) -> Check:
    """Ask the database for its version; raises `DatabaseUnavailable` where it gives no answer."""
    if database.is_sqlite:
        with database.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        return doctor.sqlite(tuple(map(int, sqlite3.sqlite_version.split("."))))
    query = (
        "SELECT current_setting('server_version'), pg_is_in_recovery(), "
        "(SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only')"
    )
    with database.read() as connection:
        version, standby, read_only = connection.exec_driver_sql(query).one()
    return doctor.postgres(version.split(" ")[0], read_only=standby or read_only == "on")
