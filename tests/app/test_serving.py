"""The end of a server: nobody who has connected is turned away."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from meter.app import serving
from meter.app.bounding import connection_limits
from meter.proxy.connections import Connections
from meter.proxy.protocol import DataProtocol
from meter.settings import load
from tests import wire

CLIENTS = 10
REQUEST = wire.request("GET", "/")


async def answer(
    _scope: MutableMapping[str, Any],
    _receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer every request."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_whoever_has_connected_before_the_listener_closes_is_answered(tmp_path: Path) -> None:
    """Those whom the kernel has accepted, and those whose request comes late, get their answers."""
    settings = load({"METER_DATA_DIR": str(tmp_path)}, None, sample=True)

    async def run() -> list[bytes]:
        with serving.listen("127.0.0.1", 0) as listener:
            address = listener.getsockname()
            connections = Connections(connection_limits(settings, 100), cut=lambda _: None)
            protocol = partial(DataProtocol, connections=connections)
            server = serving.make_server(answer, settings, protocol)  # type: ignore[arg-type]
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[listener])
            late = socket.create_connection(address)
            while not server.server_state.connections:  # noqa: ASYNC110 (uvicorn tells nobody)
                await asyncio.sleep(0.001)
            # Nobody takes these before the end begins: the loop does not turn in between.
            clients = [socket.create_connection(address) for _ in range(CLIENTS)]
            for client in clients:
                client.sendall(REQUEST)
            ending = asyncio.create_task(server.shutdown(sockets=[listener]))
            await asyncio.sleep(0)
            late.sendall(REQUEST)
            await asyncio.wait_for(ending, wire.SECONDS_MAX)
            return [_read(client) for client in (late, *clients)]

    answers = asyncio.run(run())

    assert [each.split(b"\r\n")[0] for each in answers] == [b"HTTP/1.1 200 OK"] * (CLIENTS + 1)


def _read(client: socket.socket) -> bytes:
    client.settimeout(wire.SECONDS_MAX)
    with client:
        return client.recv(65536)
