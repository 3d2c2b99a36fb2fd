"""Bodies of the control listener have an end of their own (T23)."""

from tests import wire
from tests.security.conftest import ADMIN_BODY_BYTES_MAX
from tests.server import Meter


def post(meter: Meter, size: int) -> wire.Answer:
    """Ask for a team with a description of this size."""
    body = b'{"name": "x", "more": "' + b"a" * size + b'"}'
    host = meter.control_url.removeprefix("http://")
    headers = [("Content-Type", "application/json")]
    sent = wire.request("POST", "/api/v1/teams", host=host, key=meter.admin_token, body=body, headers=headers)
    return wire.exchange(meter.control_url, sent)


def test_a_body_over_the_limit_gets_413(bounded: Meter) -> None:
    """A body below the limit is read, and here refused for its member; a larger one is not."""
    assert post(bounded, ADMIN_BODY_BYTES_MAX // 2).status == 400
    assert post(bounded, ADMIN_BODY_BYTES_MAX).status == 413
