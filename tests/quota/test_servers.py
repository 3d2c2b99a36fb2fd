"""Budgets of a real server, a few experiments; `make quota` does all of them, on both databases."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.site import SQLITE
from tests.quota.servers import Row, Setting, bursts, kills, oversized

pytestmark = pytest.mark.long

ALONE = Setting(database=SQLITE)


@pytest.mark.parametrize(
    "run",
    [lambda: bursts(ALONE, 60), lambda: oversized(ALONE), lambda: kills(ALONE, 1)],
    ids=["bursts", "oversized", "kill"],
)
def test_budgets_are_exact(run: Callable[[], Iterator[Row]]) -> None:
    """Exactly what fits is admitted, too large a request never gets out, and a crash leaves nothing over."""
    rows = list(run())

    assert rows
    faults = [fault for row in rows for fault in row.faults]
    assert not faults, "\n".join(faults)
