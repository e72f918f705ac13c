"""Buses of one's own, queues as targets and for dead letters, tags: EventBridge beside the real SQS."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import Call, Decision, Operations, Principal, WriteOperation
from entrepot.services import events, sqs
from entrepot.services.events.errors import ResourceAlreadyExistsError, ResourceNotFoundError, ValidationError

ACCOUNT = Account()
ROOT = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "r-1")
ANY = json.dumps({"source": [{"prefix": ""}]})


class House:
    """Events and queues on one ledger."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self.database = database
        self.denied: set[str] = set()
        self.failed: list[events.Delivery] = []
        self.operations = Operations(
            database, lambda principal, permission: Decision(permission.action not in self.denied, "test", "test")
        )
        self.events = events.Events(
            database, ACCOUNT, self.operations,
            principal_for_role=lambda arn, name: Principal(arn, "role", name, role_arn=arn),
            service_principal=Principal("events.amazonaws.com", "service", "events.amazonaws.com"),
            on_delivered=lambda tx, delivery: None,
            on_delivery_failed=lambda tx, delivery: self.failed.append(delivery),
        )  # fmt: skip
        self.operations.add("events", events.operations(self.events))
        self.operations.add("sqs", sqs.operations(sqs.SQS(database, ACCOUNT, endpoint_url=lambda: "http://here")))

    async def do(self, name: str, service: str = "events", **request: Any) -> dict[str, Any]:
        return await self.operations.perform(service, name, request, ROOT)

    async def rule(self, name: str, target: dict[str, Any], bus: str = "default", pattern: str = ANY) -> str:
        arn: str = (await self.do("PutRule", Name=name, EventPattern=pattern, EventBusName=bus))["RuleArn"]
        await self.do("PutTargets", Rule=name, EventBusName=bus, Targets=[{"Id": "t", **target}])
        return arn

    async def put(self, bus: str = "default", **detail: Any) -> str:
        entry = {"Source": "shop", "DetailType": "order", "Detail": json.dumps(detail), "EventBusName": bus}
        answer = await self.do("PutEvents", Entries=[entry])
        assert answer["FailedEntryCount"] == 0
        while await self.events.deliver_due() == 0:
            pass
        event_id: str = answer["Entries"][0]["EventId"]
        return event_id

    async def queue(self, name: str, **attributes: str) -> str:
        await self.do("CreateQueue", "sqs", QueueName=name, Attributes=attributes)
        return ACCOUNT.arn("sqs", name)

    async def received(self, name: str) -> list[dict[str, Any]]:
        asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
        url = f"http://here/000000000000/{name}"
        found: list[dict[str, Any]] = (await self.do("ReceiveMessage", "sqs", QueueUrl=url, **asked)).get(
            "Messages", []
        )
        return found


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    try:
        database.migrate((*events.MIGRATIONS, *sqs.MIGRATIONS))
        yield House(database)
    finally:
        await database.close()


async def test_a_bus_has_rules_of_its_own(house: House) -> None:
    arn = (await house.do("CreateEventBus", Name="shop", Description="orders"))["EventBusArn"]
    queue = await house.queue("q")
    rule_arn = await house.rule("r", {"Arn": queue}, bus="shop")
    assert rule_arn == ACCOUNT.arn("events", "rule/shop/r")
    await house.put()
    assert await house.received("q") == []
    event_id = await house.put("shop", n=1)
    (message,) = await house.received("q")
    event = json.loads(message["Body"])
    assert (event["id"], event["detail"]) == (event_id, {"n": 1})
    assert message["Attributes"]["SenderId"] == "events.amazonaws.com"
    shown = await house.do("DescribeEventBus", Name=arn)
    assert (shown["Name"], shown["Description"]) == ("shop", "orders")
    assert [bus["Name"] for bus in (await house.do("ListEventBuses"))["EventBuses"]] == ["default", "shop"]
    with pytest.raises(ValidationError, match="has rules"):
        await house.do("DeleteEventBus", Name="shop")
    await house.do("RemoveTargets", Rule="r", EventBusName="shop", Ids=["t"])
    await house.do("DeleteRule", Name="r", EventBusName="shop")
    await house.do("DeleteEventBus", Name="shop")
    with pytest.raises(ResourceNotFoundError):
        await house.do("DescribeEventBus", Name="shop")


