"""Alerts over HTTP: which thresholds were reached, and whether somebody was told."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency

from meter.core.alerts import Delivery
from meter.web.access import FOR_VIEWERS


class AlertList(msgspec.Struct):
    """The newest alerts, newest first."""

    data: list[Delivery]


@dataclass(frozen=True)
class Alerts:
    """What this controller works with."""

    list_recent: Callable[[], list[Delivery]]


class AlertController(Controller):
    """Look at alerts."""

    path = "/api/v1/alerts"
    tags = ("budgets",)
    opt = FOR_VIEWERS

    @get(sync_to_thread=True, summary="List alerts")
    def list_recent(self, alerts: NamedDependency[Alerts]) -> AlertList:
        """List the newest alerts, and how far their deliveries to the webhook have come."""
        return AlertList(alerts.list_recent())
