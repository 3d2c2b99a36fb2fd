"""A key that is known before the first row of a table is sent, so that no row waits for a look-up."""

import pytest

from tests import wire
from tests.server import Meter, until


@pytest.fixture(scope="session")
def holder(meter: Meter) -> str:
    """Make a key for all rows, and wait until the gate knows it."""
    key = meter.new_key(name="holder")
    asked = wire.request("GET", "/v1/meter/key", key=key)
    until(lambda: wire.exchange(meter.url, asked).status == 200, "the key to be known")
    return key
