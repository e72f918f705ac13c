"""What Grafana's CloudWatch data source asks, put to a real server with real files, in the order and shapes of the plugin.

The requests follow the plugin's source (grafana/grafana-cloudwatch-datasource, pkg/cloudwatch): its health check, the
resources of its editors, queries of metrics with its search expressions, queries of logs with the fields that it puts before
them, and annotations. Its SDK speaks query to CloudWatch in older versions and CBOR in newer ones, and JSON to CloudWatch Logs.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.wire_client import RefusedError, WireClient
from tests.running import Stack, wait_for

FILES = 3
INTERNAL = (
    "fields @timestamp,ltrim(@log) as __log__grafana_internal__,ltrim(@logStream) as __logstream__grafana_internal__|"
)
BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "entrepot-cloudwatch.json"
ACCOUNT = "000000000000"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack over which files went, with values of many services beside them."""
    folder = Path(tmp_path_factory.mktemp("grafana"))
    with Stack(folder / "stack") as running:
        for number in range(FILES):
            (folder / f"f{number}.csv").write_text("x" * 10)
        running.sftp(*(f"put {folder}/f{number}.csv" for number in range(FILES)))
        for number in range(FILES):
            running.delivered(f"demo/f{number}.csv")
        metrics = WireClient(running, "cloudwatch", "json")
        metrics(
            "PutMetricData",
            Namespace="Shop",
            MetricData=[
                {"MetricName": "Orders", "Dimensions": dimensions(Region=region, Kind=kind), "Value": value}
                for region, kind, value in (("north", "a", 1.0), ("south", "a", 2.0), ("south", "b", 4.0))
            ],
        )
        yield running


@pytest.fixture(scope="module")
def group(stack: Stack) -> str:
    """The log group of the SFTP server."""
    return f"/aws/transfer/{stack.client('transfer').list_servers()['Servers'][0]['ServerId']}"


@pytest.fixture(params=["query", "smithy-rpc-v2-cbor"])
def metrics(request: pytest.FixtureRequest, stack: Stack) -> WireClient:
    return WireClient(stack, "cloudwatch", request.param)


@pytest.fixture
def logs(stack: Stack) -> WireClient:
    return WireClient(stack, "logs", "json")


def dimensions(**named: str) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in named.items()]


def all_metrics(metrics: WireClient, **parameters: Any) -> list[dict[str, Any]]:
    """List metrics page by page."""
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = metrics("ListMetrics", **parameters, **token)
        found += page["Metrics"]
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def data(metrics: WireClient, *queries: dict[str, Any], **parameters: Any) -> dict[str, list[dict[str, Any]]]:
    """Ask for metric data as the plugin does, until there is no further page; the results of each id."""
    now = datetime.now(UTC)
    request = {
        "StartTime": (now - timedelta(hours=1)).replace(microsecond=0),
        "EndTime": (now + timedelta(minutes=2)).replace(microsecond=0),
        "ScanBy": "TimestampAscending",
        "LabelOptions": {"Timezone": "+0100"},
        "MetricDataQueries": list(queries),
        **parameters,
    }
    found: dict[str, list[dict[str, Any]]] = {}
    while True:
        answer = metrics("GetMetricData", **request)
        for result in answer["MetricDataResults"]:
            found.setdefault(result["Id"], []).append(result)
        if not answer.get("NextToken"):
            return found
        request["NextToken"] = answer["NextToken"]


def total(results: list[dict[str, Any]]) -> float:
    return sum(sum(one["Values"]) for one in results)


# ── health and editors ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_health_check_succeeds(metrics: WireClient, logs: WireClient) -> None:
    assert metrics("ListMetrics", Namespace="AWS/Billing", MetricName="EstimatedCharges")["Metrics"] == []
    assert len(logs("DescribeLogGroups", limit=1)["logGroups"]) == 1


def test_the_editor_finds_metrics_dimensions_and_values(metrics: WireClient) -> None:
    for namespace in ("Entrepot", "AWS/States", "AWS/Lambda", "AWS/Events", "AWS/Transfer"):
        assert all_metrics(metrics, Namespace=namespace), namespace
    own = {one["MetricName"] for one in all_metrics(metrics, Namespace="Entrepot")}
    assert {"Files", "Bytes", "DeliveryDuration", "Sessions", "OldestUndeliveredAge"} <= own
    keys = {
        dimension["Name"]
        for one in all_metrics(metrics, Namespace="Shop", MetricName="Orders", Dimensions=[{"Name": "Region"}])
        for dimension in one["Dimensions"]
    }
    assert keys == {"Region", "Kind"}
    chosen = all_metrics(metrics, Namespace="Shop", MetricName="Orders", Dimensions=dimensions(Region="south"))
    assert {d["Value"] for one in chosen for d in one["Dimensions"] if d["Name"] == "Kind"} == {"a", "b"}
    recent = all_metrics(metrics, Namespace="Shop", RecentlyActive="PT3H", IncludeLinkedAccounts=True)
    assert len(recent) == 3


