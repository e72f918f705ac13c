"""Logs end to end: a real server and boto3; metric filters, a subscribed function, a `_bulk` endpoint, live tails."""

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from tests.acceptance.bulk_receiver import PASSWORD, USER, BulkReceiver
from tests.running import Stack, wait_for

ACCOUNT = "000000000000"
STREAM = f"arn:aws:firehose:us-east-1:{ACCOUNT}:deliverystream/search"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:watcher"

HANDLER = """
import base64, gzip, json

def lambda_handler(event, context):
    data = json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"])))
    for one in data["logEvents"]:
        print("saw", data["logGroup"], data["logStream"], data["subscriptionFilters"], one["message"])
"""

ADDED = """
[functions.watcher]
folder = "functions/watcher"
handler = "handler.lambda_handler"
role = "transfer-function"

[log_deliveries.search]
url = "{url}"
index = "transfers-%Y.%m"
user = "{user}"
password_file = "keys/search"
ca_file = "{ca_file}"
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def search(certificate: Path) -> Iterator[BulkReceiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with BulkReceiver(context) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, search: BulkReceiver, certificate: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("log-delivery") / "stack")
    (made.folder / "functions" / "watcher").mkdir()
    (made.folder / "functions" / "watcher" / "handler.py").write_text(HANDLER)
    (made.folder / "keys" / "search").write_text(PASSWORD + "\n")
    with (made.folder / "stack.toml").open("a") as file:
        file.write(ADDED.format(url=search.url, user=USER, ca_file=certificate))
    with made:
        yield made


@pytest.fixture
def group(stack: Stack, request: pytest.FixtureRequest) -> str:
    name = f"tests/{request.node.name}"[:100].replace("[", "-").replace("]", "")
    stack.client("logs").create_log_group(logGroupName=name)
    return name


def put(stack: Stack, group: str, *messages: str, stream: str = "s") -> None:
    logs = stack.client("logs")
    try:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    now_ms = round(time.time() * 1000)
    events = [{"timestamp": now_ms, "message": message} for message in messages]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def shown(stack: Stack, group: str, pattern: str) -> list[str]:
    """Return the messages of a group that match; none while there is no such group."""
    try:
        found = stack.client("logs").filter_log_events(logGroupName=group, filterPattern=pattern)["events"]
    except ClientError:
        return []
    return [event["message"].strip() for event in found]


def boto(stack: Stack, service: str) -> Any:
    """Return boto3's own client, as a user of AWS has it."""
    key = json.loads((stack.folder / "keys" / "operator.json").read_text())
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=stack.api,
        region_name="us-east-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
        config=Config(inject_host_prefix=False),
    )


def test_a_metric_filter_makes_a_metric(stack: Stack, group: str) -> None:
    logs, cloudwatch = boto(stack, "logs"), boto(stack, "cloudwatch")
    logs.put_metric_filter(
        logGroupName=group,
        filterName="bytes",
        filterPattern='{ $.type = "CLOSE" && $.bytes > 10 }',
        metricTransformations=[
            {
                "metricName": "Bytes",
                "metricNamespace": "Tests",
                "metricValue": "$.bytes",
                "unit": "Bytes",
                "dimensions": {"User": "$.user"},
            }
        ],
    )
    lines = [
        {"type": "CLOSE", "bytes": size, "user": user} for size, user in ((5, "a"), (20, "a"), (22, "a"), (30, "b"))
    ]
    put(stack, group, *map(json.dumps, lines))
    end = datetime.now(UTC) + timedelta(minutes=2)
    request = {
        "Namespace": "Tests",
        "MetricName": "Bytes",
        "Dimensions": [{"Name": "User", "Value": "a"}],
        "StartTime": end - timedelta(minutes=10),
        "EndTime": end,
        "Period": 3600,
        "Statistics": ["Sum", "SampleCount"],
    }
    points = wait_for(lambda: cloudwatch.get_metric_statistics(**request)["Datapoints"], what="the metric's values")
    assert sum(point["Sum"] for point in points) == 42
    assert points[0]["Unit"] == "Bytes"
    (described,) = logs.describe_metric_filters(logGroupName=group)["metricFilters"]
    assert described["metricTransformations"][0]["dimensions"] == {"User": "$.user"}
    tried = logs.test_metric_filter(filterPattern="[w1 = %ERR|WARN%, w2]", logEventMessages=["WARN x", "INFO x"])
    assert tried["matches"][0]["extractedValues"] == {"$w1": "WARN", "$w2": "x"}


def test_a_function_is_called_with_what_matches(stack: Stack, group: str) -> None:
    logs = boto(stack, "logs")
    logs.put_subscription_filter(
        logGroupName=group, filterName="errors", filterPattern="ERROR", destinationArn=FUNCTION
    )
    put(stack, group, "fine", "ERROR one", "ERROR two")

    wait_for(lambda: len(shown(stack, "/aws/lambda/watcher", "saw")) == 2, what="the function's lines")
    assert shown(stack, "/aws/lambda/watcher", "saw") == [f"saw {group} s ['errors'] ERROR {n}" for n in ("one", "two")]
    with pytest.raises(ClientError, match="Could not execute the lambda function"):
        logs.put_subscription_filter(
            logGroupName=group, filterName="x", filterPattern="", destinationArn=FUNCTION.replace("watcher", "nobody")
        )


