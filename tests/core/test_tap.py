"""The tap reads every recorded response the same, whole or in any pieces, and survives everything else."""

import gzip
import json
import random
import tracemalloc
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter.core.estimate import count_tokens
from meter.core.observation import Observation, UpstreamError
from meter.core.tap import Tap
from meter.core.usage import TokenUsage, normalise

DATA = Path(__file__).parents[1] / "data" / "usage_cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text().splitlines()]
SSE = "text/event-stream"
JSON = "application/json"

# A parser that does not recurse may read these.
EITHER = {"nasty-deep-nesting"}
READABLE = [case for case in CASES if case["id"] not in EITHER]

by_id = pytest.mark.parametrize("case", READABLE, ids=lambda case: str(case["id"]))


def observe(data: bytes, content_type: str = SSE, *, pieces: int = 0, **options: Any) -> Observation:
    """Feed a tap, in pieces of a size or whole, and return what it observed."""
    options.setdefault("count_tokens", count_tokens)
    tap = Tap(content_type=content_type, **options)
    size = pieces or len(data) or 1
    for start in range(0, len(data), size):
        tap.feed(data[start : start + size])
    return tap.finish()


def wire(case: dict[str, Any]) -> bytes:
    """Return the bytes as they stood on the wire; the cases keep bodies decoded."""
    body = str(case["body"]).encode("utf-8", "surrogatepass")
    return gzip.compress(body) if case["headers"].get("content-encoding") == "gzip" else body


def tap_for(case: dict[str, Any]) -> Tap:
    """Make the tap that the response headers of a case ask for."""
    headers = case["headers"]
    return Tap(
        content_type=headers.get("content-type", ""),
        content_encoding=headers.get("content-encoding", ""),
        response_cost=headers.get("x-litellm-response-cost"),
        count_tokens=count_tokens,
    )


def facts(observation: Observation) -> dict[str, Any]:
    """Write an observation in the terms of the cases."""
    reported = observation.reported
    reasons = observation.finish_reasons
    counts = msgspec.structs.asdict(reported) if reported else {}
    counts.pop("anomalies", None)
    counts.pop("cache_write_1h_tokens", None)
    places = {True: "choices[].usage", False: "usage"}
    return counts | {
        "usage_present": reported is not None,
        "upstream_cost": observation.upstream_cost,
        "upstream_cost_source": observation.upstream_cost_source,
        "model": observation.model,
        "finish_reason": reasons[0] if reasons else None,
        "finish_reasons": list(reasons) if len(reasons) > 1 else None,
        "service_tier": observation.service_tier,
        "system_fingerprint": observation.system_fingerprint,
        "response_id": observation.upstream_id,
        "usage_source": places[observation.choice_usage] if reported else None,
        "usage_chunks": observation.usage_chunks,
        "stream_done": observation.done,
        "sse_comments": observation.comments,
        "unparseable_events": observation.unparseable_events,
        "error": observation.error and msgspec.structs.asdict(observation.error),
        "norm": reported and norm(observation),
        "anomalies": sorted(observation.anomalies),
    }


def norm(observation: Observation) -> dict[str, int]:
    """Write the normalised usage in the terms of the cases."""
    assert observation.reported is not None
    usage, _ = normalise(observation.reported, observation.model)
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "uncached_input_tokens": usage.uncached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def expected_facts(case: dict[str, Any]) -> dict[str, Any]:
    """Read what a case expects, in the types that `facts` gives."""
    expected = dict(case["expected"])
    expected["stream_done"] = bool(expected["stream_done"])
    expected["sse_comments"] = expected["sse_comments"] or 0
    expected["anomalies"] = sorted(expected["anomalies"])
    if expected["error"] is not None:
        # Messages may quote a prompt, so they are not kept.
        expected["error"] = {name: expected["error"][name] for name in ("type", "code")}
    if expected["upstream_cost"] is not None:
        expected["upstream_cost"] = Decimal(expected["upstream_cost"])
    if expected["model"] is not None:
        expected["model"] = expected["model"].replace("\ud800", "\ufffd")
    if not expected["usage_present"]:
        expected = {name: value for name, value in expected.items() if value is not None or name in FACTS}
    return expected


