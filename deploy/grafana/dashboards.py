"""The two dashboards: the same widgets from CloudWatch's data source and from Prometheus.

Their widgets are those of the reference's table (docs/grafana.md says which panel is which), and what somebody on duty asks
next: how late, how many bytes, who is connected, which alarms changed.
"""

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders.cloudwatch import CloudWatchAnnotationQuery
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models.cloudwatch import CloudWatchQueryMode
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DataTransformerConfig,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import (
    CLOUDWATCH,
    PROMETHEUS,
    Line,
    bars,
    figure,
    lines,
    logs_query,
    pie,
    prometheus_query,
    series,
)

OWN = "Entrepot"
STATES = "AWS/States"
LETTERS = "ABCDEFGH"
FILES = tuple(Line(name, OWN, "Files", {"Status": name}) for name in ("transferred", "failed"))
EXECUTIONS = tuple(
    Line(name, STATES, metric)
    for name, metric in (
        ("started", "ExecutionsStarted"),
        ("succeeded", "ExecutionsSucceeded"),
        ("failed", "ExecutionsFailed"),
        ("timed out", "ExecutionsTimedOut"),
        ("aborted", "ExecutionsAborted"),
    )
)
TRANSFER_GROUP, FUNCTION_GROUP = "/aws/transfer/$server", "/aws/lambda/$function"

RECENT_TRANSFERS = """fields @timestamp, `activity-type`, path, `bytes-in`, `session-id`
| filter `activity-type` in ["CLOSE", "RENAME", "DELETE", "ERROR"]
| sort @timestamp desc
| limit 100"""
SESSIONS = """fields @timestamp, @message
| filter `activity-type` in ["CONNECTED", "DISCONNECTED", "AUTH_FAILURE"]
| sort @timestamp desc
| limit 100"""
TRANSFERRED_LOGS = """fields @timestamp, @message
| filter @message like /transferred/
| parse @message /file_id\\":\\"(?<file_id>[^\\"]+)/
| stats count(*) as Transfers by bin(1h)"""
FUNCTION_ERRORS = """fields @timestamp, @message
| filter @message like /(?i)error|exception|timed out/
| sort @timestamp desc
| limit 100"""


def with_lines(panel: Any, wanted: Sequence[Line]) -> Any:
    """Add queries of CloudWatch to a panel."""
    panel = panel.datasource(CLOUDWATCH)
    for ref, line in zip(LETTERS, wanted, strict=False):
        panel = panel.with_target(line.query(ref))
    return panel


def with_logs(panel: Any, text: str, *groups: str) -> Any:
    """Add a query of Logs Insights to a panel."""
    return panel.datasource(CLOUDWATCH).with_target(logs_query("A", text, groups))


def with_queries(panel: Any, *wanted: tuple[str, str], instant: bool = False) -> Any:
    """Add queries of Prometheus, each with its legend, to a panel."""
    panel = panel.datasource(PROMETHEUS)
    for ref, (text, legend) in zip(LETTERS, wanted, strict=False):
        panel = panel.with_target(prometheus_query(ref, text, legend, instant=instant))
    return panel


def _empty(title: str, uid: str, source: str) -> Dashboard:
    return (
        Dashboard(title)
        .uid(uid)
        .description(f"Files that arrive and are delivered, from {source}. Made by deploy/grafana; do not edit here.")
        .tags(["entrepot", "generated"])
        .timezone(TimeZoneBrowser)
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .editable()
    )


