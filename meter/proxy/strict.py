"""What uvicorn's HTTP leaves open, and two servers in a row could understand in two ways.

- A request says in one way how it is framed and addressed, or it is no request.
- What stands behind a body (trailers) is nothing: it comes as further headers, credentials and all.
- An offer to go on in another protocol (`upgrade`) is not taken, and does not cost a request its body.
"""

from collections.abc import Iterable

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# How many hosts a request of each version has at least; none may have two.
_HOSTS_MIN = {"1.0": 0, "1.1": 1}


class AmbiguousError(Exception):
    """A request that could be understood in two ways; the parser raises it as a fault of its own."""


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol for requests that everybody reads alike; others are answered with 400."""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("a request was not valid HTTP")
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """Look at how a request is framed and addressed, before anybody acts on it."""
        _refuse_ambiguous(self.parser.get_http_version(), self.headers)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise AmbiguousError("this is no proxy to anywhere")
            # The parser reads no further, and the request begins again without its offer.
            return
        self.begin_answering()
        # The scope keeps its list; what comes behind the body would join it.
        self.headers = []

    def begin_answering(self) -> None:
        """Begin to answer a request whose headers are here."""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take note of the end of a request, unless it begins again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _parse(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # A view, because thousands of such requests may have come at once.
                data = memoryview(data)[upgrade.args[0] :]
            else:
                return
            self._begin_again()

    def _begin_again(self) -> None:
        """Give the head of a request to another parser, without the offer."""
        version = self.parser.get_http_version().encode()
        parts = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                parts += (name, b": ", value, b"\r\n")
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn sets it: what follows a request that closes is no fault of that request.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"".join([*parts, b"\r\n"]))


def _refuse_ambiguous(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    hosts, codings = 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if version not in _HOSTS_MIN or not _HOSTS_MIN[version] <= hosts <= 1:
        raise AmbiguousError("a request is HTTP/1.1 and names one host")
    if codings and (version != "1.1" or codings != [b"chunked"]):
        raise AmbiguousError("a request of HTTP/1.1 may be chunked, and nothing else")
