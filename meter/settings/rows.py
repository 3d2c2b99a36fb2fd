"""What a setting is: a row of the table that the configuration is read by."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One row of the configuration."""

    name: str
    read: Callable[[str], Any]
    default: str
    """As it would be written in the environment; empty is unset."""
    help: str
    quotable: bool = True
    """Whether a fault may repeat the value, which could hold a password."""
