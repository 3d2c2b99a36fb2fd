"""A key that is known before the first row of a table is sent, and a meter whose limits are small."""

from collections.abc import Iterator

import pytest

from tests import server, wire
from tests.fake_upstream import FakeUpstream
from tests.server import Meter, until

CONNECTIONS_MAX = 8
HEADER_BYTES_MAX = 8192
REQUESTS_MAX = 3
HELD_BYTES_MAX = 5_000_000
ADMIN_BODY_BYTES_MAX = 20_000
STREAM_SECONDS_MAX = 4
RESPONSE_BYTES_MAX = 30_000_000
RESPONSE_HEADER_BYTES_MAX = 20_000


@pytest.fixture(scope="session")
def holder(meter: Meter) -> str:
    """Make a key for all rows, and wait until the gate knows it."""
    key = meter.new_key(name="holder")
    asked = wire.request("GET", "/v1/meter/key", key=key)
    until(lambda: wire.exchange(meter.url, asked).status == 200, "the key to be known")
    return key


@pytest.fixture(scope="session")
def bounded(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run a meter that allows little, and waits for nobody for long."""
    data_dir = tmp_path_factory.mktemp("bounded") / "data"
    with server.running(
        data_dir,
        upstream_url=upstream_server.url,
        connections_max=CONNECTIONS_MAX,
        admin_connections_max=CONNECTIONS_MAX,
        header_bytes_max=HEADER_BYTES_MAX,
        client_headers_timeout_seconds=1,
        client_body_idle_seconds=2,
        client_body_timeout_seconds=4,
        client_stall_timeout_seconds=1,
        keep_alive_seconds=1,
        hangup_grace_seconds=1,
        requests_max=REQUESTS_MAX,
        held_bytes_max=HELD_BYTES_MAX,
        admin_body_bytes_max=ADMIN_BODY_BYTES_MAX,
        stream_seconds_max=STREAM_SECONDS_MAX,
        response_bytes_max=RESPONSE_BYTES_MAX,
        response_header_bytes_max=RESPONSE_HEADER_BYTES_MAX,
    ) as running:
        yield running
