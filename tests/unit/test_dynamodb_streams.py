"""DynamoDB Streams: what is recorded, how it is read, what is left after 24 hours."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Permission, Principal
from entrepot.services import dynamodb
from entrepot.services.dynamodb import DynamoDB

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
DAY_MS = 24 * 3_600_000


@dataclass
class Stack:
    database: SQLiteDatabase
    service: DynamoDB
    operations: Operations
    asked: list[Permission]

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("dynamodb", operation, request, CALL)

    async def streams(self, operation: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("dynamodbstreams", operation, request, CALL)

    async def fails(self, operation: str, code: str, **request: Any) -> str:
        service = "dynamodb" if "Table" in operation else "dynamodbstreams"
        with pytest.raises(AwsError) as raised:
            await self.operations.perform(service, operation, request, CALL)
        assert raised.value.code == code
        return raised.value.message

    async def create(self, view_type: str | None, name: str = "orders") -> str:
        """Create a table; return its stream's ARN."""
        specification = {"StreamEnabled": True, "StreamViewType": view_type} if view_type else {"StreamEnabled": False}
        answer = await self.call(
            "CreateTable",
            TableName=name,
            AttributeDefinitions=[
                {"AttributeName": "id", "AttributeType": "S"},
                {"AttributeName": "at", "AttributeType": "N"},
            ],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification=specification,
        )
        arn: str = answer["TableDescription"].get("LatestStreamArn", "")
        return arn

    async def put(self, number: int, name: str = "orders", **more: Any) -> None:
        await self.call("PutItem", TableName=name, Item={"id": {"S": "a"}, "at": {"N": str(number)}, **more})

    async def delete(self, number: int, name: str = "orders") -> None:
        await self.call("DeleteItem", TableName=name, Key={"id": {"S": "a"}, "at": {"N": str(number)}})

    async def iterator(self, arn: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
        description = (await self.streams("DescribeStream", StreamArn=arn))["StreamDescription"]
        answer = await self.streams(
            "GetShardIterator",
            StreamArn=arn,
            ShardId=description["Shards"][0]["ShardId"],
            ShardIteratorType=kind,
            **more,
        )
        iterator: str = answer["ShardIterator"]
        return iterator

    async def records(self, arn: str, kind: str = "TRIM_HORIZON", **more: Any) -> list[dict[str, Any]]:
        answer = await self.streams("GetRecords", ShardIterator=await self.iterator(arn, kind, **more))
        records: list[dict[str, Any]] = answer["Records"]
        return records


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(dynamodb.MIGRATIONS)
    service = DynamoDB(database, Account(), on_item_changed=lambda tx, *change: None)
    asked: list[Permission] = []

    def authorize(principal: Principal, permission: Permission) -> Decision:
        asked.append(permission)
        return Decision(True, "", "")

    operations = Operations(database, authorize)
    operations.add("dynamodb", dynamodb.operations(service))
    operations.add("dynamodbstreams", dynamodb.stream_operations(service))
    yield Stack(database, service, operations, asked)
    await database.close()


@pytest.mark.parametrize(
    ("view_type", "images"),
    [
        ("KEYS_ONLY", set()),
        ("NEW_IMAGE", {"NewImage"}),
        ("OLD_IMAGE", {"OldImage"}),
        ("NEW_AND_OLD_IMAGES", {"NewImage", "OldImage"}),
    ],
)
async def test_a_record_has_the_images_that_its_view_asks_for(stack: Stack, view_type: str, images: set[str]) -> None:
    arn = await stack.create(view_type)
    await stack.put(1, state={"S": "new"})
    await stack.put(1, state={"S": "paid"})
    await stack.delete(1)
    records = await stack.records(arn)
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    key = {"id": {"S": "a"}, "at": {"N": "1"}}
    modified = records[1]["dynamodb"]
    assert modified["Keys"] == key
    assert modified["StreamViewType"] == view_type
    assert {name for name in modified if name.endswith("Image")} == images
    if "NewImage" in images:
        assert modified["NewImage"] == {**key, "state": {"S": "paid"}}
        assert "NewImage" not in records[2]["dynamodb"]
    if "OldImage" in images:
        assert modified["OldImage"] == {**key, "state": {"S": "new"}}
        assert "OldImage" not in records[0]["dynamodb"]
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))
    assert len({record["eventID"] for record in records}) == 3
    assert all(record["eventSource"] == "aws:dynamodb" and "userIdentity" not in record for record in records)


