"""meter without a garbage collector, which says at its end what of its attempts is left: `... serve`."""

import gc
import sys
from collections import Counter

from meter.cli import main
from meter.core.tap import Tap
from meter.proxy.cycle import Cycle
from meter.proxy.pump import Pump

LEFT = "left of "

KINDS = (Cycle, Pump, Tap)


def _tell() -> None:
    found = Counter(type(each) for each in gc.get_objects() if isinstance(each, KINDS))
    sys.stderr.write("".join(f"{LEFT}{kind.__name__}: {found[kind]}\n" for kind in KINDS))


if __name__ == "__main__":
    gc.disable()
    try:
        main()
    finally:
        _tell()
