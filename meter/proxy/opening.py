"""What the head of a request says, read once: most requests of a connection begin as the one before did."""

from meter.core.request import read_tags
from meter.proxy.headers import Pairs, value_of

CONTENT_LENGTH = b"content-length"
# What asks for more than reading a body of a known length.
_PARTICULAR = frozenset({b"transfer-encoding", b"expect", b"content-encoding", b"upgrade"})


class Opening:
    """The headers of a request but for its length, and what was read of them."""

    __slots__ = ("digest", "headers", "heads", "ordinary", "tags")

    def __init__(self, headers: Pairs, digest: bytes | None) -> None:
        """Take the headers, and the digest of the key among them; raises `InvalidRequest`."""
        self.headers = headers
        self.digest = digest
        self.tags = read_tags(value_of(headers, b"x-meter-tags"))
        self.ordinary = _PARTICULAR.isdisjoint([name for name, _ in headers])
        """Whether the body comes as it is, and nothing is to be said before."""
        self.heads: dict[tuple[str, str, bytes, bool], bytes] = {}
        """What an upstream was sent in its place, by the upstream's name and what else makes a difference."""