FACTS = frozenset(facts(Observation()))


@by_id
def test_a_recorded_response_is_read_as_expected(case: dict[str, Any]) -> None:
    """Every recorded response yields the counts, strings, costs and anomalies of its case."""
    tap = tap_for(case)

    tap.feed(wire(case))

    assert facts(tap.finish()) == expected_facts(case)


@by_id
def test_the_cut_of_the_bytes_does_not_matter(case: dict[str, Any]) -> None:
    """Every recorded response is read the same, one byte at a time and cut at random places."""
    data = wire(case)
    whole, single, cut = tap_for(case), tap_for(case), tap_for(case)
    places = sorted(random.Random(case["id"]).choices(range(len(data) + 1), k=20))

    whole.feed(data)
    for byte in data:
        single.feed(bytes([byte]))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        cut.feed(data[start:end])

    assert single.finish() == whole.finish()
    assert cut.finish() == whole.finish()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_cut_of_any_recorded_response_is_read_the_same(data: st.DataObject) -> None:
    """However the network cuts a response, the observation is that of the whole."""
    case = data.draw(st.sampled_from(READABLE))
    body = wire(case)
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    tap, whole = tap_for(case), tap_for(case)

    whole.feed(body)
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        tap.feed(body[start:end])

    assert tap.finish() == whole.finish()


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n\n", b'{"usage":', b"}", b"\r"])
    ),
    encoding=st.sampled_from(["", "gzip", "deflate", "br"]),
)
def test_garbage_never_raises(pieces: list[bytes], encoding: str) -> None:
    """Whatever bytes come, the tap raises nothing and gives an observation."""
    tap = Tap(content_type=SSE, content_encoding=encoding, count_tokens=count_tokens)

    for piece in pieces:
        tap.feed(piece)

    assert isinstance(tap.finish(), Observation)


@settings(max_examples=100, deadline=None)
@given(
    usage=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"])
                | st.sampled_from(["prompt_tokens_details", "cost", "is_byok", "cost_details"])
                | st.text(max_size=4),
                inner,
                max_size=6,
            )
        ),
    )
)
def test_no_usage_makes_counts_negative_or_unstorable(usage: object) -> None:
    """Whatever stands in `usage`, counts are at least 0 and the raw usage is JSON in UTF-8."""
    observation = observe(sse(choices_chunk("a"), {"usage": usage}))

    counts = msgspec.structs.astuple(observation.usage) if observation.usage else ()
    assert all(0 <= count < 2**65 for count in counts)
    assert observation.usage is None or observation.usage.uncached_tokens >= 0
    assert observation.usage_raw is None or json.loads(observation.usage_raw.encode()) is not None


def test_an_observation_can_be_asked_for_after_any_prefix() -> None:
    """After every prefix of a stream there is an observation, and asking twice gives the same."""
    body = sse(choices_chunk("a"), USAGE_CHUNK, done=True)

    for length in range(len(body) + 1):
        tap = Tap(content_type=SSE, count_tokens=count_tokens)
        tap.feed(body[:length])
        first = tap.finish()
        tap.feed(body[length:])
        assert tap.finish() is first


# What providers send, beyond the recorded cases.


