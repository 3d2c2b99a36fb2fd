"""Everything that meter refuses, as one tree.

    MeterError
    ├── InvalidRequest          400  what the client sent cannot be metered
    │   └── UnsupportedEncoding 415  a compressed request body
    ├── RequestNotBounded       403  a strict budget cannot tell what it may cost
    ├── InvalidKey              401  the one answer to every bad credential
    │   └── InvalidAdminToken   the control plane's answer to the same
    ├── ModelNotAllowed         403  the key's or the team's list of models has another
    ├── ModelNotPriced          403  nobody knows what the model costs, and the key may not use such models
    ├── NotPermitted            403  a token of another role
    ├── NotFound                404  no such route, or no such thing
    ├── MethodNotAllowed        405  the route exists, the method does not
    ├── RequestTimeout          408  the client took too long to send its request
    ├── Conflict                409  it exists already
    │   └── IdempotencyConflict 409  the Idempotency-Key was used before, and there is no answer to give again
    ├── RequestTooLarge         413  over body_bytes_max
    ├── HeadersTooLarge         431  over header_bytes_max
    ├── RateLimitExceeded       429  a rate or the concurrency of a key or team; try again
    │   └── TooManyFailures     429  too many wrong keys or tokens from one address
    ├── InsufficientQuota       429  a budget; trying again does not help
    ├── UpstreamUnreachable     502  no connection, or it broke before the headers
    ├── Overloaded              503  this process has as much under way as it may have
    ├── MeteringUnavailable     503  meter could not account for the request
    └── UpstreamTimeout         504  no headers in time

Each class fixes the status and OpenAI's `type` and `code`; an instance adds the message, the parameter
it speaks of, and headers that hold for it alone. Clients are written against OpenAI's error object, so this
is the only shape there is:
https://platform.openai.com/docs/guides/error-codes
"""

import json
import math
import shlex
from datetime import datetime
from typing import ClassVar, NamedTuple

Headers = tuple[tuple[str, str], ...]


class MeterError(Exception):
    """A refusal with a status and OpenAI's error object."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    headers: Headers = ()
    """Sent with the answer: those of the class, and behind them those of the instance."""

    def __init__(self, message: str, *, param: str | None = None, headers: Headers = ()) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if headers:
            self.headers = (*type(self).headers, *headers)

    def body(self) -> bytes:
        """Return the JSON body: `{"error": {"message", "type", "param", "code"}}`."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()


class InvalidRequest(MeterError):
    """What the client sent cannot be metered, so it is not forwarded."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request_error"


class UnsupportedEncoding(InvalidRequest):
    """A compressed request body, which meter does not unpack."""

    status = 415


class RequestNotBounded(MeterError):
    """Nobody can tell what the request may cost, and a strict budget has to know."""

    status = 403
    type = "invalid_request_error"
    code = "request_not_bounded"


class InvalidKey(MeterError):
    """No key, a wrong key, a revoked or an expired one: told apart by nobody outside."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    headers: Headers = (("www-authenticate", "Bearer"),)

    def __init__(self) -> None:
        super().__init__(
            "Incorrect API key provided. Send a valid meter key as 'Authorization: Bearer mtr_...'."
        )


class InvalidAdminToken(InvalidKey):
    """The control plane's answer to no token, a wrong, a revoked or an expired one."""

    def __init__(self) -> None:
        MeterError.__init__(
            self,
            "Send a valid token as 'Authorization: Bearer ...': the admin token of the data directory, or "
            "one that was made with 'meter tokens create'.",
        )


class ModelNotAllowed(MeterError):
    """The model is on no list that the key and its team may use."""

    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"


class ModelNotPriced(MeterError):
    """A model without a price, asked for with a key that may use priced ones only, and why that is."""

    status = 403
    type = "invalid_request_error"
    code = "model_not_priced"

    def __init__(self, model: str, why: str = "this key may only use models that have one") -> None:
        super().__init__(
            f"The model {model!r} has no price, and {why}. "
            f"An operator sets it: meter prices set {shlex.quote(model)} --prompt USD --completion USD",
            param="model",
        )


class NotPermitted(MeterError):
    """The token is good, but not for this."""

    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"


class NotFound(MeterError):
    """No such route, or no such thing."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(MeterError):
    """The route exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(MeterError):
    """A thing of that name exists already."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class IdempotencyConflict(Conflict):
    """An Idempotency-Key whose first request was another one, or cannot be answered again."""

    code = "idempotency_conflict"


class RequestTooLarge(MeterError):
    """The body is larger than `body_bytes_max`; its rest is not read."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    headers: Headers = (("connection", "close"),)


class RequestTimeout(MeterError):
    """The client took too long to send its request; the connection closes."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    headers: Headers = (("connection", "close"),)


class HeadersTooLarge(MeterError):
    """The request line and headers are larger than `header_bytes_max`; the connection closes."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"
    headers: Headers = (("connection", "close"),)


class RateLimitExceeded(MeterError):
    """Too much at once; `retry-after`, in whole seconds, says when there will be room.

    There never will be for what is larger than its limit: clients are told not to try that again.
    """

    status = 429
    type = "rate_limit_exceeded"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: float | None, headers: Headers = ()) -> None:
        if retry_after_seconds is None:
            again = ("x-should-retry", "false")
        else:
            again = ("retry-after", str(max(1, math.ceil(retry_after_seconds))))
        super().__init__(message, headers=(again, *headers))


class TooManyFailures(RateLimitExceeded):
    """Too many wrong keys or tokens from one address; those that are known go on."""

    code = "too_many_failures"

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "Too many wrong credentials came from this address; try again later.",
            retry_after_seconds=retry_after_seconds,
        )


class Quota(NamedTuple):
    """The numbers of a budget, each with its unit, such as `50 USD`."""

    limit: str
    spent: str
    reserved: str
    needed: str
    ends_at: datetime | None
    """The end of the window."""


class InsufficientQuota(MeterError):
    """A budget is used up; whoever tries again before its window ends is refused again.

    OpenAI's clients try a 429 again unless `x-should-retry` says otherwise.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    headers: Headers = (("x-should-retry", "false"),)

    def __init__(self, whose: str, quota: Quota) -> None:
        end = "has no end" if quota.ends_at is None else f"ends at {quota.ends_at.isoformat()}"
        super().__init__(
            f"The budget of {whose} does not allow this request: limit {quota.limit}, spent {quota.spent}, "
            f"reserved {quota.reserved}, and the request may need {quota.needed}. Its window {end}."
        )


class UpstreamUnreachable(MeterError):
    """No connection to the upstream, or it broke before its headers came."""

    status = 502
    type = "upstream_error"
    code = "upstream_unreachable"


class Overloaded(MeterError):
    """This process has as much under way as it may have; another one, or this one soon, has room."""

    status = 503
    type = "server_error"
    code = "overloaded"
    headers: Headers = (("retry-after", "1"),)


class MeteringUnavailable(MeterError):
    """Meter cannot account for the request now, so it does not forward it."""

    status = 503
    type = "server_error"
    code = "metering_unavailable"
    headers: Headers = (("retry-after", "1"),)


class UpstreamTimeout(MeterError):
    """The upstream sent no headers in time."""

    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
