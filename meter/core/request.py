"""What meter reads of a request body, which itself is forwarded byte for byte.

Two parsers that disagree about a body are a way around a quota: the meter reads a cheap model, the provider a
dear one. So a body passes only if every parser must read the same: strict UTF-8, one JSON document, no member
twice, also not in another case (Go's parser ignores case), no NaN.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from meter.core.documents import TEXT_LENGTH_MAX, storable
from meter.core.errors import InvalidRequest

MODEL_LENGTH_MAX = 256
END_USER_LENGTH_MAX = TEXT_LENGTH_MAX
TAGS_MAX = 16
# The members that meter reads.
_READ = frozenset({"model", "service_tier", "stream", "stream_options", "user"})
# The members that most requests are made of. No two of them are one in another case.
_USUAL = _READ | {
    "dimensions",
    "encoding_format",
    "frequency_penalty",
    "input",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "store",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "verbosity",
}
_OPTIONS = frozenset({"include_usage"})
TAG_LENGTH_MAX = 64


class RequestFacts(msgspec.Struct, frozen=True):
    """The members of a request that decide how it is metered."""

    model: str
    stream: bool
    end_user: str | None
    service_tier: str | None
    body_bytes: int
    document: dict[str, Any]
    """The whole body, decoded, for estimates; never stored."""


class _Ambiguous(dict[str, Any]):
    """An object that names a member twice."""


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a request; raises `InvalidRequest` naming the member at fault."""
    document = _decode(body)
    _refuse_ambiguous(document, None, _USUAL)
    if not _USUAL.issuperset(document):
        _refuse_another_case(document)
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    if "stream_options" in document:
        _check_stream_options(document["stream_options"])
    return RequestFacts(
        model=_model(document),
        stream=bool(stream),
        end_user=_text(document["user"]) if "user" in document else None,
        service_tier=_text(document["service_tier"]) if "service_tier" in document else None,
        body_bytes=len(body),
        document=document,
    )


def read_tags(header: str) -> tuple[str, ...]:
    """Read `x-meter-tags`: comma-separated, blanks around a tag dropped, each tag once."""
    if not header:
        return ()
    tags = tuple(dict.fromkeys([tag for part in header.split(",") if (tag := part.strip())]))
    if len(tags) > TAGS_MAX or max(map(len, tags), default=0) > TAG_LENGTH_MAX:
        raise InvalidRequest(
            f"'x-meter-tags' takes at most {TAGS_MAX} tags of {TAG_LENGTH_MAX} characters.",
            param="x-meter-tags",
        )
    return tags


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = _document(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest("The body must be JSON in UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except ValueError as fault:
        raise InvalidRequest(f"The body is not valid JSON: {_reason(fault)}.") from None
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return document


def _document(text: str) -> object:
    # Nearly all bodies are an object and nothing else, which needs no look at blanks around it.
    if text.startswith("{"):
        try:
            document, end = _scan(text, 0)
        except StopIteration:
            # What the decoder below says in words.
            end = -1
        if end == len(text):
            return document
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Ambiguous(members)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _reason(fault: ValueError) -> str:
    # A decoder's message names a position; other messages may quote the body and stay out.
    if isinstance(fault, json.JSONDecodeError):
        return f"{fault.msg} at character {fault.pos}"
    return "a number is not finite or has too many digits"


# Making one takes as long as reading a small body.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
_scan: Callable[[str, int], tuple[object, int]] = _DECODER.scan_once  # type: ignore[attr-defined]


def _refuse_ambiguous(members: dict[str, Any], inside: str | None, usual: frozenset[str]) -> None:
    """Refuse names that are one in any case; of those that are `usual` none are."""
    if isinstance(members, _Ambiguous):
        _refuse_duplicate(inside)
    if not usual.issuperset(members) and len({name.casefold() for name in members}) < len(members):
        _refuse_duplicate(inside)


def _refuse_another_case(document: dict[str, Any]) -> None:
    for name in document:
        if name not in _READ and name.casefold() in _READ:
            raise InvalidRequest(f"Write '{name.casefold()}' in lower case.", param=name.casefold())


def _refuse_duplicate(inside: str | None) -> NoReturn:
    where = f"'{inside}'" if inside else "The body"
    raise InvalidRequest(
        f"{where} names a member twice (upper and lower case count as the same); send each once.",
        param=inside,
    )


def _check_stream_options(options: object) -> None:
    if options is None:
        return
    if not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    _refuse_ambiguous(options, "stream_options", _OPTIONS)
    if not isinstance(options.get("include_usage"), bool | None):
        raise InvalidRequest(
            "'stream_options.include_usage' must be true or false.",
            param="stream_options.include_usage",
        )


def _model(document: dict[str, Any]) -> str:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("Name the model to use in 'model'.", param="model")
    if len(model) > MODEL_LENGTH_MAX or not model.isprintable():
        raise InvalidRequest(
            f"'model' must be at most {MODEL_LENGTH_MAX} printable characters.", param="model"
        )
    return model


def _text(value: object) -> str | None:
    return storable(value) if isinstance(value, str) else None
