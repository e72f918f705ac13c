"""What is measured: each metric is listed, in AWS's words, and /metrics is clean by Prometheus' own tool."""

import inspect
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from entrepot import telemetry
from entrepot.services.cloudwatch import Metric
from entrepot.services.cloudwatch.metrics import UNITS as AWS_UNITS
from entrepot.telemetry import Levels, Telemetry, counts
from entrepot.telemetry.catalogue import CATALOGUE, UNITS

DOCS = Path(__file__).parents[2] / "docs"


class Recording:
    """CloudWatch's `record`, remembered."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str, tuple[str, ...]], list[float]] = {}
        self.units: dict[tuple[str, str], str] = {}
        self.series: set[Metric] = set()

    def record(self, metric: Metric, value: float, *, unit: str, at_ms: int = 0, resolution_s: int = 60) -> None:
        names = tuple(name for name, _ in metric.dimensions)
        self.values.setdefault((metric.namespace, metric.name, names), []).append(value)
        self.units[metric.namespace, metric.name] = unit
        self.series.add(metric)


def everything(measured: Telemetry) -> None:
    """Tell each fact once."""
    for status in ("transferred", "failed"):
        measured.file_settled(status, 5, 1_000)
    measured.file_arrived(5, over_sftp=True)
    measured.file_sent(7)
    for status in ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"):
        measured.execution("arn:aws:states:us-east-1:0:stateMachine:m", status, None if status == "RUNNING" else 5)
    for outcome in ("success", "error", "throttle"):
        measured.invocation("f", outcome, 5.0)
    measured.event_matched(["r", "s"])
    measured.delivery("r", failed=False)
    measured.delivery("r", failed=True, dead_letter=True)
    for kind in counts.EXPECTATION_METRICS:
        measured.expectation("daily", kind)
    for operation in counts.S3_REQUESTS:
        measured.s3_request(operation, "in", 0, 3, 4)
    measured.s3_request("GetObject", "in", 404, 0, 0)
    measured.s3_request("GetObject", "in", 503, 0, 0)
    measured.traced("exported", 1)
    measured.storage([("in", 2, 9)])
    measured.level(Levels(1, {"failed": 1}, 2.0, 3, 4, 5, 6.0, 7, 1, {"f": 2}))


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def measured(recording: Any) -> Telemetry:
    made = Telemetry(recording, "s-1")
    everything(made)
    return made


def test_all_that_is_listed_is_recorded_and_nothing_else(measured: Telemetry, recording: Recording) -> None:
    listed = {(one.namespace, one.name, tuple(sorted(names))) for one in CATALOGUE for names in one.dimensions}
    assert set(recording.values) == listed
    assert recording.units == UNITS
    assert set(UNITS.values()) <= AWS_UNITS


def test_what_is_counted(measured: Telemetry, recording: Recording) -> None:
    values = recording.values
    assert values["AWS/Events", "MatchedEvents", ()] == [1] and values["AWS/Events", "TriggeredRules", ()] == [2]
    assert values["AWS/Events", "InvocationsSentToDlq", ("RuleName",)] == [1]
    assert values["AWS/Lambda", "ConcurrentExecutions", ()] == [2]
    requests = ("BucketName", "FilterId")
    assert sum(values["AWS/S3", "AllRequests", requests]) == len(counts.S3_REQUESTS) + 2
    assert values["AWS/S3", "4xxErrors", requests] == [1] and values["AWS/S3", "5xxErrors", requests] == [1]
    assert values["AWS/S3", "BucketSizeBytes", ("BucketName", "StorageType")] == [9]
    assert values["AWS/Transfer", "BytesOut", ("ServerId",)] == [7]


def test_whoever_asks_for_buckets_that_there_are_not_makes_no_metrics(recording: Any) -> None:
    measured = Telemetry(recording, "s-1")
    for number in range(10):
        measured.s3_request("GetObject", f"guess-{number}", 404, 0, 0)
    assert not recording.series
    for number in range(counts.LABELS_LIMIT + 10):
        measured.s3_request("GetObject", f"bucket-{number}", 0, 0, 0)
    assert len({metric.dimensions for metric in recording.series}) == counts.LABELS_LIMIT


def test_the_page_names_every_metric(measured: Telemetry) -> None:
    page = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", page, re.M))
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in measured.registry.collect()}
    assert named == {one.name for one in CATALOGUE} | exported


def test_prometheus_tool_finds_nothing(measured: Telemetry) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        assert not os.environ.get("CI"), "promtool is missing (Debian: prometheus)"
        pytest.skip("promtool is not installed (Debian: prometheus)")
    run = subprocess.run([tool, "check", "metrics"], input=measured.exposition(), capture_output=True, timeout=60)
    assert (run.returncode, run.stdout.decode() + run.stderr.decode()) == (0, "")


def test_names_of_metrics_are_literals_that_can_be_found() -> None:
    """A metric that is recorded under a name made up of parts would be hard to find: none is."""
    source = inspect.getsource(telemetry.counts)
    assert not re.findall(r"_(?:own|aws)\([^)]*f\"", source)
