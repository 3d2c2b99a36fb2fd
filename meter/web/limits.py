"""Limits over HTTP: the members by which keys and teams are changed."""

from typing import Any

import msgspec


class LimitsChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What to change of the limits; what is not given stays, and null is as the settings say."""

    models: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    """Exact names, and provider/* for all of one; null is every model."""
    rpm: int | msgspec.UnsetType | None = msgspec.UNSET
    """Requests a minute; 0 is no limit."""
    tpm: int | msgspec.UnsetType | None = msgspec.UNSET
    """Tokens a minute; 0 is no limit."""
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET
    """Requests under way at once, in each process; 0 is no limit."""

    @property
    def given(self) -> dict[str, Any]:
        """The members that were given, also those that are null."""
        values = msgspec.structs.asdict(self)
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}
