"""One question has one answer, to the last digit: as a table, CSV, JSON and FOCUS, and over HTTP."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from meter.app import actions, exports
from meter.cli import report_table
from meter.core import cells, focus
from meter.core.access import Role, Scope
from meter.core.audit import Signature
from meter.core.events import Outcome, UsageEvent, UsageSource, uuid7
from meter.core.period import period_of
from meter.core.prices import LongContext, Price, Rates, quote
from meter.core.refusals import Refused
from meter.core.reports import Asked, Report, as_json
from meter.store import ledger, months, prices, refusals, reports
from meter.store.database import Database
from meter.store.questions import question
from tests import services
from tests.web.conftest import OWNER_TOKEN, Office, open_office

NOW = datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)
ABOVE = 1_000
# Of all that is in the ledger, whatever the day of the test.
ALL = {"since": "2026-09-01", "until": "2026-12-01"}
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "unpriced_requests")
OF_FOCUS = ("x_RequestCount", "x_PromptTokens", "x_CompletionTokens", "x_UnpricedRequestCount")
NULLABLE = {"ChargeClass", "PricingQuantity", "PricingUnit"}
PRICED_ONLY = (
    "ListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "PricingCategory",
    "ConsumedQuantity",
    "SkuMeter",
)
QUESTIONS = [
    ("team,key,model", {"since": "2026-11-01", "until": "2026-12-01"}),
    ("", {"since": "2026-09-01", "until": "2026-11-01"}),
    ("day", {"since": "2026-10-13", "until": "2026-11-20"}),
    ("upstream,week", {"since": "2026-09-01", "team": "search"}),
    ("user", ALL | {"model": "m*1"}),
    ("key", {"since": "2026-11-01", "upstream": "u2", "key": "ci"}),
    ("tag,week", {"since": "2026-10-01", "until": "2026-11-10"}),
    ("hour,model", {"since": "2026-10-20", "until": "2026-10-28", "tz": "Europe/Berlin"}),
    ("day,user", {"since": "2026-09-27", "until": "2026-10-05", "tz": "Asia/Kolkata", "team": "search"}),
    ("month", {"since": "2026-09-01", "tz": "America/St_Johns"}),
]


class Site(NamedTuple):
    """A control plane, and a client of it."""

    office: Office
    client: TestClient[Litestar]

    @property
    def database(self) -> Database:
        """Where all of it comes from."""
        return self.office.database

    def get(self, path: str, token: str = OWNER_TOKEN, **asked: str) -> Any:
        """Ask as somebody."""
        headers = {"authorization": f"Bearer {token}"}
        return self.client.get(f"/api/v1/reports{path}", params=asked, headers=headers)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Open a control plane over a ledger with everything in it that reports have to tell apart."""
    folder: Path = tmp_path_factory.mktemp("reports")
    made = nullcontext(None) if request.param == "sqlite" else services.fresh_database()
    with made as url, open_office(folder, url) as opened, opened.asking(None) as client:
        fill(opened)
        yield Site(opened, client)


def fill(office: Office) -> None:
    """Put in what three months have seen: late events and corrections of a closed month, too."""
    random = Random(7)
    database = office.database
    teams = [actions.register_team(database, "test", name) for name in ("search", "=other[/b]")]
    keys = [(team.id, office.key(team.name, name).id) for team in teams for name in ("ci", "-1+1")]
    long = LongContext(above_tokens=ABOVE, rates=Rates(prompt=2_000_001, completion=7_000_003))
    rates = Rates(prompt=1_000_001, cached=100_003, completion=5_000_007, cache_write=1_250_001, request=11)
    given = [
        Price(
            id=0,
            catalog="",
            model=model,
            effective_from=SEPTEMBER - timedelta(days=99),
            rates=rates,
            long_context=(long,) if model == "m1" else (),
            source="test",
            created_at=NOW,
        )
        for model in ("m1", "m11")
    ]
    prices.add(database, given)
    book = {price.model: price for price in prices.load(database)}
    events = [event(random, keys, book) for _ in range(240)]
    ledger.append(database, events[:180], NOW)
    months.close(database, period_of(SEPTEMBER, "month", UTC), Signature("test", NOW))
    ledger.append(database, events[180:], NOW)
    ledger.append(database, [correction(random, of) for of in events[::9]], NOW + timedelta(hours=1))
    assert ledger.verify(database) == []


