"""Headers in both directions: a client decides nothing by them upstream, and sees nothing of others."""

import pytest

from tests import wire
from tests.conftest import UPSTREAM_KEY
from tests.fake_upstream import Cut, FakeUpstream, response
from tests.security import raw
from tests.security.raw import BODY, length, request
from tests.server import Meter

CANARY = "canary-5f0c"
OK = [response(b'{"choices":[]}')]
# Headers by which a client could tell a provider, or a proxy before it, who it is.
CREDENTIALS = [
    "X-Api-Key",
    "Api-Key",
    "X-Goog-Api-Key",
    "X-Goog-Iam-Authorization-Token",
    "Ocp-Apim-Subscription-Key",
    "Apim-Subscription-Key",
    "X-Auth-Token",
    "X-Auth",
    "X-Access-Token",
    "X-Amz-Security-Token",
    "X-Amzn-Oidc-Accesstoken-Token",
    "X-Vault-Token",
    "X-Csrf-Token",
    "X-Access-Key",
    "X-Secret",
    "X-Client-Secret",
    "X-Password",
    "X-Forwarded-Authorization",
    "X-Original-Authorization",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Cookie",
    "Cookie2",
    "X-Cookie",
    "X-Meter-Tags",
    "X-Meter-Request-Id",
    "X-Meter-Anything",
    "Helicone-Auth",
    "OpenAI-Api-Key",
    "Anthropic-Api-Key",
    # Servers behind CGI read `_` as `-`.
    "X_Api_Key",
    "X_Auth_Token",
    "X_Meter_Tags",
    "Proxy_Authorization",
]
# Two credentials are refused, so that these stand in requests of their own.
REFUSED = {"x-api-key", "api-key", "x-goog-api-key"}


