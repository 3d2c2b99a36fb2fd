"""A team: who the keys belong to."""

from datetime import datetime

import msgspec

from meter.core.limits import Limits

NAME_LENGTH_MAX = 128


class Team(msgspec.Struct, frozen=True):
    """A team, as it is shown."""

    id: str
    name: str
    created_at: datetime
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    @property
    def limits(self) -> Limits:
        """Its own limits."""
        return Limits(models=self.models, rpm=self.rpm, tpm=self.tpm, concurrency=self.concurrency)


def check_name(name: str) -> str:
    """Return a name of a team or a key without blanks around it, or raise `ValueError`."""
    stripped = name.strip()
    if not stripped or len(stripped) > NAME_LENGTH_MAX or not stripped.isprintable():
        raise ValueError(f"a name has 1 to {NAME_LENGTH_MAX} printable characters")
    return stripped
