"""Requests that two servers could cut apart in two ways: meter refuses them, or makes one request of them.

Each row is sent to a real server whose upstream notes every request and every byte. Whatever comes of a row,
what hides in its body is never a request upstream.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests import wire
from tests.fake_upstream import FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, SMUGGLED, chunked, length, request
from tests.server import Meter

OK = [response(b'{"choices":[]}')]
HIDING = BODY + SMUGGLED


class Case(NamedTuple):
    """A row: what is sent with a key, which statuses come back, and which bodies the upstream gets."""

    data: Callable[[str], bytes]
    statuses: list[int]
    bodies: list[bytes]
    ends: bool = False
    """Whether the client ends its side, where meter would wait for more."""


def refused(*lines: bytes, body: bytes = HIDING, start: bytes | None = None, ends: bool = False) -> Case:
    """Write a row that is no request at all: 400, the connection closes, nothing goes upstream."""
    first = start or b"POST /v1/chat/completions HTTP/1.1"
    return Case(lambda key: request(key, *lines, start=first) + body, [400], [], ends)


def unanswered(*lines: bytes, body: bytes) -> Case:
    """Write a row that breaks off or stops making sense within its body: nothing goes upstream."""
    return Case(lambda key: request(key, *lines) + body, [400], [])


def single(*lines: bytes, body: bytes, received: bytes = BODY) -> Case:
    """Write a row that is one request."""
    return Case(lambda key: request(key, *lines) + body, [200], [received])


CHUNKED = b"Transfer-Encoding: chunked"
CASES: dict[str, Case] = {
    # Two ways to tell where a body ends.
    "length, chunked": refused(length(HIDING), CHUNKED, body=chunked(BODY) + SMUGGLED),
    "chunked, length": refused(CHUNKED, length(HIDING), body=chunked(BODY) + SMUGGLED),
    "length 0, chunked": refused(b"Content-Length: 0", CHUNKED, body=chunked(BODY) + SMUGGLED),
    "chunked, length of the chunks": refused(CHUNKED, length(chunked(BODY)), body=chunked(BODY) + SMUGGLED),
    "length, identity": refused(length(), b"Transfer-Encoding: identity"),
    # Lengths.
    "two lengths": refused(length(), length(HIDING)),
    "two lengths, the longer first": refused(length(HIDING), length()),
    "the length twice": refused(length(), length()),
    "a list of lengths": refused(b"Content-Length: 36, 36"),
    "a list of two lengths": refused(b"Content-Length: 36, 5"),
    "a signed length": refused(b"Content-Length: +36"),
    "a negative length": refused(b"Content-Length: -1"),
    "an empty length": refused(b"Content-Length:"),
    "a length in hexadecimal": refused(b"Content-Length: 0x24"),
    "a length with an exponent": refused(b"Content-Length: 3e1"),
    "a length with a point": refused(b"Content-Length: 36.0"),
    "a length with an underscore": refused(b"Content-Length: 3_6"),
    "a length with a blank inside": refused(b"Content-Length: 3 6"),
    "a length in quotes": refused(b'Content-Length: "36"'),
    "a length in other digits": refused("Content-Length: ٣٦".encode()),
    "a length with a vertical tab": refused(b"Content-Length: 36\x0b"),
    "a length beyond 64 bits": refused(b"Content-Length: 18446744073709551652"),
    "a length of many digits": refused(b"Content-Length: " + b"9" * 100),
    "a length with zeros in front": single(b"Content-Length: 00036", body=BODY),
    "a length that is too short": single(b"Content-Length: 36", body=HIDING),
    # Transfer-encodings.
    "chunked twice": refused(CHUNKED, CHUNKED, body=chunked(BODY) + SMUGGLED),
    "chunked, chunked": refused(b"Transfer-Encoding: chunked, chunked", body=chunked(BODY) + SMUGGLED),
    "chunked, identity": refused(b"Transfer-Encoding: chunked, identity", body=chunked(BODY) + SMUGGLED),
    "identity": refused(b"Transfer-Encoding: identity", body=chunked(BODY) + SMUGGLED),
    "gzip": refused(b"Transfer-Encoding: gzip", body=chunked(BODY) + SMUGGLED),
    "gzip, chunked": refused(b"Transfer-Encoding: gzip, chunked", body=chunked(BODY) + SMUGGLED),
    "xchunked": refused(b"Transfer-Encoding: xchunked", body=chunked(BODY) + SMUGGLED),
    "chunked with a parameter": refused(b"Transfer-Encoding: chunked;q=1", body=chunked(BODY) + SMUGGLED),
    "chunked in quotes": refused(b'Transfer-Encoding: "chunked"', body=chunked(BODY) + SMUGGLED),
    "chunked with a comma": refused(b"Transfer-Encoding: ,chunked", body=chunked(BODY) + SMUGGLED),
    "chunked with a vertical tab": refused(b"Transfer-Encoding: \x0bchunked", body=chunked(BODY) + SMUGGLED),
    "chunked with a NUL": refused(b"Transfer-Encoding: chunked\0", body=chunked(BODY) + SMUGGLED),
    "an empty transfer-encoding": refused(b"Transfer-Encoding:", body=chunked(BODY) + SMUGGLED),
    "a blank before the colon": refused(b"Transfer-Encoding : chunked", body=chunked(BODY) + SMUGGLED),
    "a tab before the colon": refused(b"Transfer-Encoding\t: chunked", body=chunked(BODY) + SMUGGLED),
    "a blank before the name": refused(
        b"X: y", b" Transfer-Encoding: chunked", body=chunked(BODY) + SMUGGLED
    ),
    "an underscore": single(length(), b"Transfer_Encoding: chunked", b"Content_Length: 5", body=BODY),
    "chunked, HTTP/1.0": refused(
        CHUNKED, body=chunked(BODY) + SMUGGLED, start=b"POST /v1/chat/completions HTTP/1.0"
    ),
    "chunked in capitals": single(b"Transfer-Encoding: CHUNKED", body=chunked(BODY)),
    "chunked with a tab in front": single(b"Transfer-Encoding:\tchunked", body=chunked(BODY)),
    # Chunks.
    "chunks": single(CHUNKED, body=chunked(BODY[:5], BODY[5:])),
    "chunks of one byte": single(CHUNKED, body=chunked(*(BODY[at : at + 1] for at in range(len(BODY))))),
    "a size with zeros in front": single(CHUNKED, body=b"00000024\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an extension": single(CHUNKED, body=b"24;name=value\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an extension in quotes": single(CHUNKED, body=b'24;a="b;c"\r\n' + BODY + b"\r\n0\r\n\r\n"),
    "a length in a trailer": unanswered(
        CHUNKED, body=b"24\r\n" + BODY + b"\r\n0\r\nContent-Length: 1\r\n\r\n"
    ),
    "a request in a trailer": single(
        CHUNKED, body=b"24\r\n" + BODY + b"\r\n0\r\nX: POST / HTTP/1.1\r\n\r\n" + SMUGGLED
    ),
    "an extension with a line feed": unanswered(
        CHUNKED, body=b"24;a=b\nx\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED
    ),
    "an extension with a CR": unanswered(CHUNKED, body=b"24;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "an extension in quotes with a line end": unanswered(
        CHUNKED, body=b'24;a="\r\n' + BODY + b'"\r\n0\r\n\r\n' + SMUGGLED
    ),
    "a size in other digits": unanswered(CHUNKED, body=b"2g\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a size with 0x": unanswered(CHUNKED, body=b"0x24\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a negative size": unanswered(CHUNKED, body=b"-24\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a signed size": unanswered(CHUNKED, body=b"+24\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a size with an underscore": unanswered(CHUNKED, body=b"2_4\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a size with a blank in front": unanswered(CHUNKED, body=b" 24\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a size with a blank behind": unanswered(CHUNKED, body=b"24 \r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "an empty size": unanswered(CHUNKED, body=b"\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a size beyond 64 bits": unanswered(
        CHUNKED, body=b"10000000000000024\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED
    ),
    "a size that ends with a line feed": unanswered(CHUNKED, body=b"24\n" + BODY + b"\n0\n\n" + SMUGGLED),
    "a size that ends with a CR": unanswered(CHUNKED, body=b"24\r" + BODY + b"\r0\r\r" + SMUGGLED),
    "a chunk that goes on": unanswered(CHUNKED, body=b"23\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk without its end": unanswered(CHUNKED, body=b"24\r\n" + BODY + b"0\r\n\r\n" + SMUGGLED),
    "a chunk that ends with two other bytes": unanswered(
        CHUNKED, body=b"24\r\n" + BODY + b"XX0\r\n\r\n" + SMUGGLED
    ),
    "a chunk that ends with a line feed": unanswered(
        CHUNKED, body=b"24\r\n" + BODY + b"\n0\r\n\r\n" + SMUGGLED
    ),
    "an ill-formed trailer": unanswered(
        CHUNKED, body=b"24\r\n" + BODY + b"\r\n0\r\nno colon\r\n\r\n" + SMUGGLED
    ),
    # Heads.
    "a folded line": refused(b"X: y", b" z", length()),
    "a folded line with a tab": refused(b"X: y", b"\tz", length()),
    "a folded line at first": Case(
        lambda key: request(key, length(), host=b" folded\r\nHost: meter\r\n") + HIDING, [400], []
    ),
    "a line without a colon": refused(b"Content-Length 36", length()),
    "a line without a name": refused(b": 36", length()),
    "a NUL in a name": refused(b"X\0: y", length()),
    "a NUL in a value": refused(b"X: y\0z", length()),
    "a CR in a value": refused(b"X: y\rContent-Length: 5", length()),
    "a line feed in a value": refused(b"X: y\nContent-Length: 5", length()),
    "a name in other letters": refused("Contént-Length: 5".encode(), length()),
    "a blank in a name": refused(b"X Y: z", length()),
    "lines without CR": Case(lambda key: request(key, length()).replace(b"\r\n", b"\n") + HIDING, [400], []),
    "lines without LF": Case(lambda key: request(key, length()).replace(b"\r\n", b"\r") + HIDING, [400], []),
    "an end without CR": Case(
        lambda key: request(key, length()).removesuffix(b"\r\n") + b"\n" + HIDING, [400], []
    ),
    "no host": Case(lambda key: request(key, length(), host=b"") + HIDING, [400], []),
    "two hosts": refused(length(), b"Host: other"),
    "the host twice": refused(length(), b"Host: meter"),
    "two hosts, HTTP/1.0": refused(length(), b"Host: a", start=b"POST /v1/chat/completions HTTP/1.0"),
    "no host, HTTP/1.0": Case(
        lambda key: request(key, length(), host=b"", start=b"POST /v1/chat/completions HTTP/1.0") + BODY,
        [200],
        [BODY],
    ),
    "HTTP/0.9": Case(lambda _: b"GET /v1/models\r\n" + SMUGGLED, [400], []),
    "HTTP/0.9 with its number": refused(length(), start=b"POST /v1/chat/completions HTTP/0.9"),
    "HTTP/1.2": refused(length(), start=b"POST /v1/chat/completions HTTP/1.2"),
    "HTTP/2.0": refused(length(), start=b"POST /v1/chat/completions HTTP/2.0"),
    "HTTP/11": refused(length(), start=b"POST /v1/chat/completions HTTP/11"),
    "http/1.1": refused(length(), start=b"POST /v1/chat/completions http/1.1"),
    "the preface of HTTP/2": Case(lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], []),
    "TLS": Case(lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), [400], []),
    "two blanks in the first line": Case(
        lambda key: request(key, length(), start=b"POST  /v1/chat/completions HTTP/1.1") + BODY, [200], [BODY]
    ),
    "a tab in the first line": refused(length(), start=b"POST\t/v1/chat/completions HTTP/1.1"),
    "a target with a blank": refused(length(), start=b"POST /v1/chat completions HTTP/1.1"),
    "a target with a NUL": refused(length(), start=b"POST /v1/chat\0/completions HTTP/1.1"),
    "a target with a tab": refused(length(), start=b"POST /v1/chat\t/completions HTTP/1.1"),
    "a method in small letters": refused(length(), start=b"post /v1/chat/completions HTTP/1.1"),
    "an unknown method": refused(length(), start=b"SMUGGLE /v1/chat/completions HTTP/1.1"),
    "no method": refused(length(), start=b" /v1/chat/completions HTTP/1.1"),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_hides_in_a_request(name: str, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A row gets its answer and no second one, and the upstream sees its one request or none."""
    upstream.answer(OK)
    case = CASES[name]

    found = raw.send(meter.url, case.data(holder), ends=case.ends)

    assert raw.statuses(found) == case.statuses
    assert [received.body for received in upstream.received] == case.bodies
    assert all(received.behind == b"" for received in upstream.received)
    assert all(received.header("x-smuggled") is None for received in upstream.received)


