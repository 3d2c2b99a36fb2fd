"""Which headers pass, in both directions.

Everything passes but what belongs to one hop, what identifies the client to meter, and what would let one
tenant see another's session. The order is kept, and duplicates too.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

Pairs = list[tuple[bytes, bytes]]
REQUEST_ID = b"x-meter-request-id"
# What is decided of a name is decided once. Names are few; who makes some up pushes others out.
NAMES_REMEMBERED_MAX = 1024

# RFC 9110, section 7.6.1, and what proxies in the wild add to it.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Made anew for the next hop, or answered by this one. Of whom a proxy in front speaks is for meter to know.
_REMADE = frozenset({b"host", b"content-length", b"expect", b"x-forwarded-for"})
_KEPT_BACK = frozenset({b"set-cookie", b"set-cookie2", REQUEST_ID})
_CREDENTIAL = re.compile(
    rb"(?:.*-)?(?:api-?key|access-key|subscription-key|auth|authorization|token|secret|password|cookie2?)"
)
# What the standard library can decode, so that the tap can read its copy.
_READABLE_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate", "identity"})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SPLITTING = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def for_upstream(client: Pairs, *, host: bytes, api_key: str | None, identity: bool) -> Pairs:
    """Make the request headers for the upstream, but for the length.

    `identity` asks for an answer without compression.
    """
    named = _named_by_connection(client)
    passed = [(b"host", host)]
    for name, value in client:
        if not _goes_upstream(name) or (named and _read(name) in named):
            continue
        if name == b"accept-encoding":
            value = b"identity" if identity else _readable(value)  # noqa: PLW2901 (one header, narrowed)
        passed.append((name, value))
    if identity and not any(name == b"accept-encoding" for name, _ in passed):
        passed.append((b"accept-encoding", b"identity"))
    if api_key is not None:
        passed.append((b"authorization", b"Bearer " + api_key.encode()))
    return passed


def for_client(upstream: Pairs, request_id: str) -> Pairs:
    """Make the response headers for the client: the upstream's, and the one that meter adds.

    Names are in lower case.
    """
    received = [header for header in upstream if _goes_to_client(header[0])]
    named = _named_by_connection(upstream)
    if named:
        received = [header for header in received if _read(header[0]) not in named]
    # A header that could split the response must not pass, and must not take the response along.
    if _SPLITTING.search(b"".join([value for _, value in received])):
        received = [header for header in received if not _SPLITTING.search(header[1])]
    received.append((REQUEST_ID, request_id.encode()))
    return received


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the first value of a header, or an empty string; names are in lower case."""
    for candidate, value in headers:
        if candidate == name:
            return value.decode("latin-1")
    return ""


def _named_by_connection(headers: Pairs) -> set[bytes]:
    listed = [value for name, value in headers if name == b"connection"]
    return {_read(token.strip().lower()) for token in b",".join(listed).split(b",")} if listed else set()


@lru_cache(NAMES_REMEMBERED_MAX)
def _goes_upstream(name: bytes) -> bool:
    read = _read(name)
    stays = read in HOP_BY_HOP or read in _REMADE or read.startswith(b"x-meter-")
    return not stays and not _CREDENTIAL.fullmatch(read)


def _read(name: bytes) -> bytes:
    # Servers behind CGI or WSGI do not tell the two apart.
    return name.replace(b"_", b"-")


@lru_cache(NAMES_REMEMBERED_MAX)
def _goes_to_client(name: bytes) -> bool:
    return name not in HOP_BY_HOP and name not in _KEPT_BACK and _NAME.fullmatch(name) is not None


def _readable(accepted: bytes) -> bytes:
    codings = [coding.strip() for coding in accepted.decode("latin-1").split(",")]
    kept = [coding for coding in codings if coding.split(";")[0].strip().lower() in _READABLE_ENCODINGS]
    return ", ".join(kept).encode("latin-1") or b"identity"
