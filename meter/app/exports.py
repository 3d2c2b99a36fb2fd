"""Reports as files: written down whole before they are handed on, in bounded memory.

A reader may take its time, and a database must not keep a state of the past for it; and what goes wrong is
known before the first byte has gone.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from meter.core import comparison, focus
from meter.core.cells import as_text, csv_line
from meter.core.comparison import Compared, compared_columns
from meter.core.refusals import RefusalRow
from meter.core.reports import COLUMNS, Question, columns, group_columns
from meter.store.database import Database
from meter.store.focus import days
from meter.store.reports import parts

MEMORY_BYTES_MAX = 1_000_000
CHUNK_CHARACTERS = 65_536

Progress = Callable[[int, int], None]


def report_csv(
    database: Database, question: Question, progress: Progress = lambda _done, _all: None
) -> Iterator[str]:
    """Write a report down as CSV, without its total, and return an iterator over it."""
    groups = group_columns(question)

    def write(file: IO[str]) -> None:
        file.write(csv_line([*groups, *COLUMNS]))
        for part in parts(database, question):
            for row in part.rows:
                names = (as_text(row.group[name]) for name in groups)
                file.write(csv_line([*names, *columns(row.sums).values()]))
            progress(part.number, part.parts)

    return _written(write)


def compared_csv(found: Compared) -> Iterator[str]:
    """Yield a comparison as CSV, without its total."""
    groups = group_columns(found.question)
    yield csv_line([*groups, *COLUMNS, *comparison.COLUMNS])
    for row, was in found.rows:
        values = columns(row.sums) | compared_columns(row.sums, was)
        yield csv_line([*(as_text(row.group[name]) for name in groups), *values.values()])


def focus_csv(
    database: Database, question: Question, progress: Progress = lambda _done, _all: None
) -> Iterator[str]:
    """Write a FOCUS export down, telling of each day that is done, and return an iterator over it."""

    def write(file: IO[str]) -> None:
        file.write(csv_line(focus.COLUMNS))
        for day in days(database, question):
            for charge in day.charges:
                file.writelines(csv_line(focus.cells(row)) for row in focus.rows(charge))
            progress(day.number, day.days)

    return _written(write)


def refusals_csv(rows: Iterable[RefusalRow]) -> Iterator[str]:
    """Yield refusals as CSV, without their total."""
    yield csv_line(("team", "key", "key_id", "reason", "count"))
    for row in rows:
        yield csv_line((as_text(row.team), as_text(row.key), as_text(row.key_id), row.reason, row.count))


def _written(write: Callable[[IO[str]], None]) -> Iterator[str]:
    # Its name is nobody's, and it is gone when it is closed.
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX, mode="w+", encoding="utf-8", newline="")  # noqa: SIM115 (closed by its reader)
    try:
        write(file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return _chunks(file)


def _chunks(file: IO[str]) -> Iterator[str]:
    with file:
        while chunk := file.read(CHUNK_CHARACTERS):
            yield chunk
