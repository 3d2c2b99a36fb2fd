"""Whoever logs never waits: not for a slow reader, not for one that is gone, and what is lost is counted."""

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from meter.logs.writer import Writer
from meter.metrics import Metrics

WAIT_SECONDS_MAX = 20.0
LINE = "x" * 1000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Give the two ends of a pipe."""
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue  # A test has closed it.


def log(writer: Writer, message: str) -> None:
    """Hand a record over."""
    writer.handle(logging.LogRecord("meter.x", logging.INFO, "x.py", 1, message, (), None))


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """Everything that is logged is written, in order, and closing waits for it."""
    reading, writing = pipe
    writer = Writer(writing)

    for number in range(50):
        log(writer, f"line {number}")
    writer.close()

    assert os.read(reading, 10_000).decode().splitlines() == [f"line {number}" for number in range(50)]
    assert writer.dropped == 0


def test_a_blocked_reader_blocks_nobody(pipe: tuple[int, int]) -> None:
    """With a reader that has stopped, logging goes on, drops what does not fit and counts it."""
    reading, writing = pipe
    writer = Writer(writing, lines_max=10)
    metrics = Metrics()
    metrics.follow("meter_log_lines_dropped", "Lost.", lambda: writer.dropped)
    done = threading.Event()

    def flood() -> None:
        for _ in range(500):
            log(writer, LINE)
        done.set()

    threading.Thread(target=flood, daemon=True).start()

    assert done.wait(WAIT_SECONDS_MAX)
    held = 500 - writer.dropped
    # What the pipe and the queue hold, and the line that is being written.
    assert 10 <= held <= 64 + 10 + 2
    assert f"meter_log_lines_dropped_total {float(writer.dropped)}" in metrics.render().decode()
    assert f"meter_log_lines_dropped_total {float(writer.dropped)}" in metrics.render().decode()
    taken = 0
    while taken < held * (len(LINE) + 1):
        taken += len(os.read(reading, 65_536))
    writer.close()
    assert taken == held * (len(LINE) + 1)


def test_a_reader_that_is_gone(pipe: tuple[int, int]) -> None:
    """A pipe that nobody will ever read loses lines, and raises nowhere."""
    reading, writing = pipe
    os.close(reading)
    writer = Writer(writing)

    for _ in range(5):
        log(writer, "nobody hears this")
    writer.close()

    assert writer.dropped == 5


def test_a_record_that_cannot_be_written_down(pipe: tuple[int, int]) -> None:
    """A message whose arguments do not fit it is lost and counted, and ends nothing."""
    reading, writing = pipe
    writer = Writer(writing)

    writer.handle(logging.LogRecord("meter.x", logging.INFO, "x.py", 1, "%d", ("no number",), None))
    log(writer, "after it")
    writer.close()

    assert os.read(reading, 100) == b"after it\n"
    assert writer.dropped == 1
