"""The audit log over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from meter.core.audit import Entry
from meter.core.cursors import decode, encode
from meter.core.period import parse_instant
from meter.web.access import FOR_ADMINS

PAGE_DEFAULT = 100
PAGE_MAX = 500


class AuditPage(msgspec.Struct):
    """Changes, newest first."""

    data: list[Entry]
    next_cursor: str | None
    """Where the next page begins; null is the end."""


@dataclass(frozen=True)
class AuditLog:
    """What this controller works with."""

    page: Callable[[int | None, datetime | None, int], list[Entry]]


class AuditController(Controller):
    """Who changed what."""

    path = "/api/v1/audit-log"
    tags = ("audit",)
    opt = FOR_ADMINS

    @get(sync_to_thread=True, summary="List changes")
    def page(
        self,
        audit_log: NamedDependency[AuditLog],
        since: FromQuery[str | None] = None,
        cursor: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT,
    ) -> AuditPage:
        """List what was changed by the API and the command line, newest first."""
        before = None if cursor is None else decode(cursor, int)
        earliest = None if since is None else parse_instant(since, UTC)
        # One more than asked for says whether there is another page.
        found = audit_log.page(before, earliest, limit + 1)
        shown = found[:limit]
        return AuditPage(shown, encode(shown[-1].id) if len(found) > limit else None)
