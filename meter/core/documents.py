"""JSON documents of upstreams: read leniently and exactly, and kept within bounds.

Upstreams write JSON that strict parsers refuse and numbers that floats cannot hold, so documents are read
leniently and fractions as decimals.
"""

import json
import re
from decimal import Decimal, InvalidOperation

import msgspec

TEXT_LENGTH_MAX = 256

# Legal in JSON strings, and refused by UTF-8 (lone surrogates) or by PostgreSQL (NUL).
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # An exponent that not even a decimal can hold.
        return Decimal("NaN")


_DECODER = msgspec.json.Decoder(float_hook=_decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def parse_object(data: bytes) -> dict[str, object] | None:
    """Read a JSON object, fractions as `Decimal`; `None` for everything else.

    NaN, lone surrogates, a byte order mark and broken UTF-8 are tolerated; of duplicate members the last
    one counts.
    """
    try:
        document = _DECODER.decode(data)
    except RecursionError:
        return None
    except ValueError:
        document = _parse_leniently(data)
    return document if isinstance(document, dict) else None


def _parse_leniently(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig", "replace"), parse_float=_decimal)
    except (ValueError, RecursionError):
        return None


def storable(text: str) -> str:
    """Cut a text to `TEXT_LENGTH_MAX` and put U+FFFD for what cannot be stored as UTF-8 text everywhere."""
    if len(text) <= TEXT_LENGTH_MAX and text.isprintable():
        # Neither NUL nor surrogates can be printed.
        return text
    return _UNSTORABLE.sub("\ufffd", text[:TEXT_LENGTH_MAX])


def compact_json(value: object, bytes_max: int) -> str | None:
    """Write what `parse_object` has read, numbers exactly and strings storable; `None` if it is too long.

    What JSON cannot hold (NaN) becomes null.
    """
    try:
        text = _written(value)
        if text is None or _maybe_unstorable(text):
            text = _ENCODER.encode(_plain(value)).decode()
    except RecursionError:
        return None
    return text if len(text) <= bytes_max else None


def _written(value: object) -> str | None:
    try:
        return _ENCODER.encode(value).decode()
    except ValueError:
        return None


def _maybe_unstorable(text: str) -> bool:
    """Say whether a JSON text may hold strings or numbers that cannot be stored as they are."""
    if "\\" in text or "NaN" in text or "Infinity" in text:
        return True
    # No string is longer than the longest of what is between quotes.
    return len(text) > TEXT_LENGTH_MAX and max(map(len, text.split('"'))) > TEXT_LENGTH_MAX


def _plain(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | Decimal) and not Decimal(value).is_finite():
        return None
    return value
