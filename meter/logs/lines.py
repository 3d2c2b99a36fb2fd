"""Records of the log as lines: one record is one line, whatever its values are, and none tells a secret.

Values come from clients, upstreams and databases. Control characters are escaped, so that no value makes a
line of its own or moves a terminal's cursor; values are cut; and what looks like a credential is left out, as
is every secret of the configuration, whatever it looks like.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from meter.core.cells import printable

FIELD_CHARACTERS_MAX = 256
MESSAGE_CHARACTERS_MAX = 2_000
EXCEPTION_CHARACTERS_MAX = 8_000
# Shorter ones would blot out ordinary words.
SECRET_CHARACTERS_MIN = 8
REDACTED = "[redacted]"

_CREDENTIALS = (
    r"(?i:\bbearer\s+)[^\s\"',]+",
    r"\b(?:sk|mtr|mta|pk|rk)[-_][A-Za-z0-9_\-]{8,}",
    # The password of a URL; its user may stay.
    r"(?<=:)(?!//)[^:@/\s]+(?=@)",
)


class Redaction:
    """Takes credentials out of texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SECRET_CHARACTERS_MIN}
        # The longest first, as one may be the beginning of another.
        exact = [re.escape(secret) for secret in sorted(known, key=len, reverse=True)]
        self._pattern = re.compile("|".join([*exact, *_CREDENTIALS]))

    def __call__(self, text: str) -> str:
        """Return the text without credentials."""
        return self._pattern.sub(REDACTED, text)


class _Formatter(logging.Formatter):
    def __init__(self, process: str, redaction: Redaction) -> None:
        super().__init__()
        self._process = process
        self._redaction = redaction

    def message(self, record: logging.LogRecord) -> str:
        """Return what a record says."""
        return self._clean(record.getMessage(), MESSAGE_CHARACTERS_MAX)

    def exception(self, record: logging.LogRecord) -> str | None:
        """Return the traceback that came with a record: its end, which says what happened."""
        if not record.exc_info:
            return None
        text = self._redaction(self.formatException(record.exc_info))
        return text if len(text) <= EXCEPTION_CHARACTERS_MAX else f"...{text[-EXCEPTION_CHARACTERS_MAX:]}"

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the values that came with a record."""
        given: Mapping[str, Any] = getattr(record, "fields", {})
        return {
            name: self._clean(value, FIELD_CHARACTERS_MAX) if isinstance(value, str) else value
            for name, value in given.items()
        }

    def _clean(self, text: str, characters_max: int) -> str:
        # Cut first with some room, so that no long text is searched; a credential is never cut in two.
        cleaned = self._redaction(text[: 4 * characters_max])
        return cleaned if len(cleaned) <= characters_max else f"{cleaned[:characters_max]}..."


class JsonLines(_Formatter):
    """A record as a JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record down."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process or None,
            "message": self.message(record),
            "exception": self.exception(record),
            **self.fields(record),
        }
        present = {name: value for name, value in document.items() if value is not None}
        # The one control character that JSON leaves as it is.
        return json.dumps(present, default=str).replace("\x7f", "\\u007f")


class TextLines(_Formatter):
    """A record for people; only a traceback takes more than its line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record down."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(sep=" ", timespec="milliseconds")
        origin = f"{self._process} {record.name}" if self._process else record.name
        given = self.fields(record).items()
        fields = "".join(f" {name}={value}" for name, value in given if value is not None)
        head = f"{at[:23]}Z {record.levelname} {origin}: {self.message(record)}{fields}"
        traceback = (self.exception(record) or "").splitlines()
        return "\n".join(map(printable, [head, *traceback]))
