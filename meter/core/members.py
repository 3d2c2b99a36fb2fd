r"""JSON at the level of bytes: the members of an object, found where they stand.

A parser forgets how a value was written: the order, the blanks, `1.0` against `1`, `\u00e9` against `é`. A
proxy that promises the same bytes edits the bytes, and `members` tells it where they are.
"""

import json
import re

import msgspec

# Possessive throughout: no backtracking, so the time is linear also on malformed input.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BLANK = re.compile(rb"[ \t\r\n]*+")
# A key and, unless it is an array or an object, its value.
_MEMBER = re.compile(
    rb"(%b)[ \t\r\n]*+:[ \t\r\n]*+(%b|[^ \t\r\n,:{}\[\]\"]++)?+[ \t\r\n]*+" % (_STRING, _STRING), re.DOTALL
)
_STRUCTURE = re.compile(_STRING + rb'|[\[{]|[\]}]|"', re.DOTALL)

_OPENING = b"[{"
_CLOSING = b"]}"


class Member(msgspec.Struct, frozen=True):
    """One member of an object: positions are offsets of bytes, ends are exclusive."""

    key: str
    start: int
    """The opening quote of the key."""
    value_start: int
    value_end: int


def members(data: bytes) -> list[Member]:
    """List the members of the one object that `data` is, in order, duplicates included.

    Raises `ValueError` where the top level is malformed. The insides of values are not checked beyond their
    strings and the number of their brackets: the callers have parsed the document before.
    """
    at = _blank(data, _expect(data, _blank(data, 0), b"{"))
    found: list[Member] = []
    while found or data[at : at + 1] != b"}":
        member, at = _member(data, at)
        found.append(member)
        if data[at : at + 1] != b",":
            break
        at = _blank(data, at + 1)
    at = _expect(data, at, b"}")
    if _blank(data, at) != len(data):
        raise ValueError(f"something follows the object at byte {at}")
    return found


def _member(data: bytes, at: int) -> tuple[Member, int]:
    """Read the member that begins here; returns it and where the comma or the brace behind it stands."""
    match = _MEMBER.match(data, at)
    if match is None:
        raise ValueError(f"no member at byte {at}")
    quoted = match[1]
    key = json.loads(quoted) if b"\\" in quoted else quoted[1:-1].decode()
    start, end = match.span(2)
    if start >= 0:
        return Member(key, at, start, end), match.end()
    end = _container_end(data, match.end())
    return Member(key, at, match.end(), end), _blank(data, end)


def _container_end(data: bytes, start: int) -> int:
    if data[start : start + 1] not in {b"[", b"{"}:
        raise ValueError(f"no value at byte {start}")
    depth = 0
    for token in _STRUCTURE.finditer(data, start):
        first = data[token.start()]
        if first in _OPENING:
            depth += 1
        elif first in _CLOSING:
            depth -= 1
            if depth == 0:
                return token.end()
        elif token.end() - token.start() == 1:
            raise ValueError(f"unterminated string at byte {token.start()}")
    raise ValueError(f"unterminated value at byte {start}")


def _blank(data: bytes, at: int) -> int:
    match = _BLANK.match(data, at)
    return at if match is None else match.end()


def _expect(data: bytes, at: int, what: bytes) -> int:
    if data[at : at + 1] != what:
        raise ValueError(f"expected {what.decode()} at byte {at}")
    return at + 1
