"""DynamoDB's work in the background: Time to Live, and global secondary indexes that come and go."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import dynamodb
from entrepot.services.dynamodb import DynamoDB
from entrepot.services.dynamodb import dynamodb as room

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders"


class Site:
    def __init__(self, folder: Path) -> None:
        self.database = SQLiteDatabase(folder / "ledger.db")
        self.database.migrate(dynamodb.MIGRATIONS)
        self.changes: list[tuple[Any, ...]] = []
        self.service = DynamoDB(
            self.database, Account(), on_item_changed=lambda tx, *change: self.changes.append(change)
        )
        self.operations = Operations(self.database, lambda principal, permission: Decision(True, "", ""))
        self.operations.add("dynamodb", dynamodb.operations(self.service))
        self.operations.add("dynamodbstreams", dynamodb.stream_operations(self.service))

    async def call(self, operation: str, service: str = "dynamodb", **request: Any) -> dict[str, Any]:
        return await self.operations.perform(service, operation, request, CALL)

    async def fails(self, operation: str, code: str, **request: Any) -> str:
        with pytest.raises(AwsError) as raised:
            await self.call(operation, **request)
        assert raised.value.code == code
        return raised.value.message

    async def create(self, **more: Any) -> dict[str, Any]:
        answer = await self.call(
            "CreateTable",
            TableName="orders",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}, *more.pop("attributes", [])],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            **more,
        )
        table: dict[str, Any] = answer["TableDescription"]
        return table

    async def put(self, key: str, **attributes: Any) -> None:
        await self.call("PutItem", TableName="orders", Item={"id": {"S": key}, **attributes})

    async def expire_by(self, attribute: str, *, enabled: bool = True) -> None:
        specification = {"AttributeName": attribute, "Enabled": enabled}
        await self.call("UpdateTimeToLive", TableName="orders", TimeToLiveSpecification=specification)

    async def ids(self) -> set[str]:
        return {item["id"]["S"] for item in (await self.call("Scan", TableName="orders"))["Items"]}

    async def entries(self) -> int:
        row = await self.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM dynamodb_index_entry"))
        assert row is not None
        return int(row[0])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.service.stop()
    await made.database.close()


def at(offset_s: float) -> dict[str, str]:
    """A moment as seconds from now."""
    return {"N": str(clock.now_ms() // 1000 + int(offset_s))}


# ── Time to Live ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_items_expire(site: Site) -> None:
    await site.create()
    await site.put("before", ttl=at(-10))
    await site.expire_by("ttl")
    await site.put("past", ttl=at(-10))
    await site.put("future", ttl=at(3600))
    await site.put("text", ttl={"S": "1"})
    await site.put("ancient", ttl=at(-6 * 365 * 86_400))
    await site.put("never")
    await site.put("extended", ttl=at(-10))
    await site.put("extended", ttl=at(3600))
    await site.put("shortened", ttl=at(3600))
    await site.put("shortened", ttl=at(-1))
    await site.service.sweep()
    assert await site.ids() == {"future", "text", "ancient", "never", "extended"}
    assert {change[1]["id"]["S"] for change in site.changes if change[3] is None} == {"before", "past", "shortened"}


async def test_what_expires_is_recorded_as_the_services_doing(site: Site) -> None:
    table = await site.create(StreamSpecification={"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"})
    await site.expire_by("ttl")
    await site.put("past", ttl=at(-10))
    await site.put("deleted")
    await site.call("DeleteItem", TableName="orders", Key={"id": {"S": "deleted"}})
    await site.service.sweep()
    arn = table["LatestStreamArn"]
    shard = (await site.call("DescribeStream", "dynamodbstreams", StreamArn=arn))["StreamDescription"]["Shards"][0]
    iterator = await site.call(
        "GetShardIterator", "dynamodbstreams", StreamArn=arn, ShardId=shard["ShardId"],
        ShardIteratorType="TRIM_HORIZON",
    )  # fmt: skip
    records = (await site.call("GetRecords", "dynamodbstreams", **iterator))["Records"]
    removed = {
        one["dynamodb"]["Keys"]["id"]["S"]: one.get("userIdentity") for one in records if one["eventName"] == "REMOVE"
    }
    assert removed == {"deleted": None, "past": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}}


async def test_time_to_live_is_switched_on_and_off(site: Site) -> None:
    await site.create()
    assert (await site.call("DescribeTimeToLive", TableName="orders"))["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "DISABLED"
    }
    await site.expire_by("ttl")
    await site.put("past", ttl=at(-10))
    assert (await site.call("DescribeTimeToLive", TableName="orders"))["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "ttl",
    }
    twice = {"AttributeName": "ttl", "Enabled": True}
    assert "already enabled" in await site.fails(
        "UpdateTimeToLive", "ValidationException", TableName="orders", TimeToLiveSpecification=twice
    )
    other = {"AttributeName": "other", "Enabled": False}
    assert "different AttributeName" in await site.fails(
        "UpdateTimeToLive", "ValidationException", TableName="orders", TimeToLiveSpecification=other
    )
    await site.expire_by("ttl", enabled=False)
    await site.service.sweep()
    assert await site.ids() == {"past"}
    assert await site.entries() == 0
    await site.expire_by("ttl")
    await site.service.sweep()
    assert await site.ids() == set()


async def test_many_items_expire_in_small_steps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EXPIRED_ITEMS", 3)
    monkeypatch.setattr(room, "INDEXED_ITEMS", 2)
    await site.create()
    for number in range(10):
        await site.put(str(number), ttl=at(-10))
    await site.expire_by("ttl")
    await site.service.sweep()
    assert await site.ids() == set()
    assert await site.entries() == 0


# ── indexes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def index(name: str, key: str) -> dict[str, Any]:
    return {
        "IndexName": name,
        "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }


async def queried(site: Site, name: str, key: str, value: str) -> set[str]:
    answer = await site.call(
        "Query", TableName="orders", IndexName=name, KeyConditionExpression="#k = :v",
        ExpressionAttributeNames={"#k": key}, ExpressionAttributeValues={":v": {"S": value}},
    )  # fmt: skip
    return {item["id"]["S"] for item in answer["Items"]}


async def add_index(site: Site, name: str, key: str) -> dict[str, Any]:
    answer = await site.call(
        "UpdateTable", TableName="orders", AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": index(name, key)}],
    )  # fmt: skip
    table: dict[str, Any] = answer["TableDescription"]
    return table


async def test_an_index_is_built_while_items_change(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "INDEXED_ITEMS", 2)
    await site.create()
    for number in range(6):
        await site.put(str(number), state={"S": "new"})
    await site.put("no-text", state={"N": "1"})
    table = await add_index(site, "by-state", "state")
    (shape,) = table["GlobalSecondaryIndexes"]
    assert (shape["IndexStatus"], shape["Backfilling"]) == ("CREATING", True)
    request = {"TableName": "orders", "IndexName": "by-state"}
    assert "backfilling" in await site.fails("Scan", "ValidationException", **request)
    await site.put("0", state={"S": "paid"})
    await site.call("DeleteItem", TableName="orders", Key={"id": {"S": "5"}})
    await site.put("6", state={"S": "new"})
    await site.service.sweep()
    assert await queried(site, "by-state", "state", "new") == {"1", "2", "3", "4", "6"}
    assert await queried(site, "by-state", "state", "paid") == {"0"}
    assert await site.entries() == 6
    (shape,) = (await site.call("DescribeTable", TableName="orders"))["Table"]["GlobalSecondaryIndexes"]
    assert shape["IndexStatus"] == "ACTIVE"


async def test_an_index_goes_and_the_others_stay(site: Site) -> None:
    attributes = [{"AttributeName": name, "AttributeType": "S"} for name in ("state", "owner")]
    await site.create(
        attributes=attributes, GlobalSecondaryIndexes=[index("by-state", "state"), index("by-owner", "owner")]
    )
    await site.put("a", state={"S": "new"}, owner={"S": "me"})
    delete = [{"Delete": {"IndexName": "by-state"}}]
    answer = await site.call("UpdateTable", TableName="orders", GlobalSecondaryIndexUpdates=delete)
    table = answer["TableDescription"]
    assert [one["IndexName"] for one in table["GlobalSecondaryIndexes"]] == ["by-owner"]
    assert {one["AttributeName"] for one in table["AttributeDefinitions"]} == {"id", "owner"}
    await site.put("b", state={"S": "new"}, owner={"S": "me"})
    await site.service.sweep()
    assert await queried(site, "by-owner", "owner", "me") == {"a", "b"}
    assert await site.entries() == 2
    await add_index(site, "by-state", "state")
    await site.service.sweep()
    assert await queried(site, "by-state", "state", "new") == {"a", "b"}


async def test_changes_of_indexes_that_are_refused(site: Site) -> None:
    await site.create()
    await add_index(site, "by-state", "state")

    async def fails(code: str, *updates: dict[str, Any], attribute: str = "owner") -> None:
        definitions = [{"AttributeName": attribute, "AttributeType": "S"}]
        await site.fails(
            "UpdateTable", code, TableName="orders", AttributeDefinitions=definitions,
            GlobalSecondaryIndexUpdates=list(updates),
        )  # fmt: skip

    await fails("ResourceInUseException", {"Create": index("by-owner", "owner")})
    await site.service.sweep()
    await fails("ValidationException", {"Create": index("by-state", "state")}, attribute="state")
    await fails("ResourceNotFoundException", {"Delete": {"IndexName": "none"}})
    await fails("LimitExceededException", {"Create": index("a11", "owner")}, {"Delete": {"IndexName": "by-state"}})
    await fails("ValidationException", {"Create": index("by-owner", "owner")}, attribute="other")
    await fails("ValidationException", {})
    assert len((await site.call("DescribeTable", TableName="orders"))["Table"]["GlobalSecondaryIndexes"]) == 1


async def test_a_table_that_is_deleted_leaves_no_work(site: Site) -> None:
    await site.create()
    await site.put("a", ttl=at(-10), state={"S": "x"})
    await site.expire_by("ttl")
    await add_index(site, "by-state", "state")
    await site.call("DeleteTable", TableName="orders")
    await site.service.sweep()
    assert await site.entries() == 0
    assert await site.database.read(lambda reader: reader.one("SELECT 1 FROM dynamodb_index_work")) is None


async def test_the_background_task_is_woken(site: Site) -> None:
    await site.create()
    await site.put("past", ttl=at(-10))
    await site.service.start()
    await site.expire_by("ttl")
    deadline_s = clock.monotonic_s() + 3  # less than the interval
    while await site.ids():
        assert clock.monotonic_s() < deadline_s
        await asyncio.sleep(0.005)


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tags(site: Site) -> None:
    await site.create(Tags=[{"Key": "team", "Value": "a"}])
    await site.call("TagResource", ResourceArn=ARN, Tags=[{"Key": "cost", "Value": "1"}])
    await site.call("UntagResource", ResourceArn=ARN, TagKeys=["team"])
    assert (await site.call("ListTagsOfResource", ResourceArn=ARN))["Tags"] == [{"Key": "cost", "Value": "1"}]
    many = [{"Key": str(number), "Value": ""} for number in range(50)]
    await site.fails("TagResource", "ValidationException", ResourceArn=ARN, Tags=many)
    await site.fails("ListTagsOfResource", "ResourceNotFoundException", ResourceArn=ARN + "x")
