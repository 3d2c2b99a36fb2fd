"""The first prices get into the book once, and their lack keeps nobody from serving."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meter.app.seeding import PackageUnreadable, seed
from meter.core.prices import BEGINNING, Price, Rates
from meter.settings import Settings, load
from meter.store import prices
from meter.store.database import Database
from tests import server

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SERVERS = 4
LISTED = [
    Price(
        id=0,
        catalog="openai",
        model=f"model-{number}",
        effective_from=BEGINNING,
        rates=Rates(prompt=number),
        source="genai-prices 0.2.3",
        created_at=NOW,
    )
    for number in range(50)
]


def settings(tmp_path: Path, **environment: str) -> Settings:
    """Read a configuration."""
    return load({"METER_DATA_DIR": str(tmp_path)} | environment)


def read(_now: datetime) -> list[Price]:
    """Read a small package."""
    return LISTED


def broken(_now: datetime) -> list[Price]:
    """Read a package that is broken."""
    raise PackageUnreadable("No module named 'genai_prices'")


def test_once(database: Database, tmp_path: Path) -> None:
    """A second start finds the prices there and adds none, also of a newer package."""
    for _ in range(2):
        seed(settings(tmp_path), database, NOW, read)

    assert len(prices.load(database)) == len(LISTED)


def test_own_prices_do_not_count(database: Database, tmp_path: Path) -> None:
    """Prices that somebody has set do not keep the package's out."""
    own = Price(
        id=0,
        catalog="",
        model="m",
        effective_from=NOW,
        rates=Rates(prompt=1),
        source="genai-prices 1.csv",
        created_at=NOW,
    )
    prices.add(database, [own])

    seed(settings(tmp_path), database, NOW, read)

    assert len(prices.load(database)) == len(LISTED) + 1


def test_at_once(url: str, tmp_path: Path) -> None:
    """Of several servers that start on one empty book at once, one puts the prices in."""
    opened = [Database(url) for _ in range(SERVERS)]
    with ThreadPoolExecutor(SERVERS) as pool:
        for future in [pool.submit(seed, settings(tmp_path), each, NOW, read) for each in opened]:
            future.result()

    assert len(prices.load(opened[0])) == len(LISTED)
    for each in opened:
        each.dispose()


def test_none(database: Database, tmp_path: Path) -> None:
    """Where the settings say so, the book stays empty."""
    seed(settings(tmp_path, METER_PRICES_SEED="none"), database, NOW, read)

    assert prices.load(database) == []


def test_a_broken_package(database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A package that cannot be read is a warning, and the book stays as it is."""
    with caplog.at_level(logging.WARNING):
        seed(settings(tmp_path), database, NOW, broken)

    assert prices.load(database) == []
    assert "No module named 'genai_prices'" in caplog.text


def test_upgrading_the_database_seeds_it(tmp_path: Path) -> None:
    """`meter db upgrade` takes the real package's prices over, once."""
    data_dir = tmp_path / "data"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "meter", "db", "upgrade"],
            env=server.environment(data_dir, prices_seed="genai-prices"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    opened = Database(f"sqlite:///{data_dir / 'meter.db'}")
    found = prices.load(opened)
    opened.dispose()

    assert len(found) > 2_000
    assert len(
        {(each.catalog, each.model, each.service_tier, each.effective_from, each.hours) for each in found}
    ) == len(found)
