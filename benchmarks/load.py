"""Requests at full speed, by wrk, and what it says of them."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from benchmarks.proxies import MODEL

_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
"""
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Loaded(NamedTuple):
    """What came of it."""

    requests: int
    failed: int
    p50_us: float
    p99_us: float


class Asked(NamedTuple):
    """What a request asks for."""

    stream: bool = False
    usage: bool = True
    """Whether a stream asks for its usage itself, so that nothing has to be put in."""


def body(asked: Asked) -> str:
    """Write a request's body."""
    options = ',"stream":true' if asked.stream else ""
    options += ',"stream_options":{"include_usage":true}' if asked.stream and asked.usage else ""
    messages = '[{"role":"system","content":"You are brief."},{"role":"user","content":"What is a proxy?"}]'
    return f'{{"model":"{MODEL}","messages":{messages},"max_tokens":300{options}}}'


class Target(NamedTuple):
    """Where requests go, and with what in their heads."""

    port: int
    key: str
    headers: Mapping[str, str] = MappingProxyType({})


def load(folder: Path, target: Target, asked: Asked, *, at_once: int, seconds: float) -> Loaded:
    """Keep so many requests under way for so long."""
    script = folder / "load.lua"
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in target.headers.items()]
    script.write_text(_SCRIPT.format(body=body(asked), key=target.key) + "\n".join(lines))
    url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
    command = ["wrk", "-t1", f"-c{at_once}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Loaded(
        requests=int(_found(r"(\d+) requests in", said)[0]),
        failed=failed + (int(refused[1]) if refused else 0),
        p50_us=_latency(said, 50),
        p99_us=_latency(said, 99),
    )


def paced_request(key: str, pace_ms: int, events: int) -> bytes:
    """Write a request for a paced stream."""
    content = body(Asked(stream=True))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\nx-pace-ms: {pace_ms}\r\nx-events: {events}\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return (head + content).encode()


def _latency(said: str, percent: int) -> float:
    amount, unit = _found(rf"{percent}%\s+([\d.]+)(us|ms|s)", said)
    return float(amount) * _UNITS_US[unit]


def _found(pattern: str, said: str) -> tuple[str, ...]:
    match = re.search(pattern, said)
    if match is None:
        raise RuntimeError(f"wrk said something else:\n{said}")
    return match.groups()