def test_linked_accounts_are_named_beside_the_metrics(metrics: WireClient) -> None:
    page = metrics("ListMetrics", Namespace="Shop", IncludeLinkedAccounts=True)
    assert page["OwningAccounts"] == [ACCOUNT] * len(page["Metrics"])
    assert (
        metrics("ListMetrics", Namespace="Shop", IncludeLinkedAccounts=True, OwningAccount="999999999999")["Metrics"]
        == []
    )


def test_the_editor_finds_log_groups_and_fields(logs: WireClient, group: str) -> None:
    found = logs("DescribeLogGroups", limit=50, logGroupNamePrefix="/aws/transfer/")["logGroups"]
    assert [group["logGroupName"] for group in found] == [group]
    assert found[0]["arn"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}:*"
    found = logs("DescribeLogGroups", limit=50, logGroupNamePattern="ambda", includeLinkedAccounts=True)["logGroups"]
    assert [group["logGroupName"] for group in found] == ["/aws/lambda/transfer"]
    assert logs("DescribeLogGroups", includeLinkedAccounts=True, accountIdentifiers=["999999999999"])["logGroups"] == []
    names, token = [], {}
    while True:
        page = logs("DescribeLogGroups", limit=1, **token)
        names += [group["logGroupName"] for group in page["logGroups"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert names == sorted(set(names)) and group in names
    fields = logs("GetLogGroupFields", logGroupName=group)["logGroupFields"]
    assert {"@timestamp", "activity-type"} <= {field["name"] for field in fields}
    assert all(isinstance(field["percent"], int) for field in fields)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stat(identifier: str, namespace: str, name: str, statistic: str = "Sum", **named: str) -> dict[str, Any]:
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions(**named)}
    return {
        "Id": identifier,
        "ReturnData": True,
        "Label": "${LABEL}",
        "MetricStat": {"Metric": metric, "Period": 60, "Stat": statistic},
    }


def search(identifier: str, terms: str, label: str = "", statistic: str = "Sum") -> dict[str, Any]:
    text = f"REMOVE_EMPTY(SEARCH('{terms}', '{statistic}', 60))"
    return {"Id": identifier, "ReturnData": True, "Expression": text, **({"Label": label} if label else {})}


def test_files_that_went_are_in_the_metrics(metrics: WireClient, group: str) -> None:
    def settled() -> bool:
        return total(data(metrics, stat("queryA", "Entrepot", "Files", Status="transferred"))["queryA"]) == FILES

    wait_for(settled, what="the metric of delivered files")
    found = data(
        metrics,
        stat("queryA", "AWS/Transfer", "FilesIn", ServerId=group.rpartition("/")[2]),
        stat("queryB", "AWS/States", "ExecutionsSucceeded"),
        stat("queryC", "AWS/Lambda", "Duration", "p95"),
        {"Id": "queryD", "Expression": "queryA * 2", "Period": 60, "ReturnData": True, "Label": "twice"},
    )
    assert total(found["queryA"]) == FILES and total(found["queryB"]) == FILES
    assert total(found["queryC"]) > 0
    assert total(found["queryD"]) == 2 * FILES and found["queryD"][0]["Label"] == "twice"
    assert all(one["StatusCode"] == "Complete" for results in found.values() for one in results)


@pytest.mark.parametrize(
    ("terms", "labels"),
    [
        # matchExact with a wildcard, with several values, and with one beside a wildcard
        ('{"Shop","Kind","Region"} MetricName="Orders"', {"a|&|north", "a|&|south", "b|&|south"}),
        ('{"Shop","Kind","Region"} MetricName="Orders" "Region"=("north" OR "south")', {"a|&|north", "a|&|south", "b|&|south"}),
        ('{"Shop","Kind","Region"} MetricName="Orders" "Region"="south"', {"a|&|south", "b|&|south"}),
        ('{"Shop","Region"} MetricName="Orders"', set()),
        # not exact: a namespace as a property, names of dimensions as words
        ('Namespace="Shop" MetricName="Orders" "Kind" "Region"', {"a|&|north", "a|&|south", "b|&|south"}),
        ('Namespace="Shop" MetricName="Orders" "Kind"="b" "Region"', {"b|&|south"}),
        # an account
        (f'{{"Shop","Kind","Region"}} MetricName="Orders" "Kind"="b" :aws.AccountId="{ACCOUNT}"', {"b|&|south"}),
        ('{"Shop","Kind","Region"} MetricName="Orders" :aws.AccountId="999999999999"', set()),
    ],
)  # fmt: skip
def test_search_expressions_of_the_plugin(metrics: WireClient, terms: str, labels: set[str]) -> None:
    label = "${PROP('Dim.Kind')}|&|${PROP('Dim.Region')}"
    found = data(metrics, search("queryA", terms, label)).get("queryA", [])
    assert {one["Label"] for one in found} == labels


def test_a_search_without_a_label_names_what_differs(metrics: WireClient) -> None:
    found = data(metrics, search("queryA", '{"Shop","Kind","Region"} MetricName="Orders" "Kind"="a"'))["queryA"]
    assert len({one["Label"] for one in found}) == 2
    assert {word for one in found for word in one["Label"].split()} >= {"north", "south"}


def test_long_answers_come_in_pages(metrics: WireClient) -> None:
    queries = [
        search("queryA", '{"Shop","Kind","Region"} MetricName="Orders"', "${PROP('Dim.Kind')} ${PROP('Dim.Region')}")
    ]
    whole = data(metrics, *queries)["queryA"]
    paged = data(metrics, *queries, MaxDatapoints=1)["queryA"]

    def points(results: list[dict[str, Any]]) -> set[tuple[str, datetime, float]]:
        return {
            (one["Label"], at, value)
            for one in results
            for at, value in zip(one["Timestamps"], one["Values"], strict=True)
        }

    assert len(points(whole)) == 3
    assert points(paged) == points(whole)


def test_metrics_insights_is_refused_in_words(metrics: WireClient) -> None:
    query = {"Id": "queryA", "Expression": 'SELECT SUM(Orders) FROM SCHEMA("Shop", Kind)', "Period": 60}
    with pytest.raises(RefusedError) as caught:
        data(metrics, query)
    assert caught.value.status == 400
    assert caught.value.code in ("ValidationError", "ValidationException")
    assert "SELECT" in caught.value.message


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def query_logs(logs: WireClient, text: str, **groups: Any) -> tuple[list[dict[str, str]], dict[str, float]]:
    """Start a query as the plugin does, wait for its end; its rows and statistics."""
    now = int(datetime.now(UTC).timestamp())
    query_id = logs(
        "StartQuery",
        startTime=now - 3600,
        endTime=now + 1,
        queryString=INTERNAL + text,
        queryLanguage="CWLI",
        limit=500,
        **groups,
    )["queryId"]

    def ended() -> dict[str, Any] | None:
        answer = logs("GetQueryResults", queryId=query_id)
        return answer if answer["status"] in ("Complete", "Failed", "Timeout", "Cancelled") else None

    answer = wait_for(ended, what="the end of the query")
    assert answer["status"] == "Complete"
    with pytest.raises(RefusedError) as caught:
        logs("StopQuery", queryId=query_id)
    assert caught.value.code == "InvalidParameterException"
    return [{cell["field"]: cell["value"] for cell in row} for row in answer["results"]], answer["statistics"]


@pytest.mark.parametrize(
    "groups",
    [
        {"logGroupNames": ["GROUP"]},
        # The plugin cuts the star from the ARN that DescribeLogGroups told, and leaves the colon.
        {"logGroupIdentifiers": [f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:GROUP:"]},
        {"logGroupIdentifiers": [f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:GROUP"]},
    ],
    ids=["names", "identifiers", "clean identifiers"],
)
def test_rows_lead_to_their_context(logs: WireClient, group: str, groups: dict[str, list[str]]) -> None:
    text = 'fields @message | filter `activity-type` = "CONNECTED" | sort @timestamp desc | limit 20'
    named = {member: [name.replace("GROUP", group) for name in names] for member, names in groups.items()}
    rows, statistics = query_logs(logs, text, **named)
    (row,) = rows
    at = datetime.strptime(row["@timestamp"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    assert set(row) == {
        "@timestamp",
        "@message",
        "__log__grafana_internal__",
        "__logstream__grafana_internal__",
        "@ptr",
    }
    assert row["__log__grafana_internal__"] == f"{ACCOUNT}:{group}"
    assert statistics["recordsMatched"] == 1 and statistics["recordsScanned"] > 1 and statistics["bytesScanned"] > 0
    at_ms = int(at.timestamp() * 1000)
    context = {
        "logGroupName": row["__log__grafana_internal__"].partition(":")[2],
        "logStreamName": row["__logstream__grafana_internal__"],
        "limit": 10,
    }
    before = logs("GetLogEvents", **context, startFromHead=False, endTime=at_ms)["events"]
    after = logs("GetLogEvents", **context, startFromHead=True, startTime=at_ms)["events"]
    assert before == [] and after[0]["message"] == row["@message"] and len(after) > 1


def test_counts_over_time_are_charts(logs: WireClient, group: str) -> None:
    text = "filter `activity-type` in ['CLOSE'] | stats count(*) as closed by bin(1h), `activity-type`"
    rows, _ = query_logs(logs, text, logGroupNames=[group])
    assert sum(float(row["closed"]) for row in rows) == FILES
    for row in rows:
        datetime.strptime(row["bin(1h)"], "%Y-%m-%d %H:%M:%S.%f")
        assert row["activity-type"] == "CLOSE"


def test_a_query_that_cannot_be_read_says_where(logs: WireClient, group: str) -> None:
    with pytest.raises(RefusedError) as caught:
        query_logs(logs, "filter @message like", logGroupNames=[group])
    assert caught.value.code == "MalformedQueryException"
    with pytest.raises(RefusedError) as other:
        logs("StartQuery", startTime=0, endTime=1, queryString="SELECT 1", queryLanguage="SQL", logGroupNames=["x"])
    assert other.value.code == "InvalidParameterException"


# ── annotations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_alarms_become_annotations(metrics: WireClient, request: pytest.FixtureRequest) -> None:
    name = f"orders-{len(request.node.name)}"
    metrics(
        "PutMetricAlarm",
        AlarmName=name,
        Namespace="Shop",
        MetricName="Orders",
        Dimensions=dimensions(Region="north", Kind="a"),
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=100.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    metrics("SetAlarmState", AlarmName=name, StateValue="ALARM", StateReason="for the test")
    described = metrics("DescribeAlarms", MaxRecords=100, AlarmNamePrefix="orders")["MetricAlarms"]
    assert name in {alarm["AlarmName"] for alarm in described}
    assert all(alarm["Statistic"] and alarm["Period"] and alarm["Namespace"] for alarm in described)
    found = metrics(
        "DescribeAlarmsForMetric",
        Namespace="Shop",
        MetricName="Orders",
        Dimensions=dimensions(Kind="a", Region="north"),
        Statistic="Sum",
        Period=60,
    )["MetricAlarms"]
    assert name in {alarm["AlarmName"] for alarm in found}
    now = datetime.now(UTC)
    history = metrics(
        "DescribeAlarmHistory",
        AlarmName=name,
        StartDate=now - timedelta(hours=1),
        EndDate=now + timedelta(minutes=1),
        MaxRecords=100,
    )["AlarmHistoryItems"]
    assert {"StateUpdate", "ConfigurationUpdate"} <= {item["HistoryItemType"] for item in history}
    assert all(item["AlarmName"] == name and item["HistorySummary"] and item["Timestamp"] for item in history)


# ── the dashboard that is delivered ──────────────────────────────────────────────────────────────────────────────────


def test_every_query_of_the_dashboard_is_answered(metrics: WireClient, logs: WireClient, group: str) -> None:
    asked: set[str] = set()
    for panel in json.loads(BOARD.read_text())["panels"]:
        targets = panel.get("targets", ())
        shown = [target for target in targets if target["queryMode"] == "Metrics"]
        if shown:
            found = data(metrics, *(as_asked(target) for target in shown))
            assert not [one for results in found.values() for one in results if one.get("Messages")], panel["title"]
            if panel["title"] in (
                "Files transferred over time",
                "Transfer status",
                "Executions by status",
                "Delivered",
            ):
                assert total([one for results in found.values() for one in results]) >= FILES, panel["title"]
            asked.add("metrics")
        for target in targets:
            if target["queryMode"] == "Logs":
                groups = [
                    name.replace("/aws/transfer/$server", group).replace("$function", "transfer")
                    for name in target["logGroupNames"]
                ]
                rows, _ = query_logs(logs, target["expression"], logGroupNames=groups)
                assert rows or panel["title"] in ("Function errors", "Transfers in the function's log, by hour"), panel[
                    "title"
                ]
                asked.add("logs")
    assert asked == {"metrics", "logs"}


def as_asked(target: dict[str, Any]) -> dict[str, Any]:
    """Return the query that the plugin makes of a panel's target."""
    identifier = f"query{target['refId']}"
    if "*" not in [value for values in target["dimensions"].values() for value in values]:
        single = {name: values[0] for name, values in target["dimensions"].items()}
        query = stat(identifier, target["namespace"], target["metricName"], target["statistic"], **single)
        return {**query, "Label": target["label"]}
    names = ",".join(f'"{name}"' for name in sorted(target["dimensions"]))
    terms = f'{{"{target["namespace"]}",{names}}} MetricName="{target["metricName"]}"'
    return search(identifier, terms, target["label"], target["statistic"])
