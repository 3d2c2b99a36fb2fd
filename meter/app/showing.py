"""What a process shows of itself on the page of metrics, beside what it counts."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from meter.app.figures import Figures
from meter.core.events import UsageEvent
from meter.journal.holding import Holding
from meter.metrics import Metrics
from meter.proxy.gate import Gate
from meter.proxy.pump import Pumps
from meter.store import teams
from meter.store.database import Database

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = 4096


class Parts(NamedTuple):
    """What there is to look at."""

    pumps: Pumps
    holding: Holding
    gate: Gate
    figures: Figures


def show(metrics: Metrics, parts: Parts) -> None:
    """Show the numbers of the moment."""
    holding, shipper = parts.holding, parts.holding.shipper
    metrics.gauge("meter_processes", "Processes that run.", lambda: 1)
    metrics.gauge("meter_resident_memory_bytes", "Memory of all processes.", _resident_bytes)
    metrics.gauge("meter_inflight_requests", "Upstream attempts under way.", lambda: len(parts.pumps))
    metrics.gauge("meter_journal_records", "Events on their way to the ledger.", lambda: holding.waiting)
    metrics.gauge(
        "meter_journal_oldest_seconds",
        "How long ago everything was in the ledger.",
        lambda: shipper.lag_seconds if holding.waiting else 0.0,
        across="max",
    )
    metrics.gauge(
        "meter_journal_fill_ratio",
        "How much of its room the fullest journal takes.",
        lambda: holding.journal.fullness,
        across="max",
    )
    metrics.gauge("meter_quarantined_records", "What could not be shipped.", lambda: len(holding.quarantine))
    metrics.gauge(
        "meter_database_away",
        "1 while a process gets no answer from the database.",
        lambda: parts.gate.database_away or parts.figures.database_away,
        across="max",
    )


def count_adopted(
    database: Database, metrics: Metrics, loop: asyncio.AbstractEventLoop
) -> Callable[[Sequence[UsageEvent]], None]:
    """Make what counts the attempts that this process settled for one that had died; for any thread."""

    def count(events: Sequence[UsageEvent]) -> None:
        names = {team.id: team.name for team in teams.list_all(database)} if events else {}
        for event in events:
            loop.call_soon_threadsafe(metrics.observe, event, names.get(event.team_id, event.team_id))

    return count


def _resident_bytes() -> float:
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except FileNotFoundError:
        return float("nan")  # Only Linux says it there.
