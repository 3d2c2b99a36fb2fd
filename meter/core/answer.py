"""The running values of one answer, read document by document or event by event."""

from meter.core.alike import Alike, alike
from meter.core.counts import TOKENS_MAX
from meter.core.documents import TEXT_LENGTH_MAX, compact_json, parse_object, storable
from meter.core.estimate import RunningCount, choice_texts
from meter.core.observation import Observation, UpstreamError
from meter.core.sse import Event
from meter.core.upstream_cost import upstream_cost
from meter.core.usage import (
    merge,
    normalise,
    read_usage,
    sum_choices,
    unique,
)

USAGE_BYTES_MAX = 16 * 1024
CHOICES_MAX = 128

# What is around the data of an event of one line.
_DATA, _END = b"data: ", b"\n\n"
# What an error is told by, unless it is the document itself.
_FAULTS = frozenset({"detail", "error"})
_KEPT = ("model", "id", "service_tier", "system_fingerprint")

_Document = dict[str, object]


class Answer:
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
        """Take in an event of a stream."""
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
        """Take in a document: a whole answer, or the data of an event."""
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
        """Say what was learned; of what was stopped nothing is reported but why."""
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
