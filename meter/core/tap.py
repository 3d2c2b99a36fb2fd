"""Reads what one upstream response says about its cost, from a copy of its bytes.

The tap stands beside the stream, never in its way: it takes bytes in any pieces, raises nothing, holds a
bounded amount, and can be asked for its observation after any prefix, since clients leave and upstreams break
off. It keeps running values only: no text of an answer outlives the count of its tokens.

If a bound trips or the encoding turns out broken, reading stops for good and the usage seen so far is *not*
reported: it may have been a running count. `anomalies` then says why the event has to be estimated.
"""

from collections.abc import Callable
from functools import lru_cache

from meter.core.answer import Answer
from meter.core.estimate import RunningCount
from meter.core.inflate import Inflater
from meter.core.observation import Observation
from meter.core.sse import EVENT_BYTES_MAX, Event, Events

DECODED_BYTES_MAX = 32 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")


class Tap:
    """The reader of one response: `feed` its bytes, then `finish`; ask for `emitted_tokens` at any time.

    `count_tokens` must take any string; `response_cost` is the header `x-litellm-response-cost`. The body of
    a response that is no stream counts as emitted only when it is complete.
    """

    __slots__ = (
        "_answer",
        "_body_bytes_max",
        "_declared_sse",
        "_encoded",
        "_event_bytes_max",
        "_events",
        "_held",
        "_inflater",
        "_is_sse",
        "_observation",
        "_response_cost",
        "_stopped_by",
    )

    def __init__(
        self,
        *,
        content_type: str,
        count_tokens: Callable[[str], int],
        content_encoding: str = "",
        response_cost: str | None = None,
        decoded_bytes_max: int = DECODED_BYTES_MAX,
        event_bytes_max: int = EVENT_BYTES_MAX,
    ) -> None:
        self._declared_sse = _is_event_stream(content_type)
        self._response_cost = response_cost
        self._body_bytes_max = decoded_bytes_max
        self._event_bytes_max = event_bytes_max
        self._is_sse: bool | None = None
        self._held: bytes | bytearray = b""
        self._events: Events | None = None
        self._answer = Answer(RunningCount(count_tokens))
        self._stopped_by: str | None = None
        self._observation: Observation | None = None
        self._inflater: Inflater | None = None
        self._encoded = False
        if content_encoding:
            self._open(content_encoding, decoded_bytes_max)

    @property
    def emitted_tokens(self) -> int:
        """Tokens of the answer so far, estimated; cheap."""
        return self._answer.emitted.tokens

    @property
    def done(self) -> bool:
        """Whether a stream has said that this was all (`[DONE]`)."""
        return self._answer.done

    def feed(self, data: bytes) -> None:
        """Take in the next bytes as they came from the network; never raises."""
        if self._inflater is not None:
            self._inflate(data, self._inflater)
        elif self._stopped_by is None and self._observation is None:
            self._read(data)

    def finish(self, *, cut: bool = False) -> Observation:
        """Say what was learned, after any prefix of the response; the same answer every time.

        Of a document that was `cut`, which cannot be parsed, all that came counts as text.
        """
        if self._observation is None:
            if self._stopped_by is None:
                self._read_rest(cut=cut)
            if self._encoded and (self._is_sse is None or self._answer.unparseable):
                self._stop("undecodable_encoding")
            self._observation = self._answer.observation(self._stopped_by, self._response_cost)
        return self._observation

    def _open(self, content_encoding: str, decoded_bytes_max: int) -> None:
        codings = [name.strip().lower() for name in content_encoding.split(",")]
        codings = [name for name in codings if name not in {"", "identity"}]
        if codings in (["gzip"], ["x-gzip"], ["deflate"]):
            self._inflater = Inflater(decoded_bytes_max)
        elif codings:
            # Some servers name an encoding that they did not apply, so the first bytes decide.
            self._encoded = True
            self._declared_sse = False

    def _inflate(self, data: bytes, inflater: Inflater) -> None:
        for piece in inflater.pieces(data):
            if self._stopped_by is not None or self._observation is not None:
                return
            self._read(piece)
        if inflater.fault is not None:
            self._stop(inflater.fault)

    def _stop(self, why: str) -> None:
        self._stopped_by = self._stopped_by or why
        self._held = b""
        if self._events is not None:
            self._events.take_rest()

    def _read(self, piece: bytes) -> None:
        if self._is_sse is None:
            piece = self._recognise(piece)
        if self._events is not None:
            self._read_stream(piece, self._events)
        elif self._encoded and self._is_sse is False and not self._held and not piece.startswith(b"{"):
            self._stop("undecodable_encoding")
        else:
            self._hold(piece)

    def _hold(self, piece: bytes) -> None:
        if not self._held:
            # Most documents come whole, and need no copy.
            self._held = piece
        else:
            if isinstance(self._held, bytes):
                self._held = bytearray(self._held)
            self._held += piece
        if len(self._held) > self._body_bytes_max:
            self._stop("body_too_large")

    def _read_stream(self, piece: bytes, events: Events) -> None:
        text = events.read_alike(piece)
        if text is not None:
            # A single event that says nothing new but its text: all of a stream that comes one by one.
            self._answer.emitted.add((text,))
            return
        for found in events.read(piece):
            if isinstance(found, Event):
                self._answer.read_event(found)
                events.alike = self._answer.alike
            else:
                self._answer.emitted.add_each(found)
        if events.tripped:
            self._stop("event_too_large")

    def _recognise(self, piece: bytes) -> bytes:
        """Tell a stream from a document by its first bytes, as content types are not to be relied on.

        No line of a stream begins with a brace, and no JSON with the name of a field. Blanks in front, which
        DeepSeek sends to keep a connection alive, mean nothing in either and are dropped.
        """
        if not self._held and piece.startswith(b"{"):
            self._is_sse = False
            return piece
        opening = bytes(self._held) + piece
        self._held = b""
        if _BOM.startswith(opening):
            return opening
        opening = opening.removeprefix(_BOM).lstrip(b" \t\r\n")
        if opening[:1] in {b"{", b"["}:
            self._is_sse = False
        elif opening and (self._declared_sse or opening.startswith(_SSE_FIELDS)):
            self._is_sse = True
            self._events = Events(self._event_bytes_max)
        elif not any(field.startswith(opening) for field in _SSE_FIELDS):
            self._is_sse = False
        return opening

    def _read_rest(self, *, cut: bool) -> None:
        if self._events is not None:
            for event in self._events.finish():
                self._answer.read_event(event)
        elif self._is_sse is False or not self._declared_sse:
            document = bytes(self._held)
            self._answer.read_document(document, whole=True)
            if cut and self._answer.unparseable and b'"choices"' in document:
                self._answer.emitted.add([document.decode("utf-8", "replace")])
        self._held = b""


@lru_cache(maxsize=64)
def _is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"
