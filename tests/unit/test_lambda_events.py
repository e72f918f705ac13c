"""Invocations that happen later: retries, destinations, dead letters; with real queues behind the gate."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.errors import AwsError
from entrepot.services.lambda_ import async_invocations
from entrepot.services.lambda_.errors import TooManyRequestsError
from tests.unit.lambda_site import ARN, HandlerError, Site, site, until

SELF = {"FunctionName": "demo"}
BUS = "arn:aws:events:us-east-1:000000000000:event-bus/default"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        yield made


async def waiting(at: Site) -> list[tuple[str, str]]:
    return await at.database.read(
        lambda reader: reader.all("SELECT function_name, state FROM lambda_async_invocation ORDER BY function_name")
    )


async def invoke_later(at: Site, payload: str = '{"n":1}', name: str = "demo") -> None:
    answer = await at.do("Invoke", FunctionName=name, InvocationType="Event", Payload=payload.encode())
    assert answer["StatusCode"] == 202


def fail(*_: Any) -> None:
    raise HandlerError("on purpose")


async def test_a_success_goes_to_its_destination(at: Site) -> None:
    await at.create(Publish=True)
    queue_arn = await at.queue("done")
    config = {"DestinationConfig": {"OnSuccess": {"Destination": queue_arn}}}
    await at.do("PutFunctionEventInvokeConfig", **SELF, Qualifier="1", **config)
    at.handlers["demo"] = lambda event, *_: {"got": event["n"]}
    await invoke_later(at, name="demo:1")
    (message,) = await at.messages("done")
    record = json.loads(message["Body"])
    assert record.pop("timestamp").endswith("Z") and record["requestContext"].pop("requestId")
    assert record == {
        "version": "1.0",
        "requestContext": {"functionArn": ARN + ":1", "condition": "Success", "approximateInvokeCount": 1},
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "1"},
        "responsePayload": {"got": 1},
    }
    assert await waiting(at) == [] and ("demo", "sqs:SendMessage", queue_arn) in at.asked


async def test_a_failure_is_tried_three_times_and_goes_to_destination_and_dead_letters(at: Site) -> None:
    failed, dead = await at.queue("failed"), await at.queue("dead")
    await at.create(DeadLetterConfig={"TargetArn": dead})
    await at.do("PutFunctionEventInvokeConfig", **SELF, DestinationConfig={"OnFailure": {"Destination": failed}})
    at.handlers["demo"] = fail
    await invoke_later(at)
    (message,) = await at.messages("failed")
    record = json.loads(message["Body"])
    assert len(at.invocations) == 3
    assert (record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"]) == (
        "RetriesExhausted", 3,
    )  # fmt: skip
    assert record["requestContext"]["functionArn"] == ARN + ":$LATEST"
    assert record["responseContext"] == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
    }  # fmt: skip
    assert record["responsePayload"] == {"errorType": "HandlerError", "errorMessage": "on purpose"}
    (letter,) = await at.messages("dead")
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert letter["Body"] == '{"n":1}'
    assert attributes == {
        "RequestID": record["requestContext"]["requestId"],
        "ErrorCode": "200",
        "ErrorMessage": "HandlerError: on purpose",
    }
    assert letter["MessageAttributes"]["ErrorCode"]["DataType"] == "Number"
    assert await waiting(at) == []


async def test_retries_as_configured_and_what_goes_nowhere_is_kept(at: Site) -> None:
    await at.create()
    await at.do("PutFunctionEventInvokeConfig", **SELF, MaximumRetryAttempts=0)
    at.handlers["demo"] = fail
    await invoke_later(at)

    async def is_dead() -> bool:
        return await waiting(at) == [("demo", "dead")]

    await until(is_dead)
    assert len(at.invocations) == 1
    (dead,) = await at.lambda_.async_invocations.dead()
    assert dead[1:4] == ("demo", b'{"n":1}', 1) and dead[5] == "HandlerError: on purpose"


async def test_a_destination_that_refuses_keeps_the_event(at: Site) -> None:
    await at.create()
    await at.do("PutFunctionEventInvokeConfig", **SELF, MaximumRetryAttempts=0,
                DestinationConfig={"OnFailure": {"Destination": await at.queue("failed")}})  # fmt: skip
    at.handlers["demo"] = fail
    at.denied.add("sqs:SendMessage")
    await invoke_later(at)

    async def is_dead() -> bool:
        return await waiting(at) == [("demo", "dead")]

    await until(is_dead)
    assert await at.count("failed") == 0


async def test_a_destination_must_be_the_roles_to_send_to(at: Site) -> None:
    queue_arn = await at.queue("failed")
    at.denied.add("sqs:SendMessage")
    await at.create()
    config = {"DestinationConfig": {"OnFailure": {"Destination": queue_arn}}}
    assert await at.code_of("PutFunctionEventInvokeConfig", **SELF, **config) == "InvalidParameterValueException"
    letters = {"DeadLetterConfig": {"TargetArn": queue_arn}}
    assert await at.code_of("UpdateFunctionConfiguration", **SELF, **letters) == "InvalidParameterValueException"
    with pytest.raises(AwsError, match="does not have permissions to call SendMessage on SQS"):
        await at.create("other", **letters)


async def test_a_function_as_destination(at: Site) -> None:
    await at.create()
    await at.create("next")
    other = ARN.replace("demo", "next")
    await at.do("PutFunctionEventInvokeConfig", **SELF, DestinationConfig={"OnSuccess": {"Destination": other}})
    await invoke_later(at)
    await until(lambda: len(at.invocations) == 2)
    assert at.invocations[1][1] == other and at.invocations[1][2]["requestPayload"] == {"n": 1}
    assert ("demo", "lambda:InvokeFunction", other) in at.asked


async def test_throttling_does_not_count_and_age_ends_it(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_invocations, "THROTTLE_DELAY_S", 0.001)
    await at.create()
    failed = await at.queue("failed")
    await at.do("PutFunctionEventInvokeConfig", **SELF, MaximumEventAgeInSeconds=60, MaximumRetryAttempts=0,
                DestinationConfig={"OnFailure": {"Destination": failed}})  # fmt: skip
    attempts = []

    def throttle(*_: Any) -> None:
        attempts.append(1)
        if len(attempts) == 3:  # from now on it is old
            now_ms = clock.now_ms()
            monkeypatch.setattr(clock, "now_ms", lambda: now_ms + 61_000)
        raise TooManyRequestsError("Rate Exceeded.")

    at.handlers["demo"] = throttle
    await invoke_later(at)
    await until(lambda: len(attempts) == 3)
    record = json.loads((await at.messages("failed"))[0]["Body"])
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert len(attempts) == 3 and "responsePayload" not in record


async def test_a_function_without_any_concurrency_gives_up_at_once(at: Site) -> None:
    await at.create(DeadLetterConfig={"TargetArn": await at.queue("dead")})
    await at.do("PutFunctionConcurrency", **SELF, ReservedConcurrentExecutions=0)

    def refuse(*_: Any) -> None:
        raise TooManyRequestsError("Rate Exceeded.", Reason="ReservedFunctionConcurrentInvocationLimitExceeded")

    at.handlers["demo"] = refuse
    await invoke_later(at)
    (letter,) = await at.messages("dead")
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"


async def test_one_function_does_not_take_all_places(at: Site) -> None:
    await at.create("busy")
    await at.create()
    await at.lambda_.async_invocations.stop()
    limit = async_invocations.IN_FLIGHT_FUNCTION_LIMIT
    for _ in range(2 * limit):
        await invoke_later(at, name="busy")
    await invoke_later(at)
    queued = await at.database.read(at.lambda_.async_invocations._waiting)
    assert [entry.function_name for entry in queued].index("demo") <= 1
    assert sum(entry.function_name == "busy" for entry in queued) <= limit


async def test_the_same_request_is_queued_once_and_survives_a_start(at: Site) -> None:
    await at.create()
    await at.lambda_.async_invocations.stop()
    for _ in range(2):
        await at.database.write(lambda tx: at.lambda_.invoke_async(tx, "demo", b"7", "the-request"))
    assert await waiting(at) == [("demo", "waiting")]
    again = at.make()
    again.async_invocations.start()
    await until(lambda: len(at.invocations) == 1)
    await until(lambda: again.async_invocations._in_flight == {})
    await again.async_invocations.stop()
    assert await waiting(at) == [] and at.invocations[0][2] == 7


async def test_the_configuration_of_events(at: Site) -> None:
    await at.create(Publish=True)
    put = "PutFunctionEventInvokeConfig"
    config = await at.do(put, **SELF, MaximumRetryAttempts=1, MaximumEventAgeInSeconds=60)
    assert (config["FunctionArn"], config["MaximumRetryAttempts"]) == (ARN + ":$LATEST", 1)
    changed = await at.do("UpdateFunctionEventInvokeConfig", **SELF, MaximumRetryAttempts=0,
                          DestinationConfig={"OnFailure": {"Destination": BUS}})  # fmt: skip
    assert (changed["MaximumRetryAttempts"], changed["MaximumEventAgeInSeconds"]) == (0, 60)
    assert (await at.do("GetFunctionEventInvokeConfig", **SELF))["DestinationConfig"]["OnFailure"] == {
        "Destination": BUS
    }
    await at.do(put, **SELF, Qualifier="1", MaximumRetryAttempts=2)
    listed = await at.do("ListFunctionEventInvokeConfigs", **SELF)
    assert [entry["FunctionArn"] for entry in listed["FunctionEventInvokeConfigs"]] == [ARN + ":$LATEST", ARN + ":1"]
    await at.do("DeleteFunctionEventInvokeConfig", **SELF)
    assert await at.code_of("GetFunctionEventInvokeConfig", **SELF) == "ResourceNotFoundException"
    assert await at.code_of("UpdateFunctionEventInvokeConfig", **SELF, MaximumRetryAttempts=1) == (
        "ResourceNotFoundException"
    )


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({}, "InvalidParameterValueException"),
        ({"MaximumRetryAttempts": 3}, "ValidationException"),
        ({"MaximumEventAgeInSeconds": 59}, "ValidationException"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "nonsense"}}}, "InvalidParameterValueException"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::b"}}}, "InvalidParameterValueException"),
        ({"DestinationConfig": {"OnFailure": {"Destination": ARN}}}, "InvalidParameterValueException"),
    ],
    ids=str,
)
async def test_configurations_that_are_refused(at: Site, config: dict[str, Any], error: str) -> None:
    await at.create()
    assert await at.code_of("PutFunctionEventInvokeConfig", **SELF, **config) == error