def choices_chunk(content: str = "", **more: Any) -> dict[str, Any]:
    """Make a chunk with one choice."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return {"id": "c-1", "model": "test-model", "choices": [choice], **more}


def counts(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """Make a usage object."""
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}


USAGE_CHUNK = {"id": "c-1", "model": "test-model", "choices": [], "usage": counts(10, 2)}


def sse(*chunks: object, done: bool = False, end: str = "\n\n") -> bytes:
    """Write chunks as an event stream; strings are events as they are."""
    events = [chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}" for chunk in chunks]
    return "".join(event + end for event in [*events, *(["data: [DONE]"] if done else [])]).encode()


def test_groq_sends_its_usage_twice_and_it_counts_once() -> None:
    """Where `usage` and `x_groq.usage` say the same, it counts once."""
    chunk = choices_chunk(usage=counts(10, 2), x_groq={"id": "r", "usage": counts(10, 2)})

    observation = observe(sse(choices_chunk("a"), chunk, done=True))

    assert observation.usage == TokenUsage(10, 2)
    assert observation.usage_chunks == 1


def test_usage_in_x_groq_alone_counts() -> None:
    """Groq of 2025 reports in `x_groq.usage` only."""
    chunk = choices_chunk(x_groq={"id": "r", "usage": counts(18, 70, queue_time=0.0123)})

    observation = observe(sse(chunk, done=True))

    assert observation.usage == TokenUsage(18, 70)
    assert observation.choice_usage is False


def test_usage_on_the_only_choice_counts_as_it_is() -> None:
    """Moonshot without `include_usage` reports on the choice; with one choice nothing is summed."""
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": counts(19, 13, cached_tokens=4)}

    observation = observe(sse(choices_chunk("a"), {"choices": [choice]}, done=True))

    assert observation.usage == TokenUsage(19, 13, cached_tokens=4)
    assert observation.choice_usage is True
    assert observation.anomalies == ()


def test_usage_in_two_stages_is_merged_member_by_member() -> None:
    """A later, fuller usage completes an earlier one, and its nulls erase nothing."""
    first = choices_chunk(usage=counts(100, 4, prompt_tokens_details={"cached_tokens": 64}))
    second = choices_chunk(usage=counts(100, 5, prompt_tokens_details=None, service_tier="standard"))

    observation = observe(sse(first, second, done=True))

    assert observation.usage == TokenUsage(100, 5, cached_tokens=64)
    assert observation.usage_chunks == 2
    assert observation.service_tier is None


def test_cumulative_usage_is_never_added_up() -> None:
    """Perplexity and Gemini repeat a running count in every chunk, with CRLF and without [DONE]."""
    chunks = [choices_chunk("x", usage=counts(11, n, cost={"total_cost": n / 1000})) for n in (1, 5, 62)]

    observation = observe(sse(*chunks, end="\r\n\r\n"), pieces=7)

    assert observation.usage == TokenUsage(11, 62)
    assert observation.upstream_cost == Decimal("0.062")
    assert observation.done is False
    assert observation.emitted_since_usage == 0


def test_gemini_hides_its_thoughts_in_the_total() -> None:
    """What Gemini's total counts and nothing else does are thinking tokens of the completion."""
    chunks = [
        choices_chunk("x", model="gemini-2.5-pro", usage=counts(35, n) | {"total_tokens": 97 + n})
        for n in (2, 12)
    ]

    observation = observe(sse(*chunks, done=True))

    assert observation.usage == TokenUsage(35, 74, reasoning_tokens=62)
    assert observation.anomalies == ("hidden_output_tokens",)


def test_usage_is_kept_when_a_chunk_with_null_follows() -> None:
    """The usage chunk need not be the last one, and `"usage": null` erases nothing."""
    moderation: dict[str, Any] = {"choices": [], "moderation": {"flagged": False}, "usage": None}

    observation = observe(sse(choices_chunk("a", usage=None), USAGE_CHUNK, moderation, done=True))

    assert observation.usage == TokenUsage(10, 2)


def test_usage_with_blanks_around_the_colon_is_found() -> None:
    """Azure's Grok writes `"usage": {` beside `"usage":null` in the same stream."""
    body = b'data: {"choices":[],"usage":null}\n\ndata: {"choices":[],"usage" : {"prompt_tokens": 10, '
    body += b'"completion_tokens": 213, "total_tokens": 223, "cost_in_usd_ticks": 0}}\n\n'

    observation = observe(body)

    assert observation.usage == TokenUsage(10, 213)
    assert observation.upstream_cost is None


def test_an_error_and_usage_may_share_a_chunk() -> None:
    """OpenRouter charges for a stream that failed; more reasoning than completion is clamped."""
    usage = counts(20, 10, completion_tokens_details={"reasoning_tokens": 15})
    chunk = choices_chunk(error={"code": 502, "message": "secret prompt"}, usage=usage)

    observation = observe(sse(": OPENROUTER PROCESSING", chunk))

    assert observation.error == UpstreamError(code=502)
    assert observation.usage == TokenUsage(20, 10, reasoning_tokens=10)
    assert observation.anomalies == ("reasoning_exceeds_completion",)
    assert observation.comments == 1
    assert "secret" not in repr(observation)


