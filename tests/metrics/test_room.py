"""Counters on a disk that gets full: nobody dies of it, and nothing that was shown goes back."""

import contextlib
from pathlib import Path

import pytest

from meter.metrics import share
from tests.faults.case import Skip
from tests.faults.damage import fill, small_disk
from tests.metrics.test_instruments import Counting

pytestmark = pytest.mark.long
# Of these, a page of memory holds about thirty.
MODELS = 400


def test_a_full_disk_ends_no_process(tmp_path: Path) -> None:
    """A process whose counters find no room goes on, and what it had counted before is still shown."""
    directory = tmp_path / "disk" / "metrics"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(small_disk(tmp_path / "disk", "2m"))
        except Skip as reason:
            pytest.skip(str(reason))
        share(directory)
        counting = stack.enter_context(contextlib.closing(Counting(directory, "data-0")))
        other = stack.enter_context(contextlib.closing(Counting(directory, "control")))
        counting.do("metrics.observe(make(), TEAM)")

        fill(tmp_path / "disk" / "ballast")
        counting.do(
            f"for number in range({MODELS}): metrics.observe(make(), 'a team of many ' * 20 + str(number))"
        )
        late = stack.enter_context(contextlib.closing(Counting(directory, "data-1")))
        late.do("metrics.observe(make(), TEAM)")

        assert other.total("meter_requests_total") >= 1
        assert counting.process.poll() is None
        assert late.process.poll() is None
