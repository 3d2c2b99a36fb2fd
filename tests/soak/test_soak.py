"""Soaks, idle streams and slow clients, for some seconds each; `make soak` and its like take their time."""

import pytest
import sqlalchemy as sa

from meter.store.tables import usage_events
from tests.faults.site import POSTGRESQL, SQLITE
from tests.soak import idle, slow
from tests.soak.faults import FAULTS, Fault
from tests.soak.ground import Ground
from tests.soak.samples import Life, Sample, flatness
from tests.soak.soak import Course, run

# The upstream's and the server's connections may be noticed broken wherever the process then is.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MIB = 1 << 20
SOME = {SQLITE: ("kill -9", "50 clients leave"), POSTGRESQL: ("50 scrapers", "database stops")}


def life(rss: list[int], descriptors: list[int]) -> Life:
    """Make up a process that was looked at every second."""
    samples = enumerate(zip(rss, descriptors, strict=True))
    return Life("made-up", 1, [Sample(float(at), *each) for at, each in samples])


def test_growth_is_noticed() -> None:
    """What goes on growing is named, by its memory and by its open files; what goes up and down is not."""
    steady = flatness(life([100 * MIB, 110 * MIB] * 40, [20, 30] * 40))
    leaking = flatness(life([(100 + at) * MIB for at in range(80)], [20] * 80))
    opening = flatness(life([100 * MIB] * 80, [20 + at for at in range(80)]))

    assert steady is not None
    assert leaking is not None
    assert opening is not None
    assert steady.violations == []
    assert leaking.violations == ["I7: made-up (1) grew from 109.5 to 169.5 MiB"]
    assert opening.violations == ["I7: made-up (1) had 30 open files, and 90 at the end"]
    assert flatness(life([MIB] * 7, [1] * 7)) is None


@pytest.mark.long
@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_a_short_soak_finds_no_violation(database: str) -> None:
    """Under load, whatever is done to meter, all invariants hold at the end."""
    faults = tuple(fault for fault in FAULTS if fault.name in SOME[database])
    course = Course(database=database, seconds=14, every_seconds=3, seed=1, faults=faults)
    said: list[str] = []

    told = run(course, said.append)

    assert not told.violations, "\n".join([*said, *told.violations])
    assert set(told.done) == set(SOME[database])
    assert told.requests


@pytest.mark.long
def test_a_soak_finds_what_is_lost() -> None:
    """An event that leaves the ledger under load is missed, by its request and by the sums."""

    async def lose(ground: Ground) -> list[str]:
        with ground.site.database.write() as connection:
            one = sa.select(sa.func.max(usage_events.c.event_id)).scalar_subquery()
            connection.execute(sa.delete(usage_events).where(usage_events.c.event_id == one))
        return []

    told = run(
        Course(database=SQLITE, seconds=6, every_seconds=2.5, faults=(Fault("lose", lose),)), lambda _: None
    )

    assert {violation.split(":")[0] for violation in told.violations} >= {"I1", "I2/P7"}


@pytest.mark.long
def test_idle_streams_cost_little_and_are_settled() -> None:
    """Some hundred idle streams take little memory, delay nobody, and are all settled by SIGTERM."""
    said: list[str] = []

    violations = idle.run(300, said.append, hurry=10)

    assert not violations, "\n".join(said)


@pytest.mark.long
def test_slow_clients_delay_nobody() -> None:
    """Some hundred clients that send or read slowly block no normal request, and are let go of.

    Beside other tests a machine pauses for a second now and then; `make slow-clients` has the real bound.
    """
    said: list[str] = []
    try:
        violations = slow.run(200, 8, said.append, ms_max=5000)
    except slow.Skip as reason:
        pytest.skip(str(reason))

    assert not violations, "\n".join(said)