@pytest.mark.parametrize("blanks", [b"\n\n\n", b"\r\n\r\n  ", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("pieces", [0, 1])
def test_blanks_in_front_of_a_body_mean_nothing(blanks: bytes, pieces: int) -> None:
    """DeepSeek keeps a connection alive with blank lines before the body."""
    body = blanks + json.dumps({"choices": [], "usage": counts(10, 2)}).encode()

    assert observe(body, JSON, pieces=pieces).usage == TokenUsage(10, 2)


@pytest.mark.parametrize("content_type", ["", JSON, "text/plain"])
def test_a_stream_under_another_content_type_is_still_read(content_type: str) -> None:
    """The body says what it is, when the content type does not."""
    body = b"\n" + sse(": hello", USAGE_CHUNK, done=True)

    assert observe(body, content_type, pieces=1).done is True
    assert observe(body, content_type).usage == TokenUsage(10, 2)


def test_a_json_body_under_the_type_of_a_stream_is_still_read() -> None:
    """An upstream that ignores `stream` and its own content type is metered."""
    body = json.dumps({"choices": [{"message": {"content": "Hello"}}], "usage": counts(10, 2)})

    observation = observe(body.encode(), f"{SSE}; charset=utf-8")

    assert observation.usage == TokenUsage(10, 2)
    assert observation.emitted_tokens == count_tokens("Hello")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"detail":"Unauthorized"}', UpstreamError()),
        (b'{"detail":[{"type":"missing"}]}', UpstreamError()),
        (b'{"object":"error","type":"BadRequest","code":400}', UpstreamError("BadRequest", 400)),
        (b'{"error":{"type":1,"code":true}}', UpstreamError()),
        (b'{"error":{"code":99999999999999999999}}', UpstreamError()),
        (b'{"error":null}', None),
        (b'{"error":""}', None),
    ],
)
def test_errors_come_in_many_shapes(body: bytes, error: UpstreamError | None) -> None:
    """An error is recognised in OpenAI's, vLLM's and Mistral's shape; its message is not kept."""
    assert observe(body, "application/octet-stream").error == error


def test_an_event_named_error_is_an_error_whatever_its_data() -> None:
    """`event: error` is an error even if its data is no JSON, and the first error is the one to know."""
    body = b'event: error\ndata: oops\n\nerror: {"error":{"code":"late"}}\n\nerror: plain\n\n'

    observation = observe(body)

    assert observation.error == UpstreamError()
    assert observation.unparseable_events == 1
    assert observation.anomalies == ("error_field_sse",)


@pytest.mark.parametrize(
    ("value", "anomaly"),
    [
        ("-5", "negative_tokens"),
        ("-0.5", "negative_tokens"),
        ("1e30", "token_overflow"),
        ("1e999999999999999999999", "non_finite_tokens"),
        ("NaN", "non_finite_tokens"),
        ("Infinity", "non_finite_tokens"),
        ("true", "invalid_token_type"),
        ('"twelve"', "invalid_token_type"),
        ('"99999999999999999999"', "token_overflow"),
        ('"9999999999999999999"', "token_overflow"),
        ("[]", "invalid_token_type"),
    ],
)
def test_an_unusable_count_is_flagged_and_not_charged(value: str, anomaly: str) -> None:
    """A count that is no count is as good as not sent; with neither count the usage is invalid."""
    body = f'{{"usage":{{"prompt_tokens":{value},"completion_tokens":{value}}}}}'.encode()

    observation = observe(body, JSON)

    assert observation.reported is not None
    assert observation.reported.invalid
    assert observation.usage is None
    assert not observation.usable
    assert observation.anomalies == (anomaly,)
    assert isinstance(json.loads(observation.usage_raw or ""), dict)


def test_a_count_as_a_string_counts_and_is_flagged() -> None:
    """Digits in a string are a number."""
    observation = observe(b'{"usage":{"prompt_tokens":"12","completion_tokens":"007"}}', JSON)

    assert observation.usage == TokenUsage(12, 7)
    assert observation.anomalies == ("string_tokens",)


