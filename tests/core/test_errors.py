"""Every refusal has a fixed status, type and code, and OpenAI's shape."""

import json
from datetime import UTC, datetime

import pytest

from meter.core import errors
from meter.core.errors import (
    Conflict,
    HeadersTooLarge,
    IdempotencyConflict,
    InsufficientQuota,
    InvalidAdminToken,
    InvalidKey,
    InvalidRequest,
    MeterError,
    MeteringUnavailable,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotPriced,
    NotFound,
    NotPermitted,
    Overloaded,
    Quota,
    RateLimitExceeded,
    RequestNotBounded,
    RequestTimeout,
    RequestTooLarge,
    TooManyFailures,
    UnsupportedEncoding,
    UpstreamTimeout,
    UpstreamUnreachable,
)

TABLE = [
    (MeterError, 500, "server_error", "internal_error"),
    (InvalidRequest, 400, "invalid_request_error", "invalid_request_error"),
    (UnsupportedEncoding, 415, "invalid_request_error", "invalid_request_error"),
    (RequestNotBounded, 403, "invalid_request_error", "request_not_bounded"),
    (InvalidKey, 401, "invalid_request_error", "invalid_api_key"),
    (InvalidAdminToken, 401, "invalid_request_error", "invalid_api_key"),
    (ModelNotAllowed, 403, "invalid_request_error", "model_not_allowed"),
    (ModelNotPriced, 403, "invalid_request_error", "model_not_priced"),
    (NotPermitted, 403, "invalid_request_error", "insufficient_permissions"),
    (NotFound, 404, "invalid_request_error", "not_found"),
    (MethodNotAllowed, 405, "invalid_request_error", "method_not_allowed"),
    (RequestTimeout, 408, "invalid_request_error", "request_timeout"),
    (Conflict, 409, "invalid_request_error", "conflict"),
    (IdempotencyConflict, 409, "invalid_request_error", "idempotency_conflict"),
    (RequestTooLarge, 413, "invalid_request_error", "request_too_large"),
    (HeadersTooLarge, 431, "invalid_request_error", "headers_too_large"),
    (RateLimitExceeded, 429, "rate_limit_exceeded", "rate_limit_exceeded"),
    (TooManyFailures, 429, "rate_limit_exceeded", "too_many_failures"),
    (InsufficientQuota, 429, "insufficient_quota", "insufficient_quota"),
    (UpstreamUnreachable, 502, "upstream_error", "upstream_unreachable"),
    (Overloaded, 503, "server_error", "overloaded"),
    (MeteringUnavailable, 503, "server_error", "metering_unavailable"),
    (UpstreamTimeout, 504, "upstream_error", "upstream_timeout"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), TABLE)
def test_a_class_fixes_status_type_and_code(
    error: type[MeterError], status: int, kind: str, code: str
) -> None:
    """The status, the type and the code are those that clients are written against."""
    assert (error.status, error.type, error.code) == (status, kind, code)


def test_the_table_has_every_refusal() -> None:
    """No refusal is missing from the table."""
    defined = {value for value in vars(errors).values() if isinstance(value, type)}

    assert {row[0] for row in TABLE} == {each for each in defined if issubclass(each, MeterError)}


def test_the_body_is_openais_error_object() -> None:
    """The body holds one member, `error`, with exactly OpenAI's four members."""
    refusal = InvalidRequest("'stream' must be true or false.", param="stream")

    body = json.loads(refusal.body())

    assert body == {
        "error": {
            "message": "'stream' must be true or false.",
            "type": "invalid_request_error",
            "param": "stream",
            "code": "invalid_request_error",
        }
    }


def test_the_parameter_is_null_where_there_is_none() -> None:
    """A refusal that speaks of no parameter says so by null, not by silence."""
    assert json.loads(NotFound("There is no team 'x'.").body())["error"]["param"] is None


@pytest.mark.parametrize("message", ['a "quoted" name', "line\nbreak", "\ud800 alone", "naïve ☃"])
def test_any_message_makes_a_valid_body(message: str) -> None:
    """Whatever a message quotes, the body is JSON in ASCII."""
    body = InvalidRequest(message).body()

    assert json.loads(body.decode("ascii"))["error"]["message"] == message


def test_a_refusal_reads_as_its_message() -> None:
    """The command line shows a refusal by `str`, which is its message."""
    assert str(Conflict("There is a team named 'x' already.")) == "There is a team named 'x' already."


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (InvalidKey, "www-authenticate", "Bearer"),
        (InvalidAdminToken, "www-authenticate", "Bearer"),
        (RequestTooLarge, "connection", "close"),
        (MeteringUnavailable, "retry-after", "1"),
    ],
)
def test_headers_that_a_status_calls_for(error: type[MeterError], name: str, value: str) -> None:
    """A status that HTTP ties to a header brings it along."""
    assert dict(error.headers)[name] == value


def test_every_bad_credential_gets_the_same_answer() -> None:
    """Nothing in the answer tells an unknown key from a revoked one: the refusal takes no detail."""
    assert InvalidKey().body() == InvalidKey().body()
    assert b"mtr_..." in InvalidKey().body()


def test_headers_of_one_refusal_stand_behind_those_of_its_class() -> None:
    """What one refusal says in headers is not said by the next of its kind."""
    refusal = MeteringUnavailable("wait", headers=(("x-why", "full"),))

    assert refusal.headers == (("retry-after", "1"), ("x-why", "full"))
    assert MeteringUnavailable("wait").headers == (("retry-after", "1"),)


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")]
)
def test_retry_after_is_in_whole_seconds_and_never_too_early(seconds: float, header: str) -> None:
    """The seconds are rounded up, and are at least one."""
    refusal = RateLimitExceeded("slow down", retry_after_seconds=seconds, headers=(("x-a", "b"),))

    assert refusal.headers == (("retry-after", header), ("x-a", "b"))


def test_a_used_up_budget_is_said_in_numbers_and_not_tried_again() -> None:
    """The message has the limit, what is spent and reserved, what is needed, and when the window ends."""
    ends_at = datetime(2026, 12, 1, tzinfo=UTC)
    refusal = InsufficientQuota("team search", Quota("50 USD", "49.9 USD", "0.05 USD", "0.2 USD", ends_at))
    endless = InsufficientQuota("key k", Quota("5", "5", "0", "1", None))

    assert refusal.message == (
        "The budget of team search does not allow this request: limit 50 USD, spent 49.9 USD, "
        "reserved 0.05 USD, and the request may need 0.2 USD. Its window ends at 2026-12-01T00:00:00+00:00."
    )
    assert endless.message.endswith("Its window has no end.")
    assert refusal.headers == (("x-should-retry", "false"),)
