"""Wrong keys and tokens, by the address that they come from: so many a minute, and then none is looked up.

An address is the peer's. Only a proxy that the configuration names is believed about whom it speaks for, and
then the last address in front of it that is no such proxy counts, since everything further left is the
client's own to write. Of IPv6 a network of 64 bits is one address: whoever has one has all of it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from meter.core.errors import TooManyFailures

ADDRESSES_MAX = 10_000
WINDOW_SECONDS = 60.0

Network = IPv4Network | IPv6Network
_SITE_BITS = 64


class Guesses:
    """Failures by address: a bucket each that fills again evenly, in a table that does not grow."""

    def __init__(self, per_minute_max: int, trusted: Sequence[Network] = ()) -> None:
        """Take how many there may be a minute, 0 for any, and which proxies are believed."""
        self._max = per_minute_max
        self._trusted = trusted
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def check(self, host: str, forwarded: Iterable[str], now: float) -> None:
        """Raise `TooManyFailures` where whoever asks was wrong too often."""
        if not self._left or not self._max:
            return
        left = self._left_of(origin(host, forwarded, self._trusted), now)
        if left < 1:
            raise TooManyFailures((1 - left) * WINDOW_SECONDS / self._max)

    def note(self, host: str, forwarded: Iterable[str], now: float) -> None:
        """Take note of a failure."""
        if not self._max:
            return
        address = origin(host, forwarded, self._trusted)
        self._left[address] = (max(0.0, self._left_of(address, now) - 1), now)
        self._left.move_to_end(address)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)

    def _left_of(self, address: str, now: float) -> float:
        left, at = self._left.get(address, (float(self._max), now))
        return min(float(self._max), left + (now - at) * self._max / WINDOW_SECONDS)


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Read addresses and networks; raises `ValueError`."""
    return tuple(ip_network(name, strict=False) for name in names)


def origin(host: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request is counted for."""
    address = _read(host)
    if address is None:
        return host
    if trusted:
        hops = [hop for value in forwarded for hop in value.split(",")]
        while hops and _is_in(address, trusted):
            before = _read(hops.pop().strip())
            if before is None:
                break
            address = before
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _SITE_BITS), strict=False))
    return str(address)


def _is_in(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
