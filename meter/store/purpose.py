"""What connections are for; every purpose has a pool of its own, and its own patience."""

from typing import NamedTuple


class Purpose(NamedTuple):
    """What the connections of a pool are for."""

    statement_seconds: float
    connections_max: int
    wait_seconds: float
    """For a connection of the pool to be free."""
    writes: bool = False


# A look-up that takes longer helps nobody: whoever asked has been answered without it by then.
READING = Purpose(statement_seconds=2, connections_max=6, wait_seconds=1)
# A batch may wait for rows that other servers are folding into.
WRITING = Purpose(statement_seconds=30, connections_max=4, wait_seconds=5, writes=True)
# Few at a time, because each is large; the others wait for their turn.
READING_LONG = Purpose(statement_seconds=60, connections_max=3, wait_seconds=30)
