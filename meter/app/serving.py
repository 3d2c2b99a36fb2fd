"""Running a house: its sockets, its servers, and an end in the right order."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import uvicorn
from litestar import Litestar

from meter.app.accepting import Acceptor
from meter.app.house import House, Premises, build
from meter.proxy.bounded import BoundedProtocol
from meter.proxy.protocol import DataProtocol
from meter.proxy.relay import Relay
from meter.settings import Settings

CLOSING_SECONDS = 10.0
# How long whoever has connected at the very end has for sending a request.
FIRST_REQUEST_SECONDS_MAX = 1.0
LOOK_SECONDS = 0.01

log = logging.getLogger(__name__)


class Listeners(NamedTuple):
    """The sockets that a process serves: both, or one of them beside other processes."""

    data: socket.socket | None
    control: socket.socket | None


async def serve(premises: Premises, listeners: Listeners, stop: asyncio.Event) -> None:
    """Serve the sockets until `stop` is set, then finish what is under way and close everything."""
    settings = premises.settings
    async with build(premises) as house:
        at_data = partial(DataProtocol, connections=house.doors.data, direct=house.relay)
        at_control = partial(BoundedProtocol, connections=house.doors.control)
        data = None if listeners.data is None else make_server(house.relay, settings, at_data)
        control = None if listeners.control is None else make_server(house.control, settings, at_control)
        serving = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in ((data, listeners.data), (control, listeners.control))
            if server is not None and listener is not None
        ]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        await _stop(house, settings, data, control)
        stopped.cancel()
        await asyncio.gather(*serving)


async def _stop(
    house: House, settings: Settings, data: uvicorn.Server | None, control: uvicorn.Server | None
) -> None:
    log.info("stopping: %d requests under way", len(house.pumps))
    house.stopping.set()
    await asyncio.sleep(settings.shutdown_delay_seconds)
    if data is not None:
        data.should_exit = True
    await house.pumps.drain(settings.shutdown_timeout_seconds)
    if control is not None:
        control.should_exit = True


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; nobody else handles signals."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


class _Server(uvicorn.Server):
    """A server that leaves the signals to this module: two of them would take each other's handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, which uvicorn would leave to the loop."""
        await super().startup(sockets=[])
        self._acceptors = [Acceptor(listener, self._protocol) for listener in sockets or ()]
        for acceptor in self._acceptors:
            acceptor.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in whoever has connected already, and then do as uvicorn does.

        uvicorn closes a connection whose request is only on its way.
        """
        for acceptor in self._acceptors:
            await acceptor.close()
        await self._first_requests()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        factory: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        state = self.lifespan.state
        return factory(config=self.config, server_state=self.server_state, app_state=state)

    async def _first_requests(self) -> None:
        """Wait for the first requests of connections that had none yet, for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_REQUEST_SECONDS_MAX
        while loop.time() < deadline and any(  # noqa: ASYNC110 (uvicorn tells nobody of a request)
            getattr(connection, "cycle", None) is None for connection in self.server_state.connections
        ):
            await asyncio.sleep(LOOK_SECONDS)


def make_server(
    application: Relay | Litestar, settings: Settings, protocol: Callable[..., asyncio.Protocol]
) -> uvicorn.Server:
    """Make a server of one of the listeners."""
    config = uvicorn.Config(
        application,
        http=protocol,  # type: ignore[arg-type]  # It is called, and nothing else.
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # It would believe X-Forwarded-For of whoever is on this machine; who is believed is a setting.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_timeout_seconds + CLOSING_SECONDS),
    )
    return _Server(config)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address; raises `ValueError` where that cannot be, such as when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as fault:
        raise ValueError(f"cannot listen at {host}, port {port}: {fault.strerror or fault}") from fault
    try:
        yield listener
    finally:
        listener.close()


def address(listener: socket.socket) -> str:
    """Return the URL under which a listener is reached from this machine."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
