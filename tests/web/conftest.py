"""A control plane without sockets: the real application over a real database, asked as anybody."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from meter.app import actions
from meter.app.control import Credentials, Desk
from meter.app.control import control as build_control
from meter.cli.migrations import bring_up_to_date
from meter.core.access import Role
from meter.core.keys import Key
from meter.core.tokens import Terms
from meter.settings import load
from meter.store.database import Database
from tests.databases import new_sqlite

PEPPER = b"a pepper that is kept outside the database"
OWNER_TOKEN = "the token of the data directory, long enough"
METRICS_TOKEN = "the token of the settings for metrics alone"
BASE_URL = "http://127.0.0.1:8081"


class Office:
    """The application, its database, and what it takes to ask as anybody."""

    def __init__(self, app: Litestar, database: Database) -> None:
        self.app = app
        self.database = database

    @contextmanager
    def asking(self, token: str | None) -> Iterator[TestClient[Litestar]]:
        """Give a client that presents a token."""
        with TestClient(self.app, base_url=BASE_URL) as client:
            if token is not None:
                client.headers["authorization"] = f"Bearer {token}"
            yield client

    def token(self, role: Role, team: str | None = None) -> str:
        """Make a token."""
        return actions.issue_token(self.database, PEPPER, "test", Terms(role, team))[1]

    def key(self, team: str, name: str | None = None) -> Key:
        """Make a key."""
        return actions.issue_key(self.database, PEPPER, "test", team, name, None)[0]


@contextmanager
def open_office(folder: Path, url: str | None = None) -> Iterator[Office]:
    """Open a control plane over an empty database: SQLite in a folder, unless another one is named."""
    database = Database(url or new_sqlite(folder / "meter.db"))
    bring_up_to_date(database)
    with ThreadPoolExecutor(2) as look_ups:
        desk = Desk(
            settings=load({"METER_DATA_DIR": str(folder), "METER_AUTH_FAILURES_RPM": "0"}, None),
            database=database,
            credentials=Credentials(pepper=PEPPER, admin_token=OWNER_TOKEN, metrics_token=METRICS_TOKEN),
            look_ups=look_ups,
            render_metrics=lambda: b"# metrics\n",
            metrics_content_type="text/plain; version=0.0.4; charset=utf-8",
        )
        yield Office(build_control(desk), database)
    database.dispose()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Give a control plane of one's own, with the teams `search` and `other`."""
    with open_office(tmp_path) as opened:
        for team in ("search", "other"):
            actions.register_team(opened.database, "test", team)
        yield opened
