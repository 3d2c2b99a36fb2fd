"""meter under the profiler: `python -m benchmarks.profiled FILE serve ...`.

SIGUSR1 begins to count what the event loop's thread calls, SIGUSR2 ends that and writes it to the file.
"""

import cProfile
import signal
import sys

from meter.cli import main


def run(path: str) -> None:
    """Run meter with the arguments that follow."""
    profile = cProfile.Profile()

    def begin(*_: object) -> None:
        profile.enable()

    def end(*_: object) -> None:
        profile.disable()
        profile.dump_stats(path)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    main()


if __name__ == "__main__":
    del sys.argv[0]
    run(sys.argv[0])
