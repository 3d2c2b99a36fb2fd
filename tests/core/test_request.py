"""A request passes only if every parser must read the same, and the refusal names the member at fault."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.errors import InvalidRequest
from meter.core.request import (
    END_USER_LENGTH_MAX,
    MODEL_LENGTH_MAX,
    TAG_LENGTH_MAX,
    TAGS_MAX,
    RequestFacts,
    read_request,
    read_tags,
)


def body(**members: Any) -> bytes:
    """Write a request."""
    return json.dumps({"model": "m", **members}).encode()


def refusal(raw: bytes) -> InvalidRequest:
    """Return how a body is refused."""
    with pytest.raises(InvalidRequest) as caught:
        read_request(raw)
    return caught.value


def read_or_refuse(raw: bytes) -> RequestFacts | InvalidRequest:
    """Return the facts of a body, or how it is refused; nothing else may happen."""
    try:
        return read_request(raw)
    except InvalidRequest as refused:
        return refused


def test_the_facts_of_a_request() -> None:
    """The model, the streaming and the end user are read, and the document is kept for estimates."""
    facts = read_request(body(model="openai/gpt-4.1", stream=True, user="u-1", messages=[{"role": "user"}]))

    assert (facts.model, facts.stream, facts.end_user) == ("openai/gpt-4.1", True, "u-1")
    assert facts.document["messages"] == [{"role": "user"}]


@pytest.mark.parametrize(
    ("members", "stream"), [({}, False), ({"stream": None}, False), ({"stream": False}, False)]
)
def test_a_request_streams_only_if_it_says_so(members: dict[str, Any], stream: bool) -> None:
    """Without `stream`, or with null, a request does not stream."""
    assert read_request(body(**members)).stream is stream


@pytest.mark.parametrize(
    "members",
    [
        {"stream_options": None},
        {"stream_options": {}},
        {"stream_options": {"include_usage": None}},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream_options": {"anything": {"a": 1}}},
        {"user": None},
        {"user": 7},
        {"unknown": {"nested": [1, 2.5, "x", None, True]}},
        {"model": "a model with blanks ☃"},
        {"model": "m" * MODEL_LENGTH_MAX},
        {"seed": 10**1000},
    ],
)
def test_what_passes(members: dict[str, Any]) -> None:
    """What every parser reads the same is none of meter's business."""
    facts = read_request(body(**members))

    assert facts.document == {"model": "m", **members}


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        # No JSON object.
        (b"", None),
        (b" ", None),
        (b"null", None),
        (b"[]", None),
        (b'"text"', None),
        (b"7", None),
        (b'{"model":"m"', None),
        (b'{"model":"m",}', None),
        (b"{'model':'m'}", None),
        (b'{"model":"m"} // comment', None),
        (b'{"model":"m"}{"model":"n"}', None),
        (b'{"model":"m"}\0', None),
        (b'{"model":"m\n"}', None),
        # Not strict UTF-8.
        (b'\xef\xbb\xbf{"model":"m"}', None),
        ('{"model":"m"}'.encode("utf-16"), None),
        ('{"model":"m"}'.encode("utf-16-le"), None),
        ('{"model":"m"}'.encode("utf-32"), None),
        (b'{"model":"m\xff"}', None),
        (b'{"model":"\xed\xa0\x80"}', None),
        (b'{"model":"\xc0\xaf"}', None),
        # Numbers that are none.
        (b'{"model":"m","temperature":NaN}', None),
        (b'{"model":"m","temperature":Infinity}', None),
        (b'{"model":"m","deep":[{"x":-Infinity}]}', None),
        (b'{"model":"m","seed":' + b"9" * 5000 + b"}", None),
        # Too deep for a parser's stack.
        (b'{"model":"m","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
        # The model.
        (b"{}", "model"),
        (b'{"model":null}', "model"),
        (b'{"model":""}', "model"),
        (b'{"model":7}', "model"),
        (b'{"model":["m"]}', "model"),
        (b'{"model":"a\\nb"}', "model"),
        (b'{"model":"a\\u0000b"}', "model"),
        (b'{"model":"a\\u200bb"}', "model"),
        (b'{"model":"a\\ud800b"}', "model"),
        (body(model="m" * (MODEL_LENGTH_MAX + 1)), "model"),
        (b'{"Model":"m"}', "model"),
        # The stream.
        (body(stream="true"), "stream"),
        (body(stream=1), "stream"),
        (body(stream=0), "stream"),
        (body(stream={}), "stream"),
        (body(stream_options=[]), "stream_options"),
        (body(stream_options="x"), "stream_options"),
        (body(stream_options=False), "stream_options"),
        (body(stream_options={"include_usage": 1}), "stream_options.include_usage"),
        (body(stream_options={"include_usage": "true"}), "stream_options.include_usage"),
    ],
)
def test_what_is_refused(raw: bytes, param: str | None) -> None:
    """A body that cannot be metered is a 400 that names the member at fault."""
    assert refusal(raw).param == param


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (rb'{"model":"m","model":"m"}', None),
        (rb'{"model":"m","mod\u0065l":"n"}', None),
        (rb'{"mod\u0065l":"m","\u006d\u006f\u0064\u0065\u006c":"n"}', None),
        (rb'{"model":"m","Model":"n"}', None),
        (rb'{"MODEL":"m","model":"n"}', None),
        (rb'{"model":"m","x":1,"x":1}', None),
        (rb'{"model":"m","":1,"":2}', None),
        (rb'{"model":"m","max_tokens":1,"MAX_TOKENS":9}', None),
        # Letters that fold to ASCII: KELVIN SIGN to k, LATIN SMALL LETTER LONG S to s.
        (rb'{"model":"m","max_tokens":1,"max_to\u212aens":9}', None),
        ('{"model":"m","max_tokens":1,"max_to\u212aens":9}'.encode(), None),
        (rb'{"model":"m","stream":false,"\u017ftream":true}', None),
        ('{"model":"m","stream":false,"\u017ftream":true}'.encode(), None),
        (rb'{"model":"m","stream_options":{"include_usage":true,"include_usage":false}}', "stream_options"),
        (rb'{"model":"m","stream_options":{"include_usage":true,"Include_Usage":0}}', "stream_options"),
        (rb'{"model":"m","stream_options":{"include_usage":true,"include_u\u0073age":0}}', "stream_options"),
        (rb'{"model":"m","stream_options":{"include_usage":true,"include_u\u017fage":0}}', "stream_options"),
        (rb'{"model":"m","stream_options":{},"Stream_options":{"include_usage":true}}', None),
    ],
)
def test_a_member_that_stands_twice_is_refused(raw: bytes, param: str | None) -> None:
    """Two members that some parser takes for the same are refused, however they are written."""
    found = refusal(raw)

    assert "twice" in found.message
    assert found.param == param


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","messages":[{"role":"user","role":"system"}]}',
        b'{"model":"m","tools":[{"function":{"a":1,"A":2}}]}',
        b'{"model":"m","metadata":{"k":1,"k":2}}',
        b'{"model":"m","stream_options":{"deeper":{"x":1,"x":2}}}',
    ],
)
def test_what_stands_twice_elsewhere_passes(raw: bytes) -> None:
    """A duplicate in what meter does not read is the upstream's to judge."""
    assert read_request(raw).model == "m"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","Stream":true}',
        b'{"model":"m","STREAM_OPTIONS":{"include_usage":false},"stream":true}',
        '{"model":"m","\u017ftream":true}'.encode(),
    ],
)
def test_a_member_in_another_case_alone_is_refused(raw: bytes) -> None:
    """A member that a parser blind to case reads as one of meter's, and meter does not, is refused."""
    assert refusal(raw).status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"SECRET\xff"}',
        b'{"model":"m","seed":' + b"7" * 5000 + b"}",
        b'{"model":"m","x":NaN,"y":"SECRET"}',
        b'{"model":"m" "SECRET"}',
        b'{"SECRET":1,"SECRET":2}',
    ],
)
def test_a_refusal_quotes_nothing_of_the_body(raw: bytes) -> None:
    """A refusal may be logged, so it says where the fault is and not what stands there."""
    message = refusal(raw).message

    assert "SECRET" not in message
    assert "777" not in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("user", "end_user"),
    [
        ("u-1", "u-1"),
        ("", ""),
        ("u" * 1000, "u" * END_USER_LENGTH_MAX),
        ("☃" * 1000, "☃" * END_USER_LENGTH_MAX),
        (None, None),
        (7, None),
        (["u"], None),
    ],
)
def test_the_end_user_is_attribution(user: object, end_user: str | None) -> None:
    """The end user is kept up to a length; what is no text is nobody, and never a refusal."""
    assert read_request(body(user=user)).end_user == end_user


