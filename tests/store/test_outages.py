"""A PostgreSQL server that is stopped, paused, full of readers or read-only is told from a wrong question."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from random import Random

import pytest
import sqlalchemy as sa

from meter.cli.migrations import bring_up_to_date
from meter.store import keys, ledger, purpose
from meter.store.database import Database, DatabaseUnavailable
from meter.store.tables import teams
from tests import services
from tests.patience import within
from tests.services import Cluster
from tests.store.conftest import NOW, closing_database, make_event, new_event_id

pytestmark = pytest.mark.long

NOTICED_SECONDS_MAX = 10.0
WAIT_SECONDS_MAX = 60.0
RANDOM = Random(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a server of this module's own."""
    with services.cluster() as running:
        with closing_database(running.url) as opened:
            bring_up_to_date(opened)
        yield running


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """Give the database of the server that may fail."""
    with closing_database(cluster.url) as opened:
        yield opened


def with_query(url: str, **query: str) -> str:
    """Add settings of the connection to a URL."""
    return sa.make_url(url).update_query_dict(query).render_as_string(hide_password=False)


def look_up(database: Database) -> None:
    """Do what the data plane does."""
    assert keys.find_grant(database, b"nobody's") is None


def append(database: Database) -> None:
    """Do what the shipper does."""
    assert ledger.append(database, [make_event(new_event_id(RANDOM))], NOW) == 1


def verify(database: Database) -> None:
    """Read for long."""
    assert ledger.verify(database) == []


EVERYTHING = (look_up, append, verify)


@pytest.mark.parametrize("work", EVERYTHING)
def test_a_stopped_server_is_away_and_comes_back(
    cluster: Cluster, database: Database, work: Callable[[Database], None]
) -> None:
    """While the server is stopped everything says so at once, and goes on by itself when it is back."""
    work(database)

    cluster.stop()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            within(NOTICED_SECONDS_MAX / 2, lambda: work(database))
    cluster.start()

    work(database)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("work", EVERYTHING)
def test_a_paused_server_is_away(
    cluster: Cluster, database: Database, work: Callable[[Database], None], connected: bool
) -> None:
    """A server whose ports are open, but which does not answer, keeps nobody waiting for long."""
    if connected:
        work(database)

    cluster.pause()
    try:
        with pytest.raises(DatabaseUnavailable):
            within(NOTICED_SECONDS_MAX, lambda: work(database))
    finally:
        cluster.resume()

    work(database)


def read_and_pause(database: Database, cluster: Cluster) -> None:
    """Pause the server between two statements of a transaction."""
    with database.read() as connection:
        connection.execute(sa.select(sa.literal(1)))
        cluster.pause()
        connection.execute(sa.select(sa.literal(2)))


def test_a_server_that_pauses_within_a_read(cluster: Cluster, database: Database) -> None:
    """A statement that gets no answer is given up, and its connection is not used again."""
    try:
        with pytest.raises(DatabaseUnavailable):
            within(NOTICED_SECONDS_MAX, lambda: read_and_pause(database, cluster))
    finally:
        cluster.resume()

    with database.read() as connection:
        assert connection.scalar(sa.select(sa.literal(3))) == 3


def write_and_stop(database: Database, cluster: Cluster) -> None:
    """Stop the server before a transaction commits."""
    with database.write() as connection:
        connection.execute(sa.insert(teams).values(id="cut", name="cut", created_at=NOW))
        cluster.stop()


def test_a_write_that_is_cut_leaves_nothing(cluster: Cluster, database: Database) -> None:
    """A server that is stopped within a transaction has nothing of it afterwards."""
    with pytest.raises(DatabaseUnavailable):
        write_and_stop(database, cluster)
    cluster.start()

    with database.read() as connection:
        assert connection.scalar(sa.select(teams.c.id).where(teams.c.id == "cut")) is None


def test_a_server_that_only_reads(cluster: Cluster) -> None:
    """A standby, or a server without room, is away for writes: their rows are not to blame."""
    url = with_query(cluster.url, options="-c default_transaction_read_only=on")
    with closing_database(url) as database:
        look_up(database)

        with pytest.raises(DatabaseUnavailable, match="read-only"):
            append(database)


def test_a_server_that_nobody_listens_for() -> None:
    """A wrong port is no different from a server that is away."""
    with closing_database("postgresql://postgres@127.0.0.1:1/postgres") as database:
        for work in EVERYTHING:
            with pytest.raises(DatabaseUnavailable):
                work(database)


