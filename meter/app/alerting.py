"""Delivering alerts to the webhook: signed, tried again with ever longer pauses, and written down."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

import httpx
import msgspec

from meter.core.alerts import SIGNATURE, Alert, Outcome, signature
from meter.settings import Settings
from meter.store import alerts
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable

LOOK_SECONDS = 1.0
ANSWER_SECONDS_MAX = 10.0
AT_ONCE_MAX = 20
ERROR_LENGTH_MAX = 256

log = logging.getLogger(__name__)

Send = Callable[[Alert], Awaitable[Outcome]]


class Webhook:
    """Sends alerts to a URL. Redirects are not followed, and nothing of the answer is kept but its status."""

    def __init__(self, url: str, secret: bytes, now: Callable[[], datetime]) -> None:
        self._url = url
        self._secret = secret
        self._now = now
        self._client = httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS_MAX)

    async def send(self, alert: Alert) -> Outcome:
        """Send one alert; a status of success says that it was received."""
        body = msgspec.json.encode(alert)
        at = int(self._now().timestamp())
        headers = {"content-type": "application/json", SIGNATURE: signature(self._secret, body, at)}
        try:
            answer = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as fault:
            return Outcome(f"{type(fault).__name__}: {fault}"[:ERROR_LENGTH_MAX])
        return Outcome(None if answer.is_success else f"status {answer.status_code}")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


async def keep_delivering(database: Database, settings: Settings, now: Callable[[], datetime]) -> None:
    """Deliver what is due, again and again, until cancelled; without a webhook there is nothing to do."""
    if settings.webhook_url is None or settings.webhook_secret is None:
        return
    secret = settings.webhook_secret.reveal().encode()
    webhook = Webhook(settings.webhook_url.reveal(), secret, now)
    try:
        while True:
            try:
                await deliver_due(database, webhook.send, now)
            except DatabaseUnavailable as fault:
                log.info("alerts cannot be looked up now: %s", fault)
            except Exception:
                log.exception("alerts could not be delivered")
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await webhook.aclose()


async def deliver_due(database: Database, send: Send, now: Callable[[], datetime]) -> int:
    """Try to deliver every alert that is due; returns how many those were."""
    due = await asyncio.to_thread(alerts.take_due, database, now(), AT_ONCE_MAX)
    outcomes = await asyncio.gather(*(send(alert) for alert in due))
    for alert, outcome in zip(due, outcomes, strict=True):
        if outcome.error is not None:
            log.warning("alert %d could not be delivered: %s", alert.id, outcome.error)
        await asyncio.to_thread(alerts.record, database, alert.id, outcome, now())
    return len(due)
