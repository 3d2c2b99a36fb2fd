"""The ledger's figures go on being shown while the database is away, with their age."""

import asyncio
from datetime import UTC, datetime

import pytest

from meter.app import figures as module
from meter.app.actions import register_team
from meter.app.figures import Figures
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.metrics import LedgerFigures
from meter.store import ledger
from meter.store.database import Database
from tests.server import WAIT_SECONDS_MAX

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def shown(figures: LedgerFigures) -> dict[str, float]:
    """Return the values of the gauges, by name, added up."""
    return {family.name: sum(sample.value for sample in family.samples) for family in figures.collect()}


def test_figures_outlast_the_database(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is away its last figures stay, and it is said to be away until it is back."""
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.01)
    path = sqlite_database.path
    assert path is not None
    team = register_team(sqlite_database, "test", "search")
    event = UsageEvent(
        event_id="019ab1c2-0000-7000-8000-000000000000",
        started_at=NOW,
        team_id=team.id,
        key_id="key",
        route="chat.completions",
        upstream="upstream",
        model_requested="m",
        stream=False,
        outcome=Outcome.OK,
        usage_source=UsageSource.REPORTED,
        prompt_tokens=7,
    )
    ledger.append(sqlite_database, [event], NOW)
    seconds = [0.0]
    gauges = LedgerFigures(lambda: seconds[0])
    figures = Figures(sqlite_database, gauges, lambda: NOW)

    async def live() -> None:
        async def until(away: bool, requests: float) -> None:
            seen = away, requests
            while (figures.database_away, shown(gauges)["meter_ledger_requests"]) != seen:  # noqa: ASYNC110 (another thread sets it)
                await asyncio.sleep(0.001)

        task = asyncio.create_task(figures.keep_fresh())
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            await until(away=False, requests=1)
            sqlite_database.dispose()
            path.rename(path.with_name("elsewhere"))
            path.mkdir()
            await until(away=True, requests=1)
            seconds[0] = 30.0
            assert shown(gauges)["meter_ledger_age_seconds"] == 30
            path.rmdir()
            path.with_name("elsewhere").rename(path)
            sqlite_database.dispose()
            await until(away=False, requests=1)
            assert shown(gauges)["meter_ledger_tokens"] == 7
        task.cancel()

    asyncio.run(live())
