"""Alerts: raised once by the ledger, sent signed, tried again, and written down."""

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest

from meter.app import budgets
from meter.app.actions import new_event_id
from meter.app.alerting import Webhook, deliver_due
from meter.core.alerts import PAUSES_SECONDS
from meter.core.budget_drafts import Draft
from meter.store import alerts, ledger
from meter.store.database import Database
from tests.store.conftest import make_event

SECRET = b"a secret that only the receiver knows"
NOW = datetime.now(UTC)


class Receiver(HTTPServer):
    """A webhook: keeps what it receives, and answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.received: list[tuple[bytes, str]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/alerts"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((body, self.headers["x-meter-signature"]))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's signature)
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a webhook."""
    with Receiver() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def spend(database: Database, cost: int) -> None:
    """Append an event of now that cost so much."""
    ledger.append(database, [make_event(new_event_id(), started_at=datetime.now(UTC), cost=cost)], NOW)


def deliver(database: Database, url: str, at: datetime) -> int:
    """Deliver what is due at a time."""

    async def run() -> int:
        webhook = Webhook(url, SECRET, lambda: at)
        try:
            return await deliver_due(database, webhook.send, lambda: at)
        finally:
            await webhook.aclose()

    return asyncio.run(run())


def test_a_threshold_is_told_once(database: Database, receiver: Receiver) -> None:
    """The message says which budget reached what, it is signed, and it is sent once."""
    budgets.put(database, "test", Draft(limit="1", period="total"))
    spend(database, 6 * 10**11)
    spend(database, 10**11)

    counts = [deliver(database, receiver.url, NOW + timedelta(seconds=1)) for _ in range(2)]

    assert counts == [1, 0]
    ((body, signed),) = receiver.received
    alert = msgspec.json.decode(body)
    assert (alert["type"], alert["threshold"]) == ("budget.threshold", 50)
    assert (alert["limit"], alert["spent"]) == ("1.000000", "0.600000")
    assert alert["whose"] == "the organisation (cost in all)"
    at, digest = (part.split("=")[1] for part in signed.split(","))
    assert digest == hmac.new(SECRET, f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def test_several_thresholds_at_once(database: Database, receiver: Receiver) -> None:
    """An event that passes several is told for each of them."""
    budgets.put(database, "test", Draft(limit="1", period="total", thresholds=(10, 100, 200)))
    spend(database, 15 * 10**11)

    deliver(database, receiver.url, NOW + timedelta(seconds=1))

    assert sorted(msgspec.json.decode(body)["threshold"] for body, _ in receiver.received) == [10, 100]


def test_a_budget_made_late_tells_what_is_spent_already(database: Database, receiver: Receiver) -> None:
    """Making a budget, or lowering its limit, raises what is reached by then, and nothing twice."""
    spend(database, 6 * 10**11)
    for limit in ("1", "0.7", "0.7"):
        budgets.put(database, "test", Draft(limit=limit, period="total"))

    deliver(database, receiver.url, datetime.now(UTC) + timedelta(seconds=1))

    assert sorted(msgspec.json.decode(body)["threshold"] for body, _ in receiver.received) == [50, 80]


def test_what_fails_is_tried_again(database: Database, receiver: Receiver) -> None:
    """After a pause, with what went wrong written down; after the last pause nobody tries again."""
    budgets.put(database, "test", Draft(limit="1", period="total", thresholds=(50,)))
    spend(database, 6 * 10**11)
    receiver.status = 500
    at = NOW + timedelta(seconds=1)

    for pause in PAUSES_SECONDS:
        assert deliver(database, receiver.url, at) == 1
        (delivery,) = alerts.list_recent(database)
        assert (delivery.last_error, delivery.next_at) == ("status 500", at + timedelta(seconds=pause))
        assert deliver(database, receiver.url, at + timedelta(seconds=pause - 1)) == 0
        at += timedelta(seconds=pause)

    assert deliver(database, receiver.url, at) == 1
    (delivery,) = alerts.list_recent(database)
    assert (delivery.attempts, delivery.next_at) == (len(PAUSES_SECONDS) + 1, None)


def test_a_receiver_that_comes_back_is_told(database: Database, receiver: Receiver) -> None:
    """A refused connection is a failure like any other, and a success ends it."""
    budgets.put(database, "test", Draft(limit="1", period="total", thresholds=(50,)))
    spend(database, 6 * 10**11)
    at = NOW + timedelta(seconds=1)

    deliver(database, "http://127.0.0.1:1/nobody", at)
    (failed,) = alerts.list_recent(database)
    deliver(database, receiver.url, at + timedelta(seconds=PAUSES_SECONDS[0]))
    (told,) = alerts.list_recent(database)

    assert "ConnectError" in (failed.last_error or "")
    assert told.delivered_at is not None
    assert (told.last_error, told.next_at, told.attempts) == (None, None, 2)


def test_two_servers_send_once(database: Database, receiver: Receiver) -> None:
    """What one server has taken is not sent by another meanwhile."""
    budgets.put(database, "test", Draft(limit="1", period="total", thresholds=(50,)))
    spend(database, 6 * 10**11)
    at = NOW + timedelta(seconds=1)

    taken = alerts.take_due(database, at, 10)

    assert len(taken) == 1
    assert deliver(database, receiver.url, at) == 0
    assert deliver(database, receiver.url, at + timedelta(seconds=alerts.LEASE_SECONDS)) == 1


def test_nothing_is_said_after_a_redirect(database: Database, receiver: Receiver) -> None:
    """A redirect is no success, and is not followed."""
    budgets.put(database, "test", Draft(limit="1", period="total", thresholds=(50,)))
    spend(database, 6 * 10**11)
    receiver.status = 307

    deliver(database, receiver.url, NOW + timedelta(seconds=1))

    (delivery,) = alerts.list_recent(database)
    assert (delivery.last_error, len(receiver.received)) == ("status 307", 1)