def test_the_control_listener_is_as_strict(meter: Meter) -> None:
    """What one listener refuses as ambiguous, the other does too, whoever asks."""
    rows = {name: case for name, case in CASES.items() if case.statuses == [400]}

    got = {
        name: raw.statuses(raw.send(meter.control_url, case.data(meter.admin_token), ends=case.ends))
        for name, case in rows.items()
    }

    assert got == {name: [400] for name in rows}


TRAILERS = b"0\r\nAuthorization: Bearer %s\r\nX-Trailer: 1\r\nContent-Encoding: gzip\r\nHost: other\r\n\r\n"


@pytest.mark.parametrize("at_once", [True, False])
def test_trailers_are_no_headers(at_once: bool, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """What stands behind a body opens nothing and goes nowhere, also where it comes with the head."""
    upstream.answer(OK)
    trailers = TRAILERS % holder.encode()
    body = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    nobody = request("", CHUNKED).replace(b"Authorization: Bearer \r\n", b"")
    heads = [nobody, request(holder, CHUNKED)]

    found = []
    for head in heads:
        with wire.connected(meter.url) as connection:
            if at_once:
                connection.send(head + body + trailers)
            else:
                connection.send(head + body)
                connection.send(trailers)
            found += list(raw.answers(connection.read_to_end()))

    (received,) = upstream.received
    assert raw.statuses(found) == [401, 200]
    assert received.header("x-trailer") is None
    assert received.header("content-encoding") is None
    assert received.body == BODY


def test_trailers_are_no_headers_of_the_control_listener(meter: Meter) -> None:
    """A token behind a body does not open the admin API."""
    head = request("", CHUNKED, start=b"GET /api/v1/keys HTTP/1.1", host=b"Host: localhost\r\n")
    head = head.replace(b"Authorization: Bearer \r\n", b"")
    trailers = b"0\r\nAuthorization: Bearer %s\r\n\r\n" % meter.admin_token.encode()

    found = raw.send(meter.control_url, head + trailers)

    assert raw.statuses(found) == [401]


def test_a_hundred_in_one_write(upstream: FakeUpstream, meter: Meter, key: str) -> None:
    """Pipelined requests are answered in their order, one at a time, each with its own answer."""
    upstream.answer(lambda received: [response(json.dumps({"model": received.json()["model"]}).encode())])
    models = [f"model-{number}" for number in range(100)]
    bodies = [json.dumps({"model": model, "messages": []}).encode() for model in models]
    requests = [request(key, length(body), closes=body is bodies[-1]) + body for body in bodies]

    with wire.connected(meter.url) as connection:
        connection.send(b"".join(requests))
        found = list(raw.answers(connection.read_to_end()))

    assert [answer.json()["model"] for answer in found] == models
    assert [received.json()["model"] for received in upstream.received] == models
    assert len({answer.header("x-meter-request-id") for answer in found}) == len(models)
    assert [event.model_requested for event in meter.events(key, len(models))] == models
