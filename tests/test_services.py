"""Servers that tests need and that are not there: a reason to skip, or to fail where they are asked for."""

from collections.abc import Callable

import pytest

from tests import services

AWAY = [
    (services.postgres_url, "postgres", "METER_TEST_POSTGRES", "postgresql://me:secret@127.0.0.1:1/postgres"),
    (services.redis_url, "redis", "METER_TEST_REDIS", "redis://me:secret@127.0.0.1:1/0"),
]


@pytest.mark.parametrize(("find", "name", "setting", "url"), AWAY)
@pytest.mark.parametrize("required", [False, True])
def test_a_server_that_is_not_there(
    find: Callable[[], str],
    name: str,
    setting: str,
    url: str,
    required: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test skips with a reason that says where nobody answers; where the server is required it fails."""
    monkeypatch.setenv(setting, url)
    monkeypatch.setenv("METER_TEST_REQUIRE", f"other,{name}" if required else "other")

    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match=f"at {setting}=.*127.0.0.1:1") as told:
        find()

    assert "secret" not in str(told.value)
    assert ("METER_TEST_REQUIRE" in str(told.value)) == required
