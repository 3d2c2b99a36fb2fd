"""The records of a journal. A later version reads them too: members are only added, with defaults."""

import msgspec

from meter.core.attempts import Attempt
from meter.core.events import UsageEvent


class Intent(msgspec.Struct, frozen=True, tag="i"):
    """An attempt is about to begin: from here on it is accounted for, whatever happens."""

    attempt: Attempt


class Progress(msgspec.Struct, frozen=True, tag="p"):
    """So many tokens have been emitted so far."""

    event_id: str
    emitted_tokens: int


class Settle(msgspec.Struct, frozen=True, tag="s"):
    """An attempt has ended, and this is its event."""

    event: UsageEvent


Record = Intent | Progress | Settle

_ENCODER = msgspec.msgpack.Encoder()
# How those begin that are no settles: a map with so many members, the first of which is the tag.
_NO_SETTLE = (b"\x82\xa4type\xa1i", b"\x83\xa4type\xa1p")
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Write a record."""
    return _ENCODER.encode(record)


def decode(payload: bytes) -> Record:
    """Read a record; raises `ValueError` for what no version of meter has written."""
    return _DECODER.decode(payload)


def decode_settle(payload: bytes) -> Record | None:
    """Read a record as `decode` does, but for those that are plainly none of a settle: they are `None`."""
    return None if payload.startswith(_NO_SETTLE) else _DECODER.decode(payload)
