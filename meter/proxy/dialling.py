"""Opening a connection: names to addresses, the first of them that answers, and TLS with verification.

A name may have addresses that lead nowhere, mostly those of IPv6. So the next one is tried beside it after a
quarter of a second (RFC 8305), and whichever connects first is taken.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import NamedTuple

import httpx

from meter.proxy.connection import Connection
from meter.proxy.pool import Dial

NEXT_ADDRESS_SECONDS = 0.25
# Answers to long requests may take minutes, in which networks forget a silent connection.
PROBE_SECONDS = 60


class Address(NamedTuple):
    """One place that a name stands for."""

    family: socket.AddressFamily
    at: tuple[object, ...]


def dialler(trusted: ssl.SSLContext) -> Dial:
    """Return how connections are opened where these certificates are trusted."""
    return partial(_dial, trusted)


async def _dial(trusted: ssl.SSLContext, connection: Connection, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await _connect(trusted, connection)
    except TimeoutError as fault:
        raise httpx.ConnectTimeout("no connection in time") from fault
    except OSError as fault:
        raise httpx.ConnectError(str(fault)) from fault


async def _connect(trusted: ssl.SSLContext, connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    scheme, raw_host, port = connection.origin
    host, encrypted = raw_host.decode("ascii"), scheme == b"https"
    connected = await first_connected(await _addresses(host, port))
    try:
        await loop.create_connection(
            lambda: connection,
            sock=connected,
            ssl=trusted if encrypted else None,
            server_hostname=host if encrypted else None,
        )
    except BaseException:
        connected.close()
        raise


async def _addresses(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = [Address(family, at) for family, _, _, _, at in found]
    first = [place for place in places if place.family == places[0].family]
    others = [place for place in places if place.family != places[0].family]
    return [place for place in chain(*zip_longest(first, others)) if place is not None]


async def first_connected(addresses: Sequence[Address]) -> socket.socket:
    """Connect to the first address that lets itself be connected to; raises `OSError` where none does."""
    if len(addresses) == 1:
        return await _connected(addresses[0])
    left = list(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    faults: list[str] = []
    try:
        while left or attempts:
            if left:
                attempts.add(asyncio.create_task(_connected(left.pop(0))))
            patience = NEXT_ADDRESS_SECONDS if left else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                if (fault := attempt.exception()) is None:
                    return attempt.result()
                faults.append(str(fault))
        raise OSError("; ".join(faults))
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_dispose)


async def _connected(address: Address) -> socket.socket:
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 (the standard library's)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, option):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), PROBE_SECONDS)
        await asyncio.get_running_loop().sock_connect(opened, address.at)
    except BaseException:
        opened.close()
        raise
    return opened


def _dispose(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what connected too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
