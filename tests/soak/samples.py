"""Memory and open files of processes as time goes by, and whether they stay flat."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = 4096
# What caches and a first crowd of clients leave behind is no leak; a longer run finds what goes on growing.
GROWTH_BYTES_MAX = 16 << 20
GROWTH_SHARE_MAX = 0.1
# As many connections may be open at one moment more than at another.
DESCRIPTORS_MORE_MAX = 16
SAMPLES_MIN = 8
# Of less, a quarter tells of what is done to a process at the moment, and of how it starts.
JUDGED_SECONDS_MIN = 300.0


class Sample(NamedTuple):
    """One look at a process."""

    at: float
    rss_bytes: int
    descriptors: int


@dataclass
class Life:
    """A process, from when it was first seen."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was seen."""
        return self.samples[-1].at - self.samples[0].at if self.samples else 0.0


class Flatness(NamedTuple):
    """How a life's last quarter compares with its first, by medians."""

    life: Life
    rss_bytes: tuple[float, float]
    descriptors: tuple[float, float]

    @property
    def rss_bound_bytes(self) -> float:
        """How much memory its last quarter may have."""
        return self.rss_bytes[0] * (1 + GROWTH_SHARE_MAX) + GROWTH_BYTES_MAX

    @property
    def descriptors_bound(self) -> float:
        """How many open files its last quarter may have."""
        return self.descriptors[0] + DESCRIPTORS_MORE_MAX

    @property
    def tells(self) -> bool:
        """Whether the life is long enough for whatever is done to a process now and then."""
        return self.life.seconds >= JUDGED_SECONDS_MIN

    @property
    def violations(self) -> list[str]:
        """Say what has grown."""
        name, found = f"I7: {self.life.name} ({self.life.pid})", []
        if self.rss_bytes[1] > self.rss_bound_bytes:
            found.append(f"{name} grew from {_mib(self.rss_bytes[0])} to {_mib(self.rss_bytes[1])} MiB")
        if self.descriptors[1] > self.descriptors_bound:
            found.append(
                f"{name} had {self.descriptors[0]:.0f} open files, and {self.descriptors[1]:.0f} at the end"
            )
        return found

    def __str__(self) -> str:
        return (
            f"{self.life.name} ({self.life.pid}) for {self.life.seconds:.0f} s: "
            f"{_mib(self.rss_bytes[0])} -> {_mib(self.rss_bytes[1])} MiB "
            f"(at most {_mib(self.rss_bound_bytes)}), "
            f"{self.descriptors[0]:.0f} -> {self.descriptors[1]:.0f} open files "
            f"(at most {self.descriptors_bound:.0f})"
        )


def look(pid: int, at: float) -> Sample | None:
    """Look at a process; one that has just ended shows nothing."""
    folder = Path(f"/proc/{pid}")
    try:
        resident = int((folder / "statm").read_text(encoding="ascii").split()[1])
        return Sample(at, resident * PAGE_BYTES, sum(1 for _ in (folder / "fd").iterdir()))
    except (OSError, IndexError):
        return None


def flatness(life: Life) -> Flatness | None:
    """Compare the first quarter of a life with its last; `None` where it was seen too seldom."""
    if len(life.samples) < SAMPLES_MIN:
        return None
    length = len(life.samples) // 4
    first, last = life.samples[:length], life.samples[-length:]
    return Flatness(
        life,
        (_median([each.rss_bytes for each in first]), _median([each.rss_bytes for each in last])),
        (_median([each.descriptors for each in first]), _median([each.descriptors for each in last])),
    )


def _median(values: Sequence[int]) -> float:
    return float(statistics.median(values))


def _mib(count: float) -> str:
    return f"{count / (1 << 20):.1f}"
