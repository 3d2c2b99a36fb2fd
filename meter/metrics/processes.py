"""Several processes that count together: in files of one directory, which whoever is asked adds up.

The directory is named in the environment, where prometheus_client looks when it is imported. A process that
replaces another goes on with its files, so that no counter ever goes back and there are never more files.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from meter.metrics.room import RoomyDict

_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share(directory: Path) -> dict[str, str]:
    """Empty a directory, and return the environment of processes that count in it together."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return {_DIRECTORY_VARIABLE: str(directory)}


def shared_directory() -> Path | None:
    """Return the directory in which this process counts together with others."""
    named = os.environ.get(_DIRECTORY_VARIABLE)
    return None if named is None else Path(named)


def count_as(process: str) -> None:
    """Count under a name that this process's replacement will have too; to be called before any `Metrics`.

    Without it, processes that count together are told apart by their numbers. The name has no underscore.
    """
    values.MmapedDict = RoomyDict  # type: ignore[attr-defined]  # Where the library looks for it.
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def forget(directory: Path, process: str) -> None:
    """Take a process that has ended out of the gauges; what it has counted stays."""
    for path in directory.glob(f"gauge_live*_{process}.db"):
        path.unlink(missing_ok=True)


class Together(Collector):
    """What the files of a directory say, added up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Add up."""
        # A file is empty for a moment when it is made, which the library takes for a broken one.
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # It was of a process that has just ended.