def event(random: Random, keys: list[tuple[str, str]], book: dict[str, Price]) -> UsageEvent:
    """Make an event with random everything."""
    started_at = SEPTEMBER + (NOW - SEPTEMBER) * random.random()
    team_id, key_id = random.choice(keys)
    prompt, completion = random.randrange(2 * ABOVE), random.randrange(900)
    model = random.choice(["m1", "m11", "unpriced1"])
    made = UsageEvent(
        event_id=uuid7(int(started_at.timestamp() * 1000), random.randbytes(10)),
        started_at=started_at,
        team_id=team_id,
        key_id=key_id,
        route="chat.completions",
        upstream=random.choice(["u1", "u2"]),
        model_requested="asked",
        model_served=model,
        service_tier=random.choice([None, "flex"]),
        stream=False,
        outcome=random.choice(list(Outcome)),
        usage_source=random.choice([UsageSource.REPORTED, UsageSource.ESTIMATED, UsageSource.INVALID]),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=random.choice([0, prompt // 3]),
        cache_write_tokens=random.choice([0, prompt // 5]),
        reasoning_tokens=completion // 2,
        end_user=random.choice([None, "ann", "bob"]),
        tags=random.choice([(), ("a",), ("a", "b")]),
        upstream_cost=random.choice([None, random.randrange(10**12)]),
    )
    price = book.get(model)
    if price is None:
        return made
    return msgspec.structs.replace(made, cost=quote(price, made.usage).cost, price_id=price.id)


def correction(random: Random, of: UsageEvent) -> UsageEvent:
    """Correct an event, by more or by less than it was."""
    return msgspec.structs.replace(
        of,
        event_id=uuid7(int(NOW.timestamp() * 1000), random.randbytes(10)),
        corrects_id=of.event_id,
        prompt_tokens=0,
        completion_tokens=0,
        cached_tokens=0,
        cache_write_tokens=0,
        reasoning_tokens=0,
        upstream_cost=None,
        cost=random.randrange(-(10**9), 10**9),
        priced_tokens=of.total_tokens if of.cost is None else None,
    )


def asked_of(site: Site, asked: dict[str, str], by: str) -> Report:
    """Ask without HTTP, as the command line does."""
    return reports.answer(site.database, question(site.database, Asked(by=by, **asked), actions.clock.now()))  # type: ignore[arg-type]


def over_http(site: Site, path: str = "", token: str = OWNER_TOKEN, **asked: str) -> Any:
    """Ask over HTTP."""
    answer = site.get(path, token, **asked)
    assert answer.status_code == 200, answer.text
    return answer.json() if "json" in answer.headers["content-type"] else answer.text


def table(text: str) -> list[dict[str, str]]:
    """Read a CSV file."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def totals(rows: list[dict[str, Any]], names: tuple[str, ...], cost: str) -> tuple[Decimal, ...]:
    """Add columns up."""
    return tuple(sum((Decimal(row[name] or 0) for row in rows), Decimal(0)) for name in (*names, cost))


@pytest.mark.parametrize(("by", "asked"), QUESTIONS, ids=str)
def test_every_face_gives_the_same_total(
    site: Site, asked: dict[str, str], by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, CSV, JSON, FOCUS and the API agree on requests, tokens, cost and what has no price."""
    found = asked_of(site, asked, by)
    expected = totals([as_json(found)["total"]], COUNTS, "cost_usd")
    assert expected[0] > 0

    document = over_http(site, by=by, **asked)
    assert document == as_json(found)
    written = over_http(site, by=by, format="csv", **asked)
    assert written == "".join(exports.report_csv(site.database, found.question))
    # The same rows in the same order, to the last digit.
    assert table(written) == [
        {
            name: "" if value is None else cells.as_text(value) if name in found.question.by else str(value)
            for name, value in row.items()
        }
        for row in document["rows"]
    ]
    if "tag" not in by:
        # An event stands in the row of each of its tags.
        assert totals(document["rows"], COUNTS, "cost_usd") == expected
    if "tz" not in asked:
        exported = over_http(site, format="focus", **asked)
        assert totals(table(exported), OF_FOCUS, "ListCost") == expected
    report_table.print_report(found)
    shown = capsys.readouterr().out
    assert as_json(found)["total"]["cost_usd"] in shown
    assert f"{found.total.requests:,}" in shown


def test_a_focus_row_costs_its_price_times_its_quantity(site: Site) -> None:
    """List cost is list unit price times pricing quantity, exactly; without a price both are empty."""
    rows = table(over_http(site, format="focus", since="2026-09-01"))

    assert list(rows[0]) == list(focus.COLUMNS)
    for row in rows:
        assert all(row[name] for name in focus.MANDATORY if name not in NULLABLE)
        if row["SkuPriceId"]:
            assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
        else:
            assert not any(row[name] for name in PRICED_ONLY)
    meters = {row["SkuMeter"] for row in rows}
    assert meters == {
        "",
        "Input Tokens",
        "Cached Input Tokens",
        "Cache Write Tokens",
        "Output Tokens",
        "Requests",
    }
    assert {row["x_CostSource"] for row in rows} == {"price_book", "unpriced", "correction"}
    assert any(">1000" in row["SkuPriceDetails"] for row in rows)
    prices_at = {(row["SkuPriceId"], row["ListUnitPrice"]) for row in rows}
    assert len(prices_at) == len({price_id for price_id, _ in prices_at})


def test_what_belongs_to_a_closed_month_is_a_correction(site: Site) -> None:
    """Late events and corrections of a closed month are billed in the open one, and keep their own day."""
    rows = table(over_http(site, format="focus", since="2026-11-01"))
    late = [row for row in rows if row["ChargeClass"] == "Correction"]

    assert late
    assert {row["BillingPeriodStart"] for row in late} == {"2026-11-01T00:00:00Z"}
    assert all(row["ChargePeriodStart"].startswith("2026-09") for row in late)
    total = over_http(site, since="2026-11-01", by="")["total"]
    assert sum(Decimal(row["ListCost"]) for row in late) == Decimal(total["correction_cost_usd"])
    assert all(row["ChargePeriodStart"] >= "2026-11" for row in rows if not row["ChargeClass"])


def test_no_name_is_a_formula_and_numbers_are_numbers(site: Site) -> None:
    """Names that a spreadsheet would run are led by an apostrophe in both exports; negative costs are not."""
    for text, column in (
        (over_http(site, format="focus", since="2026-09-01"), "SubAccountName"),
        (over_http(site, format="csv", since="2026-09-01"), "team"),
    ):
        rows = table(text)
        assert {row[column] for row in rows} == {"search", "'=other[/b]"}
        cells = [cell for row in rows for cell in row.values()]
        assert all(re.fullmatch(r"-[0-9.]+", cell) for cell in cells if cell.startswith(("-", "=", "+", "@")))


def test_a_teams_viewer_gets_its_own_team(site: Site) -> None:
    """Whatever is asked for, and in every format, a team's viewer sees what its team has spent."""
    token = site.office.token(Role.VIEWER, "search")
    expected = over_http(site, team="search", by="key", **ALL)

    assert over_http(site, token=token, by="key", **ALL) == expected
    exported = table(over_http(site, token=token, format="focus", **ALL))
    assert {row["SubAccountName"] for row in exported} == {"search"}
    by_user = over_http(site, token=token, by="user", **ALL)
    assert by_user["total"] == expected["total"]
    assert site.get("", token, team="=other[/b]").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ({"by": "planet"}, 400, "cannot group by planet"),
        ({"tz": "Mars"}, 400, "unknown time zone"),
        ({"by": "user", "since": "2020-01-01"}, 400, "report_ledger_days_max"),
        ({"top": "0"}, 400, "'top'"),
        ({"format": "xml"}, 400, "format"),
        ({"format": "focus", "tz": "Europe/Berlin"}, 400, "UTC"),
        ({"format": "focus", "since": "2026-11-01T12:00"}, 400, "whole days"),
        ({"format": "focus", "by": "team"}, 400, "FOCUS"),
        ({"compare": "true", "by": "day"}, 400, "day"),
        ({"key": "nobody"}, 404, "no key 'nobody'"),
        ({"team": "nobody"}, 404, "no team 'nobody'"),
    ],
)
def test_what_cannot_be_answered_is_said(site: Site, asked: dict[str, str], status: int, part: str) -> None:
    """A question that cannot be answered gets a sentence that names what is wrong with it."""
    answer = site.get("", **asked)

    assert answer.status_code == status
    assert part in answer.json()["error"]["message"]


def test_a_comparison_is_two_reports(site: Site) -> None:
    """Each row stands beside what it was before, and the change is the difference."""
    now = over_http(site, by="model", since="2026-10-15", until="2026-10-31")
    was = over_http(site, by="model", since="2026-09-29", until="2026-10-15")

    both = over_http(site, by="model", since="2026-10-15", until="2026-10-31", compare="true")

    assert both["total"]["cost_usd"] == now["total"]["cost_usd"]
    assert both["total"]["previous_cost_usd"] == was["total"]["cost_usd"]
    for row in both["rows"]:
        before = Decimal(row["previous_cost_usd"] or 0)
        assert Decimal(row["cost_usd"] or 0) - before == Decimal(row["change_usd"])


def test_users_beyond_the_largest_are_others(site: Site) -> None:
    """Users and tags that are not among the largest stand in one row together; nothing is lost."""
    whole = over_http(site, by="user", **ALL)

    cut = over_http(site, by="user", top="1", **ALL)

    largest = next(row["user"] for row in whole["rows"] if row["user"])
    assert {row["user"] for row in cut["rows"]} == {"", largest, "(other)"}
    assert cut["total"] == whole["total"]
    assert totals(cut["rows"], COUNTS, "cost_usd") == totals(whole["rows"], COUNTS, "cost_usd")


def test_refusals_are_counted_by_key_and_reason(site: Site) -> None:
    """Refusals add up by key and reason, and a team's viewer sees those of its team."""
    database = site.database
    mine, theirs = (site.office.key(team).id for team in ("search", "=other[/b]"))
    hour = datetime(2026, 10, 1, 12, tzinfo=UTC)
    counts = {Refused(hour, mine, "rate_limit_exceeded"): 2, Refused(hour, theirs, "model_not_allowed"): 5}

    for _ in range(2):
        refusals.add(database, counts)

    everything = over_http(site, "/refusals", since="2026-10-01", until="2026-10-02")
    own = over_http(site, "/refusals", site.office.token(Role.VIEWER, "search"), since="2026-10-01")
    assert [(row["key_id"], row["reason"], row["count"]) for row in everything["rows"]] == [
        (theirs, "model_not_allowed", 10),
        (mine, "rate_limit_exceeded", 4),
    ]
    assert everything["total"] == {"count": 14}
    written = table(over_http(site, "/refusals", since="2026-10-01", until="2026-10-02", format="csv"))
    assert written == [
        {name: cells.as_text(str(value)) for name, value in row.items()} for row in everything["rows"]
    ]
    assert {row["team"] for row in written} == {"search", "'=other[/b]"}
    assert [row["key_id"] for row in own["rows"]] == [mine]
    scoped = question(database, Asked(since="2026-10-01"), NOW, scope=Scope("nobody"))
    assert refusals.refusals(database, scoped) == []


@pytest.mark.parametrize(("path", "shape"), [("", "csv"), ("", "focus"), ("/refusals", "csv")])
def test_csv_says_once_what_it_is(site: Site, path: str, shape: str) -> None:
    """A type with its charset twice is none that a strict client reads."""
    answer = site.get(path, format=shape)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