def test_the_raw_usage_keeps_what_was_sent() -> None:
    """Numbers keep their digits, unknown members stay, and what cannot be stored is replaced."""
    body = (
        b'{"usage":{"prompt_tokens":1,"cost":7.10E-5,"x":{"new":[1.50,null]},"y":"\\ud800\\u0000","z":NaN}}'
    )

    raw = observe(body, JSON).usage_raw

    assert raw == '{"prompt_tokens":1,"cost":0.0000710,"x":{"new":[1.50,null]},"y":"\ufffd\ufffd","z":null}'


def test_usage_too_large_to_be_usage_is_not_read() -> None:
    """A usage object beyond 16 KiB is flagged, and its event is estimated."""
    huge = counts(10, 2, **{f"m{n}": n for n in range(3000)})

    observation = observe(sse(choices_chunk("a"), {"usage": huge}))

    assert observation.usage is None
    assert observation.anomalies == ("usage_too_large",)


def test_usage_that_grows_too_large_is_not_kept_raw() -> None:
    """Merged beyond 16 KiB, the counts still count, and the raw text is dropped with a flag."""
    chunks = [{"usage": counts(10, 2, **{f"m{n}": ["x" * 250] * 40})} for n in range(3)]

    observation = observe(sse(*chunks))

    assert observation.usage == TokenUsage(10, 2)
    assert observation.usage_raw is None
    assert observation.anomalies == ("usage_raw_dropped",)


def test_usage_nested_too_deeply_to_be_written_is_not_kept_raw() -> None:
    """A usage object that cannot be written again without recursion is dropped, its counts are not."""
    depth = 600
    body = '{"usage":{"prompt_tokens":1,"completion_tokens":1,"x":' + "[" * depth + "]" * depth + "}}"

    observation = observe(body.encode(), JSON)

    assert observation.usage == TokenUsage(1, 1)
    assert observation.anomalies in ((), ("usage_raw_dropped",))


def test_usage_after_done_counts_and_is_flagged() -> None:
    """Reading goes on after [DONE]."""
    observation = observe(sse(choices_chunk("a"), "data: [DONE]", USAGE_CHUNK))

    assert observation.usage == TokenUsage(10, 2)
    assert observation.anomalies == ("usage_after_done",)


def test_zero_usage_for_a_text_cannot_be_charged() -> None:
    """All zeros where text was produced mean "unknown"; where none was, they mean zero."""
    zero = {"choices": [], "usage": counts(0, 0)}

    with_text, without = observe(sse(choices_chunk("a"), zero)), observe(sse(zero))

    assert (with_text.usable, with_text.anomalies) == (False, ("zero_usage",))
    assert (without.usable, without.anomalies) == (True, ())


def test_embeddings_have_no_completion() -> None:
    """Usage without a completion, where prompt and total agree, is complete and not odd."""
    observation = observe(b'{"data":[{}],"usage":{"prompt_tokens":8,"total_tokens":8}}', JSON)

    assert observation.usage == TokenUsage(8, 0)
    assert observation.anomalies == ()
    assert observation.emitted_tokens == 0


