"""The experiments with faults, a few runs of each; `make faults` does all of them, with many runs."""

import pytest

from tests.faults.case import Experiment
from tests.faults.experiments import EXPERIMENTS, experiment, runs_of
from tests.faults.site import POSTGRESQL, SQLITE

# These are run by `make test`, the others by `make test-long`.
ALWAYS = {("F01", SQLITE), ("F03", SQLITE)}
SHORT = [
    pytest.param(
        each,
        database,
        id=f"{each.name}-{database}",
        marks=() if (each.name, database) in ALWAYS else pytest.mark.long,
    )
    for each in EXPERIMENTS
    for database in each.short_databases
    if each.short_runs and database in each.databases
]
# The postmaster's and the upstream's connections may be noticed broken wherever the process then is.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(("found", "database"), SHORT)
def test_an_experiment_finds_no_violation(found: Experiment, database: str) -> None:
    """Whatever is done to meter, truth, clients, ledger and metrics agree afterwards."""
    name = found.name.split("/")[0]
    row = experiment(name, runs_of(found, database, full=False), database, full=False)
    if row.skipped:
        pytest.skip(row.skipped)
    assert not row.violations, "\n".join(row.violations)


def test_every_experiment_has_its_own_name() -> None:
    """A row of the table says which experiment it is of."""
    names = [name for each in EXPERIMENTS for name in each.name.split("/")]
    assert len(set(names)) == len(names)
    assert {SQLITE, POSTGRESQL} >= {database for each in EXPERIMENTS for database in each.databases}
