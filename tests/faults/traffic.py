"""Clients on raw sockets, which write down what they got, and when."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests import wire
from tests.faults import canaries
from tests.faults.script import CANARY_PROMPT, CONTENT

SECONDS_MAX = 60.0
READ_BYTES = 1 << 16
REFUSED = 400


@dataclass
class Got:
    """What one client got."""

    model: str
    began: float = field(default_factory=time.monotonic)
    raw: bytearray = field(default_factory=bytearray)
    pieces: list[tuple[float, int]] = field(default_factory=list)
    """When something came, and how much there was by then."""
    refused: bool = False
    """Nobody listened."""
    fault: str = ""
    ended: float = 0.0

    @property
    def answer(self) -> wire.Answer | None:
        """The answer, as far as it came."""
        return wire.parse(bytes(self.raw)) if b"\r\n\r\n" in self.raw else None

    @property
    def status(self) -> int | None:
        """The answer's status."""
        return int(self.raw.split(b" ", 2)[1]) if self.raw.count(b" ") > 1 else None

    @property
    def whole(self) -> bool:
        """Whether the answer is there to its end."""
        answer = self.answer
        return answer is not None and answer.whole

    @property
    def seconds_to_first(self) -> float:
        """How long the first byte took."""
        return self.pieces[0][0] - self.began if self.pieces else float("inf")

    def texts_by(self, moment: float) -> int:
        """Count the pieces of text that were there at a moment."""
        length = max((length for at, length in self.pieces if at <= moment), default=0)
        return self.raw[:length].count(CONTENT)

    @property
    def texts(self) -> int:
        """Count the pieces of text."""
        return self.raw.count(CONTENT)


Reader = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Got], Awaitable[None]]


def request(key: str, model: str, *, stream: bool = True) -> bytes:
    """Write a request that asks for usage itself, so that its answer passes as it is."""
    members = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    messages = [{"role": "user", "content": f"{CANARY_PROMPT} {model}"}]
    body = wire.chat(model=model, messages=messages, **members)
    headers = [("Content-Type", "application/json"), ("x-meter-tags", model)]
    return wire.request("POST", "/v1/chat/completions", key=key, body=body, headers=headers)


async def read_all(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, got: Got) -> None:
    """Read until the other side closes."""
    while data := await reader.read(READ_BYTES):
        got.raw += data
        got.pieces.append((time.monotonic(), len(got.raw)))


async def ask(url: str, key: str, model: str, *, stream: bool = True, read: Reader = read_all) -> Got:
    """Send one request, and read the answer; whatever goes wrong is written down."""
    got = Got(model)
    parts = urlsplit(url)
    writer = None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request(key, model, stream=stream))
            await writer.drain()
            await read(reader, writer, got)
    except ConnectionRefusedError:
        got.refused = True
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
        got.fault = type(fault).__name__
    finally:
        got.ended = time.monotonic()
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    canaries.not_told(bytes(got.raw), key, refused=got.status is not None and got.status >= REFUSED)
    return got


async def all_at_once(
    url: str, key: str, models: Iterable[str], *, stream: bool = True, read: Reader = read_all
) -> list[Got]:
    """Send a request for each model at once."""
    return list(await asyncio.gather(*(ask(url, key, model, stream=stream, read=read) for model in models)))


async def load(
    url: str, key: str, prefix: str, *, clients: int, seconds: float, stream: bool = True, pause: float = 0.0
) -> list[Got]:
    """Keep some clients asking, one request after the other, for a time."""
    end = time.monotonic() + seconds
    found: list[Got] = []

    async def one(client: int) -> None:
        at = 0
        while time.monotonic() < end:
            found.append(await ask(url, key, f"{prefix}-{client}-{at}", stream=stream))
            at += 1
            await asyncio.sleep(pause)

    await asyncio.gather(*(one(client) for client in range(clients)))
    return found


async def until(look: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Look until there is something to see."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        await asyncio.sleep(0.005)