def test_hanging_up_ends_what_waits(cluster: Cluster, database: Database) -> None:
    """Whoever waits for a server that does not answer hears of it at once when the process ends."""
    append(database)
    heard: list[BaseException] = []
    works = (partial(append, database), partial(verify, database))
    waiting = [threading.Thread(target=told, args=(work, heard)) for work in works]
    with closing_database(cluster.url) as other, other.write() as blocking:
        blocking.execute(sa.text("LOCK TABLE usage_events, usage_15m IN ACCESS EXCLUSIVE MODE"))
        for thread in waiting:
            thread.start()
        within(WAIT_SECONDS_MAX, lambda: until_waiting(blocking, len(waiting)))

        database.hang_up()

        for thread in waiting:
            within(NOTICED_SECONDS_MAX, thread.join)
    assert [type(fault) for fault in heard] == [DatabaseUnavailable] * len(waiting)
    look_up(database)


def until_waiting(connection: sa.Connection, count: int) -> None:
    """Ask until so many wait for a lock."""
    query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while connection.scalar(query) != count:
        connection.execute(sa.text("SELECT pg_sleep(0.02)"))


def told(work: Callable[[], None], heard: list[BaseException]) -> None:
    """Do some work, and note what it raises."""
    try:
        work()
    except DatabaseUnavailable as fault:
        heard.append(fault)


def hold(database: Database, total: int, until: threading.Event) -> list[threading.Thread]:
    """Ask for long reads, more than there are connections for, which go on until they are told to end."""
    started = threading.Semaphore(0)

    def read() -> None:
        try:
            with database.read_long() as connection:
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                started.release()
                until.wait(WAIT_SECONDS_MAX)
        except DatabaseUnavailable:
            pass

    threads = [threading.Thread(target=read) for _ in range(total)]
    for thread in threads:
        thread.start()
    for _ in range(purpose.READING_LONG.connections_max):
        assert started.acquire(timeout=WAIT_SECONDS_MAX)
    return threads


def test_reports_keep_no_key_waiting(postgres_database: Database) -> None:
    """While a hundred reports want connections, keys are looked up and events appended as ever."""
    until = threading.Event()
    threads = hold(postgres_database, 100, until)

    within(1.0, lambda: look_up(postgres_database))
    within(1.0, lambda: append(postgres_database))
    wanting = sum(thread.is_alive() for thread in threads)
    until.set()
    for thread in threads:
        thread.join(WAIT_SECONDS_MAX)

    assert wanting >= purpose.READING_LONG.connections_max


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_without_a_free_connection_the_database_is_away(request: pytest.FixtureRequest, kind: str) -> None:
    """Who finds all connections taken waits for a short while only."""
    database: Database = request.getfixturevalue(f"{kind}_database")
    with ExitStack() as stack:
        for _ in range(purpose.READING.connections_max):
            stack.enter_context(database.read())

        with pytest.raises(DatabaseUnavailable):
            look_up(database)

    look_up(database)


def test_a_look_up_that_takes_too_long_is_ended(postgres_database: Database) -> None:
    """A statement of the data plane's is ended by the server, and the connection is good for the next one."""
    with (
        pytest.raises(DatabaseUnavailable, match="statement timeout"),
        postgres_database.read() as connection,
    ):
        connection.exec_driver_sql("SELECT pg_sleep(20)")

    look_up(postgres_database)


def test_a_wrong_statement_is_nobodys_outage(database: Database) -> None:
    """A question about a table that is not there is a mistake of ours, and looks like one."""
    with pytest.raises(sa.exc.ProgrammingError), database.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM nowhere")


def test_reads_write_nothing(postgres_database: Database) -> None:
    """What is asked for reading cannot write."""
    with pytest.raises(DatabaseUnavailable, match="read-only"), postgres_database.read() as connection:
        connection.execute(sa.insert(teams).values(id="a", name="a", created_at=NOW))


def test_everything_is_in_utc(postgres_database: Database) -> None:
    """Connections speak of time in UTC, whatever the server's zone is."""
    for opening in (postgres_database.read, postgres_database.read_long, postgres_database.write):
        with opening() as connection:
            assert connection.exec_driver_sql("SHOW timezone").scalar() == "UTC"


def settings_of(url: str) -> dict[str, str]:
    """Return what a connection to read has set."""
    with closing_database(url) as database, database.read() as connection:
        rows = connection.exec_driver_sql("SELECT name, setting FROM pg_settings")
        return {row[0]: row[1] for row in rows}


def test_the_url_has_the_last_word(cluster: Cluster) -> None:
    """What a URL sets for its connections wins over what meter sets."""
    ours = settings_of(cluster.url)
    theirs = settings_of(
        with_query(cluster.url, application_name="ours", options="-c statement_timeout=1234")
    )

    assert (ours["application_name"], ours["statement_timeout"]) == ("meter", "2000")
    assert (theirs["application_name"], theirs["statement_timeout"]) == ("ours", "1234")
    assert (
        theirs["idle_in_transaction_session_timeout"]
        == ours["idle_in_transaction_session_timeout"]
        == "10000"
    )