def _variable(name: str, label: str, namespace: str, metric: str, dimension: str) -> QueryVariable:
    """Return a choice among the values of a metric's dimension."""
    query: dict[str, object] = {
        "refId": f"{name}-values",
        "queryType": "dimensionValues",
        "region": "default",
        "namespace": namespace,
        "metricName": metric,
        "dimensionKey": dimension,
        "dimensionFilters": {},
    }
    return (
        QueryVariable(name)
        .label(label)
        .datasource(CLOUDWATCH)
        .query(query)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


class _AlarmChanges:
    """Changes of alarms as annotations on every chart."""

    def build(self) -> AnnotationQuery:
        query = (
            CloudWatchAnnotationQuery()
            .query_mode(CloudWatchQueryMode.ANNOTATIONS)
            .prefix_matching(True)
            .alarm_name_prefix("")
            .action_prefix("")
            .region("default")
            .namespace(OWN)
            .metric_name("")
            .statistic("Sum")
            .dimensions({})
            .period("")
            .ref_id("Alarms")
            .build()
        )
        return AnnotationQuery("Alarms", CLOUDWATCH, True, False, "red", target=query)  # type: ignore[arg-type]


def cloudwatch() -> Dashboard:
    """Return the dashboard over CloudWatch's data source."""
    waiting = Line("undelivered", OWN, "OldestUndeliveredAge", statistic="Maximum")
    board = _empty("Entrepot (CloudWatch)", "entrepot-cloudwatch", "CloudWatch's data source")
    board = board.with_variable(_variable("server", "SFTP server", "AWS/Transfer", "FilesIn", "ServerId"))
    board = board.with_variable(
        _variable("function", "Function", "AWS/Lambda", "Invocations", "FunctionName")
    ).annotation(_AlarmChanges())
    return (
        board.with_row(Row("Files"))
        .with_panel(with_lines(figure("Delivered", "Files delivered.", calc="sum"), FILES[:1]).span(4))
        .with_panel(with_lines(figure("Failed", "Files that failed.", calc="sum"), FILES[1:]).span(4))
        .with_panel(with_lines(figure("Oldest undelivered file", "How long it has waited.", "s"), [waiting]).span(4))
        .with_panel(
            with_lines(
                figure("Sessions", "SFTP sessions that are open."), [Line("open", OWN, "Sessions", statistic="Maximum")]
            ).span(4)
        )
        .with_panel(
            with_lines(
                figure("Events that wait", "Events that wait for their targets."),
                [Line("waiting", OWN, "PendingDeliveries", statistic="Maximum")],
            ).span(4)
        )
        .with_panel(
            with_lines(
                figure("Bytes in", "Bytes of files that arrived.", "bytes", "sum"),
                [Line("in", OWN, "Bytes", {"Direction": "in"})],
            ).span(4)
        )
        .with_panel(with_lines(series("Files transferred over time", "Each bar: files that settled."), FILES).span(16))
        .with_panel(
            with_lines(
                pie("Transfer status", "Files of the time shown: delivered, failed, arrived."),
                [*FILES, Line("uploaded", OWN, "Files", {"Status": "uploaded"})],
            ).span(8)
        )
        .with_panel(
            with_lines(
                series("Files transferred per hour", "Delivered files of each hour.", bars=True),
                [Line("transferred", OWN, "Files", {"Status": "transferred"}, period="3600")],
            ).span(12)
        )
        .with_panel(
            with_lines(
                series("Files transferred per day", "Delivered files of each day; set the range to weeks.", bars=True),
                [Line("transferred", OWN, "Files", {"Status": "transferred"}, period="86400")],
            ).span(12)
        )
        .with_panel(
            with_lines(
                series("From arrival to delivery", "Half, nearly all, and the slowest files.", "ms"),
                [Line(name, OWN, "DeliveryDuration", statistic=name) for name in ("p50", "p95", "p99")],
            ).span(12)
        )
        .with_panel(
            with_logs(
                TablePanel().title("Recent transfer events").description("What users did, newest first.").height(8),
                RECENT_TRANSFERS,
                TRANSFER_GROUP,
            ).span(12)
        )
        .with_row(Row("State machines and functions"))
        .with_panel(
            with_lines(series("Executions by status", "Executions that began or ended.", bars=True), EXECUTIONS).span(
                12
            )
        )
        .with_panel(
            with_lines(
                series("Error breakdown", "Who failed: executions, functions, events, files."),
                [
                    *(Line(f"execution {e.name}", STATES, e.metric) for e in EXECUTIONS[2:]),
                    Line("function errors", "AWS/Lambda", "Errors"),
                    Line("function throttles", "AWS/Lambda", "Throttles"),
                    Line("events given up", "AWS/Events", "FailedInvocations"),
                    Line("files failed", OWN, "Files", {"Status": "failed"}),
                ],
            ).span(12)
        )
        .with_panel(
            with_lines(
                series("Executions failed, by state machine", "A line for each state machine."),
                [
                    Line(
                        "by state machine",
                        STATES,
                        "ExecutionsFailed",
                        {"StateMachineArn": "*"},
                        label="${PROP('Dim.StateMachineArn')}",
                    )
                ],
            ).span(12)
        )
        .with_panel(
            with_lines(
                series("Function duration", "A line for each function: 95 of 100 were faster.", "ms"),
                [
                    Line(
                        "by function",
                        "AWS/Lambda",
                        "Duration",
                        {"FunctionName": "*"},
                        "p95",
                        label="${PROP('Dim.FunctionName')}",
                    )
                ],
            ).span(12)
        )
        .with_panel(
            with_logs(
                lines("Function errors", "Lines of the function with an error."), FUNCTION_ERRORS, FUNCTION_GROUP
            ).span(24)
        )
        .with_panel(
            with_logs(
                bars("Transfers in the function's log, by hour", "The reference's query of Logs Insights."),
                TRANSFERRED_LOGS,
                FUNCTION_GROUP,
            ).span(24)
        )
        .with_row(Row("SFTP sessions"))
        .with_panel(
            with_lines(
                series("Active connections over time", "SFTP sessions that are open; 0: none was active."),
                [Line("active", OWN, "Sessions", statistic="Maximum")],
            ).span(12)
        )
        .with_panel(
            with_lines(
                series("Bytes and files over SFTP", "AWS/Transfer's own metrics.", bars=True),
                [Line("files in", "AWS/Transfer", "FilesIn", {"ServerId": "*"}, label="files in")],
            ).span(12)
        )
        .with_panel(
            with_logs(lines("SFTP session logs", "Logins, log-outs, refused logins."), SESSIONS, TRANSFER_GROUP).span(
                24
            )
        )
    )


def prometheus() -> Dashboard:
    """Return the dashboard over Prometheus."""

    def by_status(status: str) -> tuple[str, str]:
        return f'sum(increase(entrepot_files_total{{status="{status}"}}[$__rate_interval]))', status

    def delivery(share: str) -> tuple[str, str]:
        return (
            f"histogram_quantile({share}, sum by (le) "
            "(rate(entrepot_delivery_duration_seconds_bucket[$__rate_interval])))",
            f"p{share[2:]:0<2}",
        )

    executions = "sum by (status) (increase(entrepot_executions_total[$__rate_interval]))"
    table = TablePanel().title("Files by status").description("What the ledger holds now.").height(8)
    table = table.with_transformation(DataTransformerConfig("seriesToRows", {}))
    board = _empty("Entrepot (Prometheus)", "entrepot-prometheus", "Prometheus")
    hour = 'sum(increase(entrepot_files_total{status="transferred"}[%s]))'
    return (
        board.with_row(Row("Files"))
        .with_panel(
            with_queries(
                figure("Delivered", "Files delivered in the time shown."),
                ('sum(increase(entrepot_files_total{status="transferred"}[$__range]))', "transferred"),
                instant=True,
            ).span(4)
        )
        .with_panel(
            with_queries(
                figure("Failed", "Files that failed in the time shown."),
                ('sum(increase(entrepot_files_total{status="failed"}[$__range]))', "failed"),
                instant=True,
            ).span(4)
        )
        .with_panel(
            with_queries(
                figure("Oldest undelivered file", "How long it has waited.", "s"),
                ("max(entrepot_oldest_undelivered_file_age_seconds)", "age"),
            ).span(4)
        )
        .with_panel(
            with_queries(
                figure("Expected files missing", "Expectations that are not met."),
                ("sum(entrepot_unmet_expectations)", "unmet"),
            ).span(4)
        )
        .with_panel(
            with_queries(
                figure("Dead letters", "Events that were given up."), ("sum(entrepot_dead_letters)", "dead letters")
            ).span(4)
        )
        .with_panel(
            with_queries(
                figure("Log lines dropped", "Since the start, because they came too fast."),
                ("sum(entrepot_dropped_log_lines)", "dropped"),
            ).span(4)
        )
        .with_panel(
            with_queries(
                series("Files transferred over time", "Each point: files that settled."),
                by_status("transferred"),
                by_status("failed"),
            ).span(16)
        )
        .with_panel(
            with_queries(
                pie("Transfer status", "All files of the ledger by status."),
                ("sum by (status) (entrepot_files_in_status)", "{{status}}"),
                instant=True,
            ).span(8)
        )
        .with_panel(
            with_queries(
                series("Files transferred per hour", "Delivered files of each hour.", bars=True).interval("1h"),
                (hour % "1h", "transferred"),
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("Files transferred per day", "Delivered files of each day.", bars=True)
                .interval("1d")
                .time_from("14d"),
                (hour % "1d", "transferred"),
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("From arrival to delivery", "Half, nearly all, and the slowest files.", "s"),
                delivery("0.5"),
                delivery("0.95"),
                delivery("0.99"),
            ).span(12)
        )
        .with_panel(
            with_queries(table, ("sum by (status) (entrepot_files_in_status)", "{{status}}"), instant=True).span(12)
        )
        .with_row(Row("State machines and functions"))
        .with_panel(
            with_queries(
                series("Executions by status", "Executions that began or ended.", bars=True), (executions, "{{status}}")
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("Error breakdown", "Who failed: executions, functions, events, files."),
                (
                    'sum by (state_machine, status) (increase(entrepot_executions_total{status=~"failed|timed_out|aborted"}'
                    "[$__rate_interval]))",
                    "{{state_machine}} {{status}}",
                ),
                (
                    'sum by (function, outcome) (increase(entrepot_function_invocations_total{outcome!="success"}'
                    "[$__rate_interval]))",
                    "{{function}} {{outcome}}",
                ),
                (
                    'sum by (rule) (increase(entrepot_event_deliveries_total{outcome="failed"}[$__rate_interval]))',
                    "{{rule}} given up",
                ),
                ('sum(increase(entrepot_files_total{status="failed"}[$__rate_interval]))', "files failed"),
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("Function duration", "A line for each function: 95 of 100 were faster.", "s"),
                (
                    "histogram_quantile(0.95, sum by (le, function) "
                    "(rate(entrepot_function_duration_seconds_bucket[$__rate_interval])))",
                    "{{function}}",
                ),
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("What waits", "Events that wait for their targets, invocations that wait for a worker."),
                ("sum(entrepot_pending_deliveries)", "events"),
                ("sum(entrepot_queued_invocations)", "invocations"),
            ).span(12)
        )
        .with_row(Row("SFTP sessions"))
        .with_panel(
            with_queries(
                series("Active connections over time", "SFTP sessions that are open; 0: none was active."),
                ("sum(entrepot_sessions)", "active"),
            ).span(12)
        )
        .with_panel(
            with_queries(
                series("Bytes received", "Bytes of files that arrived.", "Bps"),
                ("sum(rate(entrepot_file_bytes_total[$__rate_interval]))", "in"),
            ).span(12)
        )
    )
