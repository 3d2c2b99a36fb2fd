"""Steady load: clients that ask one thing after the other, some with wrong keys, some leaving."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from tests.faults import traffic
from tests.faults.script import CONTENT
from tests.faults.site import Site
from tests.faults.traffic import Got

CLIENTS = 8
PAUSE_SECONDS = 0.15
UNREACHED_SECONDS = 0.05
LEAVES_AT = 3
KINDS = ("json", "stream", "leaver", "wrong")
WEIGHTS = (8, 8, 2, 2)


@dataclass
class Minute:
    """What was asked within a minute."""

    number: int
    gots: list[Got] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """What the names of its models begin with."""
        return f"soak-{self.number}-"


@dataclass
class Load:
    """The clients, and what they asked."""

    site: Site
    seed: int
    minute: Minute = field(default_factory=lambda: Minute(0))
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Iterator[int] = field(default_factory=count)

    def model(self, kind: str) -> str:
        """Return a name that no other request has."""
        return f"{self.minute.prefix}{kind}-{next(self._numbers)}"

    async def run(self) -> None:
        """Ask until it is over."""
        await asyncio.gather(*(self._client(random.Random(f"{self.seed} {at}")) for at in range(CLIENTS)))

    async def ask(self, kind: str, key: str, read: traffic.Reader = traffic.read_all) -> Got:
        """Ask one thing, and keep what came of it with the minute in which it was asked."""
        minute = self.minute
        stream = kind not in {"json", "wrong", "budget", "revoked", "rotated"}
        got = await traffic.ask(self.site.url, key, self.model(kind), stream=stream, read=read)
        minute.gots.append(got)
        return got

    async def _client(self, chance: random.Random) -> None:
        while not self.over.is_set():
            if self.site.meter is None:
                await asyncio.sleep(UNREACHED_SECONDS)
                continue
            (kind,) = chance.choices(KINDS, WEIGHTS)
            key = wrong(self.site.key, chance) if kind == "wrong" else self.site.key
            await self.ask(kind, key, leave if kind == "leaver" else traffic.read_all)
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE_SECONDS))


def wrong(key: str, chance: random.Random) -> str:
    """Return a key that nobody has: another secret, another id, or no key at all."""
    prefix, name, secret = key.split("_")
    return chance.choice(
        [f"{prefix}_{name}_{secret[::-1]}", f"{prefix}_{name[::-1]}_{secret[::-1]}", "sk-no"]
    )


async def leave(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, got: Got) -> None:
    """Read a few pieces of text, and leave."""
    while got.raw.count(CONTENT) < LEAVES_AT and (data := await reader.read(traffic.READ_BYTES)):
        got.raw += data
        got.pieces.append((time.monotonic(), len(got.raw)))