def test_texts_of_every_kind_count_as_emitted() -> None:
    """Content, thoughts, refusals, calls and legacy text are tokens; Perplexity's repetition is not."""
    deltas: list[dict[str, Any]] = [
        {"content": "aaaa"},
        {"reasoning": "bbbb", "reasoning_content": "bbbb"},
        {"refusal": "cccc"},
        {"tool_calls": [{"function": {"name": "dddd", "arguments": "eeee"}}, "odd"]},
        {"function_call": {"name": "ffff", "arguments": "gggg"}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hhhh"}]}]},
        {"audio": {"transcript": "iiii", "data": "AAAA" * 1000}},
    ]
    chunks: list[object] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [{"choices": [{"text": "jjjj", "index": 0}]}, {"choices": [None, {"delta": None}]}]
    chunks += [{"choices": [{"delta": {"content": "kkkk"}, "message": {"content": "aaaakkkk"}}]}]

    observation = observe(sse(*chunks), count_tokens=len)

    assert observation.emitted_tokens == 11 * 4


def test_emitted_tokens_are_at_least_the_number_of_events_with_text() -> None:
    """A stream of one-token events cannot have emitted fewer tokens than events."""
    tap = Tap(content_type=SSE, count_tokens=lambda _: 0)

    for _ in range(7):
        tap.feed(sse(choices_chunk("a")))
    tap.feed(sse(choices_chunk("")))

    assert tap.emitted_tokens == 7


def test_text_is_counted_in_blocks_and_once() -> None:
    """The text of a long answer is counted a block at a time, not again with every event."""
    seen: list[int] = []

    def count(text: str) -> int:
        seen.append(len(text))
        return len(text)

    tap = Tap(content_type=SSE, count_tokens=count)

    for _ in range(1000):
        tap.feed(sse(choices_chunk("x" * 50)))

    assert tap.emitted_tokens == 50_000
    assert sum(seen) == 50_000


def test_text_after_a_running_count_is_told_apart() -> None:
    """If a stream is cut, what came after the last usage can be added to it."""
    chunks = [choices_chunk("ab", usage=counts(10, 1)), choices_chunk("cde"), choices_chunk("fg")]

    observation = observe(sse(*chunks), count_tokens=len)

    assert observation.usage == TokenUsage(10, 1)
    assert observation.emitted_since_usage == 5


def test_finish_reasons_stand_by_choice() -> None:
    """The last reason of each choice counts, and an odd index is taken for the first choice."""
    reasons: list[tuple[object, object]] = [(1, "length"), (0, ""), ("x", "stop"), (10**9, 7), (2, None)]
    chunks = [{"choices": [{"index": index, "finish_reason": reason}]} for index, reason in reasons]

    assert observe(sse(*chunks)).finish_reasons == ("stop", "length")


# Encodings and bounds.


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("identity, gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]) + b"\0\0padding"),
    ],
)
@pytest.mark.parametrize("pieces", [0, 1])
def test_compressed_responses_are_read(encoding: str, compress: Any, pieces: int) -> None:
    """Gzip, in one member or several, and both meanings of deflate are read from a copy."""
    body = compress(sse(choices_chunk("a" * 200_000), USAGE_CHUNK, done=True))

    observation = observe(body, content_encoding=encoding, pieces=pieces)

    assert observation.usage == TokenUsage(10, 2)
    assert observation.anomalies == ()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "unheard-of"])
def test_an_encoding_beyond_the_standard_library_is_not_read(encoding: str) -> None:
    """What cannot be decoded is flagged and estimated; the cost in the header still counts."""
    observation = observe(b"\x8b\x01", JSON, content_encoding=encoding, response_cost="0.5")

    assert observation.usage is None
    assert observation.unparseable_events == 0
    assert observation.anomalies == ("undecodable_encoding",)
    assert observation.upstream_cost == Decimal("0.5")


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_body_that_is_encoded_in_name_only_is_read(size: int) -> None:
    """Some servers name an encoding that they did not apply: the recorded case with brotli is plain JSON."""
    case = next(case for case in CASES if case["id"] == "nasty-br-body")

    observation = observe(wire(case), JSON, pieces=size, content_encoding="br")

    assert observation.usage == TokenUsage(10, 2)
    assert observation.anomalies == ()


@pytest.mark.parametrize("opening", [b"{\x8b\x01", b"\x1b{", b"data", b"["])
@pytest.mark.parametrize("content_type", [SSE, JSON])
def test_what_only_begins_like_text_is_not_read(opening: bytes, content_type: str) -> None:
    """A compressed body that happens to begin like JSON or like a stream is flagged all the same."""
    observation = observe(opening, content_type, pieces=1, content_encoding="br")

    assert observation.usage is None
    assert observation.anomalies == ("undecodable_encoding",)


def test_a_cut_document_counts_as_it_came() -> None:
    """A completion cut before its usage is charged for all of its text, and an embedding for none."""
    completion = b'{"choices":[{"message":{"content":"' + b"word " * 100
    embedding = b'{"data":[{"embedding":[0.1,0.2,' + b"0.3," * 100
    taps = [Tap(content_type=JSON, count_tokens=count_tokens) for _ in range(3)]

    for tap, body in zip(taps, [completion, embedding, completion], strict=True):
        tap.feed(body)

    assert taps[0].finish(cut=True).emitted_tokens >= 100
    assert taps[1].finish(cut=True).emitted_tokens == 0
    assert taps[2].finish().emitted_tokens == 0


