"""A plugin of pytest: runs the properties of the tests, and nothing else, each again and again for a time.

`make fuzz SECONDS=60` loads it. Every round makes up other inputs; what breaks a property is kept in
`.hypothesis`, and is tried first by whoever runs that test next.
"""

import os
import time

import pytest
from hypothesis import is_hypothesis_test

SECONDS = float(os.environ.get("METER_TEST_FUZZ_SECONDS", "10"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is no property."""
    properties = [item for item in items if is_hypothesis_test(getattr(item, "obj", None))]
    config.hook.pytest_deselected(items=[item for item in items if item not in properties])
    items[:] = properties


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Run a property until its time is over, once at least."""
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 (as pytest's own hook does)
    given = {name: pyfuncitem.funcargs[name] for name in names}
    end = time.monotonic() + SECONDS
    while True:
        pyfuncitem.obj(**given)
        if time.monotonic() > end:
            return True
