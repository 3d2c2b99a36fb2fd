"""The dashboard *Spend*: what was used and what it cost, from the ledger's sums on PostgreSQL."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.models.dashboard import VariableHide, VariableOption, VariableRefresh
from grafana_foundation_sdk.models.units import Dollars, PercentUnit, Short

from grafana.panels import HALF, About, number, page, rows, stacked
from grafana.postgres import SOURCE, Query, sql

# As the statements compare it: an All that is no list of names, which could be empty or thousands.
ALL = "'*'"

_USAGE_UNITS = {"Cost": Dollars, "Share": PercentUnit, "Estimated": PercentUnit}


def build() -> Dashboard:
    """Build the dashboard."""
    board = (
        page("meter: Spend", "meter-spend", "Who spent what, by the ledger.")
        .time("now/M", "now")
        .refresh("5m")
    )
    board.with_variable(_names("team", "Team", "teams"))
    board.with_variable(_names("model", "Model", "models"))
    board.with_variable(_timezone())
    _add_totals(board)
    _add_days(board)
    _add_tables(board)
    _add_budgets(board)
    _add_rest(board)
    return board


def _names(name: str, label: str, statement: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(sql(statement))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(ALL)
        .current(VariableOption(text="All", value="$__all"))
    )


def _timezone() -> QueryVariable:
    return (
        QueryVariable("timezone")
        .label("Time zone of days and months")
        .datasource(SOURCE)
        .query(sql("timezones"))
        .hide(VariableHide.DONT_HIDE)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .current(VariableOption(text="UTC", value="UTC"))
    )


def _add_totals(board: Dashboard) -> None:
    board.with_row(Row("In all"))
    for about, statement, warn_from in (
        (About("Spent", Dollars, "Cost of what has a price, corrections included."), "spent", None),
        (About("Requests", Short, "Attempts at upstreams; what meter refused is none."), "requests", None),
        (About("Tokens", Short, "Tokens of prompts and completions."), "tokens", None),
        (
            About(
                "Estimated",
                PercentUnit,
                "Share of tokens whose number no provider reported, as of streams that were cut.",
            ),
            "estimated_share",
            0.1,
        ),
        (
            About(
                "Unpriced requests",
                Short,
                "Requests whose cost is unknown: set a price, then run meter prices reprice.",
            ),
            "unpriced",
            1,
        ),
    ):
        board.with_panel(number(SOURCE, about, Query(statement), warn_from=warn_from))


def _add_days(board: Dashboard) -> None:
    board.with_row(Row("By day"))
    teams = About("Cost by day and team", Dollars, "Days begin in the time zone that is chosen above.")
    models = About("Cost by day and model", Dollars, "The ten dearest models of the range, and all others.")
    board.with_panel(stacked(SOURCE, teams, [Query("days_by_team", series=True)]))
    board.with_panel(stacked(SOURCE, models, [Query("days_by_model", series=True)]))


def _add_tables(board: Dashboard) -> None:
    board.with_row(Row("By team, key and model"))
    note = "Cached is part of Prompt. Share is of the cost of all rows, Estimated of the row's tokens."
    board.with_panel(rows(SOURCE, About("Teams", Short, note), Query("by_team"), _USAGE_UNITS).span(HALF))
    board.with_panel(rows(SOURCE, About("Models", Short, note), Query("by_model"), _USAGE_UNITS).span(HALF))
    board.with_panel(rows(SOURCE, About("Keys", Short, note), Query("by_key"), _USAGE_UNITS))


def _add_budgets(board: Dashboard) -> None:
    board.with_row(Row("Budgets and forecast"))
    budgets = About(
        "Budgets",
        Short,
        "Budgets in their windows of now, in USD, tokens or requests. Projected is what a window ends with "
        "if spending goes on as it did since it began. Chosen teams and models change nothing here.",
    )
    forecast = About(
        "Forecast of this month",
        Dollars,
        "This month in the time zone that is chosen above, whatever the range.",
    )
    board.with_panel(rows(SOURCE, budgets, Query("budgets"), {"Left": PercentUnit}))
    board.with_panel(rows(SOURCE, forecast, Query("forecast"), {}))


def _add_rest(board: Dashboard) -> None:
    board.with_row(Row("Corrections and refusals"))
    corrections = About(
        "Corrections",
        Short,
        "Late events and corrections of closed months, which count on the day on which they were posted.",
    )
    refusals = About("Refusals", Short, "Requests that meter refused, by key and reason.")
    board.with_panel(rows(SOURCE, corrections, Query("corrections"), {"Cost": Dollars}).span(HALF))
    board.with_panel(rows(SOURCE, refusals, Query("refusals"), {}).span(HALF))
