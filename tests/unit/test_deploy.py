"""The files of deploy/: Prometheus's and Alertmanager's own tools take them, and the dashboards are what the generator makes."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.__main__ import HERE, generated
from entrepot.telemetry import Telemetry
from entrepot.telemetry.catalogue import CATALOGUE

PROMETHEUS = HERE.parent / "prometheus"
METRIC = re.compile(r"(?<!:)\bentrepot_[a-z_0-9]+")


def run_tool(name: str, *arguments: str) -> None:
    tool = shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    run = subprocess.run([tool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_the_configuration_and_the_rules_do_what_their_tests_say() -> None:
    run_tool("promtool", "check", "config", "prometheus.yml")
    run_tool("promtool", "test", "rules", "rules_test.yml")


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    fired = {
        case["alertname"]
        for test in tests["tests"]
        for case in test.get("alert_rule_test", ())
        if case.get("exp_alerts")
    }
    assert alerts == fired


def test_alertmanager_takes_the_example() -> None:
    run_tool("amtool", "check-config", "alertmanager.yml")


@pytest.mark.parametrize("name", generated())
def test_what_is_committed_is_what_the_generator_makes(name: str) -> None:
    path = HERE / name
    assert path.read_text() == generated()[name], (
        f"{path.name} is not what `make grafana` makes; run it, or undo the edit"
    )


def exported_names() -> set[str]:
    telemetry = Telemetry(None, "s")  # type: ignore[arg-type]
    names = set()
    for family in telemetry.registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def queries(document: Any) -> list[str]:
    """Return the texts of all members named expr."""
    if isinstance(document, dict):
        own = [value for key, value in document.items() if key == "expr" and isinstance(value, str)]
        return own + [text for value in document.values() for text in queries(value)]
    return [text for value in document for text in queries(value)] if isinstance(document, list) else []


@pytest.mark.parametrize("path", [HERE / "dashboards/entrepot-prometheus.json", PROMETHEUS / "rules.yml"], ids=str)
def test_every_metric_that_is_asked_for_is_exported(path: Path) -> None:
    texts = queries(yaml.safe_load(path.read_text()))
    asked = {name for text in texts for name in METRIC.findall(text)}
    assert len(asked) >= 4
    assert asked <= exported_names(), "asked for, but not exported"


def test_all_widgets_of_the_reference_are_there() -> None:
    wanted = {
        "Files transferred over time": "timeseries",
        "Transfer status": "piechart",
        "Executions by status": "timeseries",
        "Error breakdown": "timeseries",
        "Active connections over time": "timeseries",
        "Files transferred per hour": "timeseries",
        "Files transferred per day": "timeseries",
    }
    logs = {"Recent transfer events": "table", "SFTP session logs": "logs"}
    for name, panels in (("cloudwatch", wanted | logs), ("prometheus", wanted)):
        board = json.loads((HERE / f"dashboards/entrepot-{name}.json").read_text())
        shown = {panel["title"]: panel["type"] for panel in board["panels"]}
        assert panels.items() <= shown.items()
        assert all(panel["targets"] for panel in board["panels"] if panel["type"] != "row")


def test_data_sources_are_those_that_the_dashboards_name() -> None:
    sources = yaml.safe_load((HERE / "provisioning/datasources/entrepot.yml").read_text())["datasources"]
    known = {source["uid"]: source["type"] for source in sources}
    for board in (HERE / "dashboards").glob("*.json"):
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel.get("targets", ()):
                assert known[target["datasource"]["uid"]] == target["datasource"]["type"]


def test_every_metric_of_cloudwatch_that_is_asked_for_is_recorded() -> None:
    listed = {(one.namespace, one.name, tuple(sorted(names))) for one in CATALOGUE for names in one.dimensions}
    documents = [json.loads((HERE / "dashboards/entrepot-cloudwatch.json").read_text())["panels"]]
    documents += [json.loads((HERE / "provisioning/alerting/entrepot.json").read_text())]
    asked = {
        (query["namespace"], query["metricName"], tuple(sorted(query["dimensions"])))
        for query in members(documents)
        if query.get("queryMode") == "Metrics"
    }
    assert len(asked) > 15
    assert asked <= listed


def members(document: Any) -> list[dict[str, Any]]:
    """Return all objects inside a document."""
    if isinstance(document, dict):
        return [document, *(found for value in document.values() for found in members(value))]
    return [found for value in document for found in members(value)] if isinstance(document, list) else []
