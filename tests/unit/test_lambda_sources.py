"""Queues and DynamoDB streams that invoke functions: batches, filters, failures, and where reading goes on."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot import clock
from entrepot.services.events import EventPattern
from entrepot.services.lambda_ import stream_poller
from entrepot.services.lambda_.batches import compile_filters, item_failures
from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.invocation import Invocation
from tests.unit.lambda_site import ARN, HandlerError, Site, site, until

QUEUE = "arn:aws:sqs:us-east-1:000000000000:queue"


@pytest.fixture
async def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(stream_poller, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(stream_poller, "SHARDS_INTERVAL_S", 0.1)
    monkeypatch.setattr(stream_poller, "RETRY_PAUSE_S", 0.01)
    async with site(tmp_path) as made:
        await made.create()
        yield made


async def map_queue(at: Site, **members: Any) -> dict[str, Any]:
    await at.queue("queue", **members.pop("attributes", {}))
    request = {"FunctionName": "demo", "EventSourceArn": QUEUE, **members}
    return await at.do("CreateEventSourceMapping", **request)


def records(at: Site) -> list[Any]:
    return [record for _, _, event in at.invocations for record in event["Records"]]


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_messages_arrive_in_awss_shape_and_are_deleted(at: Site) -> None:
    await map_queue(at)
    await at.send("queue", "héllo", MessageAttributes={
        "text": {"DataType": "String", "StringValue": "x"}, "bytes": {"DataType": "Binary", "BinaryValue": b"\0"},
    })  # fmt: skip

    async def is_empty() -> bool:
        return bool(at.invocations) and await at.count("queue") == 0

    await until(is_empty)
    (record,) = records(at)
    assert set(record) == {
        "messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody", "md5OfMessageAttributes",
        "eventSource", "eventSourceARN", "awsRegion",
    }  # fmt: skip
    assert (record["body"], record["eventSource"], record["eventSourceARN"]) == ("héllo", "aws:sqs", QUEUE)
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["messageAttributes"] == {
        "text": {"stringValue": "x", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
        "bytes": {"binaryValue": "AA==", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
    }
    assert ("demo", "sqs:DeleteMessage", QUEUE) in at.asked, "the function's role reads the queue"


async def test_a_window_gathers_a_large_batch(at: Site) -> None:
    await map_queue(at, BatchSize=25, MaximumBatchingWindowInSeconds=5)
    await asyncio.gather(*(at.send("queue", str(number)) for number in range(25)))
    await until(lambda: len(records(at)) == 25)
    assert max(len(event["Records"]) for _, _, event in at.invocations) > 10


async def test_what_failed_stays_and_what_succeeded_goes(at: Site) -> None:
    await map_queue(
        at, FunctionResponseTypes=["ReportBatchItemFailures"], BatchSize=10, attributes={"VisibilityTimeout": "4"}
    )

    def fail_odd(event: Any, *_: Any) -> Any:
        return {
            "batchItemFailures": [
                {"itemIdentifier": record["messageId"]} for record in event["Records"] if int(record["body"]) % 2
            ]
        }

    at.handlers["demo"] = fail_odd
    for number in range(4):
        await at.send("queue", str(number))

    async def are_two_left() -> bool:
        return len(records(at)) >= 4 and await at.count("queue") == 2

    await until(are_two_left)
    at.handlers["demo"] = lambda event, *_: {"batchItemFailures": []}

    async def is_empty() -> bool:
        return await at.count("queue") == 0

    await until(is_empty, 15)
    assert sorted(record["body"] for record in records(at)) == ["0", "1", "1", "2", "3", "3"]


async def test_a_function_that_fails_leads_to_the_queues_dead_letters(at: Site) -> None:
    dead = await at.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 1})
    await at.do("UpdateFunctionConfiguration", FunctionName="demo", Timeout=1)
    mapping = await map_queue(at, attributes={"VisibilityTimeout": "1", "RedrivePolicy": policy})

    def fail(*_: Any) -> None:
        raise HandlerError("no")

    at.handlers["demo"] = fail
    await at.send("queue", "poison")
    assert [message["Body"] for message in await at.messages("dead")] == ["poison"]
    assert len(at.invocations) == 1 and mapping["State"] == "Creating"


async def test_filters_drop_messages(at: Site) -> None:
    pattern = json.dumps({"body": {"kind": ["order"], "amount": [{"numeric": [">", 10]}]}})
    await map_queue(at, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    for body in ('{"kind":"order","amount":11}', '{"kind":"order","amount":1}', "no json", "[]"):
        await at.send("queue", body)

    async def is_empty() -> bool:
        return await at.count("queue") == 0

    await until(is_empty)
    assert [json.loads(record["body"])["amount"] for record in records(at)] == [11]


async def test_groups_of_a_fifo_queue_stay_in_order(at: Site) -> None:
    await at.queue("queue.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    await at.do("CreateEventSourceMapping", FunctionName="demo", EventSourceArn=QUEUE + ".fifo", BatchSize=2)
    for number in range(6):
        await at.send("queue.fifo", f"{number % 2}-{number}", MessageGroupId=str(number % 2))
    await until(lambda: len(records(at)) == 6)
    for group in "01":
        order = [record["body"] for record in records(at) if record["attributes"]["MessageGroupId"] == group]
        assert order == sorted(order) and len(order) == 3
    assert len({record["attributes"]["SequenceNumber"] for record in records(at)}) == 6


async def test_a_mapping_from_creation_to_deletion(at: Site) -> None:
    created = await map_queue(at, ScalingConfig={"MaximumConcurrency": 2}, Tags={"a": "b"})
    uuid = created["UUID"]
    assert (created["State"], created["BatchSize"], created["FunctionArn"]) == ("Creating", 10, ARN)
    assert (await at.do("GetEventSourceMapping", UUID=uuid))["State"] == "Enabled"
    same = {"FunctionName": "demo", "EventSourceArn": QUEUE}
    assert await at.code_of("CreateEventSourceMapping", **same) == "ResourceConflictException"
    assert (await at.do("ListTags", Resource=created["EventSourceMappingArn"]))["Tags"] == {"a": "b"}
    listed = await at.do("ListEventSourceMappings", FunctionName="demo", EventSourceArn=QUEUE)
    assert [mapping["UUID"] for mapping in listed["EventSourceMappings"]] == [uuid]
    assert (await at.do("UpdateEventSourceMapping", UUID=uuid, Enabled=False, BatchSize=3))["State"] == "Updating"
    changed = await at.do("GetEventSourceMapping", UUID=uuid)
    assert (changed["State"], changed["BatchSize"], changed["ScalingConfig"]) == (
        "Disabled", 3, {"MaximumConcurrency": 2},
    )  # fmt: skip
    await at.send("queue", "waits")
    await at.do("UpdateEventSourceMapping", UUID=uuid, Enabled=True)
    await until(lambda: bool(at.invocations))
    assert (await at.do("DeleteEventSourceMapping", UUID=uuid))["State"] == "Deleting"
    assert await at.code_of("GetEventSourceMapping", UUID=uuid) == "ResourceNotFoundException"
    assert (await at.do("ListEventSourceMappings"))["EventSourceMappings"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"EventSourceArn": "nonsense"},
        {"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/x"},
        {"EventSourceArn": QUEUE + "-lost"},
        {"BatchSize": 0},
        {"BatchSize": 11},
        {"MaximumBatchingWindowInSeconds": 301},
        {"StartingPosition": "LATEST"},
        {"ScalingConfig": {"MaximumConcurrency": 1}},
        {"FilterCriteria": {"Filters": [{"Pattern": "{"}]}},
        {"FilterCriteria": {"Filters": [{"Pattern": '{"body": "x"}'}]}},
        {"Topics": ["x"]},
        {"MetricsConfig": {"Metrics": ["EventCount"]}},
        {"FunctionName": "nobody"},
    ],
    ids=str,
)
async def test_mappings_that_are_refused(at: Site, change: dict[str, Any]) -> None:
    await at.queue()
    request = {"FunctionName": "demo", "EventSourceArn": QUEUE, **change}
    refused = await at.code_of("CreateEventSourceMapping", **request)
    assert refused in ("InvalidParameterValueException", "ValidationException", "ResourceNotFoundException")
    assert (await at.do("ListEventSourceMappings"))["EventSourceMappings"] == []


async def test_a_role_without_rights_makes_no_mapping(at: Site) -> None:
    at.denied.add("sqs:ReceiveMessage")
    with pytest.raises(Exception, match="role"):
        await map_queue(at)
    at.denied.clear()
    await at.do("SetQueueAttributes", "sqs", QueueUrl="queue", Attributes={"VisibilityTimeout": "1"})
    request = {"FunctionName": "demo", "EventSourceArn": QUEUE}
    assert await at.code_of("CreateEventSourceMapping", **request) == "InvalidParameterValueException"


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def table(at: Site) -> str:
    description = await at.do(
        "CreateTable", "dynamodb", TableName="orders", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    arn: str = description["TableDescription"]["LatestStreamArn"]
    return arn


async def put(at: Site, *keys: str) -> None:
    for key in keys:
        item = {"id": {"S": key}, "data": {"B": b"\xff"}, "n": {"N": "1"}}
        await at.do("PutItem", "dynamodb", TableName="orders", Item=item)


async def map_stream(at: Site, arn: str, position: str = "TRIM_HORIZON", **members: Any) -> dict[str, Any]:
    request = {"FunctionName": "demo", "EventSourceArn": arn, "StartingPosition": position, **members}
    return await at.do("CreateEventSourceMapping", **request)


def keys(at: Site) -> list[str]:
    return [record["dynamodb"]["Keys"]["id"]["S"] for record in records(at)]


async def test_changes_of_items_arrive_in_awss_shape_and_in_order(at: Site) -> None:
    arn = await table(at)
    await put(at, "a")
    await map_stream(at, arn)
    await put(at, "a", "b")
    await at.do("DeleteItem", "dynamodb", TableName="orders", Key={"id": {"S": "a"}})
    await until(lambda: len(records(at)) >= 3)
    assert keys(at) == ["a", "b", "a"], "an item put again as it was is no change"
    record = records(at)[0]
    assert set(record) == {
        "eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN",
    }  # fmt: skip
    assert (record["eventName"], record["eventSource"], record["eventSourceARN"]) == ("INSERT", "aws:dynamodb", arn)
    change = record["dynamodb"]
    assert change["NewImage"]["data"] == {"B": base64.b64encode(b"\xff").decode()}
    assert isinstance(change["ApproximateCreationDateTime"], int) and change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert records(at)[2]["eventName"] == "REMOVE"


async def test_reading_goes_on_where_it_was_after_a_start(at: Site) -> None:
    arn = await table(at)
    await map_stream(at, arn)
    await put(at, "a", "b")
    await until(lambda: len(records(at)) == 2)
    position = "SELECT count(*) FROM lambda_event_source_position WHERE sequence_number <> ''"
    await until(lambda: _one(at, position))
    await at.lambda_.event_sources.stop()
    await put(at, "c")
    again = at.make()
    await again.event_sources.start()
    await until(lambda: len(records(at)) == 3)
    await again.event_sources.stop()
    assert keys(at) == ["a", "b", "c"]


async def _one(at: Site, sql: str) -> bool:
    row = await at.database.read(lambda reader: reader.one(sql))
    return bool(row and row[0])


async def test_latest_begins_with_what_comes_after_the_mapping(at: Site) -> None:
    arn = await table(at)
    await put(at, "old")
    await map_stream(at, arn, "LATEST")
    await until(lambda: sum(action == "dynamodb:GetRecords" for _, action, _ in at.asked) >= 2)  # one asks the mapping
    await put(at, "new")
    await until(lambda: bool(at.invocations))
    assert keys(at) == ["new"]


async def test_a_batch_is_split_until_the_culprit_is_alone_and_told_of(at: Site) -> None:
    arn, failed = await table(at), await at.queue("failed")
    await put(at, *"abcdefgh")

    def refuse_e(event: Any, configuration: FunctionConfiguration, invocation: Invocation) -> None:
        if any(record["dynamodb"]["Keys"]["id"]["S"] == "e" for record in event["Records"]):
            raise HandlerError("e")

    at.handlers["demo"] = refuse_e
    await map_stream(at, arn, BisectBatchOnFunctionError=True, MaximumRetryAttempts=1,
                     DestinationConfig={"OnFailure": {"Destination": failed}})  # fmt: skip
    (message,) = await at.messages("failed")
    await until(lambda: keys(at)[-1] == "h")
    batches = [[r["dynamodb"]["Keys"]["id"]["S"] for r in event["Records"]] for _, _, event in at.invocations]
    assert batches == [list("abcdefgh"), list("abcd"), list("efgh"), list("ef"), ["e"], ["e"], ["f"], list("gh")]
    told = json.loads(message["Body"])
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 2
    assert told["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    info = told["DDBStreamBatchInfo"]
    assert (info["batchSize"], info["streamArn"]) == (1, arn)
    assert info["startSequenceNumber"] == info["endSequenceNumber"]


async def test_what_the_function_reports_is_where_it_goes_on(at: Site) -> None:
    arn = await table(at)
    await put(at, *"abcd")
    tries: list[str] = []

    def report_c_once(event: Any, *_: Any) -> Any:
        numbers = {r["dynamodb"]["Keys"]["id"]["S"]: r["dynamodb"]["SequenceNumber"] for r in event["Records"]}
        tries.append("".join(numbers))
        failed = [{"itemIdentifier": numbers["c"]}] if len(tries) == 1 else []
        return {"batchItemFailures": failed}

    at.handlers["demo"] = report_c_once
    await map_stream(at, arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    await until(lambda: len(tries) == 2)
    assert tries == ["abcd", "cd"]


async def test_old_records_are_given_up_and_filters_pass_over(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    arn, failed = await table(at), await at.queue("failed")
    await put(at, "old")
    real, ahead_ms = clock.now_ms, 3_600_000
    monkeypatch.setattr(clock, "now_ms", lambda: real() + ahead_ms)
    await put(at, "x", "y")
    pattern = json.dumps({"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"S": ["old", "y"]}}}})
    await map_stream(at, arn, MaximumRecordAgeInSeconds=60, FilterCriteria={"Filters": [{"Pattern": pattern}]},
                     DestinationConfig={"OnFailure": {"Destination": failed}})  # fmt: skip
    told = json.loads((await at.messages("failed"))[0]["Body"])
    assert told["requestContext"]["condition"] == "RecordAgeExceeded"
    await until(lambda: bool(at.invocations))
    assert keys(at) == ["y"]


@pytest.mark.parametrize(
    "members",
    [
        {"StartingPosition": "AT_TIMESTAMP"},
        {"StartingPosition": None},
        {"ParallelizationFactor": 2},
        {"TumblingWindowInSeconds": 5},
        {"MaximumRetryAttempts": -2},
        {"MaximumRecordAgeInSeconds": 5},
        {"ScalingConfig": {"MaximumConcurrency": 2}},
        {"EventSourceArn": "arn:aws:dynamodb:us-east-1:000000000000:table/lost/stream/2026-11-23T00:00:00.000"},
    ],
    ids=str,
)
async def test_mappings_of_streams_that_are_refused(at: Site, members: dict[str, Any]) -> None:
    arn = await table(at)
    request = {"FunctionName": "demo", "EventSourceArn": arn, "StartingPosition": "LATEST", **members}
    refused = await at.code_of("CreateEventSourceMapping", **request)
    assert refused in ("InvalidParameterValueException", "ValidationException")


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", b'"text"', b'{"batchItemFailures":null}', b"[1]"])
def test_answers_that_say_all_went_well(payload: bytes) -> None:
    assert item_failures(payload, ["a", "b"]) == set()


@pytest.mark.parametrize(
    "failures", ["x", [1], [{}], [{"itemIdentifier": ""}], [{"itemIdentifier": "c"}], [{"id": "a"}]]
)
def test_answers_that_say_nothing_went_well(failures: Any) -> None:
    assert item_failures(json.dumps({"batchItemFailures": failures}).encode(), ["a", "b"]) is None


@given(st.binary(max_size=200))
def test_no_answer_of_a_function_breaks_the_poller(payload: bytes) -> None:
    assert item_failures(payload, ["a"]) in (set(), None, {"a"})


@given(st.text(max_size=50))
def test_no_body_breaks_a_filter(body: str) -> None:
    passes = compile_filters(['{"body": {"a": [1]}}'], lambda text: EventPattern.parse(text).matches)
    assert not passes({"body": body})
    assert passes({"body": '{"a": 1}'})
    text = compile_filters(['{"body": ["plain"]}'], lambda text: EventPattern.parse(text).matches)
    assert text({"body": "plain"}) and text({"body": body}) == (body == "plain")