def test_deep_nesting_is_no_crash() -> None:
    """A document nested beyond the parser's depth is unparseable, or read."""
    case = next(case for case in CASES if case["id"] == "nasty-deep-nesting")
    tap = tap_for(case)

    tap.feed(wire(case))

    observation = tap.finish()
    assert observation.unparseable_events == 1 or observation.usage == TokenUsage(10, 2)


def test_a_truncated_gzip_stream_is_read_as_far_as_it_goes() -> None:
    """A compressed stream that is cut yields the events before the cut."""
    body = gzip.compress(sse(choices_chunk("a"), USAGE_CHUNK, *[choices_chunk("a")] * 500))

    observation = observe(body[:-20], content_encoding="gzip")

    assert observation.usage == TokenUsage(10, 2)
    assert observation.anomalies == ()


def test_a_corrupt_encoding_makes_the_usage_doubtful() -> None:
    """After a fault in the compressed bytes, a usage seen before may have been a running count."""
    packer = zlib.compressobj()
    good = packer.compress(sse(USAGE_CHUNK)) + packer.flush(zlib.Z_SYNC_FLUSH)
    tap = Tap(content_type=SSE, content_encoding="deflate", count_tokens=count_tokens)

    tap.feed(good)
    tap.feed(b"\xff\xff\xff\xff")
    tap.feed(b"more")

    observation = tap.finish()
    assert observation.usage is None
    assert observation.reported is None
    assert observation.usage_raw is not None
    assert observation.anomalies == ("corrupt_encoding",)


def test_a_gzip_bomb_costs_no_memory() -> None:
    """A hundred megabytes of zeros in a hundred kilobytes stop at the bound."""
    bomb = gzip.compress(bytes(100_000_000), 1)
    tracemalloc.start()

    observation = observe(bomb, JSON, content_encoding="gzip", decoded_bytes_max=1_000_000)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert observation.anomalies == ("body_too_large",)
    assert peak < len(bomb) * 3 + 4_000_000


def test_a_train_of_empty_gzip_members_is_stopped() -> None:
    """Thousands of gzip members in one response are an attack, not an answer."""
    train = gzip.compress(b"") * 5000

    observation = observe(train, content_encoding="gzip")

    assert observation.anomalies == ("body_too_large",)


def test_a_body_beyond_the_bound_is_not_read() -> None:
    """A body that is too large is let go, and its event is estimated."""
    body = json.dumps({"usage": counts(10, 2), "data": "x" * 1000}).encode()

    observation = observe(body, JSON, decoded_bytes_max=500, pieces=100)

    assert observation.usage is None
    assert observation.anomalies == ("body_too_large",)


@pytest.mark.parametrize("pieces", [0, 64])
def test_an_event_beyond_the_bound_ends_the_reading(pieces: int) -> None:
    """An event that is too large makes the usage before it doubtful, and nothing after it is read."""
    body = sse(USAGE_CHUNK, choices_chunk("x" * 5000), USAGE_CHUNK, done=True)

    observation = observe(body, event_bytes_max=1000, pieces=pieces)

    assert observation.usage is None
    assert observation.done is False
    assert observation.anomalies == ("event_too_large",)


def test_a_long_stream_is_read_in_flat_memory() -> None:
    """Ten megabytes of events leave nothing behind but their counts."""
    tap = Tap(content_type=SSE, count_tokens=count_tokens)
    block = sse(*[choices_chunk("word " * 20)] * 100)
    tap.feed(block)
    tracemalloc.start()

    for _ in range(10_000_000 // len(block)):
        tap.feed(block)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_a_large_event_is_held_once() -> None:
    """An event of ten megabytes in small pieces needs a few times its size, and no more time than that."""
    event = sse(choices_chunk("x" * 10_000_000))
    tracemalloc.start()

    observation = observe(event, event_bytes_max=20_000_000, pieces=65536)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert observation.emitted_tokens == count_tokens("x" * 10_000_000)
    assert peak < 8 * len(event)