def test_no_credential_of_a_client_goes_upstream(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """The upstream sees its own key, and neither the client's nor anything like one."""
    upstream.answer(OK)
    names = [name for name in CREDENTIALS if name.lower() not in REFUSED]
    sent = [(name, CANARY) for name in names]

    answer = wire.post(meter.url, holder, wire.chat(), headers=sent)

    (received,) = upstream.received
    assert answer.status == 200
    assert [value for _, value in received.headers if CANARY in value or "mtr_" in value] == []
    assert [value for name, value in received.headers if name == "authorization"] == [
        f"Bearer {UPSTREAM_KEY}"
    ]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_same_credential_twice_is_one(
    name: str, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """A key that a client sends in another header too stops here there as well."""
    upstream.answer(OK)

    answer = wire.post(meter.url, holder, wire.chat(), headers=[(name, holder)])

    (received,) = upstream.received
    assert answer.status == 200
    assert received.header(name) is None
    assert received.header("authorization") == f"Bearer {UPSTREAM_KEY}"


ODD_PLACES: dict[str, tuple[bytes, str]] = {
    "x-api-key": (b"X-Api-Key: %s", ""),
    "api-key": (b"Api-Key: %s", ""),
    "x-goog-api-key": (b"X-Goog-Api-Key: %s", ""),
    "a cookie": (b"Cookie: authorization=Bearer %s", ""),
    "basic": (b"Authorization: Basic %s", ""),
    "a bare token": (b"Authorization: %s", ""),
    "another scheme": (b"Authorization: Token %s", ""),
    "the proxy's header": (b"Proxy-Authorization: Bearer %s", ""),
    "another name": (b"X-Authorization: Bearer %s", ""),
    "an underscore": (b"Authorization_: Bearer %s", ""),
    "key": (b"X: y%.0s", "?key=%s"),
    "api_key": (b"X: y%.0s", "?api_key=%s"),
    "API_KEY": (b"X: y%.0s", "?API_KEY=%s"),
    "access_token": (b"X: y%.0s", "?a=b&access_token=%s"),
    "token, escaped": (b"X: y%.0s", "?t%%6fken=%s"),
    "another parameter": (b"X: y%.0s", "?authorization=%s"),
}


@pytest.mark.parametrize("name", ODD_PLACES)
def test_a_key_counts_in_one_place_only(name: str, upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A good key anywhere else than in `Authorization: Bearer` opens nothing, and is not repeated."""
    upstream.answer(OK)
    line, query = ODD_PLACES[name]
    target = f"/v1/chat/completions{query % holder if query else ''}"
    head = f"POST {target} HTTP/1.1\r\nHost: meter\r\nConnection: close\r\n".encode()

    with wire.connected(meter.url) as connection:
        connection.send(head + line % holder.encode() + b"\r\n" + length() + b"\r\n\r\n" + BODY)
        got = connection.read_to_end()

    assert wire.parse(got).status == (401 if not query or "authorization" in query else 400)
    assert holder.encode() not in got
    assert upstream.received == []


LISTED = [
    b"Connection: authorization",
    b"Connection: close, authorization, content-length, host",
    b"Connection: keep-alive, Authorization\r\nConnection: Host, Content-Type",
    b"Connection: AUTHORIZATION,x-meter-request-id",
    b"Connection: ,,authorization\t, content-length",
]


@pytest.mark.parametrize("line", LISTED)
def test_a_client_takes_no_header_of_meters_away(
    line: bytes, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """What `Connection` names is taken from the client's headers, and not from those that meter makes."""
    upstream.answer(OK)
    lines = (line, b"X-Client: 1", length())

    found = raw.send(meter.url, request(holder, *lines) + BODY)

    (received,) = upstream.received
    assert raw.statuses(found) == [200]
    assert received.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert received.header("host") == f"127.0.0.1:{upstream.port}"
    assert received.header("content-length") == str(len(BODY))
    assert received.header("x-client") == "1"
    assert received.header("connection") is None
    assert received.body == BODY
    assert found[0].header("x-meter-request-id")


def test_headers_of_one_hop_stay_there(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """What is for the next server alone goes no further, in either direction, and what it names neither."""
    hop = [b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: X-T", b"Proxy-Connection: keep-alive"]
    hop += [b"Connection: x-mine, x_too", b"X-Mine: 1", b"X_Too: 1", b"X-Stays: 1"]
    back = [("Keep-Alive", "timeout=5"), ("Trailer", "X-T"), ("Proxy-Authenticate", "Basic"), ("X-Mine", "1")]
    back += [("Connection", "x-mine, x_too"), ("X_Too", "1"), ("X-Stays", "1"), ("Upgrade", "h2c")]
    upstream.answer([response(b"{}", headers=back)])

    (answer,) = raw.send(meter.url, request(holder, *hop, length()) + BODY)

    (received,) = upstream.received
    names = {name for name, _ in received.headers}
    assert names == {"host", "content-type", "x-stays", "authorization", "content-length"}
    assert {name for name, _ in answer.headers} <= {
        "x-stays",
        "content-length",
        "connection",
        "x-meter-request-id",
    }


# Each would split the answer in two or add a header to it, if it passed.
SPLITTING = [
    b"X-A: a\r\n\r\nHTTP/1.1 200 OK\r\nX-B: b",
    b"X-A: a\nSet-Cookie: b=c",
    b"X-A: a\rSet-Cookie: b=c",
    b"X-A: a\x00b",
    b"X-A : a",
    b"X A: a",
    b"X-A\xe9: a",
    b": a",
    b"X-A",
    b" X-A: a",
    b"X-A: a\x0bb",
    b"X-A: a\x7fb",
    b"X-A: \xe9\xff",
]


@pytest.mark.parametrize("line", SPLITTING)
def test_headers_of_an_upstream_split_nothing(
    line: bytes, upstream: FakeUpstream, meter: Meter, holder: str
) -> None:
    """An upstream's odd header is dropped, or its answer is none; nothing of it becomes meter's answer."""
    good = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Stays: 1\r\n"
    upstream.answer([good + line + b"\r\nContent-Length: 2\r\n\r\n{}", Cut()])

    found = raw.send(meter.url, request(holder, length()) + BODY)
    upstream.answer(OK)
    after = raw.send(meter.url, request(holder, length()) + BODY)

    assert raw.statuses(found) in ([200], [502])
    (answer,) = found
    assert answer.header("set-cookie") is None
    assert answer.header("x-b") is None
    assert raw.statuses(after) == [200]
    assert meter.process.poll() is None


def test_a_client_splits_no_request(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """Control characters of a client's header are refused, and other bytes go on as they came."""
    upstream.answer(OK)
    passing = [b"X-A: \xe9\xff\x80", b"X-B: a\tb", b"X-C: " + "漢字".encode()]
    refused = [b"X-A: a\x00b", b"X-A: a\x0bb", b"X-A: a\x7fb", b"X-A: a\x1b[2J"]

    statuses = {
        line: raw.statuses(raw.send(meter.url, request(holder, line, length()) + BODY))
        for line in (*passing, *refused)
    }

    assert {line for line, got in statuses.items() if got == [200]} >= set(passing)
    sent = [received.header(name) for received in upstream.received for name in ("x-a", "x-b", "x-c")]
    assert not [value for value in sent if value and set(value) & set("\r\n\0\x0b\x7f\x1b")]


def test_cookies_of_one_tenant_are_not_anothers(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """A cookie that an upstream sets reaches nobody, and is sent back by nobody."""
    cookies = [("Set-Cookie", f"session={CANARY}; Path=/"), ("Set-Cookie2", CANARY)]
    upstream.answer([response(b"{}", headers=cookies)], OK)
    other = meter.new_key()

    first = wire.post(meter.url, holder, wire.chat())
    second = wire.post(meter.url, other, wire.chat())
    third = wire.post(meter.url, holder, wire.chat())

    assert {answer.status for answer in (first, second, third)} == {200}
    assert all(CANARY not in value for _, value in first.headers)
    assert all(CANARY not in value for each in upstream.received for _, value in each.headers)


def test_the_providers_key_reaches_no_client(upstream: FakeUpstream, meter: Meter, holder: str) -> None:
    """An error of meter's about an upstream tells nothing of how that is reached."""
    upstream.answer([b"not HTTP\r\n\r\n"])

    with wire.connected(meter.url) as connection:
        connection.send(request(holder, length()) + BODY)
        got = connection.read_to_end()

    assert wire.parse(got).status == 502
    assert UPSTREAM_KEY.encode() not in got
    assert str(upstream.port).encode() not in got
