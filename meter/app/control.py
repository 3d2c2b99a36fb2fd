"""The control plane's wiring: what each controller works with, and how tokens are looked up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from litestar import Litestar

from meter.app import budgets, exports
from meter.app.actions import (
    change_key,
    change_team,
    clock,
    issue_key,
    issue_token,
    register_team,
    revoke_token,
    rotate_key,
    signed,
)
from meter.app.explaining import explain_event
from meter.app.pricing import list_prices, set_price
from meter.app.rating import catalogs
from meter.core.access import OWNER, SCRAPER, Asker, Scope
from meter.core.errors import MeteringUnavailable
from meter.core.guesses import Guesses
from meter.core.keys import Key
from meter.core.price_listing import Asked as AskedPrices
from meter.core.price_listing import Listing
from meter.core.reports import Asked, Question
from meter.core.sessions import FORMS, SESSIONS
from meter.core.subkeys import subkey
from meter.core.tokens import Token, digest
from meter.settings import Settings
from meter.store import alerts, audit, events, idempotency, keys, reports, teams, tokens
from meter.store import budgets as budgets_table
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable
from meter.store.questions import question
from meter.store.refusals import refusals
from meter.web.access import guard
from meter.web.alerts import Alerts
from meter.web.application import build
from meter.web.askers import Askers
from meter.web.audit import AuditLog
from meter.web.budgets import Budgets
from meter.web.events import Events
from meter.web.idempotency import Notes
from meter.web.keys import Keys
from meter.web.page.spend import Insight
from meter.web.prices import Prices
from meter.web.reports import Reports
from meter.web.sessions import SessionKeys, Sessions
from meter.web.system import Scrape
from meter.web.teams import Teams
from meter.web.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets that a server runs with."""

    pepper: bytes
    admin_token: str
    metrics_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What the control plane is built on."""

    settings: Settings
    database: Database
    credentials: Credentials
    look_ups: Executor
    """Threads that look up tokens, so that requests that wait for the database don't keep them waiting."""
    render_metrics: Callable[[], bytes]
    metrics_content_type: str


def control(desk: Desk) -> Litestar:
    """Build the control plane's application."""
    askers = Askers(
        configured=_configured(desk.credentials),
        find_token=partial(_find_token, desk.database, desk.look_ups),
        digest=partial(digest, pepper=desk.credentials.pepper),
        clock=clock,
        guesses=Guesses(desk.settings.auth_failures_rpm, desk.settings.trusted_proxies),
    )
    sessions = _sessions(desk, askers)
    hosts = (*desk.settings.admin_hosts, desk.settings.admin_host)
    return build(
        guard=guard(askers.find, sessions.find, hosts),
        services=_services(desk) | {"sessions": sessions},
        body_bytes_max=desk.settings.admin_body_bytes_max,
    )


def _sessions(desk: Desk, askers: Askers) -> Sessions:
    pepper = desk.credentials.pepper
    return Sessions(
        askers=askers,
        keys=SessionKeys(sessions=subkey(pepper, SESSIONS), forms=subkey(pepper, FORMS)),
        lasts=timedelta(seconds=desk.settings.session_seconds_max),
        clock=clock,
    )


def _configured(credentials: Credentials) -> dict[str, Asker]:
    scraper = {} if credentials.metrics_token is None else {credentials.metrics_token: SCRAPER}
    return {**scraper, credentials.admin_token: OWNER}


def _services(desk: Desk) -> dict[str, Any]:
    database = desk.database
    return {
        "teams": Teams(
            partial(register_team, database),
            partial(teams.list_all, database),
            partial(change_team, database),
        ),
        "alerts": Alerts(partial(alerts.list_recent, database)),
        "budgets": Budgets(
            put=partial(budgets.put, database),
            list_all=lambda scope: budgets.list_all(database, clock.now(), scope),
            remove=partial(budgets.remove, database),
        ),
        "keys": _keys(database, desk.credentials.pepper),
        "prices": _prices(desk.settings, database),
        "tokens": _tokens(database, desk.credentials.pepper),
        "events": Events(
            partial(events.find, database),
            lambda wanted, scope, limit: events.page(database, wanted, scope, limit=limit),
        ),
        "audit_log": AuditLog(
            lambda before, since, limit: audit.page(database, before=before, since=since, limit=limit)
        ),
        "idempotency_notes": Notes(
            lambda errand: idempotency.begin(database, errand, clock.now()),
            partial(idempotency.finish, database),
            partial(idempotency.forget, database),
        ),
        "reports": _reports(desk),
        "insight": Insight(
            now=clock.now,
            standings=lambda scope: budgets_table.standings(database, clock.now(), scope),
            explain=partial(explain_event, database, catalogs(desk.settings)),
        ),
        "scrape": Scrape(desk.render_metrics, desk.metrics_content_type),
    }


def _keys(database: Database, pepper: bytes) -> Keys:
    def list_all(scope: Scope, team: str | None) -> list[Key]:
        team_id = None if team is None else teams.find(database, team, scope).id
        return keys.list_all(database, team_id=team_id, scope=scope)

    return Keys(
        issue=partial(issue_key, database, pepper),
        rotate=partial(rotate_key, database, pepper),
        list_all=list_all,
        revoke=lambda actor, reference: keys.revoke(database, reference, signed(actor)),
        change=partial(change_key, database),
    )


def _reports(desk: Desk) -> Reports:
    database = desk.database

    def ask(scope: Scope, asked: Asked) -> Question:
        days_max = desk.settings.report_ledger_days_max
        return question(database, asked, clock.now(), scope=scope, ledger_days_max=days_max)

    return Reports(
        ask=ask,
        answer=partial(reports.answer, database),
        refusals=partial(refusals, database),
        report_csv=partial(exports.report_csv, database),
        compared_csv=exports.compared_csv,
        focus_csv=partial(exports.focus_csv, database),
        refusals_csv=exports.refusals_csv,
    )


def _prices(settings: Settings, database: Database) -> Prices:
    def list_all(model: str | None, at: datetime | None, every_version: bool) -> Listing:  # noqa: FBT001 (as the controller calls it)
        return list_prices(database, lists, AskedPrices(model, at or clock.now(), every_version))

    lists = catalogs(settings)
    return Prices(list_all=list_all, set=partial(set_price, database, lists))


def _tokens(database: Database, pepper: bytes) -> Tokens:
    return Tokens(
        issue=partial(issue_token, database, pepper),
        list_all=partial(tokens.list_all, database),
        revoke=partial(revoke_token, database),
    )


async def _find_token(database: Database, look_ups: Executor, token_digest: bytes) -> Token | None:
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(look_ups, tokens.find, database, token_digest)
    except DatabaseUnavailable as fault:
        raise MeteringUnavailable("Tokens cannot be looked up now; try again soon.") from fault
