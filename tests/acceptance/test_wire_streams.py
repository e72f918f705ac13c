"""DynamoDB Streams and Time to Live through the real endpoint, with boto3."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services import dynamodb
from tests.acceptance.wire_endpoint import RunningEndpoint
from tests.running import wait_for


class StreamsEndpoint(RunningEndpoint):
    """The endpoint with the real DynamoDB, which also works in the background."""

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self._folder = folder

    async def _serve(self) -> None:
        self.database = SQLiteDatabase(self._folder / "ledger.db")
        self.database.migrate(dynamodb.MIGRATIONS)
        made = dynamodb.DynamoDB(self.database, Account(), on_item_changed=lambda tx, *change: None)
        self._fakes = {
            "dynamodb": dynamodb.operations(made),
            "dynamodbstreams": dynamodb.stream_operations(made),
        }
        await made.start()
        try:
            await super()._serve()
        finally:
            await made.stop()
            await asyncio.shield(self.database.close())


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamsEndpoint]:
    with StreamsEndpoint(tmp_path_factory.mktemp("streams")) as running:
        yield running


def create(client: Any, name: str) -> str:
    answer = client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    arn: str = answer["TableDescription"]["LatestStreamArn"]
    return arn


def read(streams: Any, arn: str) -> list[dict[str, Any]]:
    """Read the whole stream as a stock reader does."""
    found: list[dict[str, Any]] = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = streams.get_records(ShardIterator=iterator, Limit=2)
            if not page["Records"]:
                break
            found += page["Records"]
            iterator = page.get("NextShardIterator")
    return found


def test_a_stock_reader_sees_every_change_in_order(endpoint: StreamsEndpoint) -> None:
    client, streams = endpoint.client("dynamodb"), endpoint.client("dynamodbstreams")
    arn = create(client, "orders")
    client.put_item(TableName="orders", Item={"id": {"S": "a"}, "raw": {"B": b"\x00\xff"}, "tags": {"SS": ["x", "y"]}})
    client.update_item(
        TableName="orders", Key={"id": {"S": "a"}}, UpdateExpression="SET n = :n",
        ExpressionAttributeValues={":n": {"N": "1.50"}},
    )  # fmt: skip
    client.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": "orders", "Item": {"id": {"S": "b"}}}},
            {"Delete": {"TableName": "orders", "Key": {"id": {"S": "a"}}}},
        ]
    )
    client.batch_write_item(RequestItems={"orders": [{"DeleteRequest": {"Key": {"id": {"S": "b"}}}}]})
    records = read(streams, arn)
    seen = [(one["eventName"], one["dynamodb"]["Keys"]["id"]["S"]) for one in records]
    assert seen == [("INSERT", "a"), ("MODIFY", "a"), ("INSERT", "b"), ("REMOVE", "a"), ("REMOVE", "b")]
    change = records[1]["dynamodb"]
    assert change["OldImage"]["raw"] == {"B": b"\x00\xff"}
    assert change["NewImage"]["n"] == {"N": "1.5"}
    assert change["ApproximateCreationDateTime"].microsecond == 0
    assert change["SizeBytes"] > 0
    assert [one["TableName"] for one in streams.list_streams(TableName="orders")["Streams"]] == ["orders"]


def test_errors_have_awss_codes(endpoint: StreamsEndpoint) -> None:
    streams = endpoint.client("dynamodbstreams")
    missing = "arn:aws:dynamodb:us-east-1:000000000000:table/none/stream/2026-01-01T00:00:00.000"
    with pytest.raises(streams.exceptions.ResourceNotFoundException):
        streams.describe_stream(StreamArn=missing)
    with pytest.raises(ClientError) as raised:
        streams.get_records(ShardIterator="nonsense")
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    endpoint.denied.add("dynamodb:GetRecords")
    with pytest.raises(ClientError) as raised:
        streams.get_records(ShardIterator=f"{missing}|1|WzAsMV0=")
    assert raised.value.response["Error"]["Code"] == "AccessDeniedException"
    endpoint.denied.clear()


def test_an_expired_item_is_removed_by_the_service(endpoint: StreamsEndpoint) -> None:
    client, streams = endpoint.client("dynamodb"), endpoint.client("dynamodbstreams")
    arn = create(client, "sessions")
    client.put_item(TableName="sessions", Item={"id": {"S": "old"}, "ttl": {"N": str(clock.now_ms() // 1000 - 5)}})
    specification = {"Enabled": True, "AttributeName": "ttl"}
    assert client.update_time_to_live(TableName="sessions", TimeToLiveSpecification=specification)
    assert client.describe_time_to_live(TableName="sessions")["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    wait_for(lambda: client.scan(TableName="sessions")["Count"] == 0, what="the removal")
    assert read(streams, arn)[-1]["userIdentity"] == {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}


def test_an_index_is_added_as_boto3_waits_for_it(endpoint: StreamsEndpoint) -> None:
    client = endpoint.client("dynamodb")
    create(client, "files")
    for number in range(30):
        client.put_item(TableName="files", Item={"id": {"S": str(number)}, "state": {"S": f"s{number % 3}"}})
    client.update_table(
        TableName="files",
        AttributeDefinitions=[{"AttributeName": "state", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "by-state",
                    "KeySchema": [{"AttributeName": "state", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            }
        ],
    )

    def active() -> bool:
        (index,) = client.describe_table(TableName="files")["Table"]["GlobalSecondaryIndexes"]
        return bool(index["IndexStatus"] == "ACTIVE")

    wait_for(active, what="the index")
    found = client.query(
        TableName="files", IndexName="by-state", KeyConditionExpression="#s = :s",
        ExpressionAttributeNames={"#s": "state"}, ExpressionAttributeValues={":s": {"S": "s1"}},
    )  # fmt: skip
    assert found["Count"] == 10
    assert set(found["Items"][0]) == {"id", "state"}
