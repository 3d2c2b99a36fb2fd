"""A real Prometheus scrapes a real meter under traffic, and every query of panels and rules finds data."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest

from grafana.build import documents
from meter.app.actions import signed
from meter.core.events import UsageEvent
from meter.core.period import period_of
from meter.core.reports import Question
from meter.core.rollup import Sums
from meter.core.spans import floor
from meter.store import ledger, months, reports
from meter.store.database import Database
from meter.store.partitions import make_partitions
from tests import fake_upstream, server, services
from tests.fake_upstream import FakeUpstream, Received, Step
from tests.server import Meter
from tests.store.conftest import random_event

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent.parent
RULES = (ROOT / "grafana" / "prometheus" / "meter.rules.yml").read_text(encoding="utf-8")
PEPPER = "a-pepper-for-tests-that-is-long-enough"
METRICS_TOKEN = "a-token-that-opens-the-page-of-metrics-alone"
SEEDED_EVENTS = 150
SEEDED_DAYS = 50
ALL = {"team": "'*'", "model": "'*'"}
# In the names of metrics and labels nothing else has this form.
SELECTOR = re.compile(r"(?<![\w:\"])((?:meter|up)[\w:]*(?:\{[^}]*\})?)(?!\w)")

CONFIG = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: meter
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ["{target}"]}}]
"""


class Site(NamedTuple):
    """A meter on PostgreSQL with a history, and the Prometheus that scrapes it."""

    meter: Meter
    database_url: str
    prometheus: str
    seeded: list[UsageEvent]


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    """Run an upstream whose answers are as many kinds as meter tells apart."""
    with fake_upstream.running() as running:
        running.answer(answer)
        yield running