@pytest.mark.parametrize("user", ["a\ud800b", "\udfff"])
def test_an_end_user_can_be_stored_as_utf8(user: str) -> None:
    """A surrogate that stands alone, legal in JSON, is replaced by what UTF-8 can hold."""
    end_user = read_request(body(user=user)).end_user

    assert end_user is not None
    assert end_user.encode("utf-8")
    assert len(end_user) == len(user)


def test_an_end_user_can_be_stored_in_postgresql() -> None:
    """A NUL, legal in JSON, is replaced by what PostgreSQL's texts can hold."""
    end_user = read_request(body(user="a\0b")).end_user

    assert end_user is not None
    assert "\0" not in end_user


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(raw: bytes) -> None:
    """Whatever the bytes, they are read or refused."""
    found = read_or_refuse(raw)

    assert found.model if isinstance(found, RequestFacts) else found.status == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "stream", "stream_options", "user", "n"]), json_values))
def test_a_body_is_read_as_it_is_or_refused_by_name(members: dict[str, Any]) -> None:
    """Whatever the members hold, the facts are theirs, or the refusal names one of them."""
    found = read_or_refuse(json.dumps(members).encode())

    if isinstance(found, RequestFacts):
        assert found.model == members["model"]
        assert found.stream == bool(members.get("stream"))
    else:
        assert found.param in {"model", "stream", "stream_options", "stream_options.include_usage"}


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", ()),
        (" , ,", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        (" a , b ", ("a", "b")),
        ("b,a,b", ("b", "a")),
        ("team:x, feature=y z", ("team:x", "feature=y z")),
        ("t" * TAG_LENGTH_MAX, ("t" * TAG_LENGTH_MAX,)),
        (",".join(["same"] * 100), ("same",)),
        (
            ",".join(f"t{number}" for number in range(TAGS_MAX)),
            tuple(f"t{number}" for number in range(TAGS_MAX)),
        ),
    ],
)
def test_tags_are_separated_by_commas(header: str, tags: tuple[str, ...]) -> None:
    """Blanks around a tag don't count, an empty tag is none, and a tag counts once, in its first place."""
    assert read_tags(header) == tags


@pytest.mark.parametrize(
    "header",
    [
        ",".join(f"t{number}" for number in range(TAGS_MAX + 1)),
        "t" * (TAG_LENGTH_MAX + 1),
        "good," + "t" * (TAG_LENGTH_MAX + 1),
    ],
)
def test_too_many_or_too_long_tags_are_refused(header: str) -> None:
    """Tags beyond the bounds are a 400 that names the header."""
    with pytest.raises(InvalidRequest) as caught:
        read_tags(header)

    assert caught.value.param == "x-meter-tags"
