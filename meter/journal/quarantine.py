"""Where goes what cannot be shipped: events that the ledger refuses, and bytes that are no records.

A line of JSON each, in `<root>/quarantine.jsonl`. Nothing here is prompt or completion.
"""

import base64
import os
from pathlib import Path
from typing import Any

import msgspec

from meter.core.events import UsageEvent
from meter.journal.folder import Lost

FILE = "quarantine.jsonl"
_TORN = b'{"reason":"torn"'
# A long stretch of damage is not more useful whole.
RAW_BYTES_MAX = 64 << 10


class Quarantine:
    """Keeps what somebody has to look at."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    def __len__(self) -> int:
        """Count what lies here and is in no ledger; a torn record was never acknowledged to anybody."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return sum(not line.startswith(_TORN) for line in file)

    def keep_event(self, event: UsageEvent, reason: str) -> None:
        """Keep an event that the ledger refused."""
        self._append({"reason": reason[:1000], "event": event})

    def keep_lost(self, holder: str, lost: Lost) -> None:
        """Keep bytes of a segment that could not be read."""
        self._append(
            {
                "reason": "torn" if lost.damage.torn else "damaged",
                "holder": holder,
                "segment": lost.segment,
                "start": lost.damage.start,
                "end": lost.damage.end,
                "raw": base64.b64encode(lost.raw[:RAW_BYTES_MAX]).decode(),
            }
        )

    def _append(self, line: dict[str, Any]) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