@pytest.fixture(scope="module")
def site(provider: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run all of it, with traffic behind it."""
    services.prometheus_program("prometheus")
    folder = tmp_path_factory.mktemp("live")
    with services.fresh_database() as url:
        settings = {
            "database_url": url,
            "pepper": PEPPER,
            "upstream_url": provider.url,
            "upstream_api_key": "sk",
            "metrics_token": METRICS_TOKEN,
        }
        with server.running(folder / "data", **settings) as meter:
            meter.database.dispose()
            meter.database = Database(url)
            seeded = make_history(meter.database)
            config = folder / "prometheus.yml"
            rules = ROOT / "grafana" / "prometheus" / "meter.rules.yml"
            target = meter.control_url.removeprefix("http://")
            config.write_text(CONFIG.format(rules=rules, token=METRICS_TOKEN, target=target))
            with services.prometheus_server(config, folder / "tsdb") as prometheus:
                make_traffic(meter, prometheus)
                yield Site(meter, url, prometheus, seeded)


def answer(request: Received) -> list[Step]:
    """Answer as the model's name says."""
    model = request.json()["model"]
    usage: dict[str, object] = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    if model == "failing":
        return [fake_upstream.response(b'{"error": {"message": "no"}}', status="500 Internal Server Error")]
    if model == "costly":
        usage["cost"] = 0.001
    if model == "odd":
        usage["total_tokens"] = 7
    chunk = {"object": "chat.completion.chunk", "model": model}
    first = fake_upstream.event(chunk | {"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    last = b"" if model == "silent" else fake_upstream.event(chunk | {"choices": [], "usage": usage})
    pieces = [piece for piece in (first, last, fake_upstream.DONE) if piece]
    return fake_upstream.stream(*pieces)


def make_history(database: Database) -> list[UsageEvent]:
    """Append events of the last weeks, and one that came late to a month that is closed."""
    random, now = Random(5), datetime.now(UTC)
    earlier = now - timedelta(days=SEEDED_DAYS)
    for days in range(0, SEEDED_DAYS, 20):
        make_partitions(database, earlier + timedelta(days=days))
    events = [random_event(random, earlier, now - timedelta(hours=1)) for _ in range(SEEDED_EVENTS)]
    ledger.append(database, events, now)
    month = period_of(now - timedelta(days=32), "month", ZoneInfo("UTC"))
    months.close(database, month, signed("test"))
    late = random_event(random, month.start, month.end)
    ledger.append(database, [late], now)
    return [*events, late]


def make_traffic(meter: Meter, prometheus: str) -> None:
    """Have every counter counted, twice, so that rates have something to see."""
    with meter.control as control:
        price = {"model": "costly", "prompt_usd_per_mtok": "3", "completion_usd_per_mtok": "15"}
        for path, method, body in (
            ("prices", "POST", price),
            ("prices", "POST", price | {"model": "odd"}),
            ("budgets", "PUT", {"limit": "50", "period": "month", "enforcement": "warn"}),
            ("budgets", "PUT", {"limit": "9000", "period": "day", "measure": "tokens", "team": "default"}),
            (
                "budgets",
                "PUT",
                {"limit": "5", "period": "total", "measure": "requests", "enforcement": "warn"},
            ),
        ):
            done = control.request(method, f"/api/v1/{path}", json=body)
            assert done.is_success, done.text
    key = meter.new_key()
    for turn in range(2):
        ask(meter, key, turn)
        # Two scrapes with what was counted, and rules evaluated on them.
        seen = (
            f'count_over_time(meter_refusals_total{{reason="invalid_request_error"}}[1m]) >= {2 + 8 * turn}'
        )
        server.until(lambda seen=seen: query(prometheus, seen), "scrapes")  # type: ignore[misc]


def ask(meter: Meter, key: str, turn: int) -> None:
    """Send one request of each kind; the first ones wait for their prices."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=meter.url, headers=headers, timeout=server.WAIT_SECONDS_MAX, trust_env=False
    ) as client:

        def complete(model: str) -> int:
            body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
            return client.post("/chat/completions", json=body).status_code

        for model in ("costly", "odd", "silent", "failing"):
            complete(model)
        if turn == 0:
            events = meter.events(key, 4)
            if events[0].cost is None:
                server.until(lambda: complete("costly") and meter.events(key, 0)[-1].cost, "the price")
            complete("odd")
        assert client.post("/chat/completions", json={"model": 5}).status_code == 400


def query(prometheus: str, expression: str) -> list[Any]:
    """Ask Prometheus for the value of now; a server that is just starting has none."""
    try:
        found = httpx.get(
            f"{prometheus}/api/v1/query", params={"query": expression}, timeout=10, trust_env=False
        )
    except httpx.TransportError:
        return []
    document = found.json()
    assert document["status"] == "success", f"{expression}: {document}"
    result: list[Any] = document["data"]["result"]
    return result


def numbers(prometheus: str, expression: str) -> list[float]:
    """Return the values of an expression that are numbers."""
    values = [float(sample["value"][1]) for sample in query(prometheus, expression)]
    return [value for value in values if value == value]  # noqa: PLR0124 (NaN is not itself)


def targets(name: str, member: str) -> list[Any]:
    """Return what the panels of a dashboard ask, each with its panel's title."""
    panels = json.loads(documents()[name])["panels"]
    return [
        pytest.param(target[member], target, id=panel["title"])
        for panel in panels
        for target in panel.get("targets", ())
    ]


def as_grafana(expression: str) -> str:
    """Put in what Grafana does, for all servers, teams and models."""
    expression = expression.replace("$__rate_interval", "1m")
    return re.sub(r"\$(instance|team|model)", ".*", expression)


@pytest.mark.parametrize(("expression", "target"), targets("gateway.json", "expr"))
def test_every_panel_of_gateway_has_data(site: Site, expression: str, target: dict[str, Any]) -> None:
    """Prometheus understands the expression, and has numbers for it."""
    assert numbers(site.prometheus, as_grafana(expression))


def test_variables_of_gateway_have_values(site: Site) -> None:
    """What can be chosen on the dashboard is what there is."""
    for variable in json.loads(documents()["gateway.json"])["templating"]["list"]:
        metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
        url = f"{site.prometheus}/api/v1/label/{label}/values"
        found = httpx.get(url, params={"match[]": metric}, trust_env=False).json()["data"]
        assert found, variable["name"]


def test_every_rule_is_evaluated_on_data(site: Site) -> None:
    """Every rule evaluates without a fault, recording rules record, and what alerts look at is there."""
    names = re.findall(r"record: (\S+)|alert: (\S+)", RULES)

    def evaluated() -> list[dict[str, Any]]:
        groups = httpx.get(f"{site.prometheus}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = server.until(evaluated, "the rules' evaluation")
    assert {rule["name"] for rule in rules} == {record or alert for record, alert in names}
    for rule in rules:
        assert rule["health"] == "ok", rule
        if rule["type"] == "recording":
            assert server.until(lambda rule=rule: numbers(site.prometheus, rule["name"]), rule["name"])  # type: ignore[misc]
        for selector in SELECTOR.findall(rule["query"]):
            if 'reason="metering_unavailable"' not in selector:
                assert numbers(site.prometheus, selector), f"{rule['name']}: {selector}"


def test_prometheus_finds_the_page_clean(site: Site) -> None:
    """Prometheus' own linter has nothing to say about the page."""
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    page = httpx.get(f"{site.meter.control_url}/metrics", headers=headers, trust_env=False).text

    done = subprocess.run(
        [services.prometheus_program("promtool"), "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_ledger_the_gauges_and_the_counters_agree(site: Site) -> None:
    """Counters are what the server settled, gauges what the ledger holds, to the last digit."""
    since, until = everything()
    asked = Question(by=("team",), since=since, until=until, tz=UTC)
    rows = {row.group["team"]: row.sums for row in reports.answer(site.meter.database, asked).rows}
    own = rows["default"]

    def agree(expression: str, expected: float) -> None:
        assert numbers(site.prometheus, expression) == [pytest.approx(expected, rel=1e-12)]

    agree("sum(meter_requests_total)", own.requests)
    agree("sum(meter_cost_usd_total)", own.cost / 10**12)
    agree('sum(meter_tokens_total{kind="prompt"})', own.prompt_tokens)
    agree("sum(meter_unpriced_total)", own.unpriced_requests)
    expected: dict[tuple[str | None, ...], object] = {}
    for team, sums in rows.items():
        for name in ("requests", "errors", "unpriced_requests", "estimated_requests", "estimated_tokens"):
            expected[f"meter_ledger_{name}", team, None] = getattr(sums, name)
        expected["meter_ledger_invalid_requests", team, None] = sums.invalid_requests
        expected["meter_ledger_cost_usd", team, None] = pytest.approx(sums.cost / 10**12, rel=1e-12)
        for kind in ("prompt", "completion", "cached", "cache_write", "reasoning"):
            expected["meter_ledger_tokens", team, kind] = getattr(sums, f"{kind}_tokens")

    # They are as old as the last look at the ledger and the last scrape of it.
    def shown() -> dict[tuple[str | None, ...], float]:
        return {
            tuple(sample["metric"].get(label) for label in ("__name__", "team", "kind")): float(
                sample["value"][1]
            )
            for sample in query(site.prometheus, '{__name__=~"meter_ledger_.+", team!=""}')
        }

    with suppress(AssertionError):
        server.until(lambda: shown() == expected, "the gauges to be those of the ledger")
    assert shown() == expected


# From here on: the statements of Spend, as the role that Grafana has.


def expand(statement: str, since: datetime, until: datetime, **variables: str) -> str:
    """Put in what Grafana does for its macros and variables."""
    first, last = (f"'{at.astimezone(UTC).isoformat().replace('+00:00', 'Z')}'" for at in (since, until))
    statement = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {first} AND {last}", statement)
    statement = statement.replace("$__timeFrom()", first).replace("$__timeTo()", last)
    for name, value in ({"timezone": "'UTC'"} | ALL | variables).items():
        statement = statement.replace(f"${{{name}:sqlstring}}", value)
    assert "$" not in re.sub(r"\$'", "", statement)
    return statement


@pytest.fixture(scope="module")
def grafana(site: Site) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database, and be the role that `grafana/role.sql` makes."""
    role = f"{site.database_url.rpartition('/')[2]}_grafana"
    script = (ROOT / "grafana" / "role.sql").read_text(encoding="utf-8").replace("meter_grafana", role)
    with closing(psycopg.connect(site.database_url, autocommit=True)) as connection:
        for _ in range(2):
            # An upgrade may grant more: whoever runs it again loses nothing.
            connection.execute(script.encode())
        connection.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        try:
            yield connection
        finally:
            connection.execute(b"RESET SESSION AUTHORIZATION")
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def fetch(grafana: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    """Run a statement."""
    return grafana.execute(statement.encode()).fetchall()


def everything() -> tuple[datetime, datetime]:
    """Return a range that holds all events, and begins within a day."""
    now = datetime.now(UTC)
    return now - timedelta(days=SEEDED_DAYS + 15, hours=5), now + timedelta(minutes=1)


@pytest.mark.parametrize(("statement", "target"), targets("spend.json", "rawSql"))
def test_every_panel_of_spend_has_rows(
    site: Site, grafana: psycopg.Connection[Any], statement: str, target: dict[str, Any]
) -> None:
    """PostgreSQL returns rows, and series a time, a name and a number; other zones and choices work too."""
    since, until = everything()

    rows = fetch(grafana, expand(statement, since, until))

    assert rows
    assert any(value is not None for value in rows[0])
    if target["format"] == "time_series":
        assert all(isinstance(time, datetime) and isinstance(name, str) for time, name, _ in rows)
    chosen = {"team": "'default','it''s'", "model": "'m1','costly'", "timezone": "'America/St_Johns'"}
    fetch(grafana, expand(statement, since, until, **chosen))


def test_variables_of_spend_have_values(grafana: psycopg.Connection[Any]) -> None:
    """What can be chosen on the dashboard is what there is."""
    for variable in json.loads(documents()["spend.json"])["templating"]["list"]:
        values = [row[0] for row in fetch(grafana, variable["query"])]
        assert {"team": "default", "model": "costly", "timezone": "UTC"}[variable["name"]] in values


@pytest.mark.parametrize(("days", "hours"), [(30, 0), (30, 7), (1, 5), (0, 3)])
def test_the_sums_are_the_ledgers(
    site: Site, grafana: psycopg.Connection[Any], days: int, hours: int
) -> None:
    """Over whole days and over parts of them, what the dashboard says was spent is what the ledger holds."""
    until = floor(datetime.now(UTC), "quarter") - timedelta(hours=2)
    since = until - timedelta(days=days, hours=hours)
    *events, _late = site.seeded
    expected = Sums()
    for event in events:
        if since <= event.started_at < until:
            expected.add(event)
    teams = next(each for each in targets("spend.json", "rawSql") if each.id == "Teams").values[0]

    columns = [
        sum(row[at] for row in fetch(grafana, expand(str(teams), since, until))) for at in (1, 3, 4, 5, 7)
    ]

    assert int(columns[0] * 10**12) == expected.cost
    assert columns[1:] == [
        expected.requests,
        expected.errors,
        expected.prompt_tokens,
        expected.completion_tokens,
    ]


def test_the_role_reads_no_more_than_it_should(grafana: psycopg.Connection[Any]) -> None:
    """Digests of keys, single events and tokens are not for Grafana, and neither is changing anything."""
    for forbidden in (
        "SELECT digest FROM api_keys",
        "SELECT * FROM usage_events",
        "SELECT * FROM admin_tokens",
        "UPDATE budgets SET measure = measure",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            fetch(grafana, forbidden)
