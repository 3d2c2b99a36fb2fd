"""psycopg's errors, for those who tell errors apart where it may not even be loaded, as with SQLite.

Before it is loaded nobody can raise them, and an error is the wrong moment for loading 10 MB.
"""

import sys


class NeverRaised(Exception):
    """What stands for an error of psycopg's as long as that is not loaded."""


def __getattr__(name: str) -> type[Exception]:
    driver = sys.modules.get("psycopg")
    return NeverRaised if driver is None else getattr(driver, name)
