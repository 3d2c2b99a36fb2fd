"""A usage-metering proxy for OpenAI-compatible APIs."""

import sys

__version__ = "0.1.0"

# httpx loads its own command line, and with it rich and Pygments, wherever those are installed; it goes
# without where that cannot be.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: there is no such module.
