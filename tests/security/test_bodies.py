"""Bodies that parsers read differently, that are bombs, or that hide: refused, or passed as they came."""

import gzip
import json
import time
import zlib
from pathlib import Path

import pytest

from meter.core.errors import InvalidRequest
from meter.core.request import read_request
from meter.core.tap import DECODED_BYTES_MAX
from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.server import Meter

OK = [response(b'{"choices":[]}')]
SURROGATE = b'{"model":"m","user":"\\ud800","messages":[]}'
REFUSED: dict[str, bytes] = {
    # A member twice.
    "model twice": b'{"model":"cheap","model":"dear"}',
    "model twice, with others between": b'{"model":"cheap","messages":[],"n":1,"model":"dear"}',
    "the same model twice": b'{"model":"m","model":"m"}',
    "model twice, escaped": b'{"model":"cheap","\\u006dodel":"dear"}',
    "model twice, both escaped": b'{"mo\\u0064el":"cheap","mod\\u0065l":"dear"}',
    "model twice, in capitals": b'{"model":"cheap","Model":"dear"}',
    "model twice, with a long s": '{"stream":false,"\u017ftream":true,"model":"m"}'.encode(),
    "model twice, with a kelvin sign": '{"tokens":1,"to\u212aens":2,"model":"m"}'.encode(),
    "stream twice": b'{"model":"m","stream":false,"stream":true}',
    "max_tokens twice": b'{"model":"m","max_tokens":1,"max_tokens":100000}',
    "n twice": b'{"model":"m","n":1,"n":128}',
    "include_usage twice": b'{"model":"m","stream_options":{"include_usage":true,"include_usage":false}}',
    "model in capitals alone": b'{"MODEL":"m"}',
    # No JSON, or more than one document.
    "nothing": b"",
    "blanks": b" \t\r\n",
    "null": b"null",
    "a string": b'"model"',
    "a number": b"1",
    "a list": b'[{"model":"m"}]',
    "two documents": b'{"model":"a"}{"model":"b"}',
    "two documents on lines": b'{"model":"a"}\n{"model":"b"}',
    "something behind": b'{"model":"m"} x',
    "a NUL behind": b'{"model":"m"}\0',
    "a NUL in front": b'\0{"model":"m"}',
    "a comma at the end": b'{"model":"m",}',
    "a comment": b'{"model":"m"/*,"n":9*/}',
    "a line comment": b'{"model":"m"} // "n"',
    "single quotes": b"{'model':'m'}",
    "a name without quotes": b'{model:"m"}',
    "a line end in a string": b'{"model":"a\nb"}',
    "a tab in a string": b'{"model":"a\tb"}',
    "a NUL in a string": b'{"model":"a\0b"}',
    "an unknown escape": b'{"model":"\\x6d"}',
    "half an escape": b'{"model":"\\u00"}',
    "an open string": b'{"model":"m',
    "an open object": b'{"model":"m"',
    "a form": b"model=m&messages=x",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
    "xml": b"<model>m</model>",
    "msgpack": b"\x81\xa5model\xa1m",
    # Encodings.
    "a byte order mark": b'\xef\xbb\xbf{"model":"m"}',
    "utf-16": '{"model":"m"}'.encode("utf-16"),
    "utf-16, big end first": '{"model":"m"}'.encode("utf-16-be"),
    "utf-16, little end first": '{"model":"m"}'.encode("utf-16-le"),
    "utf-32": '{"model":"m"}'.encode("utf-32"),
    "latin-1": '{"model":"é"}'.encode("latin-1"),
    "utf-7": b"+AHs-+ACI-model+ACI-:+ACI-m+ACI-+AH0-",
    "an overlong quote": b'{"model\xc0\xa2:"m"}',
    "an encoded surrogate": b'{"model":"\xed\xa0\x80"}',
    "beyond unicode": b'{"model":"\xf4\x90\x80\x80"}',
    "half a character": b'{"model":"\xe2\x82"}',
    "gzip": gzip.compress(b'{"model":"m"}'),
    "zlib": zlib.compress(b'{"model":"m"}'),
    # Numbers.
    "NaN": b'{"model":"m","top_p":NaN}',
    "Infinity": b'{"model":"m","top_p":Infinity}',
    "-Infinity": b'{"model":"m","top_p":-Infinity}',
    "a plus": b'{"model":"m","n":+1}',
    "a zero in front": b'{"model":"m","n":01}',
    "hexadecimal": b'{"model":"m","n":0x10}',
    "a point at the end": b'{"model":"m","n":1.}',
    "5000 digits": b'{"model":"m","n":' + b"9" * 5_000 + b"}",
    "ten million digits": b'{"model":"m","n":' + b"9" * 10_000_000 + b"}",
    # Depth.
    "100,000 lists": b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 open lists": b'{"model":"m","x":' + b"[" * 100_000,
    "100,000 objects": b'{"x":' * 100_000 + b'"m"' + b"}" * 100_000,
    # Models that are none.
    "no model": b'{"messages":[]}',
    "an empty model": b'{"model":""}',
    "a model of a list": b'{"model":["m"]}',
    "a model of null": b'{"model":null}',
    "a long model": b'{"model":"' + b"m" * 300 + b'"}',
    "a model with a NUL": b'{"model":"m\\u0000"}',
    "a model with a line end": b'{"model":"m\\n"}',
    "a model with a surrogate": b'{"model":"\\ud800"}',
    "a model that turns round": '{"model":"m\u202e"}'.encode(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_otherwise_is_refused(
    name: str, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """A body of which parsers disagree, or that is no request, is 400 and goes nowhere."""
    upstream.answer(OK)

    answer = wire.post(meter.url, holder, REFUSED[name])

    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert upstream.received == []


PASSING: dict[str, bytes] = {
    "blanks around": b' \r\n\t{ "model" : "m" }\n ',
    "an escaped name": b'{"mod\\u0065l":"m"}',
    "an escaped slash": b'{"model":"a\\/b"}',
    "a surrogate elsewhere": SURROGATE,
    "a pair of surrogates": b'{"model":"m","user":"\\ud83e\\udd8a"}',
    "a large number": b'{"model":"m","seed":18446744073709551616}',
    "a small number": b'{"model":"m","top_p":1e-400}',
    "a zero with a sign": b'{"model":"m","top_p":-0.0}',
    "100 lists": b'{"model":"m","x":' + b"[" * 100 + b"]" * 100 + b"}",
    "members twice further inside": b'{"model":"m","x":{"a":1,"a":2}}',
    "10,000 members": json.dumps({"model": "m"} | {f"x{number}": 0 for number in range(10_000)}).encode(),
    "an empty name": b'{"model":"m","":1}',
    "a prototype": b'{"model":"m","__proto__":{"model":"dear"},"constructor":1}',
    "a megabyte of text": b'{"model":"m","x":"' + b"y" * 1_000_000 + b'"}',
}


@pytest.mark.parametrize("name", PASSING)
def test_what_everybody_reads_alike_passes_as_it_came(
    name: str, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """A body that is odd and clear goes on byte by byte."""
    upstream.answer(OK)

    answer = wire.post(meter.url, holder, PASSING[name])

    (received,) = upstream.received
    assert answer.status == 200
    assert received.body == PASSING[name]


BOMBS = ["100,000 lists", "100,000 open lists", "100,000 objects", "5000 digits", "ten million digits"]
# A machine that is busy with other things gets a few tries.
TRIES = 20
CPU_MS_MAX = 60.0


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_time(name: str) -> None:
    """What is nested or numbered without end is refused before it has cost much."""

    def cpu_ms() -> float:
        began = time.process_time()
        with pytest.raises(InvalidRequest):
            read_request(REFUSED[name])
        return 1000 * (time.process_time() - began)

    assert min(cpu_ms() for _ in range(TRIES)) < CPU_MS_MAX


ENCODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(wire.chat())),
    "deflate": ("deflate", zlib.compress(wire.chat())),
    "br": ("br", b"\x0b\x02\x80hello\x03"),
    "several": ("gzip, gzip", gzip.compress(gzip.compress(wire.chat()))),
    "identity and gzip": ("identity, gzip", gzip.compress(wire.chat())),
    "in capitals": ("GZIP", gzip.compress(wire.chat())),
    "unknown": ("x-unknown", wire.chat()),
    "said and not done": ("gzip", wire.chat()),
    "a bomb": ("gzip", gzip.compress(bytes(10_000_000))),
    "empty members": ("gzip", gzip.compress(b"") * 5_000),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_coded_body_is_not_unpacked(name: str, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A content-encoding is 415, whatever the body is; nobody unpacks it."""
    upstream.answer(OK)
    coding, body = ENCODED[name]

    answer = wire.post(meter.url, holder, body, headers=[("Content-Encoding", coding)])

    assert answer.status == 415
    assert upstream.received == []


def memory_kib(meter: Meter) -> int:
    """Return the most memory that a meter has held so far."""
    status = Path(f"/proc/{meter.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


# What is decoded, once while it grows and once as a whole.
BOMB_MEMORY_KIB_MAX = 3 * DECODED_BYTES_MAX // 1024


def test_a_bomb_of_an_upstream_passes_unexploded(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """What inflates to 200 MB goes to the client as it came, and meter's copy is read in bounded memory."""
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)
    coded = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    upstream.answer([response(bomb, headers=coded)])
    before = memory_kib(meter)

    answer = wire.post(meter.url, holder, wire.chat())

    assert answer.whole
    assert answer.body == bomb
    assert memory_kib(meter) - before < BOMB_MEMORY_KIB_MAX
