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
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Write a record."""
    return _ENCODER.encode(record)


def decode(payload: bytes) -> Record:
    """Read a record; raises `ValueError` for what no version of meter has written."""
    return _DECODER.decode(payload)
