"""Fixtures: a scriptable upstream and a real meter in front of it, one of each for a test process."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import fake_upstream, server
from tests.fake_upstream import FakeUpstream
from tests.server import Meter

UPSTREAM_KEY = "sk-upstream-secret"

# Where an image says that Python writes no bytecode, every program that a test starts would compile all of
# meter, and every run all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# How long making up or trying an example takes says something of the machine, and the first one loads tables.
settings.register_profile("meter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meter")


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[FakeUpstream]:
    """Run one fake upstream for all tests of this process."""
    with fake_upstream.running() as running:
        yield running


@pytest.fixture
def upstream(upstream_server: FakeUpstream) -> FakeUpstream:
    """Give the upstream, forgetful of earlier tests."""
    upstream_server.reset()
    return upstream_server


@pytest.fixture(scope="session")
def meter(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """Run one meter in front of the fake upstream for all tests of this process."""
    data_dir = tmp_path_factory.mktemp("meter") / "data"
    with server.running(data_dir, upstream_url=upstream_server.url, upstream_api_key=UPSTREAM_KEY) as running:
        yield running


@pytest.fixture
def key(meter: Meter) -> str:
    """Make a key that no other test uses, and that the server knows."""
    return meter.new_key(known=True)