@pytest.mark.parametrize(
    "request_",
    [{"Name": "a/b"}, {"Name": "b", "KmsKeyIdentifier": "k"}, {"Name": "b", "DeadLetterConfig": {"Arn": "a"}}],
)
async def test_a_bus_that_cannot_be_is_refused(house: House, request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await house.do("CreateEventBus", **request_)
    with pytest.raises(ResourceAlreadyExistsError):
        await house.do("CreateEventBus", Name="default")
    with pytest.raises(ValidationError):
        await house.do("DeleteEventBus", Name="default")


async def test_a_bus_is_a_target_and_events_do_not_go_round(house: House) -> None:
    for name in ("a", "b"):
        await house.do("CreateEventBus", Name=name)
        queue = await house.queue(name)
        await house.rule("keep", {"Arn": queue}, bus=name)
    buses = {name: ACCOUNT.arn("events", f"event-bus/{name}") for name in ("a", "b")}
    await house.rule("forward", {"Arn": buses["b"]}, bus="a")
    await house.rule("back", {"Arn": buses["a"]}, bus="b")
    event_id = await house.put("a", n=1)
    for name in ("a", "b"):
        (message,) = await house.received(name)
        assert json.loads(message["Body"])["id"] == event_id, "the event goes to the other bus as it is"
    assert await house.database.read(house.events.count_pending) == 0


async def test_a_bus_target_whose_role_may_not_put_events_fails(house: House) -> None:
    await house.do("CreateEventBus", Name="b")
    await house.rule("r", {"Arn": ACCOUNT.arn("events", "event-bus/b"), "RoleArn": ACCOUNT.iam_arn("role/r")})
    house.denied.add("events:PutEvents")
    event = {"id": "e-1", "source": "shop", "detail-type": "order", "detail": {}}
    await house.database.write(lambda tx: house.events.put_event(tx, event))
    while await house.events.deliver_due() == 0:
        pass
    (failed,) = house.failed
    assert failed.error is not None and failed.error.startswith("AccessDeniedException")


async def test_a_fifo_queue_needs_a_group_and_gets_it(house: House) -> None:
    queue = await house.queue("q.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    with pytest.raises(ValidationError, match="SqsParameters must be specified"):
        await house.rule("r", {"Arn": queue})
    await house.rule("r", {"Arn": queue, "SqsParameters": {"MessageGroupId": "g"}, "InputPath": "$.detail"})
    await house.put(n=1)
    await house.put(n=2)
    found = await house.received("q.fifo")
    assert [(m["Body"], m["Attributes"]["MessageGroupId"]) for m in found] == [('{"n":1}', "g"), ('{"n":2}', "g")]


async def test_what_cannot_be_delivered_goes_to_the_targets_dead_letter_queue(house: House) -> None:
    dead = await house.queue("dead")
    rule_arn = await house.rule("r", {"Arn": ACCOUNT.arn("sqs", "gone"), "DeadLetterConfig": {"Arn": dead}})
    event_id = await house.put(n=1)
    (message,) = await house.received("dead")
    assert json.loads(message["Body"])["id"] == event_id
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["RULE_ARN"] == rule_arn
    assert attributes["TARGET_ARN"] == ACCOUNT.arn("sqs", "gone")
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"
    assert len(house.failed) == 1
    assert await house.database.read(house.events.count_dead_letters) == 0


async def test_a_dead_letter_queue_that_is_gone_loses_nothing(house: House) -> None:
    gone = ACCOUNT.arn("sqs", "gone")
    await house.rule("r", {"Arn": gone, "DeadLetterConfig": {"Arn": ACCOUNT.arn("sqs", "gone-too")}})
    await house.put(n=1)
    assert await house.database.read(house.events.count_dead_letters) == 1


@pytest.mark.parametrize("arn", ["nonsense", ACCOUNT.arn("sqs", "d.fifo"), ACCOUNT.arn("sns", "d")])
async def test_a_dead_letter_queue_is_a_standard_queue(house: House, arn: str) -> None:
    with pytest.raises(ValidationError, match="standard SQS queue"):
        await house.rule("r", {"Arn": ACCOUNT.arn("sqs", "q"), "DeadLetterConfig": {"Arn": arn}})


async def test_rules_and_buses_have_tags(house: House) -> None:
    first = [{"Key": "team", "Value": "files"}]
    bus_arn = (await house.do("CreateEventBus", Name="b", Tags=first))["EventBusArn"]
    rule_arn = (await house.do("PutRule", Name="r", EventPattern=ANY, EventBusName="b", Tags=first))["RuleArn"]
    for arn in (bus_arn, rule_arn):
        assert (await house.do("ListTagsForResource", ResourceARN=arn))["Tags"] == first
        await house.do("TagResource", ResourceARN=arn, Tags=[{"Key": "x", "Value": "y"}])
        await house.do("UntagResource", ResourceARN=arn, TagKeys=["team"])
        assert (await house.do("ListTagsForResource", ResourceARN=arn))["Tags"] == [{"Key": "x", "Value": "y"}]
    await house.do("DeleteRule", Name="r", EventBusName="b")
    with pytest.raises(ResourceNotFoundError):
        await house.do("ListTagsForResource", ResourceARN=rule_arn)


async def test_a_topic_gets_its_event_through_the_gate(house: House) -> None:
    published: list[Any] = []

    def publish(tx: Transaction, request: Any, call: Call) -> dict[str, Any]:
        published.append((request, call.principal.name))
        return {}

    house.operations.add("sns", [WriteOperation("Publish", lambda _: (), publish)])
    arn = ACCOUNT.arn("sns", "t")
    await house.rule("r", {"Arn": arn, "InputPath": "$.detail"})
    await house.put(n=1)
    assert published == [({"TopicArn": arn, "Message": '{"n":1}'}, "events.amazonaws.com")]


async def test_a_fifo_topic_is_refused(house: House) -> None:
    with pytest.raises(ValidationError, match="FIFO topics"):
        await house.rule("r", {"Arn": ACCOUNT.arn("sns", "t.fifo")})


async def test_a_bus_is_not_its_own_target(house: House) -> None:
    with pytest.raises(ValidationError, match="its own target"):
        await house.rule("r", {"Arn": ACCOUNT.arn("events", "event-bus/default")})
