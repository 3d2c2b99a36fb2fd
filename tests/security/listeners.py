"""Both listeners of a meter, for what holds at either."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests import wire
from tests.server import Meter
from tests.wire import Connection

LISTENERS = ("data", "control")


def url(meter: Meter, listener: str) -> str:
    """Return where a listener is."""
    return meter.url if listener == "data" else meter.control_url


@contextmanager
def many(meter: Meter, listener: str, count: int) -> Iterator[list[Connection]]:
    """Open so many connections, and close them at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(wire.connected(url(meter, listener))) for _ in range(count)]


def metric(meter: Meter, line: str) -> float:
    """Return the value of a series, 0 where there is none."""
    with meter.control as control:
        page = control.get("/metrics").text
    found = [each for each in page.splitlines() if each.startswith(f"{line} ")]
    return float(found[0].split()[-1]) if found else 0.0
