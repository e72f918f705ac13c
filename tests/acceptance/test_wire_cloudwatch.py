"""CloudWatch's three wire forms, with requests written by hand and by botocore's serializers, against a real server."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from tests.acceptance.wire_client import RefusedError, WireClient
from tests.running import Stack

PROTOCOLS = ("query", "json", "smithy-rpc-v2-cbor")
FORM = "application/x-www-form-urlencoded; charset=utf-8"
XML = "{http://monitoring.amazonaws.com/doc/2010-08-01/}"
TARGET = "GraniteServiceVersion20100801"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(Path(tmp_path_factory.mktemp("wire")) / "stack") as running:
        yield running


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, stack: Stack) -> WireClient:
    return WireClient(stack, "cloudwatch", request.param)


def minute() -> datetime:
    """Return the last whole minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def test_values_go_in_and_come_out(client: WireClient, request: pytest.FixtureRequest) -> None:
    namespace, at = f"Wire/{request.node.name}", minute()
    dimensions = [{"Name": "Füße & <more>", "Value": "ä+b c"}]
    client(
        "PutMetricData",
        Namespace=namespace,
        MetricData=[
            {"MetricName": "m", "Dimensions": dimensions, "Value": 1.5, "Timestamp": at, "Unit": "Count"},
            {"MetricName": "m", "Dimensions": dimensions, "Values": [2.0, 4.0], "Counts": [1.0, 2.0], "Timestamp": at},
        ],
    )
    stat = {"Metric": {"Namespace": namespace, "MetricName": "m", "Dimensions": dimensions}, "Period": 60}
    answer = client(
        "GetMetricData",
        MetricDataQueries=[
            {"Id": "a", "MetricStat": {**stat, "Stat": "Sum"}, "ReturnData": True},
            {"Id": "b", "Expression": "a * 2", "Label": "twice", "ReturnData": True},
            {"Id": "c", "MetricStat": {**stat, "Stat": "SampleCount"}, "ReturnData": False},
        ],
        StartTime=at - timedelta(minutes=5),
        EndTime=at + timedelta(minutes=5),
        ScanBy="TimestampAscending",
    )
    results = {one["Id"]: one for one in answer["MetricDataResults"]}
    assert set(results) == {"a", "b"}
    assert results["a"]["Values"] == [11.5] and results["b"]["Values"] == [23.0]
    assert results["a"]["Timestamps"] == [at] and results["b"]["Label"] == "twice"
    assert results["a"]["StatusCode"] == "Complete"
    (listed,) = client("ListMetrics", Namespace=namespace)["Metrics"]
    assert listed == {"Namespace": namespace, "MetricName": "m", "Dimensions": dimensions}


def test_alarms_are_described(client: WireClient, request: pytest.FixtureRequest) -> None:
    name = f"alarm {request.node.name}"
    client(
        "PutMetricAlarm",
        AlarmName=name,
        Namespace="Wire",
        MetricName="m",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=3,
        DatapointsToAlarm=2,
        Threshold=0.5,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
        ActionsEnabled=False,
    )
    (alarm,) = client("DescribeAlarms", AlarmNames=[name], MaxRecords=10)["MetricAlarms"]
    assert (alarm["AlarmName"], alarm["Threshold"], alarm["EvaluationPeriods"]) == (name, 0.5, 3)
    assert alarm["ActionsEnabled"] is False and alarm["AlarmActions"] == []
    assert isinstance(alarm["StateUpdatedTimestamp"], datetime)


def test_an_error_has_its_code_in_every_form(client: WireClient) -> None:
    with pytest.raises(RefusedError) as caught:
        client("GetDashboard", DashboardName="none")
    assert caught.value.status in (400, 404)
    assert caught.value.code in ("ResourceNotFound", "DashboardNotFoundError")
    with pytest.raises(RefusedError) as refused:
        client("GetMetricWidgetImage", MetricWidget="{}")
    assert refused.value.status == 501 and "GetMetricWidgetImage" in refused.value.message