def test_documents_arrive_once_over_failures_and_a_kill(stack: Stack, group: str, search: BulkReceiver) -> None:
    logs = boto(stack, "logs")
    logs.put_subscription_filter(logGroupName=group, filterName="all", filterPattern="-quiet", destinationArn=STREAM)
    (described,) = logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]
    assert (described["destinationArn"], described["distribution"]) == (STREAM, "ByLogStream")
    search.statuses = {"busy": 429, "broken": 400}
    put(stack, group, "plain", "quiet", "busy", "broken", "grüße")
    wait_for(lambda: len(search.documents) == 3, what="the documents that can be taken")
    assert search.messages == ["busy", "grüße", "plain"]
    assert search.taken.count("plain") == 1, "only what was not taken is sent again"
    (index, document_id), document = next(iter(search.documents.items()))
    assert index == f"transfers-{datetime.now(UTC):%Y.%m}"
    assert (document["@log_group"], document["@log_stream"], document["@owner"]) == (group, "s", ACCOUNT)
    events = logs.filter_log_events(logGroupName=group)["events"]
    assert document_id in {event["eventId"] for event in events}

    told = wait_for(
        lambda: shown(stack, "/entrepot/log-deliveries", '"refused for good: 400"'), what="what is told of it"
    )
    assert group in told[0]
    search.down, before = True, search.requests
    expected = [f"line {number:04d}" for number in range(3_000)]
    for start in range(0, len(expected), 500):
        put(stack, group, *expected[start : start + 500], stream=f"s{start % 3}")
    wait_for(lambda: search.requests > before, what="a request that fails")
    stack.kill()
    search.down = False
    stack.start()
    wait_for(lambda: len(search.documents) == 3_003, what="everything that was stored before the kill")
    assert [message for message in search.messages if message.startswith("line")] == expected
    assert len(search.taken) == len(set(search.taken)), "nothing had been taken before"


def test_a_kill_while_documents_flow_repeats_a_batch_at_most(stack: Stack, group: str, search: BulkReceiver) -> None:
    stack.client("logs").put_subscription_filter(
        logGroupName=group, filterName="all", filterPattern="", destinationArn=STREAM
    )
    search.taken.clear()
    expected = [f"flow {number:05d}" for number in range(12_000)]
    for start in range(0, len(expected), 4_000):
        put(stack, group, *expected[start : start + 4_000])
    wait_for(lambda: search.taken, what="the first documents")
    stack.kill()
    stack.start()
    wait_for(lambda: expected[-1] in search.messages, what="the last document")
    wait_for(lambda: set(search.messages) >= set(expected), what="all documents")
    assert len(search.taken) <= len(expected) + 12_000
    ours = [document for document in search.documents.values() if document["@log_group"] == group]
    assert sorted(document["@message"] for document in ours) == expected, "each is one document"


def test_live_tail_with_boto3(stack: Stack, group: str) -> None:
    logs = boto(stack, "logs")
    arn = next(found["logGroupArn"] for found in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"])
    stream = logs.start_live_tail(logGroupIdentifiers=[arn], logEventFilterPattern="{ $.n >= 2 }")["responseStream"]
    events = iter(stream)
    start = next(events)["sessionStart"]
    assert start["logGroupIdentifiers"] == [arn] and start["logEventFilterPattern"] == "{ $.n >= 2 }"
    put(stack, group, *(json.dumps({"n": number}) for number in range(5)))
    found: list[Any] = []
    for event in events:
        found += event["sessionUpdate"]["sessionResults"]
        if len(found) >= 3:
            break
    stream.close()
    assert [json.loads(one["message"])["n"] for one in found] == [2, 3, 4]
    assert found[0]["logStreamName"] == "s" and found[0]["logGroupIdentifier"] == f"{ACCOUNT}:{group}"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.start_live_tail(logGroupIdentifiers=[arn + "x"])


def test_sessions_that_were_left_make_room(stack: Stack, group: str) -> None:
    logs = boto(stack, "logs")
    arn = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"
    streams = [logs.start_live_tail(logGroupIdentifiers=[arn])["responseStream"] for _ in range(10)]
    for stream in streams:
        stream.close()

    def begun() -> Any:
        try:
            return [logs.start_live_tail(logGroupIdentifiers=[arn])["responseStream"] for _ in range(15)]
        except ClientError:
            return None

    for stream in wait_for(begun, what="room for as many sessions as AWS allows"):
        stream.close()


def test_the_command_follows(stack: Stack, group: str) -> None:
    put(stack, group, "one", "two")
    assert [line.split()[-1] for line in stack.entrepot("logs", group).splitlines()] == ["one", "two"]


def test_a_delivery_that_is_not_configured_is_refused(stack: Stack, group: str, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"log_deliveries\.nowhere"):
        boto(stack, "logs").put_subscription_filter(
            logGroupName=group, filterName="x", filterPattern="", destinationArn=STREAM.replace("search", "nowhere")
        )


def test_the_server_stops_at_once_although_somebody_watches(stack: Stack, group: str) -> None:
    arn = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"
    stream = boto(stack, "logs").start_live_tail(logGroupIdentifiers=[arn])["responseStream"]
    events = iter(stream)
    next(events)
    assert stack.stop(deadline_s=10) == 0
    with pytest.raises(EventStreamError, match="SessionTimeoutException"):
        while True:
            next(events)
    stream.close()
    stack.start()
