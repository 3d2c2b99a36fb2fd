"""Large modules that a server seldom needs: each is loaded when something of it is asked for.

What depends on what stays to be seen, for readers as for the checker of types, since the import stands where
imports stand; only what runs is another:

    if TYPE_CHECKING:
        from meter.store import postgresql
    else:
        postgresql = Late("meter.store.postgresql")
"""

from importlib import import_module
from typing import Any


class Late:
    """A module that is loaded when it is asked for the first of its names, and after that is there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Python's own lock lets threads that ask at once wait for the one that loads.
        return getattr(import_module(self._name), attribute)
