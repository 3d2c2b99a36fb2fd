"""Requests that go on until they are told to stop: streams and whole answers, each compared."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests import wire
from tests.fake_upstream import DONE, Received, Step, event, response, stream

USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
BODY = (
    b'{"id":"c","model":"m","choices":[{"message":{"content":"Hello"}}],'
    b'"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}'
)
WAIT_SECONDS_MAX = 60.0


def answer(request: Received) -> list[Step]:
    """Answer a request as it was asked for."""
    usage = {"id": "c", "model": "m", "choices": [], "usage": USAGE}
    if request.json().get("stream"):
        part = {"id": "c", "model": "m", "choices": [{"delta": {"content": "Hello"}}]}
        return stream(event(part), event(part), event(usage), DONE)
    return [response(BODY)]


@dataclass
class Load:
    """What the requests have come to."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    progress: threading.Condition = field(default_factory=threading.Condition)

    def note(self, fault: str | None) -> None:
        """Count an answer, or what was wrong with it."""
        with self.progress:
            if fault is None:
                self.answered += 1
            else:
                self.failed.append(fault)
            self.progress.notify_all()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more have been answered, or one has failed."""
        with self.progress:
            goal = self.answered + count
            assert self.progress.wait_for(lambda: self.answered >= goal or self.failed, WAIT_SECONDS_MAX)


@contextmanager
def under_load(url: str, key: str, clients: int = 4, pause_seconds: float = 0.02) -> Iterator[Load]:
    """Send requests all the while, each client one after the other, with a pause that leaves others room."""
    load, stop = Load(), threading.Event()

    def work(streams: bool) -> None:
        body = wire.chat(model="m", stream=True, stream_options={"include_usage": True}) if streams else None
        while not stop.wait(pause_seconds):
            load.note(_fault(url, key, body or wire.chat(model="m"), streams))

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_SECONDS_MAX)


def _fault(url: str, key: str, body: bytes, streams: bool) -> str | None:
    try:
        got = wire.post(url, key, body)
    except (OSError, ValueError, IndexError) as fault:
        return repr(fault)
    whole = got.body.endswith(DONE) and got.whole if streams else got.body == BODY
    return None if got.status == 200 and whole else f"{got.status} {got.body[:200]!r}"
