"""SQS through the real endpoint, with boto3, which checks every MD5 itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services import sqs
from tests.acceptance.wire_endpoint import RunningEndpoint


class SqsEndpoint(RunningEndpoint):
    """The endpoint with the real SQS."""

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self._folder = folder

    async def _serve(self) -> None:
        self.database = SQLiteDatabase(self._folder / "sqs.db")
        self.database.migrate(sqs.MIGRATIONS)
        made = sqs.SQS(self.database, Account(), endpoint_url=lambda: self.url)
        self._fakes = {"sqs": sqs.operations(made)}
        try:
            await super()._serve()
        finally:
            await asyncio.shield(self.database.close())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with SqsEndpoint(tmp_path) as endpoint:
        yield endpoint.client("sqs")


def test_boto3_sends_receives_and_deletes(client: Any) -> None:
    url = client.create_queue(QueueName="orders")["QueueUrl"]
    assert url.endswith("/000000000000/orders")
    assert client.get_queue_url(QueueName="orders")["QueueUrl"] == url
    attributes = {
        "text": {"DataType": "String", "StringValue": "grüße"},
        "count": {"DataType": "Number.int", "StringValue": "7"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    client.send_message(QueueUrl=url, MessageBody="grüße", MessageAttributes=attributes)
    (message,) = client.receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "grüße"
    assert message["MessageAttributes"] == attributes
    client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert "Messages" not in client.receive_message(QueueUrl=url)
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7"})
    assert client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"] == {
        "VisibilityTimeout": "7"
    }
    client.delete_queue(QueueUrl=url)


def test_errors_have_both_codes(client: Any) -> None:
    with pytest.raises(client.exceptions.QueueDoesNotExist) as caught:
        client.get_queue_url(QueueName="none")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    url = client.create_queue(QueueName="q")["QueueUrl"]
    with pytest.raises(ClientError) as refused:
        client.send_message(QueueUrl=url, MessageBody="x" * 1_048_577)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"
    with pytest.raises(ClientError) as missing:
        client.start_message_move_task(SourceArn="arn:aws:sqs:us-east-1:000000000000:q")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_fifo_queue_keeps_order_through_boto3(client: Any) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = client.create_queue(QueueName="q.fifo", Attributes=attributes)["QueueUrl"]
    entries = [{"Id": str(n), "MessageBody": f"m{n}", "MessageGroupId": "g"} for n in range(10)]
    assert len(client.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in found] == [f"m{n}" for n in range(10)]
