"""What panels of both dashboards have in common: their sizes, legends and tooltips."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)

WIDE, HALF, THIRD = 24, 12, 8
HEIGHT = 8
STATS_A_ROW = 6

Queries = Sequence[Builder[Dataquery]]


class About(NamedTuple):
    """What a panel is about: its title, the unit of its values, and what they mean."""

    title: str
    unit: str
    meaning: str


def page(title: str, uid: str, description: str) -> dashboard.Dashboard:
    """Begin a dashboard; others with meter's tag are one click away, with its range and variables."""
    link = dashboard.DashboardLink("meter").type(DashboardLinkType.DASHBOARDS).tags(["meter"])
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["meter"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(link.as_dropdown(as_dropdown=True).keep_time(keep_time=True))
    )


def number(
    source: DataSourceRef, about: About, query: Builder[Dataquery], *, warn_from: float | None = None
) -> stat.Panel:
    """Show one number; from `warn_from` on it is red."""
    steps = [Threshold(value=None, color="green")]
    if warn_from is not None:
        steps.append(Threshold(value=warn_from, color="red"))
    return (
        stat.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(source)
        .with_target(query)
        .unit(about.unit)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(kinds.BigValueColorMode.NONE if warn_from is None else kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(HEIGHT // 2)
        .span(WIDE // STATS_A_ROW)
    )


def lines(source: DataSourceRef, about: About, queries: Queries) -> timeseries.Panel:
    """Show series as lines, with a table of their last and largest values below."""
    legend = (
        common.VizLegendOptions()
        .display_mode(kinds.LegendDisplayMode.TABLE)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs(["lastNotNull", "max"])
    )
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    return (
        timeseries.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(source)
        .targets(list(queries))
        .unit(about.unit)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(legend)
        .tooltip(tooltip)
        .height(HEIGHT)
        .span(HALF)
    )


def stacked(source: DataSourceRef, about: About, queries: Queries) -> timeseries.Panel:
    """Show series as bars on top of each other."""
    return (
        lines(source, about, queries)
        .draw_style(kinds.GraphDrawStyle.BARS)
        .fill_opacity(70)
        .stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    )


def rows(
    source: DataSourceRef, about: About, query: Builder[Dataquery], units: Mapping[str, str]
) -> table.Panel:
    """Show a table, which can be filtered by its columns; some have units of their own."""
    panel = (
        table.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(source)
        .with_target(query)
        .unit(about.unit)
        .filterable(filterable=True)
        .cell_height(kinds.TableCellHeight.SM)
        .height(HEIGHT + 2)
        .span(WIDE)
    )
    for column, unit in units.items():
        panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    return panel