def test_the_query_form_as_an_older_sdk_sends_it(stack: Stack) -> None:
    client, at = WireClient(stack, "cloudwatch", "query"), minute()
    common = {"Version": "2010-08-01", "Namespace": "Hand/Query"}

    def send(**members: str) -> ElementTree.Element:
        status, headers, content = client.send("/", {"Content-Type": FORM}, urlencode({**common, **members}))
        assert status == 200 and headers["content-type"].startswith("text/xml"), content
        return ElementTree.fromstring(content)

    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    send(
        Action="PutMetricData",
        **{
            "MetricData.member.1.MetricName": "m",
            "MetricData.member.1.Timestamp": stamp,
            "MetricData.member.1.StatisticValues.SampleCount": "2",
            "MetricData.member.1.StatisticValues.Sum": "3",
            "MetricData.member.1.StatisticValues.Minimum": "1",
            "MetricData.member.1.StatisticValues.Maximum": "2",
        },
    )
    query = {
        "Version": "2010-08-01",
        "Action": "GetMetricData",
        "StartTime": stamp,
        "EndTime": (at + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "MetricDataQueries.member.1.Id": "m1",
        "MetricDataQueries.member.1.ReturnData": "true",
        "MetricDataQueries.member.1.MetricStat.Stat": "Average",
        "MetricDataQueries.member.1.MetricStat.Period": "60",
        "MetricDataQueries.member.1.MetricStat.Metric.Namespace": "Hand/Query",
        "MetricDataQueries.member.1.MetricStat.Metric.MetricName": "m",
    }
    status, _, content = client.send("/", {"Content-Type": FORM}, urlencode(query))
    assert status == 200, content
    document = ElementTree.fromstring(content)
    assert document.tag == f"{XML}GetMetricDataResponse"
    values = [float(one.text or "") for one in document.iterfind(f".//{XML}Values/{XML}member")]
    times = [one.text for one in document.iterfind(f".//{XML}Timestamps/{XML}member")]
    assert values == [1.5] and [time[:19] for time in times if time] == [stamp[:19]]
    alarms = send(Action="DescribeAlarms", **{"AlarmTypes.member.1": "MetricAlarm"})
    assert alarms.find(f"{XML}DescribeAlarmsResult/{XML}MetricAlarms") is not None


def test_the_json_form_by_hand(stack: Stack) -> None:
    client, at = WireClient(stack, "cloudwatch", "json"), minute()

    def send(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"{TARGET}.{operation}"}
        status, _, content = client.send("/", headers, json.dumps(document))
        assert status == 200, content
        answer: dict[str, Any] = json.loads(content or b"{}")
        return answer

    send("PutMetricData", {"Namespace": "Hand/JSON", "MetricData": [{"MetricName": "m", "Value": 4}]})
    answer = send(
        "GetMetricData",
        {
            "StartTime": at.timestamp() - 120,
            "EndTime": at.timestamp() + 180,
            "MetricDataQueries": [
                {"Id": "q", "Expression": "SEARCH('{\"Hand/JSON\"} MetricName=\"m\"', 'Maximum', 60)"}
            ],
        },
    )
    (result,) = answer["MetricDataResults"]
    assert result["Values"] == [4.0] and all(isinstance(time, int | float) for time in result["Timestamps"])
    assert "MetricAlarms" in send("DescribeAlarms", {})


def test_the_cbor_form_by_hand(stack: Stack) -> None:
    client = WireClient(stack, "cloudwatch", "smithy-rpc-v2-cbor")
    headers = {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor", "Accept": "application/cbor"}
    path = f"/service/{TARGET}/operation/"
    # {"Namespace": "Hand/CBOR", "MetricData": [{"MetricName": "m", "Value": 2.5}]} with lengths that are not given ahead.
    body = (
        b"\xbf\x69Namespace\x69Hand/CBOR\x6aMetricData\x9f\xbf\x6aMetricName\x61m\x65Value\xfb"
        + b"\x40\x04\x00\x00\x00\x00\x00\x00"
        + b"\xff\xff\xff"
    )
    status, answered, content = client.send(f"{path}PutMetricData", headers, body)
    assert status == 200 and answered["smithy-protocol"] == "rpc-v2-cbor", content
    status, answered, content = client.send(f"{path}ListMetrics", headers, b"\xa1\x69Namespace\x69Hand/CBOR")
    assert status == 200 and answered["content-type"] == "application/cbor"
    assert b"MetricName\x61m" in content
