"""Takes out of a stream what asking for usage has added to it.

Where meter switched `include_usage` on and the client had not, the upstream adds a chunk with the usage and
no choices, and `"usage":null` to every other chunk. The client is to see the stream that it would have seen:
both are taken out, and every other byte passes as it came.
"""

import re

from meter.core.members import Member, members
from meter.core.sse import EVENT_BYTES_MAX, Event, Events, lines

_NO_CHOICES = re.compile(rb"\[[ \t\r\n]*+\]")


class Stripper:
    """Edits one event stream; what it has returned is always a prefix of the edited stream.

    An event is passed on as soon as its end is known. One that exceeds `event_bytes_max` ends the editing:
    from there on everything passes untouched, and `gave_up` is set.
    """

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._events = Events(event_bytes_max)
        self.gave_up = False

    def feed(self, data: bytes) -> bytes:
        """Return what may be sent on, now that these bytes have come."""
        if self.gave_up:
            return data
        passed = [_strip(event) for event in self._events.feed(data)]
        if self._events.tripped:
            self.gave_up = True
            passed.append(self._events.take_rest())
        return b"".join(passed)

    def finish(self) -> bytes:
        """Return the rest of a stream that ended cleanly."""
        return b"".join(_strip(event) for event in self._events.finish())


def _strip(event: Event) -> bytes:
    # Cheap and safe: a mention of usage inside a string of the answer only costs the look below.
    if b'"usage"' not in event.raw:
        return event.raw
    try:
        found = members(event.data)
    except ValueError:
        return event.raw
    usage = [member for member in found if member.key == "usage"]
    if len(usage) != 1:
        return event.raw
    value = _value(event, usage[0])
    if value == b"null":
        return _without_member(event, found, found.index(usage[0]))
    if value.startswith(b"{") and _has_no_choices(event, found):
        return _without_event(event)
    return event.raw


def _has_no_choices(event: Event, found: list[Member]) -> bool:
    choices = [_value(event, member) for member in found if member.key == "choices"]
    return len(choices) == 1 and _NO_CHOICES.fullmatch(choices[0]) is not None


def _without_member(event: Event, found: list[Member], index: int) -> bytes:
    """Cut one member out, with the comma before it, or the one behind it if it is the first.

    Data on several lines stays as it is: no provider sends it, and a `null` does no harm.
    """
    if event.data_at < 0:
        return event.raw
    start, end = found[index].start, found[index].value_end
    if index > 0:
        start = found[index - 1].value_end
    elif len(found) > 1:
        end = found[1].start
    return event.raw[: event.data_at + start] + event.raw[event.data_at + end :]


def _without_event(event: Event) -> bytes:
    """Keep what stood before the event by chance: comments, and line ends of the event before it."""
    leading = event.raw[: len(event.raw) - len(event.raw.lstrip(b"\r\n"))]
    if not event.comments:
        return leading
    found = lines(event.raw)
    ends = [at for at, _ in found[1:]] + [len(event.raw)]
    starts = [at for at, _ in found]
    pieces = zip(starts, ends, (line for _, line in found), strict=True)
    return leading + b"".join(event.raw[at:end] for at, end, line in pieces if line.startswith(b":"))


def _value(event: Event, member: Member) -> bytes:
    return event.data[member.value_start : member.value_end]
