"""Everything that meter refuses, as one tree.

    MeterError
    ├── InvalidRequest          400  what the client sent cannot be metered
    │   └── UnsupportedEncoding 415  a compressed request body
    ├── InvalidKey              401  the one answer to every bad credential
    │   └── InvalidAdminToken   the control plane's answer to the same
    ├── NotFound                404  no such route, or no such thing
    ├── MethodNotAllowed        405  the route exists, the method does not
    ├── Conflict                409  it exists already
    ├── RequestTooLarge         413  over body_bytes_max
    ├── UpstreamUnreachable     502  no connection, or it broke before the headers
    ├── MeteringUnavailable     503  meter could not account for the request
    └── UpstreamTimeout         504  no headers in time

Each class fixes the status and OpenAI's `type` and `code`; an instance adds the message and the parameter
it speaks of. Clients are written against OpenAI's error object, so this is the only shape there is:
https://platform.openai.com/docs/guides/error-codes
"""

import json
from typing import ClassVar


class MeterError(Exception):
    """A refusal with a status and OpenAI's error object."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    headers: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

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


class InvalidKey(MeterError):
    """No key, a wrong key, a revoked or an expired one: told apart by nobody outside."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    headers = (("www-authenticate", "Bearer"),)

    def __init__(self) -> None:
        super().__init__(
            "Incorrect API key provided. Send a valid meter key as 'Authorization: Bearer mtr_...'."
        )


class InvalidAdminToken(InvalidKey):
    """The control plane asks for the admin token."""

    def __init__(self) -> None:
        MeterError.__init__(
            self, "Send the admin token as 'Authorization: Bearer ...'; it lies in the data directory."
        )


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


class RequestTooLarge(MeterError):
    """The body is larger than `body_bytes_max`; its rest is not read."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    headers = (("connection", "close"),)


class UpstreamUnreachable(MeterError):
    """No connection to the upstream, or it broke before its headers came."""

    status = 502
    type = "upstream_error"
    code = "upstream_unreachable"


class MeteringUnavailable(MeterError):
    """Meter cannot account for the request now, so it does not forward it."""

    status = 503
    type = "server_error"
    code = "metering_unavailable"
    headers = (("retry-after", "1"),)


class UpstreamTimeout(MeterError):
    """The upstream sent no headers in time."""

    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
