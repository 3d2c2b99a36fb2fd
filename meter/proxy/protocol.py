"""What the data listener adds to uvicorn's HTTP: a client that has closed its sending side may still read.

TCP cannot tell that from a client that is gone: either way its last word is a FIN, and only what is then sent
to one that is gone comes back as a reset. uvicorn closes the connection at once. Here it stays open while a
request that is there as a whole is being answered, and whoever answers is told.
"""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from meter.proxy.bounded import BoundedProtocol

# Our own ASGI extension: a future that is done when the client has closed its sending side.
_SENDING_CLOSED = "meter.sending_closed"


class DataProtocol(BoundedProtocol):
    """uvicorn's protocol, in which the end of a request is not yet the end of its answer."""

    def on_message_begin(self) -> None:
        """Give each request its own future."""
        super().on_message_begin()
        self.scope["extensions"] = {_SENDING_CLOSED: self.loop.create_future()}  # type: ignore[dict-item]

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether the connection stays open for writing; uvicorn says nothing, and closes it."""
        cycle = self.last_cycle()
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        if self.pipeline:
            return False
        # There will be no other request.
        cycle.keep_alive = False
        cycle.scope["extensions"][_SENDING_CLOSED].set_result(None)  # type: ignore[attr-defined]
        return True


def when_sending_closes(scope: MutableMapping[str, Any], act: Callable[[], None]) -> None:
    """Call as soon as the client of a request has closed its sending side, be that now."""
    closed: asyncio.Future[None] = scope["extensions"][_SENDING_CLOSED]
    closed.add_done_callback(lambda _: act())
