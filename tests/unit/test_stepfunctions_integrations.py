"""What tasks ask of services and how these answer: names of members and errors, senders of events, partial failures."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entrepot.database import Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call, Permission, Request, Response, WriteOperation
from entrepot.services.stepfunctions import shapes
from tests.unit.stepfunctions_site import Site, site


class QueueMissing(AwsError):
    code = "QueueDoesNotExist"
    status = 400


class Odd(AwsError):
    code = "SomethingElse"
    status = 500


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        yield opened


def serve(here: Site, service: str, name: str, answer: Response | AwsError) -> list[Request]:
    """Serve an operation that gives a fixed answer; return the requests that come."""
    seen: list[Request] = []

    def run(tx: Transaction, request: Request, call: Call) -> Response:
        seen.append(request)
        if isinstance(answer, AwsError):
            raise answer
        return answer

    here.operations.add(service, [WriteOperation(name, lambda _: [Permission(f"{service}:{name}", "*")], run)])
    return seen


async def run(here: Site, resource: str, parameters: Any) -> dict[str, Any]:
    state = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True}
    return await here.ended(await here.begin(await here.create("m", {"StartAt": "T", "States": {"T": state}})))


@pytest.mark.parametrize(
    ("name", "shown", "older"),
    [
        ("SSEKMSKeyId", "SsekmsKeyId", "SSEKMSKeyId"),
        ("MD5OfMessageBody", "Md5OfMessageBody", "MD5OfMessageBody"),
        ("ETag", "ETag", "ETag"),
        ("ARN", "Arn", "ARN"),
        ("stateMachineArn", "StateMachineArn", "StateMachineArn"),
        ("ChecksumCRC32", "ChecksumCRC32", "ChecksumCRC32"),
        ("S", "S", "S"),
        ("BOOL", "Bool", "BOOL"),
    ],
)
def test_names_of_members(name: str, shown: str, older: str) -> None:
    assert (shapes.shown_name(name), shapes.older_name(name)) == (shown, older)


async def test_events_tell_who_sends_them(here: Site) -> None:
    seen = serve(here, "events", "PutEvents", {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    entry = {"Detail": {"a": 1}, "DetailType": "t", "Source": "s", "Resources": ["mine"]}
    ended = await run(here, "events:putEvents", {"Entries": [entry]})
    assert ended["status"] == "SUCCEEDED"
    resources = ["mine", ended["executionArn"], ended["stateMachineArn"]]
    assert seen == [{"Entries": [{**entry, "Detail": '{"a":1}', "Resources": resources}]}]
    output = json.loads(ended["output"])
    assert (output["Entries"], output["FailedEntryCount"]) == ([{"EventId": "1"}], 0)


async def test_the_sdk_says_nothing_of_the_sender(here: Site) -> None:
    seen = serve(here, "events", "PutEvents", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "X"}]})
    ended = await run(here, "aws-sdk:eventbridge:putEvents", {"Entries": [{"Source": "s"}]})
    assert ended["status"] == "SUCCEEDED" and seen == [{"Entries": [{"Source": "s"}]}]


async def test_an_event_that_is_refused_fails_the_task(here: Site) -> None:
    serve(here, "events", "PutEvents", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]})
    ended = await run(here, "events:putEvents", {"Entries": [{"Source": "s"}]})
    assert (ended["status"], ended["error"]) == ("FAILED", "EventBridge.FailedEntry")
    assert json.loads(ended["cause"])["Entries"] == [{"ErrorCode": "InternalFailure"}]


async def test_messages_are_json_in_a_string(here: Site) -> None:
    seen = serve(here, "sqs", "SendMessage", {"MessageId": "1", "MD5OfMessageBody": "x"})
    ended = await run(here, "sqs:sendMessage", {"QueueUrl": "q", "MessageBody": {"a": [1]}})
    assert seen == [{"QueueUrl": "q", "MessageBody": '{"a":[1]}'}]
    output = json.loads(ended["output"])
    assert (output["MessageId"], output["MD5OfMessageBody"]) == ("1", "x")


async def test_notifications(here: Site) -> None:
    seen = serve(here, "sns", "Publish", {"MessageId": "1"})
    ended = await run(here, "sns:publish", {"TopicArn": "t", "Message": {"a": 1}})
    assert seen == [{"TopicArn": "t", "Message": '{"a":1}'}]
    assert json.loads(ended["output"])["MessageId"] == "1"


@pytest.mark.parametrize(
    ("resource", "error", "name"),
    [
        ("aws-sdk:sqs:sendMessage", QueueMissing("gone"), "Sqs.QueueDoesNotExistException"),
        ("sqs:sendMessage", QueueMissing("gone"), "SQS.QueueDoesNotExistException"),
        ("aws-sdk:sqs:sendMessage", Odd("odd"), "Sqs.SqsException"),
        ("sqs:sendMessage", Odd("odd"), "SQS.AmazonSQSException"),
    ],
)
async def test_names_of_errors(here: Site, resource: str, error: AwsError, name: str) -> None:
    serve(here, "sqs", "SendMessage", error)
    ended = await run(here, resource, {"QueueUrl": "q", "MessageBody": "m"})
    assert (ended["status"], ended["error"]) == ("FAILED", name)


@pytest.mark.parametrize(("pattern", "event"), [("", "TaskFailed"), (".waitForTaskToken", "TaskSubmitFailed")])
async def test_a_call_that_fails_before_anything_waits(here: Site, pattern: str, event: str) -> None:
    serve(here, "sqs", "SendMessage", QueueMissing("gone"))
    ended = await run(here, f"sqs:sendMessage{pattern}", {"QueueUrl": "q", "MessageBody": "m"})
    history = await here.history(ended["executionArn"])
    assert [event["type"] for event in history][2:] == ["TaskScheduled", "TaskStarted", event, "ExecutionFailed"]
    details = history[4][f"{event[0].lower()}{event[1:]}EventDetails"]
    assert (details["resourceType"], details["resource"]) == ("sqs", f"sendMessage{pattern}")
    assert details["error"] == "SQS.QueueDoesNotExistException"


async def test_a_code_that_is_not_the_exceptions_name(here: Site) -> None:
    class TopicMissing(AwsError):
        code = "NotFound"
        status = 404

    serve(here, "sns", "Publish", TopicMissing("Topic does not exist"))
    assert (await run(here, "aws-sdk:sns:publish", {"Message": "m"}))["error"] == "Sns.NotFoundException"


async def test_the_sdk_names_members_as_java_does(here: Site) -> None:
    serve(here, "sqs", "SendMessage", {"MessageId": "1", "MD5OfMessageBody": "x"})
    ended = await run(here, "aws-sdk:sqs:sendMessage", {"QueueUrl": "q", "MessageBody": "m"})
    assert json.loads(ended["output"]) == {"MessageId": "1", "Md5OfMessageBody": "x"}
