"""An example of every body of the admin API: values of the same classes, so that they stay true."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from meter.core.access import Role
from meter.core.alerts import Alert, Delivery
from meter.core.audit import Entry
from meter.core.budget_drafts import Shown
from meter.core.cursors import encode
from meter.core.errors import NotFound
from meter.core.events import Listed, Outcome, UsageEvent, UsageSource
from meter.core.keys import Key
from meter.core.price_amounts import LongContextAmounts, price_of
from meter.core.price_amounts import shown as shown_price
from meter.core.refusals import RefusalRow, refusals_json
from meter.core.teams import Team
from meter.core.tokens import Token
from meter.web.alerts import AlertList
from meter.web.audit import AuditPage
from meter.web.budgets import BudgetList, NewBudget, RemovedBudget
from meter.web.events import EventPage, EventWithCorrections, shown
from meter.web.keys import IssuedKey, KeyChange, KeyList, NewKey, Rotation
from meter.web.limits import LimitsChange
from meter.web.prices import AddedPrices, PriceList, PriceToSet
from meter.web.teams import NewTeam, TeamList
from meter.web.tokens import IssuedToken, NewToken, TokenList

_AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
# What is made with an example must not have ended already, whenever somebody tries it.
_ENDS = _AT + timedelta(days=36525)
_MODELS = ["openai/gpt-4.1", "anthropic/*"]

_TEAM = Team("fL6x2GPNfFmj", "search", _AT, models=tuple(_MODELS), rpm=600)
_KEY = Key(
    id="Iv5zZeOWtmZz",
    team_id=_TEAM.id,
    team=_TEAM.name,
    name="nightly-batch",
    created_at=_AT,
    expires_at=_ENDS,
)
_TOKEN = Token(
    id="wmGKiNGw0Pzz", role=Role.VIEWER, name="lead", team_id=_TEAM.id, team=_TEAM.name, created_at=_AT
)
_EVENT = shown(
    Listed(
        UsageEvent(
            event_id="019ab1c2-7d00-7abc-8def-0123456789ab",
            started_at=_AT,
            team_id=_TEAM.id,
            key_id=_KEY.id,
            route="chat.completions",
            upstream="routerhub",
            model_requested="anthropic/claude-sonnet-4",
            stream=True,
            outcome=Outcome.OK,
            usage_source=UsageSource.REPORTED,
            status=200,
            prompt_tokens=1200,
            completion_tokens=300,
            cached_tokens=1000,
            cost=5_400_000_000,
        ),
        _TEAM.name,
        _KEY.name,
    )
)
_CHANGE = Entry(
    id=7, at=_AT, actor="wmGKiNGw0Pzz ci", action="key.create", target=_KEY.id, details={"team": _TEAM.name}
)

_BUDGET = Shown(
    id="b3Jk9QmZ0aXs",
    owner_kind="team",
    owner=_TEAM.name,
    model="openai/*",
    measure="cost",
    period="month",
    tz="Europe/Berlin",
    enforcement="standard",
    thresholds=(50, 80, 100),
    limit="50.000000",
    spent="40.250000",
    reserved="0.120000",
    available="9.630000",
    window_start=datetime(2026, 10, 31, 23, tzinfo=UTC),
    window_end=datetime(2026, 11, 30, 23, tzinfo=UTC),
    projected="54.120000",
    reached_at=datetime(2026, 11, 28, 12, 42, 41, tzinfo=UTC),
)
_DELIVERY = Delivery(
    alert=Alert(
        id=3,
        budget=_BUDGET.id,
        whose=f"team {_TEAM.name}",
        measure=_BUDGET.measure,
        threshold=80,
        limit=_BUDGET.limit,
        spent=_BUDGET.spent,
        window_start=_BUDGET.window_start,
        window_end=_BUDGET.window_end,
        at=_AT,
    ),
    attempts=1,
    delivered_at=_AT,
    last_error=None,
    next_at=None,
)

_NEW_PRICE = PriceToSet(
    model="acme/large",
    prompt_usd_per_mtok="3",
    cached_usd_per_mtok="0.3",
    completion_usd_per_mtok="15",
    long_context=(
        LongContextAmounts(above_tokens=200_000, prompt_usd_per_mtok="6", completion_usd_per_mtok="22.5"),
    ),
    max_output_tokens=64_000,
    effective_from="2026-12-01T00:00:00Z",
    note="our contract",
)
_PRICE = shown_price(
    price_of(_NEW_PRICE.price, effective_from=datetime(2026, 12, 1, tzinfo=UTC), source="set", created_at=_AT)
)

_EXAMPLES: tuple[msgspec.Struct, ...] = (
    _TEAM,
    _KEY,
    _TOKEN,
    NewTeam(_TEAM.name),
    TeamList([_TEAM]),
    LimitsChange(models=_MODELS, rpm=600),
    NewKey(_TEAM.name, _KEY.name, _ENDS.isoformat()),
    IssuedKey(_KEY.id, f"mtr_{_KEY.id}_...", _TEAM.name, _KEY.name, _ENDS),
    KeyList([_KEY]),
    KeyChange(stream_usage="observe", rpm=60),
    Rotation(3600),
    NewToken(Role.VIEWER, _TEAM.name, _TOKEN.name),
    IssuedToken(_TOKEN.id, f"mta_{_TOKEN.id}_...", Role.VIEWER, _TEAM.name, _TOKEN.name, None),
    TokenList([_TOKEN]),
    _BUDGET,
    NewBudget("50", "month", team=_TEAM.name, model="openai/*", tz="Europe/Berlin"),
    BudgetList([_BUDGET]),
    RemovedBudget(_BUDGET.id),
    AlertList([_DELIVERY]),
    _NEW_PRICE,
    PriceList([_PRICE], versions_to_come=0, models_listed=2147),
    AddedPrices([_PRICE]),
    EventPage([_EVENT], encode([_AT, _EVENT.event_id])),
    EventWithCorrections(**msgspec.structs.asdict(_EVENT), corrections=[]),
    AuditPage([_CHANGE], encode(_CHANGE.id)),
)

EXAMPLES = {type(each).__name__: msgspec.json.decode(msgspec.json.encode(each)) for each in _EXAMPLES}
_REFUSED = RefusalRow(team=_TEAM.name, key=_KEY.name, key_id=_KEY.id, reason="rate_limit_exceeded", count=3)
_SUMS = {"requests": 12, "prompt_tokens": 1200, "completion_tokens": 300, "cost_usd": "0.054000"}
UNTYPED: dict[str, dict[str, Any]] = {
    "/api/v1/reports": {
        "application/json": {"rows": [{"team": _TEAM.name} | _SUMS], "total": _SUMS},
        "text/csv": "team,requests,prompt_tokens,completion_tokens,cost_usd\nsearch,12,1200,300,0.054000\n",
    },
    "/api/v1/reports/refusals": {
        "application/json": refusals_json([_REFUSED]),
        "text/csv": "team,key,key_id,reason,count\nsearch,nightly-batch,Iv5zZeOWtmZz,rate_limit_exceeded,3\n",
    },
}
REFUSAL = msgspec.json.decode(NotFound("There is no key 'x'; see: meter keys list", param="key").body())
