"""Asks for usage on a streaming request by the smallest change of its bytes.

Most providers report the usage of a stream only when `stream_options.include_usage` is true. The member is
spliced in, and nothing else of the request changes: not the order of its members, not a blank, not a digit.
"""

from collections.abc import Mapping

from meter.core.members import Member, members

_OPTIONS = "stream_options"
_FLAG = "include_usage"
_FLAG_ON = b'"include_usage":true'
_BLANKS = b" \t\r\n"


def include_usage(body: bytes, document: Mapping[str, object]) -> bytes:
    """Return the body with `stream_options.include_usage` true; the same object where it is already.

    `body` is a JSON object, and `document` what it was decoded to. Where `stream_options` or the flag hold
    something that is neither an object nor a boolean nor null, the request is wrong, and it is the upstream
    that says so: the body stays.
    """
    if _OPTIONS not in document:
        return _append(body, b'"stream_options":{' + _FLAG_ON + b"}", alone=not document)
    asked = document[_OPTIONS]
    if isinstance(asked, dict) and asked.get(_FLAG) is True:
        return body
    found = members(body)
    options = _last(found, _OPTIONS)
    if options is None:
        raise ValueError("the document was decoded from another body")
    value = body[options.value_start : options.value_end]
    if value == b"null":
        return _replace(body, options, b"{" + _FLAG_ON + b"}")
    changed = _switch_on(value) if value.startswith(b"{") else value
    return body if changed is value else _replace(body, options, changed)


def _switch_on(options: bytes) -> bytes:
    found = members(options)
    flag = _last(found, _FLAG)
    if flag is None:
        return _append(options, _FLAG_ON, alone=not found)
    off = options[flag.value_start : flag.value_end] in (b"false", b"null")
    return _replace(options, flag, b"true") if off else options


def _last(found: list[Member], key: str) -> Member | None:
    """Of members with the same key the last one counts, as in most parsers."""
    return next((member for member in reversed(found) if member.key == key), None)


def _replace(body: bytes, member: Member, value: bytes) -> bytes:
    return body[: member.value_start] + value + body[member.value_end :]


def _append(body: bytes, member: bytes, *, alone: bool) -> bytes:
    """Put a member last: behind the value of the one before, or behind the opening brace."""
    inner = body.rstrip(_BLANKS)[:-1].rstrip(_BLANKS)
    at = body.index(b"{") + 1 if alone else len(inner)
    return body[:at] + (member if alone else b"," + member) + body[at:]
