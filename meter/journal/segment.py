"""One file of framed records: what can be read of it after whatever happened to it.

A frame is a mark, the payload's length, a CRC-32 over length and payload, and the payload. A file that was
cut anywhere loses only its last frame. A frame that was damaged is found by its checksum, and the next whole
one by its mark, so that a bad byte costs the record that it is in and no other.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

MARK = b"\xf5MJ\x01"
PAYLOAD_BYTES_MAX = 1 << 20
# No record ends with so many by itself.
ZEROS_MIN = 16

_HEAD = struct.Struct("<4sII")
_HEAD_BYTES = _HEAD.size
_LENGTH = struct.Struct("<I")
_LENGTH_FROM = len(MARK)
_LENGTH_TO = _LENGTH_FROM + _LENGTH.size


# A Struct rather than a named tuple: it is made for every record, in a quarter of the time.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """A whole record: its payload, and where it stands."""

    payload: bytes
    start: int
    end: int


class Damage(NamedTuple):
    """Bytes that are no record: `torn` at the end of a file, where a write was cut, else damaged."""

    start: int
    end: int
    torn: bool


def frame(payload: bytes) -> bytes:
    """Write a payload as a frame."""
    length = len(payload)
    if length > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a record of {length} bytes is longer than {PAYLOAD_BYTES_MAX}")
    return _HEAD.pack(MARK, length, _checksum(payload, length)) + payload


def scan(data: bytes, start: int = 0) -> Iterator[Frame | Damage]:
    """Yield every whole frame, in order, and the stretches between them that are none."""
    at = bad_from = start
    while at < len(data):
        found = _frame_at(data, at)
        if found is None:
            mark = data.find(MARK, at + 1)
            at = len(data) if mark < 0 else mark
            continue
        if bad_from < found.start:
            yield Damage(bad_from, found.start, torn=False)
        yield found
        at = bad_from = found.end
    if bad_from < len(data):
        yield Damage(bad_from, len(data), torn=_is_torn(data, bad_from))


def _frame_at(data: bytes, at: int) -> Frame | None:
    start = at + _HEAD_BYTES
    if start > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, at)
    end = start + length
    if mark != MARK or length > PAYLOAD_BYTES_MAX or end > len(data):
        return None
    payload = data[start:end]
    if zlib.crc32(payload, zlib.crc32(data[at + _LENGTH_FROM : at + _LENGTH_TO])) != checksum:
        return None
    return Frame(payload, at, end)


def _is_torn(data: bytes, at: int) -> bool:
    """Say whether the rest looks like the beginning of a frame whose writing was cut.

    After a power cut a file may be as long as what was written, and zero where that had not been synced.
    """
    rest = data[at:].rstrip(b"\0")
    if len(data) - at - len(rest) < ZEROS_MIN:
        # So few may belong to the record.
        rest = data[at:]
    if len(rest) < _HEAD.size:
        return MARK.startswith(rest[: len(MARK)])
    mark, length, _ = _HEAD.unpack_from(rest)
    return bool(mark == MARK and _HEAD.size + length > len(rest))


def _checksum(payload: bytes, length: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(length)))
