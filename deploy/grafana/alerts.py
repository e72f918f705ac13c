"""Alert rules for Grafana's own alerting, over CloudWatch's data source: failed files, late files, events that wait.

Whoever has Prometheus takes deploy/prometheus/rules.yml instead.
"""

import json
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders.alerting import Query, Rule
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.alerting import RelativeTimeRange

from deploy.grafana.panels import CLOUDWATCH, Line

EXPRESSION = "__expr__"
"""Grafana's own data source of expressions."""


@dataclass(frozen=True)
class Alert:
    """A rule: the newest value of a series, above a threshold, for some time."""

    uid: str
    title: str
    summary: str
    line: Line
    reducer: str
    above: float
    for_: str


ALERTS = (
    Alert(
        "entrepot-failed-files",
        "Files failed",
        "Files could not be delivered. `entrepot files --status failed` says which, and why.",
        Line("failed", "Entrepot", "Files", {"Status": "failed"}, period="60"),
        "sum",
        0,
        "0s",
    ),
    Alert(
        "entrepot-undelivered-file",
        "A file waits too long",
        "A file has waited more than five minutes for its delivery. `entrepot files --status uploaded` says which.",
        Line("age", "Entrepot", "OldestUndeliveredAge", statistic="Maximum", period="60"),
        "last",
        300,
        "1m",
    ),
    Alert(
        "entrepot-pending-deliveries",
        "Events wait for their targets",
        "More than a thousand events wait. `entrepot status` says whether functions keep up.",
        Line("waiting", "Entrepot", "PendingDeliveries", statistic="Maximum", period="60"),
        "last",
        1000,
        "5m",
    ),
)


class _Expression:
    """A query of Grafana's expressions."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def build(self) -> dict[str, Any]:
        return {"datasource": {"type": EXPRESSION, "uid": EXPRESSION}, **self._members}


def provisioned() -> dict[str, Any]:
    """Return the file that Grafana reads from provisioning/alerting."""
    group = {
        "orgId": 1,
        "name": "entrepot",
        "folder": "Entrepot",
        "interval": "1m",
        "rules": [_rule(alert) for alert in ALERTS],
    }
    return {"apiVersion": 1, "groups": [group]}


def _rule(alert: Alert) -> dict[str, Any]:
    window = RelativeTimeRange(from_val=300, to=0)  # type: ignore[arg-type]
    now = RelativeTimeRange(from_val=0, to=0)  # type: ignore[arg-type]
    reduce = {"refId": "B", "type": "reduce", "expression": "A", "reducer": alert.reducer}
    above = {
        "refId": "C",
        "type": "threshold",
        "expression": "B",
        "conditions": [{"evaluator": {"type": "gt", "params": [alert.above]}}],
    }
    rule = (
        Rule(alert.title)
        .uid(alert.uid)
        .condition("C")
        .for_val(alert.for_)
        .no_data_state("OK")
        .exec_err_state("Error")
        .annotations({"summary": alert.summary})
        .labels({"team": "operations"})
        .with_query(
            Query("A").datasource_uid(CLOUDWATCH.uid or "").model(alert.line.query("A")).relative_time_range(window)
        )
        .with_query(Query("B").datasource_uid(EXPRESSION).model(_Expression(reduce)).relative_time_range(now))  # type: ignore[arg-type]
        .with_query(Query("C").datasource_uid(EXPRESSION).model(_Expression(above)).relative_time_range(now))  # type: ignore[arg-type]
    )
    made: dict[str, Any] = json.loads(JSONEncoder().encode(rule.build()))
    # A file of provisioning names group and folder outside its rules.
    for outside in ("folderUID", "orgID", "ruleGroup", "provenance", "updated", "id"):
        made.pop(outside, None)
    return made
