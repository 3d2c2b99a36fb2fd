"""Two versions side by side: the one before the last migration goes on while the tables change.

Its code comes out of the repository's history, where there is one.
"""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from meter.store import revision
from meter.store.database import Database
from meter.store.tables import usage_events
from tests import server, services
from tests.deploy.load import USAGE, answer, under_load
from tests.fake_upstream import FakeUpstream
from tests.server import Meter

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent
PEPPER = "p" * 32


def git(*arguments: str) -> bytes:
    """Ask git about this repository; skips where it knows too little."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("there is no history of this repository to take an earlier version from")
    return done.stdout


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """Give the code of the version before the last migration."""
    # Only of what is committed: a migration that is being written is tested against the last commit.
    written = git("status", "--porcelain", "--", "migrations/versions").decode().strip()
    last = git("log", "-1", "--format=%H", "--diff-filter=A", "--", "migrations/versions").decode().strip()
    archive = git("archive", "HEAD" if written else f"{last}~1", "meter", "migrations")
    folder = tmp_path / "before"
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture
def database_url() -> Iterator[str]:
    """Give an empty database on PostgreSQL."""
    with services.fresh_database() as url:
        yield url


def start(
    tmp_path: Path, name: str, database_url: str, upstream: FakeUpstream, code: Path | None = None
) -> Meter:
    """Start a server of this version, or of that of some code."""
    settings = {"database_url": database_url, "pepper": PEPPER, "upstream_url": upstream.url}
    environment = server.environment(tmp_path / name, **settings)
    if code is not None:
        environment["PYTHONPATH"] = str(code)
    return Meter(tmp_path / name, environment, [])


def test_an_old_server_works_while_its_tables_change(
    tmp_path: Path, before: Path, database_url: str, upstream: FakeUpstream
) -> None:
    """It answers before, during and after the migration, beside a new server; everything adds up."""
    upstream.answer(answer)
    database = Database(database_url)
    old = start(tmp_path, "old", database_url, upstream, before)
    version = revision.current(database)
    with under_load(old.url, old.first_key, clients=3) as load:
        load.wait_for_more(20)
        new = start(tmp_path, "new", database_url, upstream)
        load.wait_for_more(20)
        with under_load(new.url, old.first_key, clients=3) as other:
            other.wait_for_more(20)
            load.wait_for_more(20)
    assert [old.stop(), load.failed, other.failed] == [0, [], []], old.log.read_text()

    assert version != revision.HEAD == revision.current(database)
    count = load.answered + other.answered
    expected = (count, count * USAGE["total_tokens"])
    server.until(lambda: sums(database) == expected, "all events")
    verified = new.run("verify")
    assert (verified.returncode, verified.stdout) == (0, "ok\n")
    assert new.stop() == 0, new.log.read_text()
    database.dispose()


def sums(database: Database) -> tuple[int, int]:
    """Return how many events there are, and their tokens."""
    tokens = sa.func.sum(usage_events.c.prompt_tokens + usage_events.c.completion_tokens)
    with database.read() as connection:
        count, total = connection.execute(sa.select(sa.func.count(), tokens)).one()
    return count, int(total or 0)
