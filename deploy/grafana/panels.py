"""Panels as the dashboards need them: short words for the builders of grafana-foundation-sdk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import barchart, cloudwatch, common, logs, piechart, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import cloudwatch as cloudwatch_models
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DynamicConfigValue
from grafana_foundation_sdk.models.piechart import PieChartLabels
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

CLOUDWATCH = DataSourceRef("cloudwatch", "entrepot-cloudwatch")
PROMETHEUS = DataSourceRef("prometheus", "entrepot-prometheus")

GREEN, RED, BLUE, YELLOW = "green", "red", "blue", "yellow"
COLOURS = {
    "transferred": GREEN,
    "succeeded": GREEN,
    "failed": RED,
    "uploaded": BLUE,
    "waiting": BLUE,
    "started": BLUE,
    "transferring": YELLOW,
    "timed out": YELLOW,
    "aborted": YELLOW,
}
"""The names say the status, too: colour is never alone."""


@dataclass(frozen=True)
class Line:
    """One series of CloudWatch's data source. `period` in seconds, or auto."""

    name: str
    namespace: str
    metric: str
    dimensions: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    statistic: str = "Sum"
    period: str = ""
    label: str = ""

    def query(self, ref: str) -> Builder[cloudwatch_models.CloudWatchMetricsQuery]:
        """Return the query."""
        dimensions = {name: [v] if isinstance(v, str) else list(v) for name, v in self.dimensions.items()}
        return (
            cloudwatch.CloudWatchMetricsQuery()
            .query_mode(cloudwatch_models.CloudWatchQueryMode.METRICS)
            .metric_query_type(cloudwatch_models.MetricQueryType.SEARCH)
            .metric_editor_mode(cloudwatch_models.MetricEditorMode.BUILDER)
            .region("default")
            .namespace(self.namespace)
            .metric_name(self.metric)
            .dimensions(dimensions)
            .match_exact(True)
            .statistic(self.statistic)
            .period(self.period)
            .label(self.label or self.name)
            .expression("")
            .id("")
            .ref_id(ref)
            .datasource(CLOUDWATCH)
        )


def logs_query(ref: str, text: str, groups: Sequence[str]) -> Builder[cloudwatch_models.CloudWatchLogsQuery]:
    """Return a query of Logs Insights over groups."""
    return (
        cloudwatch.CloudWatchLogsQuery()
        .query_mode(cloudwatch_models.CloudWatchQueryMode.LOGS)
        .region("default")
        .expression(text)
        .log_group_names(list(groups))
        .stats_groups([])
        .id("")
        .ref_id(ref)
        .datasource(CLOUDWATCH)
    )


def prometheus_query(ref: str, text: str, legend: str, *, instant: bool = False) -> prometheus.Dataquery:
    """Return a query of Prometheus."""
    query = prometheus.Dataquery().expr(text).legend_format(legend).ref_id(ref).datasource(PROMETHEUS)
    query = query.instant() if instant else query.range()
    return query.format(PromQueryFormat.TIME_SERIES)


def series(title: str, description: str, unit: str = "short", *, bars: bool = False) -> timeseries.Panel:
    """Return an empty panel of lines over time, or of stacked bars."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .height(8)
        .fill_opacity(70 if bars else 10)
        .draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
        .show_points(common_models.VisibilityMode.AUTO)
        .no_value("nothing yet")
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if bars:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    return coloured(panel)


def pie(title: str, description: str) -> piechart.Panel:
    """Return an empty pie of shares, each with its name and number."""
    return coloured(
        piechart.Panel()
        .title(title)
        .description(description)
        .unit("short")
        .height(8)
        .display_labels([PieChartLabels.NAME, PieChartLabels.VALUE])
        .reduce_options(common.ReduceDataOptions().calcs(["sum"]).values(False))
        .legend(
            piechart.PieChartLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.RIGHT)
            .show_legend(True)
            .values([])
        )
    )


def figure(title: str, description: str, unit: str = "short", calc: str = "lastNotNull") -> stat.Panel:
    """Return an empty panel of one number."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .height(4)
        .no_value("0")
        .reduce_options(common.ReduceDataOptions().calcs([calc]).values(False))
        .graph_mode(common_models.BigValueGraphMode.AREA)
    )


def bars(title: str, description: str, unit: str = "short") -> barchart.Panel:
    """Return an empty panel of bars by name."""
    return barchart.Panel().title(title).description(description).unit(unit).height(8).min(0)


def lines(title: str, description: str) -> logs.Panel:
    """Return an empty panel of log lines, newest first."""
    return (
        logs.Panel()
        .title(title)
        .description(description)
        .height(9)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common_models.LogsSortOrder.DESCENDING)
        .dedup_strategy(common_models.LogsDedupStrategy.NONE)
    )


def coloured(panel):  # type: ignore[no-untyped-def]  # the builders share no type
    """Give each status its colour."""
    for name, colour in COLOURS.items():
        panel = panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return panel
