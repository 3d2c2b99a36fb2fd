"""Whatever headers come from either side: what goes on is whole, framed by meter, and nobody's secret."""

import re

from hypothesis import given
from hypothesis import strategies as st

from meter.core.errors import InvalidRequest
from meter.proxy.gate import credential
from meter.proxy.headers import HOP_BY_HOP, REQUEST_ID, Pairs, for_client, for_upstream
from meter.proxy.transport import request_head, with_length

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
NAMES = st.one_of(
    st.sampled_from(
        [
            b"authorization",
            b"connection",
            b"content-length",
            b"content_length",
            b"cookie",
            b"host",
            b"set-cookie",
            b"te",
            b"transfer-encoding",
            b"x-api-key",
            b"x_api_key",
            b"x-meter-tags",
            b"x-meter-request-id",
            b"accept-encoding",
        ]
    ),
    st.from_regex(rb"\A[a-z0-9!#$%&'*+.^_`|~-]{1,20}\Z"),
)
# As a parser lets them pass: no control characters but the tab.
VALUES = st.one_of(
    st.sampled_from([b"", b"close, authorization", b"host,content-length ,,te", b"Bearer x", b"gzip;q=0"]),
    st.from_regex(rb"\A[\t\x20-\x7e\x80-\xff]{0,30}\Z"),
)
CLIENTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
ODD_NAMES = st.one_of(NAMES, st.binary(max_size=8))
UPSTREAMS = st.lists(st.tuples(ODD_NAMES, st.binary(max_size=20)), max_size=12)


@given(CLIENTS, st.integers(0, 10**9), st.booleans())
def test_what_goes_upstream_is_framed_by_meter_alone(client: Pairs, length: int, identity: bool) -> None:
    """Host, length and credential are there once and are meter's; nothing of one hop goes on."""
    sent = for_upstream(client, host=b"upstream", api_key="key", identity=identity)

    names = [name.replace(b"_", b"-") for name, _ in sent]
    assert dict(sent)[b"host"] == b"upstream"
    assert dict(sent)[b"authorization"] == b"Bearer key"
    assert names.count(b"host") == names.count(b"authorization") == 1
    lines = with_length(request_head(b"POST", b"/", sent), length).split(b"\r\n")
    lengths = [line for line in lines if line.replace(b"_", b"-").startswith(b"content-length")]
    assert lengths == [b"content-length: %d" % length]
    assert not {b"cookie", b"x-api-key"} & set(names)
    assert not [name for name in names if name.startswith(b"x-meter-")]
    assert not identity or dict(sent)[b"accept-encoding"] == b"identity"


@given(UPSTREAMS)
def test_what_goes_to_a_client_can_be_written_as_lines(upstream: Pairs) -> None:
    """Each header is a name and a value of one line; no cookie is among them, and one id, meter's."""
    sent = for_client(upstream, "id-of-meter")

    for name, value in sent:
        assert NAME.fullmatch(name)
        assert not set(value) & (set(range(32)) - {9} | {127})
    names = [name for name, _ in sent]
    assert [value for name, value in sent if name == REQUEST_ID] == [b"id-of-meter"]
    assert not {b"set-cookie", b"set-cookie2", *HOP_BY_HOP} & set(names)


@given(CLIENTS, st.binary(max_size=30))
def test_a_credential_is_one_or_none(client: Pairs, query: bytes) -> None:
    """Whatever stands in headers and query, there is one key, an empty one, or a refusal."""
    given_keys = {value.strip() for name, value in client if name == b"authorization"}
    try:
        found = credential(client, query)
    except InvalidRequest:
        return

    assert len(given_keys) <= 1
    assert not found or found.encode("latin-1") in next(iter(given_keys))
