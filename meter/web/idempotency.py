"""`Idempotency-Key`: a creation that is asked for twice happens once.

A handler that creates something takes the dependency `once` and hands it what it would do. A secret is stored
nowhere, so that it cannot be shown again either: where one was made, the second request is told so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.di import NamedDependency
from litestar.params import HeaderParameter

from meter.core.access import Asker
from meter.core.errors import IdempotencyConflict, MeterError
from meter.core.idempotency import Errand, Past, answered, errand
from meter.store.failures import RowRefused

CREATED = 201

T = TypeVar("T")


@dataclass(frozen=True)
class Notes:
    """Where it is noted what was asked for."""

    begin: Callable[[Errand], Past | None]
    finish: Callable[[Errand, int, str], None]
    forget: Callable[[Errand], None]


class Replay(Exception):
    """The answer was given before, and is given again."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Once:
    """Does something once for each Idempotency-Key of an asker and a route; without a key, always."""

    def __init__(self, notes: Notes, asker: Asker, route: str, key: str | None) -> None:
        self._notes = notes
        self._asker = asker
        self._route = route
        self._key = key

    def __call__(self, data: object, create: Callable[[], T]) -> T:
        """Return what is created, or raise `Replay` with what was."""
        return self._run(data, create, lambda made: msgspec.json.encode(made).decode())

    def with_secret(self, data: object, create: Callable[[], T], name: Callable[[T], str]) -> T:
        """Return what is created, which has a secret; the second time raise `IdempotencyConflict`."""
        try:
            return self._run(data, create, name)
        except Replay as replay:
            raise IdempotencyConflict(
                f"This has been done: it made {replay.body}, whose secret was shown then and is stored "
                "nowhere. If that answer was lost, revoke it, and make another with a new Idempotency-Key."
            ) from None

    def _run(self, data: object, create: Callable[[], T], written: Callable[[T], str]) -> T:
        if self._key is None:
            return create()
        asked = errand(self._key, self._asker.id, self._route, msgspec.json.encode(data))
        past = self._notes.begin(asked)
        if past is not None:
            raise Replay(*answered(past))
        try:
            made = create()
        except (MeterError, ValueError, RowRefused):
            # It was refused, so that nothing was done. After any other end nobody knows, and the note stays.
            self._notes.forget(asked)
            raise
        self._notes.finish(asked, CREATED, written(made))
        return made


IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Within 24 hours, a second request with this key and body does nothing, and gets the "
        "first one's answer; where that had a secret, 409.",
    ),
]


def provide_once(
    request: Request[Any, Any, Any],
    idempotency_notes: NamedDependency[Notes],
    asker: NamedDependency[Asker],
    idempotency_key: IdempotencyKey = None,
) -> Once:
    """Make the dependency `once`."""
    return Once(idempotency_notes, asker, f"{request.method} {request.url.path}", idempotency_key)


def replayed(_request: Request[Any, Any, Any], replay: Replay) -> Response[bytes]:
    """Give the answer again that was given before."""
    headers = {"idempotent-replayed": "true"}
    return Response(
        replay.body.encode(), status_code=replay.status, headers=headers, media_type=MediaType.JSON
    )
