"""SQS: queues and messages on a real ledger."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.services.sqs import contents, errors, receiving
from tests.unit.sqs_site import Site, site


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with site(tmp_path, monkeypatch) as made:
        yield made


async def test_a_message_is_seen_once_until_its_visibility_runs_out_and_not_after_it_is_deleted(house: Site) -> None:
    url = await house.create()
    sent = await house.send(url, "hello")
    assert sent["MD5OfMessageBody"] == hashlib.md5(b"hello").hexdigest()
    (first,) = await house.receive(url)
    assert (first["MessageId"], first["Body"]) == (sent["MessageId"], "hello")
    assert first["Attributes"]["ApproximateReceiveCount"] == "1"
    assert first["Attributes"]["SenderId"] == "000000000000"
    assert await house.receive(url) == []
    assert await house.counts(url) == ("0", "1", "0")
    house.at_ms += 30_000
    (second,) = await house.receive(url)
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert await house.counts(url) == ("0", "1", "0"), "the handle of an earlier receive deletes nothing"
    await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    house.at_ms += 60_000
    assert await house.receive(url) == []
    assert await house.counts(url) == ("0", "0", "0")


async def test_a_delayed_message_comes_later_and_the_queues_delay_is_the_default(house: Site) -> None:
    url = await house.create(DelaySeconds="10")
    await house.send(url, "late", DelaySeconds=60)
    await house.send(url, "queue's")
    await house.send(url, "now", DelaySeconds=0)
    assert await house.counts(url) == ("1", "0", "2")
    assert await house.bodies(url) == ["now"]
    house.at_ms += 10_000
    assert await house.bodies(url) == ["queue's"]
    house.at_ms += 50_000
    assert "late" in await house.bodies(url)


async def test_visibility_can_be_changed_up_to_twelve_hours(house: Site) -> None:
    url = await house.create()
    await house.send(url, "a")
    (message,) = await house.receive(url)
    handle = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await house.do("ChangeMessageVisibility", **handle, VisibilityTimeout=100)
    house.at_ms += 99_999
    assert await house.receive(url) == []
    with pytest.raises(errors.InvalidParameterValue, match="beyond the limit"):
        await house.do("ChangeMessageVisibility", **handle, VisibilityTimeout=43_200)
    await house.do("ChangeMessageVisibility", **handle, VisibilityTimeout=0)
    with pytest.raises(errors.MessageNotInflight):
        await house.do("ChangeMessageVisibility", **handle, VisibilityTimeout=5)
    assert await house.bodies(url) == ["a"]


async def test_what_is_received_too_often_becomes_a_dead_letter(house: Site) -> None:
    dead = await house.create("dead")
    policy = json.dumps({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": "2"})
    url = await house.create(RedrivePolicy=policy)
    sent = await house.send(url, "poison", MessageAttributes={"a": {"DataType": "String", "StringValue": "x"}})
    for _ in range(2):
        assert await house.bodies(url, VisibilityTimeout=1) == ["poison"]
        house.at_ms += 1_000
    assert await house.receive(url) == []
    (letter,) = await house.receive(dead)
    assert letter["MessageId"] == sent["MessageId"]
    assert letter["Attributes"]["DeadLetterQueueSourceArn"] == "arn:aws:sqs:us-east-1:000000000000:q"
    assert letter["MessageAttributes"]["a"]["StringValue"] == "x"
    assert await house.counts(url) == ("0", "0", "0")
    listed = await house.do("ListDeadLetterSourceQueues", QueueUrl=dead)
    assert listed["queueUrls"] == [url]


async def test_a_fifo_group_waits_for_its_message_in_flight_and_others_do_not(house: Site) -> None:
    url = await house.create("q.fifo", ContentBasedDeduplication="true")
    for body in ("a1", "a2", "b1", "a3"):
        await house.send(url, body, MessageGroupId=body[0])
    (first,) = await house.receive(url, 1)
    assert first["Body"] == "a1"
    (second,) = await house.receive(url)
    assert second["Body"] == "b1"
    assert await house.receive(url) == []
    await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert await house.bodies(url) == ["a2", "a3"]
    house.at_ms += 30_000
    assert sorted(await house.bodies(url)) == ["a2", "a3", "b1"]
    with pytest.raises(errors.InvalidParameterValue, match="has expired"):
        await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])


async def test_a_fifo_queue_takes_the_same_message_once_in_five_minutes(house: Site) -> None:
    url = await house.create("q.fifo")
    entry = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first, again = await house.send(url, "one", **entry), await house.send(url, "two", **entry)
    assert (first["MessageId"], first["SequenceNumber"]) == (again["MessageId"], again["SequenceNumber"])
    assert await house.counts(url) == ("1", "0", "0")
    house.at_ms += 300_000
    later = await house.send(url, "three", **entry)
    assert later["SequenceNumber"] > first["SequenceNumber"]
    assert await house.bodies(url) == ["one", "three"]
    with pytest.raises(errors.InvalidParameterValue, match="ContentBasedDeduplication"):
        await house.send(url, "no id", MessageGroupId="g")
    with pytest.raises(errors.MissingParameter, match="MessageGroupId"):
        await house.send(url, "no group")


async def test_the_scope_of_deduplication_can_be_the_group(house: Site) -> None:
    url = await house.create("q.fifo", DeduplicationScope="messageGroup")
    for group in ("g", "h", "g"):
        await house.send(url, group, MessageGroupId=group, MessageDeduplicationId="d")
    assert await house.bodies(url) == ["g", "h"]


async def test_one_attempt_asked_twice_gets_the_same_messages(house: Site) -> None:
    url = await house.create("q.fifo", ContentBasedDeduplication="true")
    await house.send(url, "a", MessageGroupId="g")
    first = await house.receive(url, ReceiveRequestAttemptId="try")
    house.at_ms += 20_000
    assert await house.receive(url, ReceiveRequestAttemptId="try") == first
    house.at_ms += 20_000
    assert await house.receive(url) == [], "the repeated attempt began the time-out anew"
    assert await house.receive(url, ReceiveRequestAttemptId="other") == []


async def test_a_long_poll_ends_when_a_message_arrives(house: Site) -> None:
    url = await house.create()
    waiting = asyncio.create_task(house.receive(url, WaitTimeSeconds=20))
    while not house.sqs._waiting:
        await asyncio.sleep(0)
    await house.send(url, "here")
    (message,) = await asyncio.wait_for(waiting, 5)
    assert message["Body"] == "here"
    assert not house.sqs._waiting


async def test_a_message_commits_with_the_transaction_that_sends_it(house: Site) -> None:
    url = await house.create()

    def work(tx: Any) -> None:
        from tests.unit.sqs_site import ROOT

        house.operations.transact(tx, "sqs", "SendMessage", {"QueueUrl": url, "MessageBody": "never"}, ROOT)
        raise RuntimeError("the state was not committed")

    with pytest.raises(RuntimeError):
        await house.database.write(work)
    assert await house.counts(url) == ("0", "0", "0")


async def test_each_entry_of_a_batch_stands_for_itself(house: Site) -> None:
    url = await house.create()
    entries = [
        {"Id": "good", "MessageBody": "a"},
        {"Id": "bad", "MessageBody": "\x00"},
        {"Id": "late", "MessageBody": "b", "DelaySeconds": 901},
    ]
    answer = await house.do("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert [(entry["Id"], entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]] == [
        ("bad", "InvalidMessageContents", True),
        ("late", "InvalidParameterValue", True),
    ]
    (message,) = await house.receive(url)
    handles = [{"Id": "a", "ReceiptHandle": message["ReceiptHandle"]}, {"Id": "b", "ReceiptHandle": "nonsense"}]
    answer = await house.do("DeleteMessageBatch", QueueUrl=url, Entries=handles)
    assert [entry["Id"] for entry in answer["Successful"]] == ["a"]
    assert [entry["Code"] for entry in answer["Failed"]] == ["ReceiptHandleIsInvalid"]


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ([], errors.EmptyBatchRequest),
        ([{"Id": str(n), "MessageBody": "x"} for n in range(11)], errors.TooManyEntriesInBatchRequest),
        ([{"Id": "a", "MessageBody": "x"}] * 2, errors.BatchEntryIdsNotDistinct),
        ([{"Id": "a b", "MessageBody": "x"}], errors.InvalidBatchEntryId),
        ([{"Id": str(n), "MessageBody": "x" * 200_000} for n in range(6)], errors.BatchRequestTooLong),
    ],
)
async def test_a_batch_that_is_wrong_is_refused_whole(house: Site, entries: Any, error: type[Exception]) -> None:
    url = await house.create()
    with pytest.raises(error):
        await house.do("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert await house.counts(url) == ("0", "0", "0")


@pytest.mark.parametrize(
    ("name", "attributes", "error"),
    [
        ("q", {"VisibilityTimeout": "43201"}, errors.InvalidAttributeValue),
        ("q", {"DelaySeconds": "-1"}, errors.InvalidAttributeValue),
        ("q", {"Unheard": "1"}, errors.InvalidAttributeName),
        ("q", {"Policy": "{}"}, errors.InvalidAttributeName),
        ("q", {"ContentBasedDeduplication": "true"}, errors.InvalidAttributeName),
        ("q", {"RedrivePolicy": "[]"}, errors.InvalidAttributeValue),
        ("q", {"RedrivePolicy": '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:no","maxReceiveCount":1}'},
         errors.InvalidAttributeValue),
        ("q", {"RedriveAllowPolicy": '{"redrivePermission":"byQueue"}'}, errors.InvalidAttributeValue),
        ("q.fifo", {}, errors.InvalidParameterValue),
        ("q", {"FifoQueue": "true"}, errors.InvalidParameterValue),
        ("a/b", {}, errors.InvalidParameterValue),
    ],
)  # fmt: skip
async def test_a_queue_that_aws_would_refuse_is_refused(
    house: Site, name: str, attributes: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await house.do("CreateQueue", QueueName=name, Attributes=attributes)


async def test_a_queue_is_created_once_and_with_the_same_attributes(house: Site) -> None:
    url = await house.create(VisibilityTimeout="5")
    assert await house.create(VisibilityTimeout="5") == url
    assert await house.create() == url
    with pytest.raises(errors.QueueNameExists):
        await house.create(VisibilityTimeout="6")


async def test_purged_and_deleted_queues_leave_nothing(house: Site) -> None:
    url = await house.create("q.fifo", ContentBasedDeduplication="true")
    await house.send(url, "a", MessageGroupId="g")
    await house.do("PurgeQueue", QueueUrl=url)
    assert await house.receive(url) == []
    with pytest.raises(errors.PurgeQueueInProgress):
        await house.do("PurgeQueue", QueueUrl=url)
    await house.send(url, "a", MessageGroupId="g")
    await house.do("DeleteQueue", QueueUrl=url)
    with pytest.raises(errors.QueueDoesNotExist):
        await house.send(url, "b", MessageGroupId="g")
    await house.sqs.sweep()
    for table in ("sqs_message", "sqs_group", "sqs_deduplication", "sqs_doomed"):
        rows = await house.database.read(lambda reader, table=table: reader.all(f"SELECT * FROM {table}"))  # type: ignore[misc]
        assert rows == [], table


async def test_messages_past_their_retention_are_neither_received_nor_kept(house: Site) -> None:
    url = await house.create(MessageRetentionPeriod="60")
    await house.send(url, "old")
    house.at_ms += 60_000
    assert await house.receive(url) == []
    await house.send(url, "old, too")
    house.at_ms += 60_000
    await house.sqs.sweep()
    assert await house.counts(url) == ("0", "0", "0")


async def test_no_more_than_the_limit_is_in_flight(house: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IN_FLIGHT_LIMIT", 3)
    url = await house.create()
    for body in "abcd":
        await house.send(url, body)
    assert len(await house.receive(url)) == 3
    with pytest.raises(errors.OverLimit):
        await house.receive(url)


async def test_tags_and_lists(house: Site) -> None:
    urls = [await house.create(name) for name in ("a-1", "a-2", "b-1")]
    page = await house.do("ListQueues", QueueNamePrefix="a", MaxResults=1)
    assert page["QueueUrls"] == urls[:1]
    rest = await house.do("ListQueues", QueueNamePrefix="a", MaxResults=1, NextToken=page["NextToken"])
    assert rest == {"QueueUrls": urls[1:2]}
    await house.do("TagQueue", QueueUrl=urls[0], Tags={"team": "files", "x": "y"})
    await house.do("UntagQueue", QueueUrl=urls[0], TagKeys=["x"])
    assert await house.do("ListQueueTags", QueueUrl=urls[0]) == {"Tags": {"team": "files"}}


def test_the_digest_of_attributes_is_awss() -> None:
    # The example of AWS's own SDK tests (aws-sdk-java, MessageMD5ChecksumHandler) is not at hand: by the documented steps.
    encoded = b"\0\0\0\x04name\0\0\0\x06String\x01\0\0\0\x01v"
    attributes = {"name": {"DataType": "String", "StringValue": "v"}}
    assert contents.md5_of_attributes(attributes) == hashlib.md5(encoded).hexdigest()


@pytest.mark.parametrize(
    "handle", ["", "====", "MS4y", "é", "A" * 10_000, "LTEuMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="]
)
async def test_receipt_handles_of_others_are_refused(house: Site, handle: str) -> None:
    url = await house.create()
    with pytest.raises(errors.ReceiptHandleIsInvalid):
        await house.do("DeleteMessage", QueueUrl=url, ReceiptHandle=handle)
