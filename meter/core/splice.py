"""Asks for usage on a streaming request by the smallest change of its bytes.

Most providers report the usage of a stream only when `stream_options.include_usage` is true. The member is
spliced in, and nothing else of the request changes: not the order of its members, not a blank, not a digit.
"""

from meter.core.members import Member, members

_OPTIONS = "stream_options"
_FLAG = "include_usage"
_FLAG_ON = b'"include_usage":true'


def include_usage(body: bytes) -> bytes:
    """Return the body with `stream_options.include_usage` true; the same object where it is already.

    `body` is a JSON object that has been parsed before. Where `stream_options` or the flag hold something
    that is neither an object nor a boolean nor null, the request is wrong, and it is the upstream that says
    so: the body stays. Raises `ValueError` on what is no JSON object.
    """
    found = members(body)
    options = _last(found, _OPTIONS)
    if options is None:
        return _insert(body, found, b'"stream_options":{' + _FLAG_ON + b"}")
    value = body[options.value_start : options.value_end]
    if value == b"null":
        return _replace(body, options, b"{" + _FLAG_ON + b"}")
    changed = _switch_on(value) if value.startswith(b"{") else value
    return body if changed is value else _replace(body, options, changed)


def _switch_on(options: bytes) -> bytes:
    found = members(options)
    flag = _last(found, _FLAG)
    if flag is None:
        return _insert(options, found, _FLAG_ON)
    off = options[flag.value_start : flag.value_end] in (b"false", b"null")
    return _replace(options, flag, b"true") if off else options


def _last(found: list[Member], key: str) -> Member | None:
    """Of members with the same key the last one counts, as in most parsers."""
    return next((member for member in reversed(found) if member.key == key), None)


def _replace(body: bytes, member: Member, value: bytes) -> bytes:
    return body[: member.value_start] + value + body[member.value_end :]


def _insert(body: bytes, found: list[Member], member: bytes) -> bytes:
    """Put a member last: behind the last one, or behind the opening brace."""
    if found:
        at, member = found[-1].value_end, b"," + member
    else:
        at = body.index(b"{") + 1
    return body[:at] + member + body[at:]