async def test_what_changes_nothing_or_fails_is_not_recorded(stack: Stack) -> None:
    arn = await stack.create("NEW_IMAGE")
    await stack.put(1, state={"S": "new"})
    await stack.put(1, state={"S": "new"})
    await stack.delete(2)
    key = {"id": {"S": "a"}, "at": {"N": "9"}}
    put = {"Put": {"TableName": "orders", "Item": key}}
    check = {"ConditionCheck": {"TableName": "orders", "Key": {"id": {"S": "b"}, "at": {"N": "1"}},
                                "ConditionExpression": "attribute_exists(id)"}}  # fmt: skip
    with pytest.raises(AwsError):
        await stack.call("TransactWriteItems", TransactItems=[put, check])
    assert len(await stack.records(arn)) == 1


async def test_where_iterators_begin(stack: Stack) -> None:
    arn = await stack.create("KEYS_ONLY")
    await stack.put(1)
    await stack.put(2)
    latest = await stack.iterator(arn, "LATEST")
    await stack.put(3)

    def seen(records: list[dict[str, Any]]) -> list[str]:
        return [record["dynamodb"]["Keys"]["at"]["N"] for record in records]

    everything = await stack.records(arn)
    second = everything[1]["dynamodb"]["SequenceNumber"]
    assert seen(everything) == ["1", "2", "3"]
    assert seen((await stack.streams("GetRecords", ShardIterator=latest))["Records"]) == ["3"]
    assert seen(await stack.records(arn, "AT_SEQUENCE_NUMBER", SequenceNumber=second)) == ["2", "3"]
    assert seen(await stack.records(arn, "AFTER_SEQUENCE_NUMBER", SequenceNumber=second)) == ["3"]


async def test_a_reader_follows_the_shard_and_ends_with_it(stack: Stack) -> None:
    arn = await stack.create("KEYS_ONLY")
    for number in range(5):
        await stack.put(number)
    page = await stack.streams("GetRecords", ShardIterator=await stack.iterator(arn), Limit=3)
    assert len(page["Records"]) == 3
    page = await stack.streams("GetRecords", ShardIterator=page["NextShardIterator"])
    assert len(page["Records"]) == 2
    page = await stack.streams("GetRecords", ShardIterator=page["NextShardIterator"])
    assert page["Records"] == []
    await stack.call("UpdateTable", TableName="orders", StreamSpecification={"StreamEnabled": False})
    page = await stack.streams("GetRecords", ShardIterator=page["NextShardIterator"])
    assert page == {"Records": []}
    description = (await stack.streams("DescribeStream", StreamArn=arn))["StreamDescription"]
    assert description["StreamStatus"] == "DISABLED"
    assert "EndingSequenceNumber" in description["Shards"][0]["SequenceNumberRange"]


async def test_an_answer_is_bounded_in_bytes(stack: Stack) -> None:
    arn = await stack.create("NEW_IMAGE")
    for number in range(4):
        await stack.put(number, text={"S": "x" * 390_000})
    page = await stack.streams("GetRecords", ShardIterator=await stack.iterator(arn))
    assert len(page["Records"]) == 3
    assert len((await stack.streams("GetRecords", ShardIterator=page["NextShardIterator"]))["Records"]) == 1


