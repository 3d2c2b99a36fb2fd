"""Connections: so many and no more; those that are too many are told, and health checks answered (T29)."""

import pytest

from tests import wire
from tests.security.conftest import CONNECTIONS_MAX
from tests.security.listeners import LISTENERS, many, metric, url
from tests.server import Meter, until

# Those that are told, beyond those that are served.
TOLD = 16


@pytest.mark.parametrize("listener", LISTENERS)
def test_connections_beyond_the_limit_get_503(bounded: Meter, listener: str) -> None:
    """They are told to come again; once others have gone, the next is served."""
    sent = wire.request("GET", "/v1/models", key="mtr_wrong")

    def ask() -> wire.Answer:
        return wire.exchange(url(bounded, listener), sent)

    with many(bounded, listener, CONNECTIONS_MAX):
        refused = ask()
    until(lambda: ask().status != 503, "room")

    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert (refused.header("retry-after"), refused.header("connection")) == ("1", "close")


def test_health_checks_are_answered_when_there_is_no_room(bounded: Meter) -> None:
    """Nobody restarts a server because it has much to do."""
    with many(bounded, "data", CONNECTIONS_MAX + 1):
        live = wire.exchange(bounded.url, wire.request("GET", "/health/live"))

    assert (live.status, live.header("connection")) == (200, "close")


def test_a_flood_of_connections_is_closed_on(bounded: Meter) -> None:
    """Beyond those that are told there is room for no more, and those that are served go on."""
    line = 'meter_connections_cut_total{reason="crowded"}'
    before = metric(bounded, line)

    with wire.connected(bounded.url) as first, many(bounded, "data", CONNECTIONS_MAX + TOLD) as others:
        assert others[-1].read_to_end() == b""
        first.send(wire.request("GET", "/health/live"))
        served = wire.parse(first.read_to_end())

    assert served.status == 200
    assert metric(bounded, line) > before
