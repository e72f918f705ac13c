"""SNS: topics, subscriptions, and what reaches queues."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.errors import AwsError
from tests.unit.sns_site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


async def fails(site: Site, code: str, operation: str, **request: Any) -> str:
    with pytest.raises(AwsError) as raised:
        await site.call(operation, **request)
    assert raised.value.code == code, raised.value.message
    return raised.value.message


async def test_the_life_of_a_topic(site: Site) -> None:
    arn = await site.topic("orders", DisplayName="Orders")
    assert arn == "arn:aws:sns:us-east-1:000000000000:orders"
    assert await site.topic("orders") == arn
    await fails(site, "InvalidParameter", "CreateTopic", Name="orders", Attributes={"DisplayName": "Others"})
    attributes = (await site.call("GetTopicAttributes", TopicArn=arn))["Attributes"]
    assert attributes["DisplayName"] == "Orders"
    assert attributes["SubscriptionsConfirmed"] == "0"
    assert json.loads(attributes["Policy"])["Statement"][0]["Sid"] == "__default_statement_ID"
    assert json.loads(attributes["EffectiveDeliveryPolicy"])["http"]["defaultHealthyRetryPolicy"]["numRetries"] == 3
    assert (await site.call("ListTopics"))["Topics"] == [{"TopicArn": arn}]
    await site.call("DeleteTopic", TopicArn=arn)
    await site.call("DeleteTopic", TopicArn=arn)
    await fails(site, "NotFound", "GetTopicAttributes", TopicArn=arn)


async def test_topics_are_listed_in_pages(site: Site) -> None:
    for number in range(101):
        await site.topic(f"t{number:03d}")
    first = await site.call("ListTopics")
    assert len(first["Topics"]) == 100
    rest = await site.call("ListTopics", NextToken=first["NextToken"])
    assert len(rest["Topics"]) == 1
    assert "NextToken" not in rest


@pytest.mark.parametrize("name", ["", "a b", "a" * 257, "a.fifo", "ä"])
async def test_a_name_that_is_none_is_refused(site: Site, name: str) -> None:
    await fails(site, "InvalidParameter", "CreateTopic", Name=name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DisplayName", "x" * 101),
        ("DisplayName", "a\nb"),
        ("SignatureVersion", "3"),
        ("ContentBasedDeduplication", "true"),
        ("KmsMasterKeyId", "alias/aws/sns"),
        ("DeliveryPolicy", "{"),
        ("DeliveryPolicy", '{"http":{"defaultHealthyRetryPolicy":{"numRetries":101}}}'),
        ("DeliveryPolicy", '{"http":{"defaultHealthyRetryPolicy":{"minDelayTarget":30,"maxDelayTarget":20}}}'),
        ("DeliveryPolicy", '{"http":{"defaultHealthyRetryPolicy":{"numRetries":1,"numNoDelayRetries":2}}}'),
        ("DeliveryPolicy", '{"http":{"x":1}}'),
        ("Policy", "{}"),
        ("Policy", '{"Statement":{"Effect":"Allow","Action":"SNS:Publish","Resource":"*"}}'),
    ],
)
async def test_attributes_that_cannot_be_are_refused(site: Site, name: str, value: str) -> None:
    arn = await site.topic()
    await fails(site, "InvalidParameter", "SetTopicAttributes", TopicArn=arn, AttributeName=name, AttributeValue=value)


async def test_tags(site: Site) -> None:
    arn = await site.topic()
    tags = [{"Key": "team", "Value": "a"}, {"Key": "cost", "Value": "1"}]
    await site.call("TagResource", ResourceArn=arn, Tags=tags)
    await site.call("UntagResource", ResourceArn=arn, TagKeys=["cost"])
    assert (await site.call("ListTagsForResource", ResourceArn=arn))["Tags"] == [{"Key": "team", "Value": "a"}]
    await fails(
        site,
        "TagLimitExceeded",
        "TagResource",
        ResourceArn=arn,
        Tags=[{"Key": f"k{n}", "Value": ""} for n in range(51)],
    )
    await fails(site, "ResourceNotFound", "ListTagsForResource", ResourceArn=arn + "x")


async def test_permissions_are_statements_of_the_policy(site: Site) -> None:
    arn = await site.topic()
    request = {"TopicArn": arn, "Label": "them", "AWSAccountId": ["111122223333"], "ActionName": ["Publish"]}
    await site.call("AddPermission", **request)
    await fails(site, "InvalidParameter", "AddPermission", **request)
    policy = json.loads((await site.call("GetTopicAttributes", TopicArn=arn))["Attributes"]["Policy"])
    assert policy["Statement"][1] == {
        "Sid": "them",
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam::111122223333:root"]},
        "Action": ["SNS:Publish"],
        "Resource": arn,
    }
    site.asked.clear()
    await site.call("Publish", TopicArn=arn, Message="x")
    assert site.asked[0].action == "sns:Publish"
    assert "them" in site.asked[0].resource_policy
    await site.call("RemovePermission", TopicArn=arn, Label="them")
    await fails(site, "NotFound", "RemovePermission", TopicArn=arn, Label="them")


# ── to queues ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_queue_gets_the_notification_with_the_publish(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    subscription = await site.subscribe(topic, "sqs", queue)
    attributes = {
        "kind": {"DataType": "String", "StringValue": "a"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    published = await site.call("Publish", TopicArn=topic, Message="grüße", Subject="Hi", MessageAttributes=attributes)
    (message,) = await site.received("q")
    body = json.loads(message["Body"])
    assert message["Body"].startswith('{\n  "Type" : "Notification",')
    assert body["MessageId"] == published["MessageId"]
    assert (body["Message"], body["Subject"], body["TopicArn"]) == ("grüße", "Hi", topic)
    assert body["MessageAttributes"]["raw"] == {"Type": "Binary", "Value": "AP8="}
    assert body["UnsubscribeURL"].endswith(f"Action=Unsubscribe&SubscriptionArn={subscription}")
    assert await site.count("sns_delivery") == 0
    assert await site.count("sns_message") == 0


async def test_raw_delivery_brings_the_message_alone(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    await site.subscribe(topic, "sqs", queue, RawMessageDelivery="true")
    attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
    await site.call("Publish", TopicArn=topic, Message="{}", MessageAttributes=attributes)
    (message,) = await site.received("q")
    assert message["Body"] == "{}"
    assert message["MessageAttributes"] == attributes


async def test_a_missing_queue_does_not_fail_the_publish(site: Site) -> None:
    topic, dead = await site.topic(), await site.queue("dead")
    await site.subscribe(
        topic, "sqs", site.account.arn("sqs", "none"), RedrivePolicy=json.dumps({"deadLetterTargetArn": dead})
    )
    await site.call("Publish", TopicArn=topic, Message="x")
    (message,) = await site.received("dead")
    assert json.loads(message["Body"])["Message"] == "x"
    assert "given up; the message is in" in site.lines[0]


async def test_a_publish_that_fails_sends_nothing(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    await site.subscribe(topic, "sqs", queue)
    entries = [{"Id": "a", "Message": "x"}, {"Id": "b", "Message": ""}]
    answer = await site.call("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=entries)
    assert [one["Id"] for one in answer["Successful"]] == ["a"]
    assert [(one["Id"], one["Code"]) for one in answer["Failed"]] == [("b", "InvalidParameter")]
    assert len(await site.received("q")) == 1


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([], "EmptyBatchRequest"),
        ([{"Id": str(n), "Message": "x"} for n in range(11)], "TooManyEntriesInBatchRequest"),
        ([{"Id": "a", "Message": "x"}] * 2, "BatchEntryIdsNotDistinct"),
        ([{"Id": "a b", "Message": "x"}], "InvalidBatchEntryId"),
        ([{"Id": "a", "Message": "x" * 200_000}, {"Id": "b", "Message": "x" * 70_000}], "BatchRequestTooLong"),
    ],
)
async def test_batches_that_are_refused(site: Site, entries: list[dict[str, str]], code: str) -> None:
    await fails(site, code, "PublishBatch", TopicArn=await site.topic(), PublishBatchRequestEntries=entries)


@pytest.mark.parametrize(
    "request_",
    [
        {"Message": ""},
        {"Message": "x" * 262_145},
        {"Message": "x", "Subject": ""},
        {"Message": "x", "Subject": "a\r\nBcc: b@example.com"},
        {"Message": "x", "Subject": "s" * 100},
        {"Message": "x", "MessageStructure": "xml"},
        {"Message": "x", "MessageStructure": "json"},
        {"Message": '{"sqs":"x"}', "MessageStructure": "json"},
        {"Message": "x", "MessageDeduplicationId": "a"},
        {"Message": "x", "PhoneNumber": "+41"},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "Date", "StringValue": "b"}}},
        {"Message": "x", "MessageAttributes": {"a..b": {"DataType": "String", "StringValue": "b"}}},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "NaN"}}},
    ],
)
async def test_messages_that_are_refused(site: Site, request_: dict[str, Any]) -> None:
    code = "ParameterValueInvalid" if "MessageAttributes" in request_ else "InvalidParameter"
    await fails(site, code, "Publish", TopicArn=await site.topic(), **request_)


async def test_the_structure_json_has_a_text_for_each_protocol(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    await site.subscribe(topic, "sqs", queue, RawMessageDelivery="true")
    for document in ({"default": "d", "sqs": "s"}, {"default": "d", "http": "h"}):
        await site.call("Publish", TopicArn=topic, Message=json.dumps(document), MessageStructure="json")
    assert [message["Body"] for message in await site.received("q")] == ["s", "d"]


# ── FIFO ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_fifo_topic_keeps_the_order_and_knows_a_message_again(site: Site) -> None:
    topic = await site.topic("o.fifo", FifoTopic="true", ContentBasedDeduplication="true")
    queue = await site.queue("q.fifo", FifoQueue="true")
    await site.subscribe(topic, "sqs", queue, RawMessageDelivery="true")
    answers = [
        await site.call("Publish", TopicArn=topic, Message=text, MessageGroupId="g") for text in ("1", "2", "1", "3")
    ]
    assert answers[0] == answers[2]
    numbers = [answer["SequenceNumber"] for answer in (answers[0], answers[1], answers[3])]
    assert numbers == sorted(numbers)
    assert all(len(number) == 20 for number in numbers)
    received = await site.received("q.fifo")
    assert [message["Body"] for message in received] == ["1", "2", "3"]
    assert received[0]["Attributes"]["MessageGroupId"] == "g"
    await fails(site, "InvalidParameter", "Publish", TopicArn=topic, Message="x")


async def test_fifo_and_standard_do_not_mix(site: Site) -> None:
    fifo_queue = await site.queue("q.fifo", FifoQueue="true")
    topic, fifo = await site.topic(), await site.topic("o.fifo", FifoTopic="true")
    await fails(site, "InvalidParameter", "Subscribe", TopicArn=topic, Protocol="sqs", Endpoint=fifo_queue)
    await fails(site, "InvalidParameter", "Subscribe", TopicArn=fifo, Protocol="https", Endpoint="https://a.example/")
    await fails(site, "InvalidParameter", "Publish", TopicArn=fifo, Message="x", MessageGroupId="g")


# ── subscriptions ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("protocol", "endpoint"),
    [
        ("sms", "+41"),
        ("sqs", "http://127.0.0.1/q"),
        ("lambda", "arn:aws:sqs:us-east-1:000000000000:q"),
        ("https", "http://a.example/"),
        ("https", "https://a.example/\r\nX: y"),
        ("email", "a@b.example, c@d.example"),
        ("email", "a@b.example\nBcc: x@y.example"),
        ("email", "nobody"),
        ("https", ""),
    ],
)
async def test_endpoints_that_are_none_are_refused(site: Site, protocol: str, endpoint: str) -> None:
    await fails(
        site, "InvalidParameter", "Subscribe", TopicArn=await site.topic(), Protocol=protocol, Endpoint=endpoint
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FilterPolicy", "["),
        ("FilterPolicy", '{"a":"b"}'),
        ("FilterPolicy", '{"a":{"b":["c"]}}'),
        ("FilterPolicy", '{"a":[{"like":"b"}]}'),
        ("FilterPolicy", json.dumps({f"k{n}": ["v"] for n in range(6)})),
        ("FilterPolicy", json.dumps({"a": list(map(str, range(151)))})),
        ("FilterPolicyScope", "Body"),
        ("RawMessageDelivery", "yes"),
        ("RedrivePolicy", '{"deadLetterTargetArn":"q"}'),
        ("DeliveryPolicy", "{}"),
        ("SubscriptionRoleArn", "arn:aws:iam::000000000000:role/r"),
    ],
)
async def test_subscription_attributes_that_cannot_be_are_refused(site: Site, name: str, value: str) -> None:
    topic = await site.topic()
    arn = await site.subscribe(topic, "sqs", await site.queue("q"))
    request = {"SubscriptionArn": arn, "AttributeName": name, "AttributeValue": value}
    await fails(site, "InvalidParameter", "SetSubscriptionAttributes", **request)


async def test_the_life_of_a_subscription(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    arn = await site.subscribe(topic, "sqs", queue)
    assert await site.subscribe(topic, "sqs", queue) == arn
    await fails(
        site,
        "InvalidParameter",
        "Subscribe",
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=queue,
        Attributes={"RawMessageDelivery": "true"},
    )
    (listed,) = (await site.call("ListSubscriptionsByTopic", TopicArn=topic))["Subscriptions"]
    assert listed == {
        "SubscriptionArn": arn,
        "Owner": "000000000000",
        "Protocol": "sqs",
        "Endpoint": queue,
        "TopicArn": topic,
    }
    assert (await site.call("ListSubscriptions"))["Subscriptions"] == [listed]
    await site.call(
        "SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="true"
    )
    attributes = (await site.call("GetSubscriptionAttributes", SubscriptionArn=arn))["Attributes"]
    assert attributes["RawMessageDelivery"] == "true"
    assert attributes["PendingConfirmation"] == "false"
    await site.call("Unsubscribe", SubscriptionArn=arn)
    await fails(site, "NotFound", "Unsubscribe", SubscriptionArn=arn)
    assert (await site.call("ListSubscriptions"))["Subscriptions"] == []


async def test_who_subscribes_a_queue_must_be_allowed_to_send_to_it(site: Site) -> None:
    topic, queue = await site.topic(), await site.queue("q")
    site.denied.add("sqs:SendMessage")
    await fails(site, "AccessDeniedException", "Subscribe", TopicArn=topic, Protocol="sqs", Endpoint=queue)


async def test_an_endpoint_that_is_reached_by_a_link_must_confirm(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await site.topic()
    answer = await site.call("Subscribe", TopicArn=topic, Protocol="https", Endpoint="https://a.example/")
    assert answer["SubscriptionArn"] == "pending confirmation"
    (listed,) = (await site.call("ListSubscriptions"))["Subscriptions"]
    assert listed["SubscriptionArn"] == "PendingConfirmation"
    arn = await site.subscribe(topic, "https", "https://a.example/")
    await fails(site, "InvalidParameter", "ConfirmSubscription", TopicArn=topic, Token="x" * 64)
    confirmed = await site.call("ConfirmSubscription", TopicArn=topic, Token=await site.token(arn))
    assert confirmed["SubscriptionArn"] == arn
    pending = await site.subscribe(topic, "https", "https://b.example/")
    from entrepot import clock

    later_ms = clock.now_ms() + 48 * 3_600_000 + 1
    monkeypatch.setattr(clock, "now_ms", lambda: later_ms)
    await fails(site, "InvalidParameter", "ConfirmSubscription", TopicArn=topic, Token=await site.token(pending))
    await site.sns.sweep()
    assert [one["SubscriptionArn"] for one in (await site.call("ListSubscriptions"))["Subscriptions"]] == [arn]
