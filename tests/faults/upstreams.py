"""F46 to F57: what upstreams do to their answers, row by row.

A row says what is sent, and what has to come of it: what the client gets, how the event ends, and where its
numbers come from. The client's bytes are always the upstream's, or a beginning of them where it was cut.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meter.core.events import Outcome, UsageEvent, UsageSource
from tests import wire
from tests.fake_upstream import DONE, Cut, Gate, Step, event, response, stream
from tests.faults import reconciler, traffic
from tests.faults.case import Case, Experiment, calm
from tests.faults.script import CANARY_ANSWER, MODEL_SERVED
from tests.faults.site import Site
from tests.faults.traffic import Got

PROMPT, COMPLETION = 11, 23
USAGE = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
SMALLER = {"prompt_tokens": PROMPT, "completion_tokens": 1, "total_tokens": PROMPT + 1}
REST_SECONDS = 0.3
IDLE_SECONDS = 1.5
STREAM_SECONDS = 2
STREAM_BYTES = 3_000_000

WORD = event({"model": MODEL_SERVED, "choices": [{"index": 0, "delta": {"content": CANARY_ANSWER}}]})
LAST = event({"model": MODEL_SERVED, "choices": [], "usage": USAGE})
EARLY = event({"model": MODEL_SERVED, "choices": [], "usage": SMALLER})
WHOLE = json.dumps(
    {"model": MODEL_SERVED, "choices": [{"message": {"content": CANARY_ANSWER}}], "usage": USAGE}
).encode()
JSON = ("Content-Type", "application/json")
SSE = ("Content-Type", "text/event-stream")

REPORTED, ESTIMATED, NONE = UsageSource.REPORTED, UsageSource.ESTIMATED, UsageSource.NONE


class Rest(Gate):
    """A step that takes its time, so that what was sent before it has been read."""

    def __init__(self, seconds: float = REST_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds

    async def wait(self) -> None:
        """Wait, on the upstream's side."""
        await asyncio.sleep(self._seconds)


class Sin(NamedTuple):
    """A row."""

    name: str
    steps: Callable[[], Sequence[Step]]
    outcome: Outcome = Outcome.OK
    source: UsageSource = REPORTED
    status: int = 200
    whole: bool = True
    streams: bool = True


def sin(name: str, *steps: Step, **expected: object) -> Sin:
    """Write a row whose steps can be sent as often as one likes."""
    return Sin(name, lambda: steps)._replace(**expected)  # type: ignore[arg-type]


def answered(name: str, *pieces: bytes | Gate | Cut, **expected: object) -> Sin:
    """Write a row of a stream in chunks."""
    return sin(name, *stream(*pieces), **expected)


def plain(name: str, raw: bytes, **expected: object) -> Sin:
    """Write a row of one answer that is no stream."""
    return sin(name, raw, streams=False, **expected)


