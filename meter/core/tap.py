"""Reads what one upstream response says about its cost, from a copy of its bytes.

The tap stands beside the stream, never in its way: it takes bytes in any pieces, raises nothing, holds a
bounded amount, and can be asked for its observation after any prefix, since clients leave and upstreams break
off. It keeps running values only: no text of an answer outlives the count of its tokens.

If a bound trips or the encoding turns out broken, reading stops for good and the usage seen so far is *not*
reported: it may have been a running count. `anomalies` then says why the event has to be estimated.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

import msgspec

from meter.core.alike import Alike, alike
from meter.core.documents import TEXT_LENGTH_MAX, compact_json, parse_object, storable
from meter.core.estimate import RunningCount, choice_texts
from meter.core.inflate import Inflater
from meter.core.sse import EVENT_BYTES_MAX, Event, Events
from meter.core.upstream_cost import upstream_cost
from meter.core.usage import (
    TOKENS_MAX,
    ReportedUsage,
    TokenUsage,
    merge,
    normalise,
    read_usage,
    sum_choices,
    unique,
)

DECODED_BYTES_MAX = 32 * 1024 * 1024
USAGE_BYTES_MAX = 16 * 1024
CHOICES_MAX = 128

_BOM = b"\xef\xbb\xbf"
_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
# What is around the data of an event of one line.
_DATA, _END = b"data: ", b"\n\n"
# What an error is told by, unless it is the document itself.
_FAULTS = frozenset({"detail", "error"})
_KEPT = ("model", "id", "service_tier", "system_fingerprint")

_Document = dict[str, object]


class UpstreamError(msgspec.Struct, frozen=True, gc=False):
    """An error that the upstream sent, without its message, which may quote a prompt."""

    type: str | None = None
    code: str | int | None = None


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What was learned of a response. Strings are bounded and can be stored as UTF-8."""

    usage: TokenUsage | None = None
    """Normalised; `None` if none was sent, if it is invalid, or if reading stopped early."""
    reported: ReportedUsage | None = None
    """As sent; `None` if none was sent or if reading stopped early."""
    usage_raw: str | None = None
    """The merged usage object as compact JSON; a list of them where they stood on several choices."""
    model: str | None = None
    upstream_id: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    finish_reasons: tuple[str, ...] = ()
    """By the index of the choice, without the choices that did not finish."""
    upstream_cost: Decimal | None = None
    """USD."""
    upstream_cost_source: str | None = None
    usage_chunks: int = 0
    choice_usage: bool = False
    """The usage was found on choices only."""
    done: bool = False
    comments: int = 0
    unparseable_events: int = 0
    error: UpstreamError | None = None
    emitted_tokens: int = 0
    """The larger of the number of events with text and the estimate of all text."""
    emitted_since_usage: int = 0
    """How many of them came in events after the last usage: more than 0 if that was a running count."""
    anomalies: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Say whether the usage can be charged: it is there, and not zero for a text that was produced."""
        usage = self.usage
        if usage is None:
            return False
        return usage.prompt_tokens > 0 or usage.completion_tokens > 0 or self.emitted_tokens == 0


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
        self._answer = _Answer(RunningCount(count_tokens))
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


class _Answer:
    """The running values of one response."""

    def __init__(self, emitted: RunningCount) -> None:
        self.emitted = emitted
        self._strings: dict[str, str] = {}
        self._finish_reasons: dict[int, str] = {}
        self._usage: _Document = {}
        self._choice_usage: dict[int, _Document] = {}
        self._chunks = 0
        self._choice_chunks = 0
        self._emitted_at_usage = 0
        self.done = False
        self._comments = 0
        self.unparseable = 0
        self._error: UpstreamError | None = None
        self._only_text: str | None = None
        self.alike: Alike | None = None
        """Events that say no more than the last one, but for their text."""
        # An ordered set: each once, however often it happens.
        self._anomalies: dict[str, None] = {}

    def read_event(self, event: Event) -> None:
        self._comments += event.comments
        if event.error is not None:
            self._anomalies["error_field_sse"] = None
            document = parse_object(event.error) or {}
            self._error = self._error or _error_of(document) or UpstreamError()
        data = event.data.strip()
        if data == b"[DONE]":
            self.done = True
        elif data:
            self.read_document(data, named_error=event.event == b"error")
            self.alike = self._alike(event)

    def _alike(self, event: Event) -> Alike | None:
        # Usage counts every time; whatever else an event says may be said again.
        is_plain = len(event.raw) == len(_DATA) + len(event.data) + len(_END)
        if self._only_text is None or not is_plain:
            return None
        return alike(event.raw, self._only_text)

    def read_document(self, data: bytes, *, whole: bool = False, named_error: bool = False) -> None:
        document = parse_object(data)
        if document is None:
            self.unparseable += 1
            document = {}
        if self._error is None and (not _FAULTS.isdisjoint(document) or document.get("object") == "error"):
            self._error = _error_of(document)
        if named_error and self._error is None:
            self._error = UpstreamError()
        for name in _KEPT:
            value = document.get(name)
            if value and isinstance(value, str):
                self._strings[name] = value[:TEXT_LENGTH_MAX]
        found = document.get("choices")
        choices = _objects(found) if found else []
        texts = self._read_choices(choices, whole=whole)
        counts = self._read_usage(document, choices, len(data))
        self._only_text = texts[0] if len(texts) == 1 and not counts else None

    def _read_choices(self, choices: list[_Document], *, whole: bool) -> list[str]:
        found: list[str] = []
        for choice in choices:
            found += choice_texts(choice, whole=whole)
            reason = choice.get("finish_reason")
            if reason and isinstance(reason, str):
                self._finish_reasons[_index(choice)] = storable(reason)
        if found:
            self.emitted.add(found)
        return found

    def _read_usage(self, document: _Document, choices: list[_Document], size: int) -> bool:
        """Take in what a document says of usage; returns whether it says anything."""
        usage = self._usage_of(document)
        on_choices: dict[int, _Document] = {}
        for choice in choices:
            found = self._usage_of(choice)
            if found is not None:
                on_choices[_index(choice)] = found
        if usage is None and not on_choices:
            return False
        if size > USAGE_BYTES_MAX and compact_json([usage, on_choices], USAGE_BYTES_MAX) is None:
            self._anomalies["usage_too_large"] = None
            return True
        if self.done:
            self._anomalies["usage_after_done"] = None
        if usage is not None:
            self._chunks += 1
            self._usage = self._merged(self._usage, usage)
        else:
            self._choice_chunks += 1
        for index, found in on_choices.items():
            self._choice_usage[index] = self._merged(self._choice_usage.get(index, {}), found)
        return True

    def _usage_of(self, holder: _Document) -> _Document | None:
        usage = holder.get("usage")
        if isinstance(usage, dict):
            return usage
        if usage is not None:
            self._anomalies["invalid_usage_type"] = None
        groq = holder.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) else None
        return usage if isinstance(usage, dict) else None

    def _merged(self, older: _Document, newer: _Document) -> _Document:
        """Lay a usage over the one before, except for zeros over numbers, which mean nothing."""
        if older and read_usage(newer).all_zero and not read_usage(older).all_zero:
            self._anomalies["zero_usage_placeholder"] = None
            return older
        self._emitted_at_usage = self.emitted.tokens
        return merge(older, newer)

    def observation(self, stopped_by: str | None, response_cost: str | None) -> Observation:
        choices = [] if self._usage else [usage for _, usage in sorted(self._choice_usage.items())]
        found = choices or ([self._usage] if self._chunks else [])
        readable = stopped_by is None and bool(found)
        model = self._kept("model")
        reported = sum_choices(found) if readable else None
        usage, odd = (None, ()) if reported is None else normalise(reported, model)
        raw = compact_json(found if len(found) > 1 else found[0], USAGE_BYTES_MAX) if found else None
        cost, source = upstream_cost(found[0] if readable and len(found) == 1 else {}, response_cost)
        emitted = self.emitted.tokens
        flags = [*self._anomalies, *(() if reported is None else reported.anomalies), *odd]
        if stopped_by is not None:
            flags.insert(0, stopped_by)
        if usage is not None and emitted and not (usage.prompt_tokens or usage.completion_tokens):
            flags.append("zero_usage")
        if found and raw is None:
            flags.append("usage_raw_dropped")
        reasons = self._finish_reasons
        # Python makes a dict of more names than these for a call, which takes five times as long.
        return Observation(
            None if reported is None or reported.invalid else usage,
            reported,
            raw,
            model,
            self._kept("id"),
            self._kept("service_tier"),
            self._kept("system_fingerprint"),
            tuple([reasons[index] for index in sorted(reasons)]),
            upstream_cost=cost,
            upstream_cost_source=source,
            usage_chunks=self._chunks or self._choice_chunks,
            choice_usage=bool(choices),
            done=self.done,
            comments=self._comments,
            unparseable_events=self.unparseable,
            error=self._error,
            emitted_tokens=emitted,
            emitted_since_usage=emitted - self._emitted_at_usage if found else 0,
            anomalies=unique(flags) if flags else (),
        )

    def _kept(self, name: str) -> str | None:
        text = self._strings.get(name)
        return text if text is None or text.isprintable() else storable(text)


@lru_cache(maxsize=64)
def _is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def _error_of(document: _Document) -> UpstreamError | None:
    """Find an error in any of the shapes that are sent: an object, a string, vLLM's, Mistral's."""
    error = document.get("error")
    if document.get("object") == "error":
        error = document
    if isinstance(error, dict):
        kind, code = error.get("type"), error.get("code")
        is_number = isinstance(code, int) and not isinstance(code, bool) and abs(code) <= TOKENS_MAX
        return UpstreamError(
            type=storable(kind) if isinstance(kind, str) else None,
            code=storable(code) if isinstance(code, str) else code if is_number else None,
        )
    is_detail = "detail" in document and "choices" not in document
    return UpstreamError() if is_detail or (error and isinstance(error, str)) else None


def _objects(value: object) -> list[_Document]:
    found = value if isinstance(value, list) else []
    return [item for item in found[:CHOICES_MAX] if isinstance(item, dict)]


def _index(choice: _Document) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) and 0 <= index < CHOICES_MAX else 0
