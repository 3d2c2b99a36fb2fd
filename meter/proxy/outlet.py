"""What an attempt writes its answer to: the client's side, be that a connection of ours or ASGI."""

from typing import Protocol

import msgspec

from meter.core.errors import MeterError
from meter.proxy.headers import Pairs


class Head(msgspec.Struct, frozen=True):
    """What a response begins with, for the client."""

    status: int
    headers: Pairs


class Outlet(Protocol):
    """Takes an answer in: a head and its chunks, or a refusal. None of it waits but `room`."""

    @property
    def full(self) -> bool:
        """Whether the client takes in less than is given, so that no more should be before there is room."""

    @property
    def empty(self) -> bool:
        """Whether nothing of what was given waits to be taken."""

    def begin(self, head: Head) -> None:
        """Take the head."""

    def answer(self, head: Head, body: bytes) -> None:
        """Take a whole answer."""

    def refuse(self, refusal: MeterError) -> None:
        """Take what is to be said in the place of an answer."""

    def give(self, chunk: bytes) -> None:
        """Take a chunk; after the end it goes nowhere."""

    async def room(self) -> None:
        """Wait until there is room for more, or nobody to give it to."""

    def end(self, last: bytes = b"", *, whole: bool) -> None:
        """Take the last chunk, and note whether that is its own end; doing it again does nothing."""

    def give_up(self) -> None:
        """Forget what the client has not taken, because it is gone."""
