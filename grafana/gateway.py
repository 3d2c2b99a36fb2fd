"""The dashboard *Gateway*: how requests go through meter, from its metrics in Prometheus."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery as Query
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh
from grafana_foundation_sdk.models.units import (
    BytesIEC,
    Dollars,
    PercentUnit,
    RequestsPerSecond,
    Seconds,
    Short,
)

from grafana.panels import THIRD, About, lines, number, page

SOURCE = DataSourceRef(type_val="prometheus", uid="meter-prometheus")

# What every expression is about: the chosen servers, and where there are such labels, teams and models.
SERVER = 'instance=~"$instance"'
WHO = f'{SERVER}, team=~"$team", model=~"$model"'
RATE = "$__rate_interval"


def build() -> Dashboard:
    """Build the dashboard."""
    board = page(
        "meter: Gateway", "meter-gateway", "Requests, errors, latency, tokens and load, by the metrics."
    )
    board.time("now-6h", "now").refresh("30s")
    for name, label, metric in (
        ("instance", "Server", "meter_build_info"),
        ("team", "Team", "meter_requests_total"),
        ("model", "Model", "meter_requests_total"),
    ):
        board.with_variable(_labels(name, label, metric))
    _add_now(board)
    _add_traffic(board)
    _add_latency(board)
    _add_tokens(board)
    _add_ledger(board)
    _add_load(board)
    return board


def _labels(name: str, label: str, metric: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({metric}, {name})", "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )


def query(expression: str, legend: str) -> Query:
    """Ask for series over the range."""
    return Query().expr(expression).legend_format(legend).range()


def now(expression: str) -> Query:
    """Ask for the value at the end of the range."""
    return Query().expr(expression).instant()


def quantiles(metric: str, *, of: tuple[float, ...] = (0.5, 0.95, 0.99)) -> list[Query]:
    """Ask for quantiles of a histogram, over all servers together."""
    return [
        query(
            f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket{{{SERVER}}}[{RATE}])))",
            f"p{quantile * 100:.0f}",
        )
        for quantile in of
    ]


def _rate(metric: str, by: str, matchers: str = WHO) -> str:
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[{RATE}]))"


def _add_now(board: Dashboard) -> None:
    board.with_row(Row("Now"))
    failed = f'sum(rate(meter_requests_total{{{WHO}, outcome!~"ok|client_closed"}}[{RATE}])) or vector(0)'
    total = f"sum(rate(meter_requests_total{{{WHO}}}[{RATE}]))"
    for about, expression, warn_from in (
        (About("Requests a second", RequestsPerSecond, "Attempts at upstreams that ended."), total, None),
        (
            About(
                "Failed",
                PercentUnit,
                "Share of attempts that an upstream, a limit or an end of meter broke off.",
            ),
            f"({failed}) / ({total} > 0) or vector(0)",
            0.05,
        ),
        (
            About("Under way", Short, "Attempts at this moment."),
            f"sum(meter_inflight_requests{{{SERVER}}})",
            None,
        ),
        (
            About("Cost an hour", Dollars, "What the last minutes would come to in an hour."),
            f"sum(rate(meter_cost_usd_total{{{WHO}}}[{RATE}])) * 3600",
            None,
        ),
        (
            About("Journal", Seconds, "How long the ledger is behind, at the server where that is longest."),
            f"max(meter_journal_oldest_seconds{{{SERVER}}})",
            60,
        ),
        (
            About("Database away", Short, "Servers that get no answer from the database."),
            f"sum(meter_database_away{{{SERVER}}})",
            1,
        ),
    ):
        board.with_panel(number(SOURCE, about, now(expression), warn_from=warn_from))


def _add_traffic(board: Dashboard) -> None:
    board.with_row(Row("Requests and errors"))
    traffic = (
        (
            About("Requests by outcome", RequestsPerSecond, "How attempts at upstreams ended."),
            query(_rate("meter_requests_total", "outcome"), "{{outcome}}"),
        ),
        (
            About(
                "Errors by kind",
                RequestsPerSecond,
                "Attempts that did not end well, without clients that left.",
            ),
            query(
                _rate("meter_requests_total", "outcome", f'{WHO}, outcome!~"ok|client_closed"'), "{{outcome}}"
            ),
        ),
        (
            About(
                "Refusals by reason",
                RequestsPerSecond,
                "Requests that meter refused, by the code of the error.",
            ),
            query(_rate("meter_refusals_total", "reason", SERVER), "{{reason}}"),
        ),
        (
            About("Requests by team", RequestsPerSecond, "Attempts of each team."),
            query(_rate("meter_requests_total", "team"), "{{team}}"),
        ),
        (
            About("Requests by model", RequestsPerSecond, "Attempts by the model that answered."),
            query(_rate("meter_requests_total", "model"), "{{model}}"),
        ),
        (
            About("Cost by team", Dollars, "What each team spends in an hour at the rate of the moment."),
            query(f"{_rate('meter_cost_usd_total', 'team')} * 3600", "{{team}}"),
        ),
    )
    for about, each in traffic:
        board.with_panel(lines(SOURCE, about, [each]).span(THIRD))


def _add_latency(board: Dashboard) -> None:
    board.with_row(Row("Latency"))
    for about, metric in (
        (About("Duration", Seconds, "From opening the attempt to its end."), "meter_duration_seconds"),
        (
            About("Time to first token", Seconds, "Of streams, from opening the attempt to the first token."),
            "meter_first_token_seconds",
        ),
        (
            About("Time to headers", Seconds, "From opening the attempt to the response's headers."),
            "meter_ttfb_seconds",
        ),
        (
            About(
                "Added latency",
                Seconds,
                "What meter adds: from the whole request to opening the attempt, and from its end to safety.",
            ),
            "meter_overhead_seconds",
        ),
    ):
        board.with_panel(lines(SOURCE, about, quantiles(metric)))


def _add_tokens(board: Dashboard) -> None:
    board.with_row(Row("Tokens"))
    tokens = (
        (
            About(
                "Tokens by kind",
                Short,
                "A second; cached and cache_write are part of prompt, reasoning of completion.",
            ),
            query(_rate("meter_tokens_total", "kind"), "{{kind}}"),
        ),
        (
            About("Usage source", Short, "Attempts a second by where their numbers come from."),
            query(_rate("meter_usage_source_total", "source", SERVER), "{{source}}"),
        ),
        (
            About("Unpriced", RequestsPerSecond, "Attempts whose cost is unknown, by model."),
            query(_rate("meter_unpriced_total", "model"), "{{model}}"),
        ),
        (
            About("Odd usage", RequestsPerSecond, "Odd things in reported usage, by name."),
            query(_rate("meter_usage_anomalies_total", "anomaly", SERVER), "{{anomaly}}"),
        ),
        (
            About(
                "Drift of cost",
                PercentUnit,
                "How far the costs that upstreams report are off ours, of attempts that have both.",
            ),
            query(
                f"{_rate('meter_compared_upstream_cost_usd_total', 'model', SERVER)}"
                f" / ({_rate('meter_compared_cost_usd_total', 'model', SERVER)} > 0) - 1",
                "{{model}}",
            ),
        ),
    )
    for about, each in tokens:
        panel = lines(SOURCE, about, [each]).span(THIRD)
        board.with_panel(panel.min(-1) if about.title == "Drift of cost" else panel)


def _add_ledger(board: Dashboard) -> None:
    board.with_row(Row("Journal, ledger and budgets"))
    by_server = "{{instance}}"
    for about, each in (
        (
            About("Journal backlog", Short, "Events on their way to the ledger."),
            [query(f"sum by (instance) (meter_journal_records{{{SERVER}}})", by_server)],
        ),
        (
            About("Age of the backlog", Seconds, "How long ago everything was in the ledger."),
            [query(f"max by (instance) (meter_journal_oldest_seconds{{{SERVER}}})", by_server)],
        ),
        (
            About("Room of the journal", PercentUnit, "How much of its room the fullest journal takes."),
            [query(f"max by (instance) (meter_journal_fill_ratio{{{SERVER}}})", by_server)],
        ),
        (
            About(
                "Ledger", Short, "Attempts in the ledger, of all servers; flat while the database is away."
            ),
            [query('max by (team) (meter_ledger_requests{team=~"$team"})', "{{team}}")],
        ),
        (
            About("Quarantine", Short, "What could not be shipped; look into journal/quarantine.jsonl."),
            [query(f"sum by (instance) (meter_quarantined_records{{{SERVER}}})", by_server)],
        ),
        (
            About("Budgets left", PercentUnit, "What is left of each budget in its window of now."),
            [query("min by (budget) (meter_budget_remaining_ratio)", "{{budget}}")],
        ),
    ):
        board.with_panel(lines(SOURCE, about, each).span(THIRD))


def _add_load(board: Dashboard) -> None:
    board.with_row(Row("Saturation"))
    for about, each in (
        (
            About("Processor", Short, "Cores in use, and how many processes could use one each."),
            [
                query(
                    f"sum by (instance) (rate(meter_cpu_seconds_total{{{SERVER}}}[{RATE}]))",
                    "{{instance}} cores",
                ),
                query(f"sum by (instance) (meter_processes{{{SERVER}}})", "{{instance}} processes"),
            ],
        ),
        (
            About(
                "Event loop lag",
                Seconds,
                "How late processes come to what is due; grows before requests suffer.",
            ),
            quantiles("meter_event_loop_lag_seconds", of=(0.5, 0.99)),
        ),
        (
            About("Memory", BytesIEC, "Resident memory of all processes of a server."),
            [query(f"sum by (instance) (meter_resident_memory_bytes{{{SERVER}}})", "{{instance}}")],
        ),
        (
            About("Requests under way", Short, "Attempts at the same time."),
            [query(f"sum by (instance) (meter_inflight_requests{{{SERVER}}})", "{{instance}}")],
        ),
        (
            About("Version", Short, "Servers by the version that they run."),
            [query(f"count by (version) (meter_build_info{{{SERVER}}})", "{{version}}")],
        ),
        (
            About("Age of the figures", Seconds, "How long ago the gauges of ledger and budgets were read."),
            [query(f"max by (instance) (meter_ledger_age_seconds{{{SERVER}}})", "{{instance}}")],
        ),
    ):
        board.with_panel(lines(SOURCE, about, each).span(THIRD))