def zipped(*pieces: bytes) -> list[bytes]:
    """Compress as a server does that flushes every event."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*packed, packer.flush()]


CUT = {"outcome": Outcome.UPSTREAM_CLOSED, "source": ESTIMATED, "whole": False}
ERROR = {"outcome": Outcome.UPSTREAM_ERROR, "source": NONE}
NOTHING = {"outcome": Outcome.UNREACHABLE, "source": NONE, "status": 502}
F46 = (
    answered("reset-after-headers", Rest(), Cut(reset=True), **CUT),
    answered("reset-after-a-word", WORD, Rest(), Cut(reset=True), **CUT),
    answered("reset-within-an-event", WORD, WORD[:20], Rest(), Cut(reset=True), **CUT),
    answered("closed-after-a-word", WORD, Cut(), **CUT),
    answered("reset-behind-the-usage", WORD, LAST, Rest(), Cut(reset=True), **CUT | {"source": REPORTED}),
    answered("closed-behind-done", WORD, LAST, DONE, Cut(), **CUT | {"source": REPORTED}),
    sin("reset-before-headers", Rest(), Cut(reset=True), **NOTHING),
    sin("closed-within-headers", response(b"")[:12], Cut(), **NOTHING),
)
F47 = (
    answered("a-short-rest", WORD, Rest(IDLE_SECONDS / 3), WORD, LAST, DONE),
    answered(
        "a-long-rest",
        WORD,
        Rest(IDLE_SECONDS * 4),
        WORD,
        **CUT | {"outcome": Outcome.UPSTREAM_TIMEOUT},
    ),
)
F48 = (
    Sin(
        "endless",
        lambda: stream(*[piece for _ in range(200) for piece in (WORD, Rest(0.05))]),
        Outcome.CUT,
        ESTIMATED,
        whole=False,
    ),
    Sin(
        "too-much",
        lambda: stream(*[WORD] * (2 * STREAM_BYTES // len(WORD))),
        Outcome.CUT,
        ESTIMATED,
        whole=False,
    ),
)
F49 = (
    plain("half-a-document", response(WHOLE[:-30]), source=ESTIMATED),
    sin("shorter-than-said", response(WHOLE)[:-30], Cut(), streams=False, **CUT),
    sin(
        "no-last-chunk",
        *stream(WHOLE, headers=[JSON])[:-1],
        Cut(),
        streams=False,
        **CUT | {"source": REPORTED},
    ),
    answered("half-an-event", WORD, LAST[:-20], source=ESTIMATED),
)
F50 = (
    plain("gzip", response(gzip.compress(WHOLE), headers=[JSON, ("Content-Encoding", "gzip")])),
    plain("deflate", response(zlib.compress(WHOLE), headers=[JSON, ("Content-Encoding", "deflate")])),
    plain(
        "br", response(b"\x0b\x02\x80hello\x03", headers=[JSON, ("Content-Encoding", "br")]), source=ESTIMATED
    ),
    plain(
        "zstd",
        response(b"\x28\xb5\x2f\xfd\x00\x58\x29\x00\x00hello", headers=[JSON, ("Content-Encoding", "zstd")]),
        source=ESTIMATED,
    ),
    Sin(
        "gzip-event-by-event",
        lambda: stream(*zipped(WORD, WORD, LAST, DONE), headers=[SSE, ("Content-Encoding", "gzip")]),
    ),
)
RETRY = ("Retry-After", "7")
F51 = tuple(
    plain(
        status.split()[0],
        response(b'{"error":{"message":"no"}}', status=status, headers=[JSON, RETRY]),
        status=int(status.split()[0]),
        **ERROR,
    )
    for status in ("429 Too Many Requests", "500 Oops", "503 Busy", "529 Overloaded")
)
HTML = b"<html><h1>502</h1></html>"
F52 = (
    plain(
        "500-html",
        response(HTML, status="500 Oops", headers=[("Content-Type", "text/html")]),
        status=500,
        **ERROR,
    ),
    plain("200-html", response(HTML, headers=[("Content-Type", "text/html")]), source=ESTIMATED),
    plain("204", response(status="204 No Content", headers=[], length=False), status=204, source=ESTIMATED),
    plain("empty", response(b"", headers=[]), source=ESTIMATED),
    plain("another-type", response(WHOLE, headers=[("Content-Type", "text/plain")])),
    plain("no-type", response(WHOLE, headers=[])),
)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
F53 = (
    plain("hints", HINTS + response(WHOLE)),
    plain("hints-twice", CONTINUE + HINTS + HINTS + response(WHOLE)),
    sin("trailers", *stream(WORD, LAST, DONE)[:-1], b"0\r\nX-Trailer: 1\r\n\r\n"),
    plain("close", response(WHOLE, headers=[JSON, ("Connection", "close")])),
    sin("until-the-end", response(WHOLE, headers=[JSON], length=False), Cut(), streams=False),
    sin(
        "http-1.0",
        response(WHOLE, headers=[JSON]).replace(b"HTTP/1.1", b"HTTP/1.0"),
        Cut(),
        streams=False,
    ),
)
F54 = (
    answered("null", WORD, event({"choices": [], "usage": None}), DONE, source=ESTIMATED),
    answered("missing", WORD, DONE, source=ESTIMATED),
    answered("twice", WORD, EARLY, LAST, DONE),
    answered("in-every-chunk", *[piece for _ in range(5) for piece in (WORD, EARLY)], LAST, DONE),
    answered("before-the-end", LAST, WORD, DONE),
    answered("behind-done", WORD, DONE, LAST),
    answered("null-behind-it", WORD, LAST, event({"choices": [], "usage": None}), DONE),
    answered(
        "inside-the-text",
        event({"choices": [{"delta": {"content": json.dumps({"usage": SMALLER})}}]}),
        LAST,
        DONE,
    ),
)
SPOKEN = WORD + b": OPENROUTER PROCESSING\n\n" + WORD + LAST + DONE
LARGE = event({"choices": [{"delta": {"content": CANARY_ANSWER * 700_000}}]})
F55 = (
    answered("byte-by-byte", *(SPOKEN[at : at + 1] for at in range(len(SPOKEN)))),
    answered("crlf", SPOKEN.replace(b"\n", b"\r\n")),
    answered("cr", SPOKEN.replace(b"\n", b"\r")),
    answered("crlf-cut", *(piece for line in SPOKEN.split(b"\n") for piece in (line + b"\r", b"\n"))),
    answered("a-mark-in-front", b"\xef\xbb\xbf" + SPOKEN),
    answered("several-lines", WORD, LAST.replace(b',"usage"', b'\ndata: ,"usage"'), DONE),
    answered("ten-megabytes", WORD, LARGE, LAST, DONE, source=ESTIMATED),
)
COOKIE = ("Set-Cookie", "session=1")
F57 = (
    plain(
        "redirect",
        response(b"gone", status="307 Temporary Redirect", headers=[("Location", "http://169.254.169.254/")]),
        status=307,
        **ERROR,
    ),
    plain("cookies", response(WHOLE, headers=[JSON, COOKIE, ("Set-Cookie2", "a"), COOKIE])),
    plain("one-hop", response(WHOLE, headers=[JSON, ("Connection", "X-Hop"), ("X-Hop", "1"), ("TE", "x")])),
    plain("large-headers", response(WHOLE, headers=[JSON, ("X-Large", "y" * 200_000)]), **NOTHING),
    plain("many-headers", response(WHOLE, headers=[JSON, *[("X-A", "y" * 50)] * 500])),
)
ROWS: dict[str, tuple[Sequence[Sin], dict[str, object]]] = {
    "F46": (F46, {}),
    "F47": (F47, {"idle_timeout_seconds": IDLE_SECONDS}),
    "F48": (F48, {"stream_seconds_max": STREAM_SECONDS, "response_bytes_max": STREAM_BYTES}),
    "F49": (F49, {}),
    "F50": (F50, {}),
    "F51": (F51, {}),
    "F52": (F52, {}),
    "F53": (F53, {}),
    "F54": (F54, {}),
    "F55": (F55, {}),
    "F57": (F57, {}),
}
STOPS = {"connection", "x-hop", "te", "set-cookie", "set-cookie2"}


def play(name: str) -> Callable[[Case], list[str]]:
    """Make the experiment of some rows."""
    sins, settings = ROWS[name]

    def run(case: Case) -> list[str]:
        found: list[str] = []
        with case.site(None, **settings) as site:
            site.start()
            for number in range(case.runs):
                for each in sins:
                    found += _row(site, f"{name.lower()}-{number}-{each.name}", each)
            case.notes.append(f"{len(sins)} kinds of answers")
            return found + calm(site, f"{name}c".lower(), len(sins) * case.runs, told=case.full)

    run.__doc__ = f"Have the upstream answer in the ways of {name}."
    return run


def _row(site: Site, model: str, row: Sin) -> list[str]:
    upstream = site.script.upstream
    upstream.reset()
    upstream.answer(row.steps())
    got = asyncio.run(traffic.ask(site.url, site.key, model, stream=row.streams))
    events = reconciler.settled(site, model)
    attempts = len(upstream.received)
    found = [f"I1: {attempts} attempts, {len(events)} events"] if (attempts, len(events)) != (1, 1) else []
    found += [line for each in events[:1] for line in _event(each, row)]
    found += _client(got, bytes(upstream.received[0].sent) if attempts else b"", row)
    return [f"{model}: {line}" for line in found]


def _event(found: UsageEvent, row: Sin) -> list[str]:
    counts = (found.prompt_tokens, found.completion_tokens)
    said = (
        []
        if (found.outcome, found.usage_source) == (row.outcome, row.source)
        else [f"I1: it is {found.outcome}/{found.usage_source} and not {row.outcome}/{row.source}"]
    )
    if row.source is REPORTED and counts != (PROMPT, COMPLETION):
        said.append(f"I1: it has {counts}")
    if row.source is NONE and any(counts):
        said.append(f"I1: nothing was used, and it has {counts}")
    if row.source is ESTIMATED and not found.prompt_tokens:
        said.append("I1: it has no estimate of the prompt")
    return said


def _client(got: Got, sent: bytes, row: Sin) -> list[str]:
    answer = got.answer
    if answer is None or answer.status != row.status:
        return [f"I6: the client got {got.status} {got.fault} and not {row.status}"]
    if row.outcome is Outcome.UNREACHABLE:
        return []
    truth = wire.parse(sent)
    said = [] if answer.whole == row.whole else [f"I3: the client's answer is whole: {answer.whole}"]
    if answer.body != truth.body if row.whole else not truth.body.startswith(answer.body):
        said.append(f"I3: the client has {len(answer.body)} other bytes than the {len(truth.body)} sent")
    passed = [pair for pair in truth.end_to_end if pair[0] not in STOPS]
    kept = [pair for pair in answer.end_to_end if pair[0] != "x-meter-request-id"]
    return said if passed == kept else [*said, f"I3: the headers {kept[:5]} are not {passed[:5]}"]


EXPERIMENTS = tuple(
    Experiment(name, play(name), 3, 1 if name in {"F46", "F54", "F55"} else 0, postgresql_runs=1)
    for name in ROWS
)
