"""Which models have series of their own: the first so many that have answered, whichever process met them.

Clients choose names, and some upstreams answer to any. So names are few, also all together, and the same for
all processes that count together: each writes what it meets to the end of one file, and the order there
decides. Nobody waits for a lock, and a process that replaces another finds the names that are taken.
"""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

MODELS_NAMED_MAX = 200
# Names are part of every line on the page, so that long ones count more.
CHARACTERS_MAX = 8_000
OTHER = "other"

_FILE = "models"

log = logging.getLogger(__name__)


class Names:
    """The names that have been taken; `directory` is where processes that count together keep them."""

    def __init__(self, directory: Path | None = None) -> None:
        self._path = None if directory is None else directory / _FILE
        self._taken: set[str] = set()
        self._characters = 0
        self._full = False

    def known(self, name: str) -> bool:
        """Say whether a name has been taken, as far as this process knows."""
        return name in self._taken

    def take(self, name: str) -> bool:
        """Take a name if there is room for it; says whether it is taken now."""
        if self._full or name in self._taken:
            return name in self._taken
        if self._path is None:
            self._add(name)
        else:
            self._add_shared(self._path, name)
        return name in self._taken

    def _add(self, name: str) -> None:
        """Take a name in its turn. What comes after the first that found no room finds none either."""
        if self._full or name in self._taken:
            return
        characters = self._characters + len(name)
        if len(self._taken) >= MODELS_NAMED_MAX or characters > CHARACTERS_MAX:
            self._full = True
            return
        self._taken.add(name)
        self._characters = characters

    def _add_shared(self, path: Path, name: str) -> None:
        try:
            with path.open("ab", buffering=0) as file:
                # One write at the end of a file is whole, whoever else writes there.
                file.write(msgspec.json.encode(name) + b"\n")
            lines = path.read_bytes().splitlines()
        except OSError as fault:
            log.warning("the names of models cannot be shared: %s", fault)
            return
        for line in lines:
            # A full disk may have cut one, and whatever was written behind it.
            with suppress(msgspec.DecodeError):
                self._add(msgspec.json.decode(line, type=str))