async def test_streams_come_and_go_with_updates_of_the_table(stack: Stack) -> None:
    assert await stack.create(None) == ""
    await stack.put(1)
    view = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    first = (await stack.call("UpdateTable", TableName="orders", StreamSpecification=view))["TableDescription"]
    assert first["StreamSpecification"] == view
    await stack.put(2)
    assert len(await stack.records(first["LatestStreamArn"])) == 1
    assert "already has an enabled stream" in await stack.fails(
        "UpdateTable", "ValidationException", TableName="orders", StreamSpecification=view
    )
    await stack.call("UpdateTable", TableName="orders", StreamSpecification={"StreamEnabled": False})
    table = (await stack.call("DescribeTable", TableName="orders"))["Table"]
    assert "StreamSpecification" not in table
    assert table["LatestStreamArn"] == first["LatestStreamArn"]
    off = {"StreamEnabled": False}
    await stack.fails("UpdateTable", "ValidationException", TableName="orders", StreamSpecification=off)
    await stack.put(3)
    second = (await stack.call("UpdateTable", TableName="orders", StreamSpecification=view))["TableDescription"]
    assert second["LatestStreamArn"] != first["LatestStreamArn"]
    await stack.put(4)
    assert len(await stack.records(first["LatestStreamArn"])) == 1
    assert len(await stack.records(second["LatestStreamArn"])) == 1
    listed = await stack.streams("ListStreams", TableName="orders", Limit=1)
    assert [one["StreamArn"] for one in listed["Streams"]] == [first["LatestStreamArn"]]
    rest = await stack.streams(
        "ListStreams", TableName="orders", ExclusiveStartStreamArn=listed["LastEvaluatedStreamArn"]
    )
    assert [one["StreamLabel"] for one in rest["Streams"]] == [second["LatestStreamLabel"]]


async def test_a_deleted_tables_stream_can_be_read_for_a_day(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = await stack.create("OLD_IMAGE")
    await stack.put(1)
    await stack.call("DeleteTable", TableName="orders")
    assert len(await stack.records(arn)) == 1
    later_ms = clock.now_ms() + DAY_MS + 1
    monkeypatch.setattr(clock, "now_ms", lambda: later_ms)
    await stack.service.sweep()
    await stack.service.sweep()
    assert (await stack.streams("ListStreams"))["Streams"] == []
    await stack.fails("DescribeStream", "ResourceNotFoundException", StreamArn=arn)


async def test_records_are_kept_for_a_day(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = await stack.create("KEYS_ONLY")
    await stack.put(1)
    await stack.put(2)
    number = (await stack.records(arn))[0]["dynamodb"]["SequenceNumber"]
    begun_ms = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: begun_ms + DAY_MS - 60_000)
    await stack.service.sweep()
    iterator = (await stack.streams("GetRecords", ShardIterator=await stack.iterator(arn), Limit=1))[
        "NextShardIterator"
    ]
    await stack.put(3)
    monkeypatch.setattr(clock, "now_ms", lambda: begun_ms + DAY_MS + 1)
    await stack.service.sweep()
    assert [record["dynamodb"]["Keys"]["at"]["N"] for record in await stack.records(arn)] == ["3"]
    await stack.fails("GetRecords", "TrimmedDataAccessException", ShardIterator=iterator)
    assert "AT_SEQUENCE" not in await stack.fails(
        "GetShardIterator",
        "TrimmedDataAccessException",
        StreamArn=arn,
        ShardId=(await stack.streams("DescribeStream", StreamArn=arn))["StreamDescription"]["Shards"][0]["ShardId"],
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        SequenceNumber=number,
    )
    await stack.put(4)
    assert len(await stack.records(arn)) == 2


async def test_an_iterator_lives_for_a_quarter_of_an_hour(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = await stack.iterator(await stack.create("KEYS_ONLY"))
    later_ms = clock.now_ms() + 15 * 60_000 + 1
    monkeypatch.setattr(clock, "now_ms", lambda: later_ms)
    await stack.fails("GetRecords", "ExpiredIteratorException", ShardIterator=iterator)


@pytest.mark.parametrize(
    "text", ["x", "||", "arn|1|x", "arn|1|WzEsMl0", "arn|2|WzEsMl0=", "arn|1|W10=", "a|1|WzEsMl0="]
)
async def test_a_forged_iterator_is_refused(stack: Stack, text: str) -> None:
    code = "ExpiredIteratorException" if text == "a|1|WzEsMl0=" else "ValidationException"
    await stack.fails("GetRecords", code, ShardIterator=text)


async def test_reading_needs_a_permission_on_the_stream(stack: Stack) -> None:
    arn = await stack.create("KEYS_ONLY")
    iterator = await stack.iterator(arn)
    stack.asked.clear()
    await stack.streams("GetRecords", ShardIterator=iterator)
    assert [(one.action, one.resource) for one in stack.asked] == [("dynamodb:GetRecords", arn)]


async def test_a_table_without_a_stream_writes_no_record(stack: Stack) -> None:
    await stack.create(None)
    await stack.put(1)
    count = await stack.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM dynamodb_stream_record"))
    assert count == (0,)
