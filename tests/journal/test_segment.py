"""A file of frames loses the record that was hurt, and no other."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.journal.segment import MARK, PAYLOAD_BYTES_MAX, Damage, Frame, frame, scan

# Some that contain the mark, its beginning, and a whole frame of another record.
PAYLOADS = [b"one", b"", MARK, b"\xf5MJ", b"\x00" * 20 + MARK + b"x", bytes(range(256)), b"last"]
HEAD_BYTES = len(frame(b""))

payloads = st.lists(st.one_of(st.binary(max_size=60), st.just(MARK), st.just(MARK[:3])), max_size=8)


def joined(written: list[bytes]) -> tuple[bytes, list[int]]:
    """Write payloads one after the other; returns the bytes and the place behind each."""
    data, ends = b"", []
    for payload in written:
        data += frame(payload)
        ends.append(len(data))
    return data, ends


def read(data: bytes) -> list[bytes]:
    """Return the payloads that can be read."""
    return [found.payload for found in scan(data) if isinstance(found, Frame)]


def damage(data: bytes) -> list[Damage]:
    """Return the stretches that cannot be read."""
    return [found for found in scan(data) if isinstance(found, Damage)]


def test_a_cut_at_every_byte_loses_only_what_was_cut() -> None:
    """Wherever a file is cut, every record that was complete comes back, and the rest is called torn."""
    data, ends = joined(PAYLOADS)

    for cut in range(len(data) + 1):
        whole = [end for end in ends if end <= cut]
        last = whole[-1] if whole else 0
        assert read(data[:cut]) == PAYLOADS[: len(whole)]
        assert damage(data[:cut]) == ([Damage(last, cut, torn=True)] if last < cut else [])


def test_what_was_never_synced_is_torn_too() -> None:
    """After a power cut a file may end in zeros, from any byte on; no record before them is lost."""
    data, ends = joined(PAYLOADS)
    zeros = b"\0" * 4096

    for cut in range(len(data) + 1):
        whole = [end for end in ends if end <= cut]
        last = whole[-1] if whole else 0
        assert read(data[:cut] + zeros) == PAYLOADS[: len(whole)]
        assert damage(data[:cut] + zeros) == [Damage(last, cut + len(zeros), torn=True)]


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_damaged_byte_anywhere_loses_only_its_record(flip: int) -> None:
    """Whichever byte is damaged, all other records come back, and the stretch that is lost is its record."""
    data, ends = joined(PAYLOADS)

    for at in range(len(data)):
        hurt = next(number for number, end in enumerate(ends) if at < end)
        damaged = bytearray(data)
        damaged[at] ^= flip
        start = ends[hurt - 1] if hurt else 0
        assert read(bytes(damaged)) == PAYLOADS[:hurt] + PAYLOADS[hurt + 1 :]
        assert [found[:2] for found in damage(bytes(damaged))] == [(start, ends[hurt])]


@given(payloads, st.data())
def test_any_byte_of_any_file(written: list[bytes], draw: st.DataObject) -> None:
    """Whatever the records are, one damaged byte costs the record that it is in and no other."""
    data, ends = joined([*written, b"end"])
    at = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255).filter(lambda value: value != data[at]))
    hurt = next(number for number, end in enumerate(ends) if at < end)

    damaged = data[:at] + bytes([value]) + data[at + 1 :]

    assert read(damaged) == [payload for number, payload in enumerate([*written, b"end"]) if number != hurt]


@given(payloads)
def test_what_was_written_is_read(written: list[bytes]) -> None:
    """Undamaged, everything comes back in order, with places that join without a gap."""
    data, ends = joined(written)

    found = list(scan(data))

    assert [each.end for each in found] == ends
    assert [each.start for each in found] == [0, *ends][:-1]
    assert read(data) == written


@given(st.binary(max_size=300))
def test_any_bytes_are_accounted_for(data: bytes) -> None:
    """Bytes that nobody wrote are never a crash, and no byte is left out."""
    found = list(scan(data))

    assert sum(each.end - each.start for each in found) == len(data)


def test_a_scan_may_begin_at_a_record() -> None:
    """Reading from the place behind a record gives those after it."""
    data, ends = joined([b"one", b"two", b"three"])

    found = list(scan(data, ends[0]))

    assert [each.payload for each in found if isinstance(each, Frame)] == [b"two", b"three"]


def test_a_length_that_is_no_length_is_damage() -> None:
    """A header that announces more than any record has is passed over."""
    head = MARK + (PAYLOAD_BYTES_MAX + 1).to_bytes(4, "little") + zlib.crc32(b"").to_bytes(4, "little")

    found = list(scan(head + frame(b"next")))

    assert found[0] == Damage(0, len(head), torn=False)
    assert read(head + frame(b"next")) == [b"next"]


def test_a_record_has_a_longest_length() -> None:
    """What no reader would take is not written."""
    assert read(frame(b"x" * PAYLOAD_BYTES_MAX)) == [b"x" * PAYLOAD_BYTES_MAX]
    with pytest.raises(ValueError, match="longer than"):
        frame(b"x" * (PAYLOAD_BYTES_MAX + 1))
